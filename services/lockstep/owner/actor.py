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
from collections.abc import Sequence
from dataclasses import dataclass, field

from lockstep.cluster.port import Answer, Lease
from lockstep.core.changes import Change, ChunkRow, Drop
from lockstep.core.commands import (
    Accept,
    Accepted,
    Cancel,
    Command,
    Delivered,
    NoneAvailable,
    Outcome,
    Receive,
    ReleaseSession,
    Send,
    Settle,
    Settlement,
    StateIs,
    Tick,
)
from lockstep.core.decision import Event, Wake
from lockstep.core.errors import (
    Fenced,
    InternalError,
    LockstepError,
    Moved,
    NoSessionAvailable,
    ServerBusy,
    ShuttingDown,
)
from lockstep.core.ids import PartitionEpoch, SessionLock
from lockstep.core.message import is_run
from lockstep.core.partition import Partition
from lockstep.owner.bodies import BodyCache
from lockstep.owner.observer import Observer
from lockstep.owner.waiters import Call, Place, Waiters
from lockstep.runtime.clock import SteadyClock
from lockstep.runtime.metrics import Metrics
from lockstep.storage.port import PartitionStore

_REFUSABLE = (Send, Accept, Receive)  # everything else has the reserved lane (ADD-14)
_COMMAND_BYTES = 512
_BUSY_RETRY_MS = 100


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


@dataclass(slots=True)
class _Round:
    """What one round has gathered."""

    now_ms: int
    changes: list[Change] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    wake: dict[Wake, None] = field(default_factory=dict)
    finished: list[tuple[Call, LockstepError | None]] = field(default_factory=list)


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
    ) -> None:
        """Take over a partition that was just opened under `epoch`."""
        self.partition = partition
        self.waiters = Waiters()
        self._epoch = epoch
        self._store = store
        self._lease = lease
        self._clock = clock
        self._limits = limits
        self._metrics = metrics
        self._observer = Observer(metrics)
        self._bodies = BodyCache(limits.body_cache_bytes_max)
        self._inbox: deque[Call] = deque()
        self._reserved: deque[Call] = deque()
        self._inbox_bytes = 0
        self._bell = asyncio.Event()
        self._alarm_ms: int | None = None
        self._stopping = False
        self._failure: LockstepError | None = None

    # --- for callers -----------------------------------------------------------------------------

    async def call(self, command: Command, *, wait_ms: int = 0) -> Answer:
        """Have a command carried out and return its committed answer.

        Args:
            command: What to do.
            wait_ms: How long an accept or a receive that finds nothing waits; 0 = not at all.

        Raises:
            LockstepError: As the core's rules say; ServerBusy without effect; Moved, ShuttingDown and
                StoreUnavailable when the partition must be found, or tried, again.
        """
        if self._failure is not None or self._stopping:
            raise self._failure or ShuttingDown("The partition is closing. Try again.")
        size = _COMMAND_BYTES
        if isinstance(command, Send):
            size += sum(map(len, command.messages))
        lane = self._inbox if isinstance(command, _REFUSABLE) else self._reserved
        if lane is self._inbox:
            self._refuse_when_busy(command, size)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        deadline_ms = self._clock.now_ms() + wait_ms if wait_ms > 0 else 0
        call = Call(command, answer, deadline_ms, size)
        lane.append(call)
        self._inbox_bytes += size
        self._bell.set()
        try:
            return await answer
        except asyncio.CancelledError:
            self.waiters.leave(call)
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
            f" {_BUSY_RETRY_MS} ms.",
            details={"limit": what, "configured": str(most), "observed": str(seen)},
            retry_after_ms=_BUSY_RETRY_MS,
        )
        if isinstance(command, Send):
            self._observer.refused_send(
                self.partition, command.entity, len(command.messages), error
            )
        raise error

    def stop(self) -> None:
        """Take no more calls; `run` ends when those it has are answered. Waiting calls are sent away."""
        self._stopping = True
        self._bell.set()

    # --- rounds ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry out rounds until `stop`, or until the partition must be opened anew.

        Raises:
            LockstepError: Why the partition must be opened anew, or (InternalError, StoreRefused) must not.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                while not self._stopping or self._inbox or self._reserved:
                    await self._wait(tasks)
                    await self._round()
                self._send_waiters_away(ShuttingDown("The partition is closing. Try again."))
                raise _Done
        except* _Done:
            pass
        except* LockstepError as group:
            raise _first(group) from group
        finally:
            self._observer.close()

    async def _wait(self, tasks: asyncio.TaskGroup) -> None:
        if self._inbox or self._reserved or self._stopping:
            return
        times = [
            t for t in (self.partition.next_deadline_ms, self.waiters.next_ms) if t is not None
        ]
        next_ms = min(times, default=None)
        now_ms = self._clock.now_ms()
        if next_ms is not None:
            if next_ms <= now_ms:
                return
            if self._alarm_ms is None or self._alarm_ms > next_ms or self._alarm_ms <= now_ms:
                self._alarm_ms = next_ms
                tasks.create_task(self._ring_after(next_ms - now_ms))
        self._bell.clear()
        await self._bell.wait()

    async def _ring_after(self, delay_ms: int) -> None:
        await self._clock.sleep(delay_ms)
        self._bell.set()

    async def _round(self) -> None:
        round_ = _Round(max(self._clock.now_ms(), self.partition.last_time_ms))
        try:
            self._step_all(round_)
            await self._commit(round_)
            await self._reply(round_)
        except LockstepError as error:
            self._fail(round_, error)
            raise

    def _step_all(self, round_: _Round) -> None:
        if self.partition.is_due(round_.now_ms):
            self._step(Call(Tick(), None, 0, 0), round_)
        for call in self._take():
            if not call.is_abandoned:
                self._step(call, round_)
        for call in self.waiters.due(round_.now_ms):
            self._look_at_waiter(call, round_)
        while round_.wake:
            wake = next(iter(round_.wake))
            del round_.wake[wake]
            for place in self.waiters.places(wake):
                self._serve(place, round_)

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

    def _step(self, call: Call, round_: _Round) -> None:
        try:
            decision = self.partition.step(call.command, round_.now_ms)
        except LockstepError as error:
            self.waiters.leave(call)
            if isinstance(call.command, Send):
                entity = call.command.entity
                self._observer.refused_send(
                    self.partition, entity, len(call.command.messages), error
                )
            round_.finished.append((call, error))
            return
        except AssertionError as error:
            raise InternalError(
                f"Partition {self.partition.partition} broke an invariant and has stopped: {error}. Report this."
            ) from error
        call.reply = decision.reply
        round_.changes.extend(decision.changes)
        round_.events.extend(decision.events)
        round_.wake.update(dict.fromkeys(decision.wake))
        if call.deadline_ms > round_.now_ms and _found_nothing(decision.reply):
            self._park(call, round_)
            return
        self.waiters.leave(call)
        round_.finished.append((call, None))

    def _park(self, call: Call, round_: _Round) -> None:
        place = _place_of(call)
        if call.place is None and self.waiters.count(place.entity) >= self._limits.waiters_max:
            most = self._limits.waiters_max
            error = ServerBusy(
                f"{most} calls wait on this queue already, the most that is allowed. Nothing was done. Use fewer"
                " receivers, or longer waits.",
                details={
                    "limit": "waiters_max",
                    "configured": str(most),
                    "observed": str(most + 1),
                },
                retry_after_ms=_BUSY_RETRY_MS,
            )
            round_.finished.append((call, error))
            return
        if place.session_id is not None:
            queue = self.partition.queues_by_number[place.entity]
            call.refresh_every_ms = queue.definition.settings.lock_duration_ms // 2
        self.waiters.park(call, place, round_.now_ms)

    def _look_at_waiter(self, call: Call, round_: _Round) -> None:
        if call.is_abandoned:
            self.waiters.leave(call)
        elif call.deadline_ms <= round_.now_ms:
            self.waiters.leave(call)
            round_.finished.append((call, None))
        else:
            self._step(call, round_)

    def _serve(self, place: Place, round_: _Round) -> None:
        """Try the calls that wait at a place, in their order, until one finds nothing."""
        while (call := self.waiters.first(place)) is not None:
            if call.is_abandoned:
                self.waiters.leave(call)
                continue
            self._step(call, round_)
            if call.place is not None:
                return

    async def _commit(self, round_: _Round) -> None:
        if round_.changes:
            started_ms = self._clock.monotonic_ms()
            try:
                await self._store.commit(self.partition.partition, self._epoch, round_.changes)
            except LockstepError as error:
                self._metrics.storage_errors.labels("commit", type(error).__name__).inc()
                if isinstance(error, Fenced):
                    self._metrics.fenced_writes.inc()
                raise
            self._metrics.storage_operation_duration_seconds.labels("commit").observe(
                (self._clock.monotonic_ms() - started_ms) / 1000
            )
            self._remember_bodies(round_.changes)
        if not self._lease.is_valid():
            raise Moved(
                "This process lost its lease on the partition. Nothing was answered. Try again."
            )
        self._observer.count(self.partition, round_.events)

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

    async def _reply(self, round_: _Round) -> None:
        chunks, states = self._missing(round_)
        found = await self._store.load_chunks(self.partition.partition, chunks) if chunks else {}
        for chunk, messages in found.items():
            self._bodies.put(chunk, messages)
        values = await self._store.load_states(self.partition.partition, states) if states else {}
        for call, error in round_.finished:
            if call.answer is None:
                continue
            if call.answer.done():
                self._undo(call)
            elif error is not None:
                call.answer.set_exception(error)
            else:
                self._answer(call, found, values)

    def _missing(self, round_: _Round) -> tuple[list[int], list[tuple[int, str]]]:
        """Return the chunks and the states that the answers of a round need from storage."""
        chunks: dict[int, None] = {}
        states: dict[tuple[int, str], None] = {}
        for call, error in round_.finished:
            if error is not None:
                continue
            match call.reply:
                case Delivered(chunks=wanted):
                    for chunk in dict.fromkeys(wanted):
                        if self._bodies.get(chunk) is None:
                            chunks[chunk] = None
                case Accepted(has_state=True, entity=entity, session=session):
                    states[entity, session.session_id] = None
                case StateIs(has_state=True, entity=entity, session_id=session_id):
                    states[entity, session_id] = None
                case _:
                    pass
        return list(chunks), list(states)

    def _answer(
        self,
        call: Call,
        found: dict[int, tuple[bytes, ...]],
        values: dict[tuple[int, str], bytes],
    ) -> None:
        assert call.answer is not None
        reply = call.reply
        assert reply is not None
        match reply:
            case NoneAvailable(entity=entity):
                self._observer.accept_timed_out(self.partition, entity)
                call.answer.set_exception(
                    NoSessionAvailable("No session became available in the time that was given.")
                )
            case Delivered():
                messages = self._messages(reply, found)
                self._observer.sent_bytes(self.partition, reply.entity, sum(map(len, messages)))
                call.answer.set_result(Answer(reply, messages))
            case Accepted(entity=entity, session=session):
                state = values.get((entity, session.session_id)) if reply.has_state else None
                call.answer.set_result(Answer(reply, state=state))
            case StateIs(entity=entity, session_id=session_id):
                state = values.get((entity, session_id)) if reply.has_state else None
                call.answer.set_result(Answer(reply, state=state))
            case _:
                call.answer.set_result(Answer(reply))

    def _messages(self, reply: Delivered, found: dict[int, tuple[bytes, ...]]) -> Sequence[bytes]:
        chunks, places = reply.chunks, reply.places
        if is_run(reply.sequences) and chunks[0] == chunks[-1]:  # a chunk has consecutive numbers
            only = found.get(chunks[0]) or self._bodies.get(chunks[0])
            assert only is not None, f"chunk {chunks[0]} is neither stored nor kept"
            return only[places[0] : places[-1] + 1]
        known = {
            chunk: found.get(chunk) or self._bodies.get(chunk) for chunk in dict.fromkeys(chunks)
        }
        messages = []
        for chunk, place in zip(chunks, places, strict=True):
            stored = known[chunk]
            assert stored is not None, f"chunk {chunk} is neither stored nor kept"
            messages.append(stored[place])
        return messages

    def _undo(self, call: Call) -> None:
        """Take back an accept or a receive whose caller has gone (BAT-9, SES-15)."""
        command = _undoing(call)
        if command is not None:
            self._reserved.append(Call(command, None, 0, _COMMAND_BYTES))
            self._inbox_bytes += _COMMAND_BYTES
            self._bell.set()

    # --- the end -----------------------------------------------------------------------------------

    def _fail(self, round_: _Round, error: LockstepError) -> None:
        self._failure = error
        for call, refused in round_.finished:
            _refuse(call, refused or error)
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


def _found_nothing(reply: object) -> bool:
    return isinstance(reply, NoneAvailable) or (
        isinstance(reply, Delivered) and not reply.sequences
    )


def _place_of(call: Call) -> Place:
    reply, command = call.reply, call.command
    match reply:
        case NoneAvailable(entity=entity):
            return Place(entity)
        case Delivered(entity=entity):
            assert isinstance(command, Receive)
            session_id = command.session.session_id if command.session else None
            return Place(entity, session_id, command.dead_letter)
        case _:
            raise AssertionError(f"{type(reply).__name__} does not wait")


def _undoing(call: Call) -> Command | None:
    reply, command = call.reply, call.command
    if isinstance(command, Accept) and isinstance(reply, Accepted):
        if command.request is not None:
            return Cancel(command.entity, command.request)
        return ReleaseSession(command.entity, reply.session)
    if isinstance(command, Receive) and isinstance(reply, Delivered) and reply.sequences:
        if command.request is not None:
            return Cancel(command.entity, command.request)
        session: SessionLock | None = command.session
        release = Settlement(Outcome.RELEASE, reply.grant, reply.sequences)
        return Settle(command.entity, command.dead_letter, session, (release,))
    return None
