"""What is left when the load has ended: counted, looked at, and received to the last message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from lockstep.aio import LockstepClient, MessageState
from lockstep.errors import LockstepError, NoSessionAvailable
from lockstep.runtime.clock import SystemClock
from tests.faults.history import NEVER_MS, Item, Kind, Recorder
from tests.faults.recording import HeldByUs, RecordedClient, items_of

DRAIN_MS = 30_000
_DRAINERS = 3
_AT_ONCE = 100
_clock = SystemClock()
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Counts:
    """What the broker says that a queue holds."""

    active: int = 0
    deferred: int = 0
    dead: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Contents:
    """A queue that rests: what it is said to hold, and what a look at it shows.

    Attributes:
        deferred: The sequence numbers of those that were set aside, out of `items`.
    """

    counts: Counts
    items: tuple[Item, ...] = ()
    deferred: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended.

    Attributes:
        healed_ms: When the last fault was over.
        drained_ms: When all queues were empty; NEVER_MS = they did not get so in time.
        before: What was left by the load, by queue.
        after: What was left by the drain.
    """

    healed_ms: int
    drained_ms: int
    before: Mapping[str, Contents]
    after: Mapping[str, Counts]


class Drain:
    """Empties the queues of a run, and says what it found."""

    def __init__(
        self, client: LockstepClient, recorder: Recorder, queues: Mapping[str, bool], healed_ms: int
    ) -> None:
        """Prepare; `queues` says of each whether it has sessions."""
        self._client = client
        self._recorder = recorder
        self._queues = queues
        self._healed_ms = healed_ms
        self._before: dict[str, Contents] = {}
        self._after: dict[str, Counts] = {}
        self._ending = asyncio.Event()

    @property
    def _is_late(self) -> bool:
        return _clock.monotonic_ms() > self._healed_ms + DRAIN_MS

    async def run(self) -> Ending:
        """Look, then receive everything; what takes too long is left."""
        for queue in self._queues:
            self._before[queue] = await self._patiently(partial(self._look, queue))
        drained_ms = NEVER_MS
        async with asyncio.TaskGroup() as tasks:
            for number in range(_DRAINERS):
                tasks.create_task(self._drain(number))
            while not self._is_late:
                for queue in self._queues:
                    self._after[queue] = await self._patiently(partial(self._count, queue))
                if not any(counts.total for counts in self._after.values()):
                    drained_ms = _clock.monotonic_ms()
                    break
                await _clock.sleep(200)
            self._ending.set()
        return Ending(self._healed_ms, drained_ms, self._before, self._after)

    async def _patiently(self, ask: Callable[[], Awaitable[_Result]]) -> _Result:
        while True:
            try:
                return await ask()
            except LockstepError:
                if self._is_late:
                    raise
            await _clock.sleep(200)

    # --- looking ---------------------------------------------------------------------------------

    async def _count(self, queue: str) -> Counts:
        administration = self._client.get_administration_client()
        told = await administration.get_queue_runtime_properties(queue)
        return Counts(
            told.active_message_count,
            told.deferred_message_count,
            told.dead_letter_message_count,
            told.total_message_count,
        )

    async def _look(self, queue: str) -> Contents:
        """Look at a queue between two equal counts: nothing that was under way has its effect meanwhile."""
        while True:
            counts = await self._count(queue)
            receiver = self._client.get_queue_receiver(queue)
            items: list[Item] = []
            deferred: set[int] = set()
            while page := await receiver.peek_messages(_AT_ONCE):
                items += items_of(page)
                deferred |= {
                    one.sequence_number for one in page if one.state is MessageState.DEFERRED
                }
            await receiver.close()
            if await self._count(queue) == counts or self._is_late:
                return Contents(counts, tuple(items), frozenset(deferred))

    # --- receiving -------------------------------------------------------------------------------

    async def _drain(self, number: int) -> None:
        us = RecordedClient(self._client, self._recorder, f"drain-{number}")
        turn = 0
        while not self._ending.is_set():
            for queue, has_sessions in self._queues.items():
                try:
                    if not has_sessions:
                        await self._drain_plain(us, queue)
                    elif turn % 2:
                        await self._drain_deferred(us, queue, number)
                    else:
                        await self._drain_next(us, queue)
                except LockstepError:
                    await _clock.sleep(100)
            turn += 1

    async def _drain_plain(self, us: RecordedClient, queue: str) -> None:
        receiver = us.receiver(queue)
        while messages := await us.receive(receiver, queue, _AT_ONCE, 0):
            await us.settle(Kind.COMPLETE, queue, receiver.complete_messages(messages), messages)

    async def _drain_next(self, us: RecordedClient, queue: str) -> None:
        while not self._ending.is_set():
            try:
                held = await us.accept(queue, None, 0.5)
            except NoSessionAvailable:
                return
            await self._empty(held)

    async def _drain_deferred(self, us: RecordedClient, queue: str, number: int) -> None:
        """Receive what nobody is offered any more (SES-12); a look at the session shows its numbers."""
        left = await self._look(queue)
        sessions = {item.session_id for item in left.items if item.sequence in left.deferred}
        for session_id in sorted(sessions)[number::_DRAINERS]:
            await self._empty(await us.accept(queue, session_id, 0))

    async def _empty(self, held: HeldByUs) -> None:
        try:
            while messages := await held.receive(_AT_ONCE, 0):
                await held.complete(messages)
            seen = await held.receiver.peek_messages(_AT_ONCE)
            deferred = [one.sequence_number for one in seen if one.state is MessageState.DEFERRED]
            if deferred:
                await held.complete(await held.receive_deferred(deferred))
        finally:
            await held.release()
