"""One partition: the state machine that all rules meet in.

Here belongs the way from a command to a decision. Never here: waiting, storage, time. The laws
(design section 2): `step` validates completely, then mutates, then returns, and what it raised changed
nothing; everything from outside comes in the command or as `now_ms`, so the same commands at the same
times give the same decisions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lockstep.core import catalogue as catalogue_rules
from lockstep.core import (
    deferral,
    definitions,
    expiry,
    explaining,
    idling,
    job_parts,
    job_steps,
    looking,
    receiving,
    scheduling,
    sending,
    settling,
    shares,
    state,
    transfers,
    turning,
    undoing,
)
from lockstep.core.catalogue import Catalogue
from lockstep.core.changes import PartitionRow
from lockstep.core.commands import (
    Accept,
    AdvanceJob,
    ApplyDefinition,
    ApplyDefinitions,
    ApplyDeletion,
    ApplyJobPart,
    BreakLock,
    Browse,
    Cancel,
    CancelJob,
    CancelScheduled,
    CheckSend,
    ClearStates,
    Command,
    CreateQueue,
    DeleteQueue,
    Disconnect,
    EndJob,
    Explain,
    FindRequest,
    ForgetDeletions,
    ForgetIdle,
    FreezeShare,
    GetRevision,
    GetRuntime,
    GetSession,
    GetState,
    GiveUp,
    GrantShare,
    ListDefinitions,
    ListIdle,
    ListJobs,
    ListOpenJobs,
    ListRuntimes,
    ListSessions,
    LookForJob,
    LookForTransfer,
    Receive,
    ReceiveDeferred,
    ReleaseSession,
    RenewMessages,
    RenewSession,
    SealIdle,
    Send,
    SetState,
    Settle,
    SettleTransfer,
    StartJob,
    TakeTransfer,
    TakeTurn,
    Tick,
    Unseal,
    UpdateQueue,
)
from lockstep.core.deadlines import DeadlineHeap, Subject
from lockstep.core.decision import Decision
from lockstep.core.errors import EntityNotFound, RequestIdReused, ServerBusy
from lockstep.core.ids import (
    ChunkId,
    EntityKey,
    EntityNumber,
    GrantNumber,
    PartitionId,
    RequestId,
    sequence_base,
)
from lockstep.core.limits import Limits
from lockstep.core.locks import LossMemory
from lockstep.core.message import Totals
from lockstep.core.queue import Queue, Step
from lockstep.core.requests import NOTHING, RequestWindow
from lockstep.core.session import Session

_SEALED_RETRY_MS = 100

_HANDLERS: dict[type, Callable[..., Any]] = {
    Send: sending.on_send,
    CheckSend: sending.on_check_send,
    CancelScheduled: scheduling.on_cancel_scheduled,
    Accept: receiving.on_accept,
    Receive: receiving.on_receive,
    ReceiveDeferred: deferral.on_receive_deferred,
    Settle: settling.on_settle,
    RenewMessages: receiving.on_renew_messages,
    RenewSession: receiving.on_renew_session,
    ReleaseSession: receiving.on_release_session,
    GetState: state.on_get_state,
    SetState: state.on_set_state,
    TakeTurn: turning.on_take_turn,
    BreakLock: receiving.on_break_lock,
    Browse: looking.on_browse,
    Cancel: undoing.on_cancel,
    GiveUp: undoing.on_give_up,
    Disconnect: undoing.on_disconnect,
    Tick: expiry.on_tick,
    StartJob: job_steps.on_start_job,
    LookForJob: job_steps.on_look_for_job,
    AdvanceJob: job_steps.on_advance_job,
    LookForTransfer: transfers.on_look_for_transfer,
    TakeTransfer: transfers.on_take_transfer,
    SettleTransfer: transfers.on_settle_transfer,
    CancelJob: job_steps.on_cancel_job,
    ListJobs: job_steps.on_list_jobs,
    ApplyJobPart: job_parts.on_apply_job_part,
    EndJob: job_parts.on_end_job,
    ListOpenJobs: job_parts.on_list_open_jobs,
    CreateQueue: catalogue_rules.on_create_queue,
    UpdateQueue: catalogue_rules.on_update_queue,
    DeleteQueue: catalogue_rules.on_delete_queue,
    ListDefinitions: catalogue_rules.on_list_definitions,
    ForgetDeletions: catalogue_rules.on_forget_deletions,
    ForgetIdle: idling.on_forget_idle,
    ListIdle: idling.on_list_idle,
    SealIdle: idling.on_seal_idle,
    Unseal: idling.on_unseal,
    FreezeShare: shares.on_freeze_share,
    GrantShare: shares.on_grant_share,
    ApplyDefinition: definitions.on_apply_definition,
    ApplyDefinitions: definitions.on_apply_definitions,
    ApplyDeletion: definitions.on_apply_deletion,
    FindRequest: undoing.on_find_request,
    GetRevision: definitions.on_get_revision,
    GetRuntime: looking.on_get_runtime,
    ListRuntimes: looking.on_list_runtimes,
    ListSessions: looking.on_list_sessions,
    GetSession: looking.on_get_session,
    ClearStates: idling.on_clear_states,
    Explain: explaining.on_explain,
}


class Partition:
    """All queues of one partition, and what it remembers of calls.

    Attributes:
        partition: Its number.
        partitions: How many the cluster has.
        limits: The installation's limits.
        queues: Every queue it holds, by name; `queues_by_number` has the same ones by number.
        catalogue: All definitions; partition 0 only.
        requests: The calls it remembers.
        deadlines: When to look at what again.
        losses: How the last locks ended.
        totals: What all its queues hold together.
        last_time_ms: The last time it used; time never goes back (RACE-18).
        last_chunk: The last chunk number that was given out.
        last_grant: The last number that was given to a grant, or to a version of a state.
        last_revision: The last revision of the catalogue that was applied.
    """

    def __init__(
        self, partition: PartitionId, limits: Limits, *, now_ms: int, partitions: int = 1
    ) -> None:
        self.partition = partition
        self.partitions = partitions
        self.limits = limits
        self.queues: dict[EntityKey, Queue] = {}
        self.queues_by_number: dict[int, Queue] = {}
        self.catalogue = Catalogue() if partition == 0 else None
        self.requests = RequestWindow(limits)
        self.deadlines = DeadlineHeap()
        self.losses = LossMemory(limits.losses_remembered_max, now_ms)
        self.totals = Totals()
        self.last_time_ms = now_ms
        self.last_chunk = ChunkId(0)
        self.last_grant = GrantNumber(0)
        self.last_revision = 0

    def step(self, command: Command, now_ms: int) -> Decision:
        """Carry out one command.

        Args:
            command: What to do.
            now_ms: The time of day, in ms since the epoch; not before that of the step before.

        Returns:
            What to commit, to answer and to wake. Until the changes are committed nobody may see the reply.

        Raises:
            LockstepError: The command was refused and nothing changed.
        """
        assert now_ms >= self.last_time_ms, f"time went back from {self.last_time_ms} to {now_ms}"
        assert type(command) is Tick or not self.is_due(now_ms), (
            "a tick is due before other commands"
        )
        step = Step(now_ms)
        reply = _HANDLERS[type(command)](self, command, step)
        self.last_time_ms = now_ms
        if step.changes:
            numbers = (self.last_chunk, self.last_grant, self.last_revision)
            step.changes.append(PartitionRow(now_ms, *numbers))
        return Decision(tuple(step.changes), reply, tuple(step.wake), tuple(step.events))

    @property
    def next_deadline_ms(self) -> int | None:
        """When a `Tick` will be due; None = nothing waits for time."""
        return self.deadlines.next_ms

    def is_due(self, now_ms: int) -> bool:
        """Whether a `Tick` must come before any other command."""
        next_ms = self.deadlines.next_ms
        return next_ms is not None and next_ms <= now_ms

    # --- for the rules ---------------------------------------------------------------------------

    def queue(self, entity: EntityKey) -> Queue:
        """Return a queue.

        Raises:
            EntityNotFound: This partition holds no queue of that name (SND-4).
            ServerBusy: It is about to be deleted, because nobody uses it, or not.
        """
        queue = self.queues.get(entity)
        if queue is None or queue.is_going:
            raise EntityNotFound(
                f"There is no queue {entity.namespace}/{entity.name}. Check the name and the namespace, or create it.",
                details={"entity": f"{entity.namespace}/{entity.name}"},
            )
        if queue.is_sealed:
            raise ServerBusy(
                f"{queue.path} was idle for so long that it is about to be deleted, or not. Nothing was done. Try again"
                f" after {_SEALED_RETRY_MS} ms.",
                details={"entity": queue.path},
                retry_after_ms=_SEALED_RETRY_MS,
            )
        return queue

    def add_queue(self, queue: Queue) -> None:
        """Hold a queue."""
        self.queues[queue.definition.key] = queue
        self.queues_by_number[queue.number] = queue

    def remove_queue(self, number: EntityNumber) -> Queue | None:
        """Hold a queue no more, and return it."""
        queue = self.queues_by_number.pop(number, None)
        if queue is not None:
            del self.queues[queue.definition.key]
            self.totals.messages -= queue.log.count
        return queue

    def sequence_base(self) -> int:
        """Return the number below this partition's first sequence number."""
        return sequence_base(self.partition)

    def next_grant(self) -> GrantNumber:
        """Give out a grant number."""
        self.last_grant = GrantNumber(self.last_grant + 1)
        return self.last_grant

    def next_state_version(self) -> int:
        """Give out the version of a state that is written.

        It is drawn from the numbers of the grants, which only rise and are kept by every commit: so no version comes
        again, whatever was forgotten since (ADD-7).
        """
        return self.next_grant()

    def next_chunk(self) -> ChunkId:
        """Give out a chunk number."""
        self.last_chunk = ChunkId(self.last_chunk + 1)
        return self.last_chunk

    def note_loss(self, session: Session, now_ms: int, cause: str) -> None:
        """Remember how a session's lock ended."""
        self.losses.note(session.grant, cause, now_ms)

    def repeated(
        self, request: RequestId | None, fingerprint: int, kind: str
    ) -> tuple[Any, ...] | None:
        """Return the result of a call that came before, or `NOTHING`; None = it is new (ADD-3).

        Raises:
            RequestIdReused, RequestIdExpired, RequestCancelled: As `RequestWindow.find`.
        """
        if request is None:
            return None
        found = self.requests.find(request, fingerprint)
        if found is None:
            return None
        before = found.result[1] if found.result[0] == NOTHING else found.result[0]
        if before != kind:
            raise RequestIdReused(
                f"Request {request.counter} of client {request.client_id} came before as another kind of call"
                f" ({before}) and was not executed. Use a new request id for a new call."
            )
        return found.result

    def remember(
        self, request: RequestId | None, fingerprint: int, result: tuple[Any, ...], step: Step
    ) -> None:
        """Keep the result of a call with its effect (ADD-3)."""
        if request is None:
            return
        changes, is_new = self.requests.remember(request, fingerprint, result, step.now_ms)
        step.changes.extend(changes)
        if is_new:
            self.watch_client(request.client_id, step.now_ms)

    def watch_client(self, client_id: str, now_ms: int) -> None:
        """Look at a client's silence after the time that its results are kept."""
        self.deadlines.add(
            now_ms + self.limits.request_retention_ms, Subject("client", 0, client_id)
        )
