"""What can be asked of a partition, as values.

Here belongs one class for each command, without behaviour. Never here: rules. The law: a command carries everything
that its step needs from outside (time apart): ids, tokens, fingerprints.
`request` names a mutating call, `fingerprint` is a hash of its payload (ADD-3); None = it may happen twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from lockstep.core.admin_commands import (
    AdvanceJob,
    ApplyDefinition,
    ApplyDefinitions,
    ApplyDeletion,
    ApplyJobPart,
    BreakLock,
    CancelJob,
    ClearStates,
    CreateQueue,
    DeleteQueue,
    EndJob,
    Explain,
    FindRequest,
    ForgetDeletions,
    ForgetIdle,
    FreezeShare,
    GetRevision,
    GetRuntime,
    GetSession,
    GrantShare,
    ListDefinitions,
    ListIdle,
    ListJobs,
    ListOpenJobs,
    ListRuntimes,
    ListSessions,
    LookForJob,
    LookForTransfer,
    SealIdle,
    SessionFilter,
    SettleTransfer,
    StartJob,
    TakeTransfer,
    Unseal,
    UpdateQueue,
)
from lockstep.core.ids import (
    EntityKey,
    GrantNumber,
    RequestId,
    SessionId,
    SessionLock,
)

__all__ = [
    "Accept",
    "AdvanceJob",
    "ApplyDefinition",
    "ApplyDefinitions",
    "ApplyDeletion",
    "ApplyJobPart",
    "BreakLock",
    "Browse",
    "Cancel",
    "CancelJob",
    "CancelScheduled",
    "CheckSend",
    "ClearStates",
    "Command",
    "CreateQueue",
    "DeleteQueue",
    "Disconnect",
    "EndJob",
    "Explain",
    "FindRequest",
    "ForgetDeletions",
    "ForgetIdle",
    "FreezeShare",
    "GetRevision",
    "GetRuntime",
    "GetSession",
    "GetState",
    "GiveUp",
    "GrantShare",
    "ListDefinitions",
    "ListIdle",
    "ListJobs",
    "ListOpenJobs",
    "ListRuntimes",
    "ListSessions",
    "LookForJob",
    "LookForTransfer",
    "Outcome",
    "Receive",
    "ReceiveDeferred",
    "ReleaseSession",
    "RenewMessages",
    "RenewSession",
    "SealIdle",
    "Send",
    "SessionFilter",
    "SetState",
    "Settle",
    "SettleTransfer",
    "Settlement",
    "StartJob",
    "TakeTransfer",
    "TakeTurn",
    "Tick",
    "Unseal",
    "UpdateQueue",
]


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
class CheckSend:
    """Say whether a batch may be stored, before its parts go to their partitions (ADD-2).

    `sizes` are the lengths of its messages; the other columns are those of `Send`.
    """

    entity: EntityKey
    sizes: Sequence[int]
    session_ids: tuple[str | None, ...]
    ttls_ms: tuple[int, ...] = ()
    due_ms: tuple[int, ...] = ()
    message_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelScheduled:
    """Take scheduled messages back, all or none; with `checks_only` only say whether they are all there."""

    entity: EntityKey
    sequences: Sequence[int]
    request: RequestId | None = None
    fingerprint: int = 0
    checks_only: bool = False


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
        receiver: How the receiver names itself, for people to read.
    """

    entity: EntityKey
    dead_letter: bool
    session: SessionLock | None
    max_messages: int
    request: RequestId | None = None
    fingerprint: int = 0
    deletes: bool = False
    receiver: str = ""


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
class Disconnect:
    """Note that a receiver's stream broke (RACE-19).

    Attributes:
        entity: The queue.
        dead_letter: Whether it received from the dead-letter store.
        session: The session that it held; None = none.
        tokens: Without a session, the messages it had in hand, each with its grant.
    """

    entity: EntityKey
    dead_letter: bool
    session: SessionLock | None
    tokens: tuple[tuple[GrantNumber, int], ...] = ()


@dataclass(frozen=True, slots=True)
class TakeTurn:
    """Complete messages of a held session, set its state and send messages, in one commit (ADD-8).

    Attributes:
        entity: The queue.
        session: The held session.
        complete: The messages that are done.
        outputs: What to send, to the same queue; None = nothing.
        sets_state: Whether the state is set.
        state: The new state; None = clear it.
        if_version: Only if this is the version of the state; None = whatever it is.
        request: The call's id.
        fingerprint: A hash of its payload.
    """

    entity: EntityKey
    session: SessionLock
    complete: Sequence[int] = ()
    outputs: Send | None = None
    sets_state: bool = False
    state: bytes | None = None
    if_version: int | None = None
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
        reason: Only dead letters that are ones for exactly this reason; None = all.
    """

    entity: EntityKey
    dead_letter: bool
    session_id: SessionId | None
    from_sequence: int
    max_messages: int
    reason: str | None = None


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
    """Do what has become due, earliest first. Before any other command while `Partition.is_due`.

    `subjects_max` bounds how much is looked at, so that no step is long; 0 = everything.
    """

    subjects_max: int = 0


Command = (
    Send
    | CheckSend
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
    | TakeTurn
    | Disconnect
    | BreakLock
    | Browse
    | Cancel
    | GiveUp
    | Tick
    | StartJob
    | LookForJob
    | AdvanceJob
    | LookForTransfer
    | TakeTransfer
    | SettleTransfer
    | CancelJob
    | ApplyJobPart
    | EndJob
    | ListJobs
    | ListOpenJobs
    | CreateQueue
    | UpdateQueue
    | DeleteQueue
    | ListDefinitions
    | ForgetDeletions
    | ForgetIdle
    | ListIdle
    | SealIdle
    | Unseal
    | FreezeShare
    | GrantShare
    | ApplyDefinition
    | ApplyDefinitions
    | ApplyDeletion
    | FindRequest
    | GetRevision
    | GetRuntime
    | ListRuntimes
    | ListSessions
    | GetSession
    | ClearStates
    | Explain
)
