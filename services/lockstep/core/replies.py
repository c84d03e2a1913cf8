"""What a partition answers, as values; `job_replies` has what it says of jobs.

Here belongs one class for each reply, without behaviour. Never here: rules, or message bytes: a reply names
what the owner's floor then reads (`owner.answers`).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from lockstep.core.amendments import Amendment
from lockstep.core.entity import QueueDefinition
from lockstep.core.errors import LockstepError
from lockstep.core.ids import EntityNumber, GrantNumber, SessionId, SessionLock
from lockstep.core.job_replies import JobIs as JobIs
from lockstep.core.job_replies import JobLook as JobLook
from lockstep.core.job_replies import JobsAre as JobsAre
from lockstep.core.job_replies import OpenJobs as OpenJobs
from lockstep.core.job_replies import TransferIs as TransferIs
from lockstep.core.job_replies import TransferTaken as TransferTaken


class Short(Enum):
    """Why fewer messages came than were asked for."""

    NO = 0
    NO_MORE_MESSAGES = 1
    RESPONSE_SIZE = 2


@dataclass(frozen=True, slots=True)
class Sent:
    """All messages are stored.

    Attributes:
        first_sequence: The number of the first, where the numbers are consecutive.
        count: How many messages were sent.
        sequences: The number of each, where they are not consecutive; of a duplicate that of the first copy.
        duplicates: The places of messages that were discarded, because their ids were known (DUP-2).
    """

    first_sequence: int
    count: int
    sequences: Sequence[int] = ()
    duplicates: tuple[int, ...] = ()

    @property
    def numbers(self) -> Sequence[int]:
        """The number of each message."""
        return self.sequences or range(self.first_sequence, self.first_sequence + self.count)


@dataclass(frozen=True, slots=True)
class SendChecked:
    """The batch may be stored, if there is room."""


@dataclass(frozen=True, slots=True)
class ScheduleCancelled:
    """So many scheduled messages are gone."""

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
    """Why a message is a dead letter, and since when."""

    reason: str
    description: str
    at_ms: int = 0

    @property
    def bytes(self) -> int:
        """What both take on the wire."""
        return len(self.reason.encode()) + len(self.description.encode())


@dataclass(frozen=True, slots=True)
class Delivered:
    """Messages, as columns; `places` are the places in their chunks. Empty = none is ready now.

    `is_final`: the call was answered before; a copy must not wait. `amendments` are what was changed about some of
    the messages, by their place in the columns.
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
    expires_ms: Sequence[int] = ()
    is_final: bool = False
    amendments: tuple[tuple[int, Amendment], ...] = ()


@dataclass(frozen=True, slots=True)
class DeferredExpired:
    """These deferred messages had expired and are gone now; none was delivered (TTL-9)."""

    sequences: tuple[int, ...]


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
class TurnTaken:
    """The turn is stored: what was sent, None = nothing, and the version of the state."""

    sent: Sent | None
    state_version: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Whether there was an effect to undo."""

    undone: bool


@dataclass(frozen=True, slots=True)
class RequestFound:
    """Whether the partition remembers an effect of the call."""

    is_known: bool


@dataclass(frozen=True, slots=True)
class LockBroken:
    """Whether somebody held the lock, and how many messages went back to their places."""

    was_held: bool
    holder: str
    returned: int


@dataclass(frozen=True, slots=True)
class Browsed:
    """Messages as they are, in the order of their numbers; nothing is locked.

    Attributes:
        delivered: The messages.
        scheduled: The places of those that are not active yet.
        deferred: The places of those that are deferred (DEF-7).
        has_more: Whether there are more behind the last one.
    """

    delivered: Delivered
    scheduled: tuple[int, ...]
    deferred: tuple[int, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Ticked:
    """What was due is done."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The partition holds the definition of this revision, or a later one."""

    revision: int


@dataclass(frozen=True, slots=True)
class IdleAre:
    """The queues that are idle, as far as one partition sees."""

    entities: tuple[EntityNumber, ...]


@dataclass(frozen=True, slots=True)
class IdleIs:
    """Whether a queue was idle, and what was asked is done."""

    is_idle: bool


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
    """What a queue holds in one partition; `oldest_ms` only if it was asked for, 0 = nothing is ready."""

    active: int = 0
    locked: int = 0
    scheduled: int = 0
    deferred: int = 0
    dead_letters: int = 0
    size_bytes: int = 0
    sessions: int = 0
    locked_sessions: int = 0
    runnable_sessions: int = 0
    idle_sessions_with_state: int = 0
    delayed: int = 0
    used_ms: int = 0
    oldest_ms: int = 0


@dataclass(frozen=True, slots=True)
class Runtimes:
    """What queues hold in one partition, in the order they were asked for; None = it is not there."""

    runtimes: tuple[Runtime | None, ...]


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
    scheduled: int = 0
    deferred: int = 0
    dead_letters: int = 0
    first_enqueued_ms: int = 0
    oldest_deliverable_ms: int = 0
    delayed_until_ms: int = 0
    address: str = ""
    granted_ms: int = 0
    renewals: int = 0
    last_loss: str = ""
    released_ms: int = 0
    state_set_ms: int = 0


@dataclass(frozen=True, slots=True)
class StatesCleared:
    """So many states are gone; whether there are more."""

    count: int
    has_more: bool


class Cause(Enum):
    """Why the next message is not delivered: the whole list (ADD-10)."""

    DELIVERABLE = "deliverable"
    NO_RECEIVER = "no_receiver"
    HELD = "held"
    BEHIND = "behind"
    DELAYED = "delayed"
    EXPIRED = "expired"
    SCHEDULED = "scheduled"
    DEFERRED = "deferred"
    DEAD_LETTERED = "dead_lettered"
    DISABLED = "disabled"
    QUOTA = "quota"
    EMPTY = "empty"
    GONE = "gone"
    NO_OWNER = "no_owner"


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """What is known of a queue when it is asked why nothing comes; times in ms since the epoch, 0 = none.

    Attributes:
        path: The queue.
        status: Its status.
        updated_ms: When its definition changed last.
        accept_next: Its setting of that name; "" = it has no sessions.
        size_bytes_max: How much it may hold.
        runtime: What it holds.
        waiting: Receivers that wait on it and hold no session.
        ready: Sessions, or messages of a queue without sessions, that a receiver gets at once.
        held: Sessions with messages that somebody holds.
        locked_until_ms: When the first lock of a message of a queue without sessions runs out.
        delays: Messages that wait for the delay of an abandon, and when the first ends.
        delayed_until_ms: See `delays`.
        scheduled_until_ms: When the first scheduled message is due.
        expired: Messages that have expired and are not ready: they go when a receiver asks next (TTL-4).
        expired_ms: When the first of them expired.
        keeps_expired: Whether they become dead letters.
        sent_ms: When a message was stored last, since the partition opened.
        delivered_ms: When messages were delivered last, and to whom.
        receiver: See `delivered_ms`.
    """

    path: str
    status: str
    updated_ms: int
    accept_next: str
    size_bytes_max: int
    runtime: Runtime
    waiting: int = 0
    ready: int = 0
    held: int = 0
    locked_until_ms: int = 0
    delays: int = 0
    delayed_until_ms: int = 0
    scheduled_until_ms: int = 0
    expired: int = 0
    expired_ms: int = 0
    keeps_expired: bool = False
    sent_ms: int = 0
    delivered_ms: int = 0
    receiver: str = ""


@dataclass(frozen=True, slots=True)
class Explained:
    """Why the next message is not delivered.

    Attributes:
        cause: The first thing that keeps it.
        sentence: The same for people, with names.
        remedy: What ends it.
        since_ms: Since when; 0 = not known.
        until_ms: When it ends by itself; 0 = it does not, or nobody knows.
        facts: What else may help, by name.
        figures: Of a queue, what the answer follows from.
    """

    cause: Cause
    sentence: str
    remedy: str
    since_ms: int = 0
    until_ms: int = 0
    facts: tuple[tuple[str, str], ...] = ()
    figures: QueueFigures | None = None


@dataclass(frozen=True, slots=True)
class SessionViews:
    """Sessions in the order of their ids."""

    sessions: tuple[SessionView, ...]


@dataclass(frozen=True, slots=True)
class ShareIs:
    """What a partition holds of a queue, of how much, and which freeze of its share was the last."""

    queue: EntityNumber
    size_bytes: int
    size_bytes_max: int
    frozen: int


Reply = (
    Sent
    | SendChecked
    | ScheduleCancelled
    | Accepted
    | NoneAvailable
    | Delivered
    | DeferredExpired
    | Settled
    | Renewed
    | Released
    | StateIs
    | StateSet
    | TurnTaken
    | Cancelled
    | RequestFound
    | LockBroken
    | Browsed
    | JobIs
    | JobsAre
    | OpenJobs
    | JobLook
    | TransferIs
    | TransferTaken
    | Ticked
    | Applied
    | IdleAre
    | IdleIs
    | Catalogued
    | Uncatalogued
    | ShareIs
    | Definitions
    | Runtime
    | Runtimes
    | SessionViews
    | StatesCleared
    | Explained
)
