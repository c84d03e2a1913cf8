"""What one round of a partition does: it steps every call that has gathered, and whoever that wakes.

Here belongs the order in which the calls of a round are stepped. Never here: commits, replies and inboxes
(`owner.actor`). The laws: what a holder asked counts from when it came; who waits is served before who comes
(SES-14); after a step, those it wakes are served in the same round; nothing takes the processor for long, however much
becomes due at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from operator import itemgetter

from lockstep.core.changes import Change
from lockstep.core.commands import (
    Accept,
    Browse,
    Command,
    CreateQueue,
    DeleteQueue,
    Explain,
    GetRuntime,
    GetSession,
    GiveUp,
    ListSessions,
    Receive,
    ReceiveDeferred,
    Send,
    Tick,
    UpdateQueue,
)
from lockstep.core.decision import Event, Wake
from lockstep.core.entity import ON_RECEIVE
from lockstep.core.errors import LockstepError, ServerBusy
from lockstep.core.ids import EntityKey
from lockstep.core.partition import Partition
from lockstep.core.replies import Delivered, NoneAvailable
from lockstep.owner.answers import Contents, found_nothing
from lockstep.owner.observer import Observer
from lockstep.owner.waiters import Call, Place, Waiters
from lockstep.runtime.clock import Clock

# Refused for load; everything else, what holders ask above all, has the reserved lane (ADD-14).
REFUSABLE = (
    Send,
    Accept,
    Receive,
    ReceiveDeferred,
    Browse,
    CreateQueue,
    UpdateQueue,
    DeleteQueue,
    GetRuntime,
    GetSession,
    ListSessions,
    Explain,
)
BUSY_RETRY_MS = 100
_SUBJECTS_MAX = 256  # looked at before others have the processor; about 5 ms
_WAKES_MAX = 256


@dataclass(slots=True)
class Round:
    """What one round has gathered."""

    now_ms: int
    contents: Contents
    taken: list[Call] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    wake: dict[Wake, None] = field(default_factory=dict)
    woken: dict[Wake, None] = field(default_factory=dict)  # those that were served
    finished: list[tuple[Call, LockstepError | None]] = field(default_factory=list)


class Stepper:
    """Steps the rounds of one partition, one after the other."""

    def __init__(
        self,
        partition: Partition,
        waiters: Waiters,
        observer: Observer,
        clock: Clock,
        waiters_max: int,
    ) -> None:
        self._partition = partition
        self._clock = clock
        self._waiters = waiters
        self._observer = observer
        self._waiters_max = waiters_max

    async def step_all(self, round_: Round) -> None:
        """Step the calls that the round has taken, those whose time has come, and those that are woken.

        Others have the processor now and then, between steps: what they ask meanwhile belongs to the next round.
        """
        calls = round_.taken
        due = self._waiters.due(round_.now_ms)
        if self._partition.is_due(round_.now_ms):
            calls = await self._step_holders_in_time(round_, due)
            round_.now_ms = max(round_.now_ms, self._partition.last_time_ms)
        await self._tick_while_due(round_, round_.now_ms)
        for call in calls:
            if not call.is_abandoned:
                self._serve_who_waits_for_the_same(call, round_)
                self._step(call, round_)
        for call in due:
            self._look_at_waiter(call, round_)
        await self._serve_the_woken(round_)

    async def _serve_the_woken(self, round_: Round) -> None:
        served = 0
        while round_.wake:
            wake = next(iter(round_.wake))
            del round_.wake[wake]
            round_.woken[wake] = None
            for place in self._waiters.places(wake):
                self._serve(place, round_)
            served += 1
            if served % _WAKES_MAX == 0:
                await self._clock.sleep(0)

    async def _step_holders_in_time(self, round_: Round, due: list[Call]) -> list[Call]:
        """Step what holders asked at the times they asked it, and return the other calls.

        So a lock does not run out because its renewal gathered behind a slow commit (RACE-3).
        """
        calls = [(c.look_at_ms, c) for c in due if c.refresh_every_ms]
        in_time: list[Call] = []
        others: list[Call] = []
        for call in round_.taken:
            (in_time if self._counts_from_arrival(call, round_) else others).append(call)
        calls += [(call.arrived_ms, call) for call in in_time]
        for came_ms, call in sorted(calls, key=itemgetter(0)):
            at_ms = max(came_ms, self._partition.last_time_ms)
            await self._tick_while_due(round_, at_ms)
            if not call.is_abandoned:
                self._step(call, round_, at_ms)
        return others

    def _counts_from_arrival(self, call: Call, round_: Round) -> bool:
        """Whether a holder asks this to keep or use its lock; of receives only those that make it last until now."""
        command = call.command
        if not isinstance(command, Receive):
            return not isinstance(command, REFUSABLE)
        queue = self._partition.queues.get(command.entity)
        if command.session is None or queue is None:
            return False
        if command.request is not None and self._partition.requests.peek(command.request):
            return False  # a repeat makes nothing last longer
        settings = queue.definition.settings
        ends_ms = call.arrived_ms + settings.lock_duration_ms
        return settings.session_lock_extension == ON_RECEIVE and ends_ms > round_.now_ms

    async def _tick_while_due(self, round_: Round, now_ms: int) -> None:
        while self._partition.is_due(now_ms):
            self._step(_own_call(Tick(_SUBJECTS_MAX), round_), round_, now_ms)
            if self._partition.is_due(now_ms):
                await self._clock.sleep(0)

    def _serve_who_waits_for_the_same(self, call: Call, round_: Round) -> None:
        """Serve those who wait before a newcomer who could take what this round brought them (SES-14)."""
        command = call.command
        match command:
            case Accept(session_id=None) | Receive(session=None):
                queue = self._partition.queues.get(command.entity)
            case _:
                return
        if queue is None:
            return
        wake = Wake(queue.number, dead_letter=isinstance(command, Receive) and command.dead_letter)
        if wake in round_.wake:
            for place in self._waiters.places(wake):
                self._serve(place, round_)

    def _step(self, call: Call, round_: Round, now_ms: int = 0) -> None:
        now_ms = now_ms or round_.now_ms
        command = call.command
        if isinstance(command, Explain):
            waiting = command.waiting + self._waiting_on(command.entity)
            command = replace(command, waiting=waiting)
        try:
            decision = self._partition.step(command, now_ms)
        except LockstepError as error:
            self._waiters.leave(call)
            self._observer.refused(self._partition, call.command, error)
            round_.finished.append((call, error))
            return
        call.reply = decision.reply
        call.state = round_.contents.want(decision.reply)
        round_.contents.note(decision.changes)
        round_.changes.extend(decision.changes)
        round_.events.extend(decision.events)
        round_.wake.update(dict.fromkeys(decision.wake))
        if call.deadline_ms > round_.now_ms and found_nothing(decision.reply):
            self._park(call, round_)
            return
        self._finish(call, round_, now_ms)

    def _waiting_on(self, entity: EntityKey) -> int:
        """Return how many receivers wait on a queue that hold no session of it."""
        queue = self._partition.queues.get(entity)
        return self._waiters.count_free(queue.number) if queue is not None else 0

    def _finish(self, call: Call, round_: Round, now_ms: int) -> None:
        """Let a call wait no more and be answered with its last reply."""
        self._waiters.leave(call)
        round_.finished.append((call, None))
        command = call.command
        if call.asks_only:
            return
        if isinstance(command, Accept | Receive) and command.request and found_nothing(call.reply):
            kind = "accept" if isinstance(command, Accept) else "receive"
            given_up = GiveUp(command.entity, command.request, command.fingerprint, kind)
            self._step(_own_call(given_up, round_), round_, now_ms)

    def _park(self, call: Call, round_: Round) -> None:
        place = _place_of(call)
        if call.place is None and self._waiters.count(place.entity) >= self._waiters_max:
            most = self._waiters_max
            error = ServerBusy(
                f"{most} calls wait on this queue already, the most that is allowed. Nothing was done. Use fewer"
                " receivers, or longer waits.",
                details={
                    "limit": "waiters_max",
                    "configured": str(most),
                    "observed": str(most + 1),
                },
                retry_after_ms=BUSY_RETRY_MS,
            )
            round_.finished.append((call, error))
            return
        if place.session_id is not None:
            queue = self._partition.queues_by_number[place.entity]
            call.refresh_every_ms = queue.definition.settings.lock_duration_ms // 2
        self._waiters.park(call, place, round_.now_ms)

    def _look_at_waiter(self, call: Call, round_: Round) -> None:
        if call.place is None:
            return
        if call.is_abandoned:
            self._waiters.leave(call)
        elif call.deadline_ms <= round_.now_ms:
            self._finish(call, round_, round_.now_ms)
        else:
            self._step(call, round_)

    def _serve(self, place: Place, round_: Round) -> None:
        """Try the calls that wait at a place, in their order, until one finds nothing."""
        while (call := self._waiters.first(place)) is not None:
            if call.is_abandoned:
                self._waiters.leave(call)
                continue
            self._step(call, round_)
            if call.place == place:
                return


def _own_call(command: Command, round_: Round) -> Call:
    """Return a call that nobody waits for."""
    return Call(command, None, 0, 0, round_.now_ms)


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
