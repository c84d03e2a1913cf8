"""What administrators can ask of a partition, as values; `commands` has the rest.

Here belongs one class for each command, without behaviour. Never here: rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from lockstep.core.amendments import Amendment
from lockstep.core.entity import Manager, QueueDefinition, SettingValue
from lockstep.core.ids import EntityKey, EntityNumber, PartitionId, RequestId, SessionId
from lockstep.core.jobs import Job, JobKind, JobOptions, JobStatus, Selector

if TYPE_CHECKING:
    from lockstep.core.commands import Send


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
        parts: The partitions that are to carry it out; empty = the one that is asked.
    """

    entity: EntityKey
    kind: JobKind
    selector: Selector
    options: JobOptions
    uid: str
    by: str = ""
    request: RequestId | None = None
    fingerprint: int = 0
    parts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ApplyJobPart:
    """Make a partition have its part of a job, as the queue's home has the job. Idempotent.

    Attributes:
        entity: The queue.
        job: The job, with as much of its rate and count as this part has.
    """

    entity: EntityKey
    job: Job


@dataclass(frozen=True, slots=True)
class EndJob:
    """Let a job end whose parts have ended, with their figures. One with another uid, or that ended, stays as it is."""

    entity: EntityKey
    number: int
    uid: str
    status: JobStatus
    matched: int
    skipped: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class ListOpenJobs:
    """Show all jobs that have parts and have not ended, of all queues whose home this partition is."""


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
        uid: That of the job; with another one, of a job before this one, nothing is done.
        error: Why the job cannot go on; "" = it can.
    """

    entity: EntityKey
    number: int
    since: int
    cursor: int | None
    sequences: Sequence[int]
    copies: Send | None = None
    message_ids: tuple[str, ...] = ()
    uid: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class LookForTransfer:
    """Show what a job has on the way to another partition, by its grant. Changes nothing."""

    entity: EntityKey
    number: int
    grant: int


@dataclass(frozen=True, slots=True)
class TakeTransfer:
    """Take messages that a job brings from another partition, once; to be asked of the partition they go to.

    Attributes:
        entity: The queue that they go to.
        queue: Its number.
        source: The queue that they come from.
        source_queue: Its number.
        source_partition: The partition that they come from.
        number: The number of the transfer; it rises for one queue of one partition.
        revision: The last change of definitions that their partition knows; an older partition takes nothing yet.
        messages: Their bytes.
        session_ids: The session of each; None = none.
        ttls_ms: Their times to live, 0 = the queue's; empty = all the queue's.
        message_ids: Their message ids from now on, "" = none.
        amendments: What is changed about each.
        is_final: Whether the quota of the target was shared out, and there is no room for them.
    """

    entity: EntityKey
    queue: EntityNumber
    source: EntityKey
    source_queue: EntityNumber
    source_partition: PartitionId
    number: int
    revision: int
    messages: tuple[bytes, ...]
    session_ids: tuple[str | None, ...]
    ttls_ms: tuple[int, ...]
    message_ids: tuple[str, ...]
    amendments: tuple[Amendment, ...]
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class SettleTransfer:
    """Note what became of a transfer; to be asked of the partition that the messages come from.

    Attributes:
        entity: The queue that they come from.
        number: The job.
        uid: That of the job.
        grant: The transfer.
        refused: The messages that were not taken; they stay dead letters here.
        error: Why none was taken; "" = they were.
    """

    entity: EntityKey
    number: int
    uid: str
    grant: int
    refused: tuple[int, ...] = ()
    error: str = ""


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


# --- sessions ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BreakLock:
    """End a session's lock, whoever holds it (ADD-5). `by` names who asked."""

    entity: EntityKey
    session_id: SessionId
    by: str
    request: RequestId | None = None
    fingerprint: int = 0


# --- quotas ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FreezeShare:
    """Take no more of a queue's quota, and tell what is held of it (ADD-1)."""

    entity: EntityKey


@dataclass(frozen=True, slots=True)
class GrantShare:
    """Let a partition hold so much of a queue, if its share was not frozen again since `frozen`."""

    entity: EntityKey
    queue: EntityNumber
    frozen: int
    bytes_max: int


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
    manager: Manager | None = None


@dataclass(frozen=True, slots=True)
class UpdateQueue:
    """Change a queue in the catalogue (partition 0 only).

    Attributes:
        entity: The queue.
        settings: Those that change.
        if_revision: Only at this revision; 0 = at any.
        request: The call's id.
        fingerprint: A hash of its payload.
        manager: Who keeps the definition from now on; None = as before.
        takes_over: Whether another one may have kept it, or a later generation of the same one have been seen.
        replaces: Whether settings that are not given have their defaults again, those apart that are fixed.
    """

    entity: EntityKey
    settings: Mapping[str, SettingValue]
    if_revision: int = 0
    request: RequestId | None = None
    fingerprint: int = 0
    manager: Manager | None = None
    takes_over: bool = False
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class DeleteQueue:
    """Remove a queue from the catalogue (partition 0 only).

    Attributes:
        entity: The queue.
        request: The call's id.
        fingerprint: A hash of its payload.
        uid: Only the queue with this uid; empty = whichever has the name.
        is_sealed: Only while it is sealed here, and so, sealed later, everywhere.
        manager_uid: Not if another object than this one keeps it; empty = whoever does.
    """

    entity: EntityKey
    request: RequestId | None = None
    fingerprint: int = 0
    uid: str = ""
    is_sealed: bool = False
    manager_uid: str = ""


@dataclass(frozen=True, slots=True)
class ListDefinitions:
    """Read the catalogue (partition 0 only), or one queue of it."""

    entity: EntityKey | None = None


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


@dataclass(frozen=True, slots=True)
class ApplyDefinitions:
    """Apply several definitions and deletions, in the order of their revisions, in one commit.

    Attributes:
        definitions: As with ApplyDefinition.
        deletions: The number and the revision of each, as with ApplyDeletion.
    """

    definitions: tuple[QueueDefinition, ...]
    deletions: tuple[tuple[EntityNumber, int], ...]


@dataclass(frozen=True, slots=True)
class ListIdle:
    """Show the queues that this partition has seen no use of for long enough to delete them."""


@dataclass(frozen=True, slots=True)
class SealIdle:
    """Take no use of a queue for a moment, if it was idle for long enough here, or if it is empty here.

    Attributes:
        entity: The queue; one that is not here is idle, and empty.
        for_ms: How long uses are refused, unless it is unsealed before.
        if_empty: Whether to ask that it is empty (ADD-13), not that it was idle.
    """

    entity: EntityNumber
    for_ms: int
    if_empty: bool = False


@dataclass(frozen=True, slots=True)
class Unseal:
    """Take uses of a queue again."""

    entity: EntityNumber


@dataclass(frozen=True, slots=True)
class ForgetIdle:
    """Remove a queue from the catalogue that is sealed (partition 0 only)."""

    entity: EntityNumber


# --- looking -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FindRequest:
    """Ask whether the partition remembers what a call did (ADD-3)."""

    entity: EntityKey
    request: RequestId


@dataclass(frozen=True, slots=True)
class GetRevision:
    """Ask up to which revision of the catalogue the partition has applied definitions."""


@dataclass(frozen=True, slots=True)
class GetRuntime:
    """Count what a queue holds in this partition.

    Attributes:
        entity: The queue.
        with_oldest: Whether since when its oldest ready message waits too; that looks at every session.
    """

    entity: EntityKey
    with_oldest: bool = False


@dataclass(frozen=True, slots=True)
class ListRuntimes:
    """Count what several queues hold in this partition, at most 50."""

    entities: tuple[EntityKey, ...]


class SessionFilter(StrEnum):
    """Which sessions a listing shows (ADD-9)."""

    ALL = "all"
    HELD = "held"
    RUNNABLE = "runnable"
    WAITING = "waiting"
    WITH_DEAD_LETTERS = "with_dead_letters"
    STATE_ONLY = "state_only"


@dataclass(frozen=True, slots=True)
class ListSessions:
    """Show sessions with an id above `after`, in the order of their ids.

    Attributes:
        entity: The queue.
        maximum: At most so many.
        after: Only those with a higher id; None = all.
        shown: Which ones.
        state_since_ms: Only those whose state was set then or later (SES-50); 0 = all.
    """

    entity: EntityKey
    maximum: int
    after: str | None = None
    shown: SessionFilter = SessionFilter.ALL
    state_since_ms: int = 0


@dataclass(frozen=True, slots=True)
class ClearStates:
    """Clear session states (SES-44).

    Attributes:
        entity: The queue.
        session_id: Of this session, which nobody may hold; None = of all that have nothing else.
        idle_ms: Only where nothing happened for so long; of no effect with a session.
        maximum: At most so many.
    """

    entity: EntityKey
    session_id: SessionId | None
    idle_ms: int = 0
    maximum: int = 1000


@dataclass(frozen=True, slots=True)
class Explain:
    """Say why the next message is not delivered (ADD-10): of a queue, of a session, or a certain message.

    Attributes:
        entity: The queue.
        session_id: The session; None = the whole queue, or the message.
        sequence: The message; 0 = none is named.
        waiting: How many receivers wait on the queue: in the front end that asks, and then in the partition too.
    """

    entity: EntityKey
    session_id: SessionId | None = None
    sequence: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class GetSession:
    """Show one session."""

    entity: EntityKey
    session_id: SessionId
