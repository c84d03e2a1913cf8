"""What can be asked of a partition, as values.

Here belongs one class for each command, without behaviour. Never here: rules. The law:
a command carries everything that its step needs from outside (time apart): ids, tokens, fingerprints.

`request` names a mutating call and `fingerprint` is a hash of its payload (ADD-3); None = the caller
takes the risk of a doubled call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from lockstep.core.entity import QueueDefinition, SettingValue
from lockstep.core.ids import (
    EntityKey,
    EntityNumber,
    GrantNumber,
    RequestId,
    SessionId,
    SessionLock,
)
from lockstep.core.jobs import JobKind, JobOptions, Selector


class Outcome(StrEnum):
    """What a receiver decides about a delivered message (section 4.2 of the contract)."""

    COMPLETE = "completed"
    ABANDON = "abandoned"
    RELEASE = "released"
    DEAD_LETTER = "dead_lettered"
    DEFER = "deferred"


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
        ttls_ms: Their times to live, one for all or one each; 0 = none; empty = none for any.
        due_ms: When they become active, one for all or one each; 0, or a time that is over, = at once; empty = at
            once, all.
        message_ids: Their ids, one each, "" = none; empty = none for any.
    """

    entity: EntityKey
    messages: tuple[bytes, ...]
    session_ids: tuple[str | None, ...]
    request: RequestId | None = None
    fingerprint: int = 0
    ttls_ms: tuple[int, ...] = ()
    due_ms: tuple[int, ...] = ()
    message_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelScheduled:
    """Take scheduled messages back, all or none."""

    entity: EntityKey
    sequences: Sequence[int]
    request: RequestId | None = None
    fingerprint: int = 0


@dataclass(frozen=True, slots=True)
class Accept:
    """Take the lock of a session; `session_id` None = of the next available one.

    `holder` is how the caller names itself, `address` where it calls from; both are for people to read.
    """

    entity: EntityKey
    session_id: SessionId | None
    holder: str
    request: RequestId | None = None
    fingerprint: int = 0
    address: str = ""


@dataclass(frozen=True, slots=True)
class Receive:
    """Deliver messages under a lock: of the held session, or each under its own.

    Attributes:
        entity: Where from.
        dead_letter: Whether from its dead-letter store.
        session: The held session; None = there is none.
        max_messages: At most so many.
        request: The call's id.
        fingerprint: A hash of its payload.
        deletes: Whether the messages are gone when they are delivered (RCV-1).
    """

    entity: EntityKey
    dead_letter: bool
    session: SessionLock | None
    max_messages: int
    request: RequestId | None = None
    fingerprint: int = 0
    deletes: bool = False


@dataclass(frozen=True, slots=True)
class ReceiveDeferred:
    """Deliver deferred messages by their numbers, all or none.

    Attributes:
        entity: Where from.
        dead_letter: Whether from its dead-letter store.
        session: The held session; None = there is none.
        sequences: The messages.
        request: The call's id.
        fingerprint: A hash of its payload.
        deletes: Whether the messages are gone when they are delivered.
    """

    entity: EntityKey
    dead_letter: bool
    session: SessionLock | None
    sequences: Sequence[int]
    request: RequestId | None = None
    fingerprint: int = 0
    deletes: bool = False


@dataclass(frozen=True, slots=True)
class Settlement:
    """One outcome for some messages, each named by its grant and its sequence number.

    Attributes:
        outcome: What is decided.
        grant: Under which they were delivered.
        sequences: The messages.
        reason: Of a dead letter.
        description: Of a dead letter.
        properties: What to set on them, as the wire encodes it (MSG-8).
        delay_ms: After which time an abandoned message may be delivered again; 0 = at once (ADD-6).
    """

    outcome: Outcome
    grant: GrantNumber
    sequences: Sequence[int]
    reason: str = ""
    description: str = ""
    properties: Mapping[str, bytes] = field(default_factory=dict)
    delay_ms: int = 0


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
    """Set the state of a held session.

    Attributes:
        entity: The queue.
        session: The held session.
        value: The new state; None = clear it.
        request: The call's id.
        fingerprint: A hash of its payload.
        if_version: Only if this is the version of the state; None = whatever it is (ADD-7).
    """

    entity: EntityKey
    session: SessionLock
    value: bytes | None
    request: RequestId | None = None
    fingerprint: int = 0
    if_version: int | None = None


@dataclass(frozen=True, slots=True)
class BreakLock:
    """End a session's lock, whoever holds it (ADD-5). `by` names who asked."""

    entity: EntityKey
    session_id: SessionId
    by: str
    request: RequestId | None = None
    fingerprint: int = 0


@dataclass(frozen=True, slots=True)
class Browse:
    """Look at messages without locking them (section 12).

    Attributes:
        entity: The queue.
        dead_letter: Whether at its dead-letter store.
        session_id: Only of this session; None = of all.
        from_sequence: Only messages with this number or a higher one.
        max_messages: At most so many.
    """

    entity: EntityKey
    dead_letter: bool
    session_id: SessionId | None
    from_sequence: int
    max_messages: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Undo an accept or a receive whose reply did not arrive, without counting (BAT-9, SES-15).

    Attributes:
        entity: The queue that was asked.
        request: The call's id.
        is_by_client: Whether the client gave the call up, so that no copy may take effect. False = its connection
            was lost: a copy may still come, or have come, and counts.
    """

    entity: EntityKey
    request: RequestId
    is_by_client: bool = True


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


# --- jobs --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartJob:
    """Begin work on dead letters (RSB-1, ADD-11).

    Attributes:
        entity: The queue.
        kind: What to do.
        selector: To which messages.
        options: What else.
        uid: Made new by the caller.
        by: Who asks, for people to read.
        request: The call's id.
        fingerprint: A hash of its payload.
    """

    entity: EntityKey
    kind: JobKind
    selector: Selector
    options: JobOptions
    uid: str
    by: str = ""
    request: RequestId | None = None
    fingerprint: int = 0


@dataclass(frozen=True, slots=True)
class LookForJob:
    """Find the next messages of a job, at most so many. Changes nothing."""

    entity: EntityKey
    number: int
    maximum: int


@dataclass(frozen=True, slots=True)
class AdvanceJob:
    """Do what a job does to the messages that were found, and note how far it is.

    Attributes:
        entity: The queue.
        number: The job.
        since: The cursor of the job when the messages were found; with another one nothing is done.
        cursor: Up to where messages were looked at; None = there are no more.
        sequences: Those that the job is to take, rising.
        copies: Of a move, the same messages as a send to the target, in the same order.
        message_ids: Their message ids, "" = none; empty = not known.
    """

    entity: EntityKey
    number: int
    since: int
    cursor: int | None
    sequences: Sequence[int]
    copies: Send | None = None
    message_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelJob:
    """Let a job end where it is."""

    entity: EntityKey
    number: int


@dataclass(frozen=True, slots=True)
class ListJobs:
    """Show the last jobs of a queue, or one of them; `number` 0 = all."""

    entity: EntityKey
    number: int = 0


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
class ForgetDeletions:
    """Forget the deletions that every partition has applied (partition 0 only).

    Attributes:
        revision: The lowest of the last revisions that the partitions have applied.
    """

    revision: int


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
    | CancelScheduled
    | Accept
    | Receive
    | ReceiveDeferred
    | Settle
    | RenewMessages
    | RenewSession
    | ReleaseSession
    | GetState
    | SetState
    | BreakLock
    | Browse
    | Cancel
    | GiveUp
    | Tick
    | StartJob
    | LookForJob
    | AdvanceJob
    | CancelJob
    | ListJobs
    | CreateQueue
    | UpdateQueue
    | DeleteQueue
    | ListDefinitions
    | ForgetDeletions
    | ApplyDefinition
    | ApplyDeletion
    | GetRuntime
    | ListSessions
    | GetSession
)
