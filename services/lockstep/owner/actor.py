"""One actor for each partition: inbox → step → commit → reply.

Here belong the rounds in which commands are carried out. Never here: rules (`core`), storage, gRPC. The
laws (design section 2):

1. A round steps every command that has gathered, commits once for all of them, then replies to all. While
   a commit is in flight nothing is stepped.
2. No reply leaves before its commit returned, and none without a lease that is still valid.
3. When a commit fails, or an invariant breaks, the partition object is dropped with everything it decided;
   every caller gets an error, and the partition is opened anew.
4. Refusals for load never touch the calls of a holder (ADD-14).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from lockstep.cluster.port import ASK_ONLY, Answer, Hint, Lease
from lockstep.core.changes import Change, ChunkRow, Drop, DropEntity
from lockstep.core.commands import (
    AdvanceJob,
    ApplyJobPart,
    CancelJob,
    Command,
    EndJob,
    Send,
    SetState,
    SettleTransfer,
    StartJob,
    TakeTurn,
)
from lockstep.core.errors import (
    InternalError,
    LockstepError,
    Moved,
    ServerBusy,
    ShuttingDown,
)
from lockstep.core.ids import EntityKey, PartitionEpoch
from lockstep.core.partition import Partition
from lockstep.core.replies import Delivered, JobIs, NoneAvailable
from lockstep.owner.answers import Contents, answer_of, undoing
from lockstep.owner.bodies import BodyCache
from lockstep.owner.carrying import CallOther
from lockstep.owner.hints import HintBoard
from lockstep.owner.job_runner import JobRunner
from lockstep.owner.observer import Observer
from lockstep.owner.rounds import BUSY_RETRY_MS, REFUSABLE, Round, Stepper
from lockstep.owner.waiters import Call, Waiters
from lockstep.runtime.clock import SteadyClock
from lockstep.runtime.metrics import Metrics
from lockstep.storage.port import PartitionStore

_COMMAND_BYTES = 512
_OF_JOBS = StartJob | AdvanceJob | SettleTransfer | CancelJob | ApplyJobPart | EndJob


@dataclass(frozen=True, slots=True)
class ActorLimits:
    """How much one partition takes on at a time.

    Attributes:
        inbox_commands_max: Commands that wait to be stepped.
        inbox_bytes_max: Bytes of these commands.
        waiters_max: Calls that wait on one entity.
        round_commands_max: Commands of one round, and so of one commit.
        round_bytes_max: Bytes of the commands of one round.
        body_cache_bytes_max: Bytes of messages kept in memory.
    """

    inbox_commands_max: int = 10_000
    inbox_bytes_max: int = 256 * 1024 * 1024
    waiters_max: int = 5000
    round_commands_max: int = 512
    round_bytes_max: int = 32 * 1024 * 1024
    body_cache_bytes_max: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a partition needs of the process around it.

    Attributes:
        when_queues_went: Called when the partition took queues out of the catalogue that nobody used.
        call_other: Has a command carried out by another partition; None = there is no other one.
    """

    when_queues_went: Callable[[], None] = lambda: None
    call_other: CallOther | None = None


class PartitionActor:
    """Carries out the commands of one partition, one round after the other."""

    def __init__(
        self,
        partition: Partition,
        *,
        epoch: PartitionEpoch,
        store: PartitionStore,
        lease: Lease,
        clock: SteadyClock,
        limits: ActorLimits,
        metrics: Metrics,
        around: Surroundings | None = None,
    ) -> None:
        """Take over a partition that was just opened under `epoch`."""
        self._around = around or Surroundings()
        self.partition = partition
        self.waiters = Waiters()
        self.epoch = epoch
        self._store = store
        self._lease = lease
        self._clock = clock
        self._limits = limits
        self._metrics = metrics
        self._observer = Observer(metrics)
        self._stepper = Stepper(partition, self.waiters, self._observer, clock, limits.waiters_max)
        self._bodies = BodyCache(limits.body_cache_bytes_max)
        self._hints = HintBoard(partition)
        self._inbox: deque[Call] = deque()
        self._reserved: deque[Call] = deque()
        self._inbox_bytes = 0
        self._bell = asyncio.Event()
        self._jobs = JobRunner(partition, self, clock, self._around.call_other)
        self._alarms_ms: set[int] = set()  # when alarms ring that were set
        self._stopping = False
        self._why_stopping: LockstepError = ShuttingDown("The partition is closing. Try again.")
        self._dropped: LockstepError | None = None
        self._storing: asyncio.Timeout | None = None  # while the store is asked for something
        self._failure: LockstepError | None = None

    # --- for callers -----------------------------------------------------------------------------

    async def call(self, command: Command, *, wait_ms: int = 0) -> Answer:
        """Have a command carried out and return its committed answer.

        Args:
            command: What to do.
            wait_ms: How long an accept or a receive that finds nothing waits; 0 = not at all; or ASK_ONLY.

        Raises:
            LockstepError: As the core's rules say; ServerBusy without effect; Moved, ShuttingDown and
                StoreUnavailable when the partition must be found, or tried, again.
        """
        if self._failure is not None or self._stopping or self._dropped is not None:
            raise self._failure or self._dropped or self._why_stopping
        size = _COMMAND_BYTES
        if isinstance(command, Send):
            size += sum(map(len, command.messages))
        elif isinstance(command, SetState):
            size += len(command.value or b"")
        elif isinstance(command, TakeTurn):
            size += len(command.state or b"")
            size += sum(map(len, command.outputs.messages)) if command.outputs is not None else 0
        lane = self._inbox if isinstance(command, REFUSABLE) else self._reserved
        if lane is self._inbox:
            self._refuse_when_busy(command, size)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        now_ms = self._clock.now_ms()
        deadline_ms = now_ms + wait_ms if wait_ms > 0 else 0
        asks_only = wait_ms == ASK_ONLY
        call = Call(command, answer, deadline_ms, size, now_ms, asks_only=asks_only)
        lane.append(call)
        self._inbox_bytes += size
        self._bell.set()
        try:
            return await answer
        except asyncio.CancelledError:
            self.waiters.leave(call)
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._undo(call)  # the answer was there, but its caller had gone
            raise

    def _refuse_when_busy(self, command: Command, size: int) -> None:
        limits = self._limits
        if len(self._inbox) >= limits.inbox_commands_max:
            what, most, seen = "commands", limits.inbox_commands_max, len(self._inbox)
        elif self._inbox_bytes + size > limits.inbox_bytes_max and self._inbox:
            what, most, seen = "bytes of commands", limits.inbox_bytes_max, self._inbox_bytes + size
        else:
            return
        error = ServerBusy(
            f"This partition has {seen} {what} waiting, of at most {most}. Nothing was done. Try again after"
            f" {BUSY_RETRY_MS} ms.",
            details={"limit": what, "configured": str(most), "observed": str(seen)},
            retry_after_ms=BUSY_RETRY_MS,
        )
        self._observer.refused(self.partition, command, error)
        raise error

    @property
    def backlog(self) -> int:
        """How many calls wait for their turn."""
        return len(self._inbox) + len(self._reserved)

    def note_refused_send(self, entity: EntityKey, messages: int, error: LockstepError) -> None:
        """Count messages that a front end refused before they came here (SND-2)."""
        self._observer.refused_send(self.partition, entity, messages, error)

    def follow_hints(self) -> AsyncIterator[Sequence[Hint]]:
        """Yield what there is to take; see `OwnerChannel.follow_hints`."""
        return self._hints.follow()

    def stop(self, why: LockstepError | None = None) -> None:
        """Take no more calls; `run` ends when those it has are answered. Waiting calls are sent away with `why`."""
        self._why_stopping = why or self._why_stopping
        self._stopping = True
        self._bell.set()

    def drop(self, error: LockstepError) -> None:
        """Answer nothing any more: the right to the partition is over. `run` ends with `error`.

        A store that does not answer is not waited for: what a commit did there, the next owner reads.
        """
        self._dropped = error
        self._bell.set()
        if self._storing is not None:
            storing, self._storing = self._storing, None
            storing.reschedule(0)  # a moment that has passed

    # --- rounds ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry out rounds until `stop`, or until the partition must be opened anew.

        Raises:
            LockstepError: Why the partition must be opened anew, or (InternalError, StoreRefused) must not.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._drive_jobs())
                while not self._stopping or self._inbox or self._reserved:
                    await self._wait(tasks)
                    await self._round()
                self._send_waiters_away(self._why_stopping)
                raise _Done
        except* _Done:
            pass
        except* LockstepError as group:
            error = _first(group)
            assert isinstance(error, LockstepError)
            if self._failure is None:  # not a round failed, but what drives jobs
                self._fail(None, error)
            raise error from group
        finally:
            self._hints.close(self._failure or self._why_stopping)
            self._observer.close()

    async def _drive_jobs(self) -> None:
        """Drive jobs until the partition takes no more commands; then what it was asked is answered all the same."""
        try:
            await self._jobs.run()
        except* LockstepError:
            if not self._stopping:
                raise
            await asyncio.Event().wait()

    async def _wait(self, tasks: asyncio.TaskGroup) -> None:
        if self._inbox or self._reserved or self._stopping or self._dropped:
            return
        times = [
            t for t in (self.partition.next_deadline_ms, self.waiters.next_ms) if t is not None
        ]
        next_ms = min(times, default=None)
        now_ms = self._clock.now_ms()
        if next_ms is not None:
            if next_ms <= now_ms:
                return
            if min(self._alarms_ms, default=next_ms + 1) > next_ms:
                self._alarms_ms.add(next_ms)
                tasks.create_task(self._ring_at(next_ms, next_ms - now_ms))
        self._bell.clear()
        await self._bell.wait()

    async def _ring_at(self, at_ms: int, delay_ms: int) -> None:
        await self._clock.sleep(delay_ms)
        self._alarms_ms.discard(at_ms)
        self._bell.set()

    async def _round(self) -> None:
        assert self._failure is None, "a partition that failed is dropped"
        now_ms = max(self._clock.now_ms(), self.partition.last_time_ms)
        round_ = Round(now_ms, Contents(self._bodies))
        try:
            if self._dropped is not None:
                raise self._dropped
            round_.taken = self._take()
            # What is left for the next round came in time too if its time has not passed (RACE-3).
            left = [lane[0].arrived_ms for lane in (self._reserved, self._inbox) if lane]
            round_.now_ms = max(min([now_ms, *left]), self.partition.last_time_ms)
            await self._stepper.step_all(round_)
            await self._until_dropped(self._load(round_.contents))
            await self._until_dropped(self._commit(round_))
            self._hints.note(round_.woken)
            self._reply(round_)
        except LockstepError as error:
            self._fail(round_, error)
            raise
        except asyncio.CancelledError:
            self._fail(round_, Moved("The partition was closed before it answered. Try again."))
            raise
        except Exception as error:  # a bug: it stops this partition, not its neighbours
            stopped = InternalError(
                f"Partition {self.partition.partition} has stopped: {type(error).__name__}: {error}. Report this."
            )
            self._fail(round_, stopped)
            raise stopped from error

    def _take(self) -> list[Call]:
        """Return the calls of the next round: the reserved lane first."""
        taken: list[Call] = []
        taken_bytes = 0
        for lane in (self._reserved, self._inbox):
            while lane and len(taken) < self._limits.round_commands_max:
                if taken and taken_bytes + lane[0].bytes > self._limits.round_bytes_max:
                    break
                call = lane.popleft()
                taken_bytes += call.bytes
                taken.append(call)
        self._inbox_bytes -= taken_bytes
        return taken

    async def _until_dropped(self, storing: Awaitable[None]) -> None:
        """Wait for the store, but not longer than the partition is ours."""
        try:
            async with asyncio.timeout(None) as self._storing:
                await storing
        except TimeoutError:
            if self._dropped is None:
                raise
            raise self._dropped from None
        finally:
            self._storing = None

    async def _commit(self, round_: Round) -> None:
        if round_.changes:
            await self._store.commit(self.partition.partition, self.epoch, round_.changes)
            self._remember_bodies(round_.changes)
        if any(event.name == "queues_deleted" for event in round_.events):
            self._around.when_queues_went()
        if any(isinstance(change, DropEntity) for change in round_.changes):
            self._observer.forget_missing(self.partition)
            self._jobs.note_deletions()

    def _remember_bodies(self, changes: Sequence[Change]) -> None:
        messages = 0
        for change in changes:
            if isinstance(change, ChunkRow):
                messages += len(change.messages)
                self._bodies.put(change.chunk, change.messages)
            elif isinstance(change, Drop) and change.table is ChunkRow:
                self._bodies.drop(int(change.key[0]))
        if messages:
            self._metrics.storage_commit_batch_messages.observe(messages)

    # --- answers ---------------------------------------------------------------------------------

    def _reply(self, round_: Round) -> None:
        if not self._lease.is_valid():
            raise Moved(
                "This process lost its lease on the partition. Nothing was answered. Try again."
            )
        self._observer.count(self.partition, round_.events)
        for call, refused in round_.finished:
            self._note_job(call, refused)
            if call.answer is None:
                continue
            if call.answer.done():
                self._undo(call)
                continue
            try:
                if refused is not None:
                    raise refused
                assert call.reply is not None, "a finished call has a reply"
                answer = answer_of(call.reply, call.state, round_.contents)
            except LockstepError as error:
                call.answer.set_exception(error)
            else:
                call.answer.set_result(answer)
            if refused is None:
                self._count_answer(call)

    def _note_job(self, call: Call, refused: LockstepError | None) -> None:
        command = call.command
        if refused is None and isinstance(command, _OF_JOBS):
            assert isinstance(call.reply, JobIs)
            self._jobs.note(command.entity, call.reply.job)

    async def _load(self, contents: Contents) -> None:
        """Read what answers of a round name and memory does not hold, as it is before the round's commit."""
        number = self.partition.partition
        if contents.missing_chunks:
            missing = list(contents.missing_chunks)
            loaded = await self._store.load_chunks(number, self.epoch, missing)
            contents.chunks.update(loaded)
            for chunk, messages in loaded.items():
                self._bodies.put(chunk, messages)
        if contents.missing_states:
            keys = list(contents.missing_states)
            contents.states = await self._store.load_states(number, self.epoch, keys)

    def _count_answer(self, call: Call) -> None:
        match call.reply:
            case NoneAvailable(entity=entity, is_final=False) if not call.asks_only:
                self._observer.accept_timed_out(self.partition, entity)
            case Delivered(entity=entity, size_bytes=size):
                self._observer.sent_bytes(self.partition, entity, size)
            case _:
                pass

    def _undo(self, call: Call) -> None:
        """Take back an accept or a receive whose caller has gone (BAT-9, SES-15)."""
        command = undoing(call.command, call.reply)
        if command is not None:
            self._reserved.append(Call(command, None, 0, _COMMAND_BYTES, self._clock.now_ms()))
            self._inbox_bytes += _COMMAND_BYTES
            self._bell.set()

    # --- the end -----------------------------------------------------------------------------------

    def _fail(self, round_: Round | None, error: LockstepError) -> None:
        self._failure = error
        if round_ is not None:
            for call in round_.taken:  # one that a bug kept from its step must not wait for ever
                if call.place is None:
                    _refuse(call, error)
            for call, _ in round_.finished:  # also those that a step refused: its world is dropped
                _refuse(call, error)
        for call in (*self._reserved, *self._inbox):
            _refuse(call, error)
        self._reserved.clear()
        self._inbox.clear()
        self._send_waiters_away(error)

    def _send_waiters_away(self, error: LockstepError) -> None:
        for call in self.waiters.all():
            self.waiters.leave(call)
            _refuse(call, error)


class _Done(Exception):
    """Ends the task group of a partition that was stopped, and with it its alarms."""


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _refuse(call: Call, error: LockstepError) -> None:
    if call.answer is not None and not call.answer.done():
        call.answer.set_exception(error)
