"""What can be asked of a partition, and what it answers, as values.

Here belong one class for each command and each reply, without behaviour. Never here: rules. The law:
a command carries everything that its step needs from outside (time apart): ids, tokens, fingerprints.

`request` names a mutating call and `fingerprint` is a hash of its payload (ADD-3); None = the caller
takes the risk of a doubled call.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum

from lockstep.core.entity import QueueDefinition, SettingValue
from lockstep.core.errors import LockstepError
from lockstep.core.ids import (
    EntityKey,
    EntityNumber,
    GrantNumber,
    RequestId,
    SessionId,
    SessionLock,
)


class Outcome(StrEnum):
    """What a receiver decides about a delivered message (section 4.2 of the contract)."""

    COMPLETE = "completed"
    ABANDON = "abandoned"
    RELEASE = "released"
    DEAD_LETTER = "dead_lettered"


class Short(Enum):
    """Why fewer messages came than were asked for."""

    NO = 0
    NO_MORE_MESSAGES = 1
    RESPONSE_SIZE = 2


# --- messages and sessions ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Store messages. `session_ids` has one entry for each message, or one for all of them.

    Attributes:
        entity: Where to.
        messages: Their bytes, oldest first.
        session_ids: Their sessions; None = no session.
        request: The call's id.
        fingerprint: A hash of its payload.
    """

    entity: EntityKey
    messages: tuple[bytes, ...]
    session_ids: tuple[str | None, ...]
    request: RequestId | None = None
    fingerprint: int = 0


@dataclass(frozen=True, slots=True)
class Accept:
    """Take the lock of a session; `session_id` None = of the next available one."""

    entity: EntityKey
    session_id: SessionId | None
    holder: str
    request: RequestId | None = None
    fingerprint: int = 0


@dataclass(frozen=True, slots=True)
class Receive:
    """Deliver messages under a lock: of the held session, or each under its own."""

    entity: EntityKey
    dead_letter: bool
    session: SessionLock | None
    max_messages: int
    request: RequestId | None = None
    fingerprint: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """One outcome for some messages, each named by its grant and its sequence number."""

    outcome: Outcome
    grant: GrantNumber
    sequences: Sequence[int]
    reason: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Settle:
    """Decide about delivered messages."""

    entity: EntityKey
    dead_letter: bool
    session: SessionLock | None
    settlements: tuple[Settlement, ...]
    request: RequestId | None = None
    fingerprint: int = 0


@dataclass(frozen=True, slots=True)
class RenewMessages:
    """Move the locks of single messages of a plain store."""

    entity: EntityKey
    dead_letter: bool
    tokens: tuple[tuple[GrantNumber, int], ...]


@dataclass(frozen=True, slots=True)
class RenewSession:
    """Move the lock of a session."""

    entity: EntityKey
    session: SessionLock


@dataclass(frozen=True, slots=True)
class ReleaseSession:
    """Give a session back."""

    entity: EntityKey
    session: SessionLock
    request: RequestId | None = None
    fingerprint: int = 0


@dataclass(frozen=True, slots=True)
class GetState:
    """Read the state of a held session."""

    entity: EntityKey
    session: SessionLock


@dataclass(frozen=True, slots=True)
class SetState:
    """Set the state of a held session; `value` None = clear it."""

    entity: EntityKey
    session: SessionLock
    value: bytes | None
    request: RequestId | None = None
    fingerprint: int = 0


@dataclass(frozen=True, slots=True)
class Cancel:
    """Undo an accept or a receive whose reply did not arrive, without counting (BAT-9, SES-15)."""

    entity: EntityKey
    request: RequestId


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Note that a call is answered with nothing, so that a late copy of it finds nothing either.

    Attributes:
        entity: The queue that was asked.
        request: The call's id.
        fingerprint: A hash of its payload.
        kind: "accept" or "receive".
    """

    entity: EntityKey
    request: RequestId
    fingerprint: int
    kind: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Do what has become due. Before any other command when `Partition.is_due`."""


# --- definitions -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateQueue:
    """Enter a queue in the catalogue (partition 0 only)."""

    namespace: str
    name: str
    settings: Mapping[str, SettingValue]
    uid: str
    request: RequestId | None = None
    fingerprint: int = 0


@dataclass(frozen=True, slots=True)
class UpdateQueue:
    """Change a queue in the catalogue (partition 0 only)."""

    entity: EntityKey
    settings: Mapping[str, SettingValue]
    if_revision: int = 0
    request: RequestId | None = None
    fingerprint: int = 0


@dataclass(frozen=True, slots=True)
class DeleteQueue:
    """Remove a queue from the catalogue (partition 0 only)."""

    entity: EntityKey
    request: RequestId | None = None
    fingerprint: int = 0


@dataclass(frozen=True, slots=True)
class ListDefinitions:
    """Read the catalogue (partition 0 only)."""


@dataclass(frozen=True, slots=True)
class ApplyDefinition:
    """Make a partition hold a queue as the catalogue has it. Idempotent; older revisions do nothing."""

    definition: QueueDefinition


@dataclass(frozen=True, slots=True)
class ApplyDeletion:
    """Make a partition hold a queue no more. Idempotent."""

    entity: EntityNumber
    revision: int


# --- looking -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GetRuntime:
    """Count what a queue holds in this partition."""

    entity: EntityKey


@dataclass(frozen=True, slots=True)
class ListSessions:
    """Show sessions with an id above `after`, in the order of their ids."""

    entity: EntityKey
    maximum: int
    after: str | None = None


@dataclass(frozen=True, slots=True)
class GetSession:
    """Show one session."""

    entity: EntityKey
    session_id: SessionId


Command = (
    Send
    | Accept
    | Receive
    | Settle
    | RenewMessages
    | RenewSession
    | ReleaseSession
    | GetState
    | SetState
    | Cancel
    | GiveUp
    | Tick
    | CreateQueue
    | UpdateQueue
    | DeleteQueue
    | ListDefinitions
    | ApplyDefinition
    | ApplyDeletion
    | GetRuntime
    | ListSessions
    | GetSession
)


# --- replies -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sent:
    """All messages were stored under consecutive sequence numbers."""

    first_sequence: int
    count: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The session is held. `has_state` says whether there is a state to load."""

    session: SessionLock
    locked_until_ms: int
    has_state: bool
    state_version: int
    entity: EntityNumber


@dataclass(frozen=True, slots=True)
class NoneAvailable:
    """No session can be handed out now; asking again makes sense once `Wake` names the entity.

    `is_final`: the call was answered so before; a copy must not wait.
    """

    entity: EntityNumber
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class DeadLetterInfo:
    """Why a message is a dead letter."""

    reason: str
    description: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """Messages, as columns; `places` are the places in their chunks. Empty = none is ready now.

    `is_final`: the call was answered before; a copy must not wait.
    """

    entity: EntityNumber
    grant: GrantNumber
    size_bytes: int
    sequences: array[int]
    chunks: array[int]
    places: array[int]
    enqueued_ms: array[int]
    counts: tuple[int, ...]
    locked_until_ms: int
    short: Short
    dead_letters: tuple[DeadLetterInfo, ...] = ()
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class NotSettled:
    """Why one message was not settled or renewed."""

    grant: GrantNumber
    sequence: int
    error: LockstepError


@dataclass(frozen=True, slots=True)
class Settled:
    """All messages were settled but for the failures. `removed_chunks` are stored no more."""

    failures: tuple[NotSettled, ...]


@dataclass(frozen=True, slots=True)
class Renewed:
    """The locks end at `locked_until_ms`, but for the failures."""

    locked_until_ms: int
    failures: tuple[NotSettled, ...] = ()


@dataclass(frozen=True, slots=True)
class Released:
    """The session is free; so many messages went back to their places."""

    returned: int


@dataclass(frozen=True, slots=True)
class StateIs:
    """The state of a session. `has_state` says whether there is one to load."""

    entity: EntityNumber
    session_id: SessionId
    has_state: bool
    version: int


@dataclass(frozen=True, slots=True)
class StateSet:
    """The write made this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Whether there was an effect to undo."""

    undone: bool


@dataclass(frozen=True, slots=True)
class Ticked:
    """What was due is done."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The partition holds the definition of this revision, or a later one."""

    revision: int


@dataclass(frozen=True, slots=True)
class Catalogued:
    """The catalogue holds this definition."""

    definition: QueueDefinition


@dataclass(frozen=True, slots=True)
class Uncatalogued:
    """The catalogue holds the queue no more."""

    entity: EntityNumber
    revision: int


@dataclass(frozen=True, slots=True)
class Definitions:
    """All queues of the catalogue, in no order, and the deletions that partitions may not know."""

    queues: tuple[QueueDefinition, ...]
    deleted: tuple[tuple[EntityNumber, int], ...]


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a queue holds in one partition."""

    active: int = 0
    locked: int = 0
    dead_letters: int = 0
    size_bytes: int = 0
    sessions: int = 0
    locked_sessions: int = 0
    runnable_sessions: int = 0
    idle_sessions_with_state: int = 0


@dataclass(frozen=True, slots=True)
class SessionView:
    """What can be seen of one session."""

    session_id: SessionId
    active: int
    locked: int
    holder: str
    locked_until_ms: int
    grant: int
    state_bytes: int | None
    state_version: int


@dataclass(frozen=True, slots=True)
class SessionViews:
    """Sessions in the order of their ids."""

    sessions: tuple[SessionView, ...]


Reply = (
    Sent
    | Accepted
    | NoneAvailable
    | Delivered
    | Settled
    | Renewed
    | Released
    | StateIs
    | StateSet
    | Cancelled
    | Ticked
    | Applied
    | Catalogued
    | Uncatalogued
    | Definitions
    | Runtime
    | SessionViews
)
