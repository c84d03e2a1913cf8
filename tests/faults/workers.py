"""Programs that use a cluster all the time: senders and receivers, of sessions and of a plain queue.

What a worker does by chance follows from its name. An error ends a turn of it, never the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from lockstep.aio import LockstepClient, ReceivedMessage
from lockstep.core.ids import EntityKey
from lockstep.core.placement import partition_of_session
from lockstep.errors import EntityNotFound, LockstepError
from lockstep.runtime.clock import SystemClock
from tests.faults.history import Item, Kind, Recorder
from tests.faults.recording import HeldByUs, RecordedClient

LOCK_S = 5
PARTITIONS = 8
ORDERS = "orders"
PLAIN = "plain"
_SESSIONS_EACH = 2
_PAUSE_MS = (10, 60)
_BETWEEN_DEFINITIONS_MS = 300
_OVERSLEEP_MS = LOCK_S * 1000 + 1_500


@dataclass(frozen=True, slots=True)
class Crew:
    """How many of each kind there are in a process."""

    senders: int = 2
    session_receivers: int = 3
    plain_senders: int = 1
    plain_receivers: int = 1
    definers: int = 1


def sessions_everywhere(queue: str, partitions: int) -> list[str]:
    """Return session ids of which some live on each partition, so that no fault goes unnoticed."""
    found: dict[int, list[str]] = {number: [] for number in range(partitions)}
    for number in itertools.count(1):
        session_id = f"s{number}"
        of_partition = found[
            partition_of_session(EntityKey("default", queue), session_id, partitions)
        ]
        if len(of_partition) < _SESSIONS_EACH:
            of_partition.append(session_id)
        if all(len(some) == _SESSIONS_EACH for some in found.values()):
            break
    return [session_id for some in found.values() for session_id in some]


@dataclass(slots=True)
class Load:
    """What the workers of a process share.

    Attributes:
        address: Of the front ends.
        prefix: Begins the names of queues and of workers, so that a run has its own.
        ending: Set when the workers are to end their turns and stop.
    """

    address: str
    prefix: str
    who: str
    recorder: Recorder
    ending: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def orders(self) -> str:
        return f"{self.prefix}-{ORDERS}"

    @property
    def plain(self) -> str:
        return f"{self.prefix}-{PLAIN}"


async def work(load: Load, crew: Crew) -> None:
    """Let all workers of a crew work until the load ends."""
    kinds = (
        (crew.senders, "sender", _Worker.send_orders),
        (crew.session_receivers, "receiver", _Worker.handle_session),
        (crew.plain_senders, "plain-sender", _Worker.send_plain),
        (crew.plain_receivers, "plain-receiver", _Worker.handle_plain),
        (crew.definers, "definer", _Worker.define_queue),
    )
    async with asyncio.TaskGroup() as tasks:
        for count, role, turn in kinds:
            for number in range(1, count + 1):
                worker = _Worker(load, f"{load.who}-{role}-{number}")
                tasks.create_task(worker.run(turn))


class _Worker:
    def __init__(self, load: Load, name: str) -> None:
        self._load = load
        self._name = name
        self._chance = random.Random(name)
        self._sessions = sessions_everywhere(load.orders, PARTITIONS)
        self._numbers = itertools.count(1)
        self._doubts = 0
        self._clock = SystemClock()
        self._client: RecordedClient | None = None

    async def run(self, turn: Callable[[_Worker], Awaitable[None]]) -> None:
        async with self._connected():
            while not self._load.ending.is_set():
                try:
                    await turn(self)
                except LockstepError:  # it was noted by who met it
                    await self._clock.sleep(100)
                await self._clock.sleep(self._chance.randint(*_PAUSE_MS))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        async with LockstepClient(self._load.address) as client:
            self._client = RecordedClient(client, self._load.recorder, self._name)
            yield

    @property
    def _us(self) -> RecordedClient:
        assert self._client is not None
        return self._client

    def _new_item(self, session_id: str = "") -> Item:
        return Item(f"{self._load.prefix}:{self._name}:{next(self._numbers)}", session_id)

    # --- sending ---------------------------------------------------------------------------------

    async def send_orders(self) -> None:
        """Send a batch over one to three sessions; once in a while, what failed again as something new."""
        chosen = self._chance.sample(self._sessions, self._chance.randint(1, 3))
        items = [
            self._new_item(session_id)
            for session_id in chosen
            for _ in range(self._chance.randint(1, 3))
        ]
        await self._send(self._load.orders, items)

    async def send_plain(self) -> None:
        items = [self._new_item() for _ in range(self._chance.randint(1, 4))]
        await self._send(self._load.plain, items)

    async def _send(self, queue: str, items: Sequence[Item]) -> None:
        try:
            await self._us.send(queue, items)
        except LockstepError:
            if self._chance.random() < 0.5:
                raise
            await self._us.send(queue, items)  # another call: it may store them twice

    # --- receiving -------------------------------------------------------------------------------

    async def handle_session(self) -> None:
        """Hold the next session for a while, or some session."""
        chosen = self._chance.choice(self._sessions) if self._chance.random() < 0.2 else None
        held = await self._us.accept(self._load.orders, chosen, 1)
        try:
            await self._work_on(held)
        finally:
            await held.release()

    async def _work_on(self, held: HeldByUs) -> None:
        for _ in range(self._chance.randint(1, 3)):
            messages = await held.receive(self._chance.randint(1, 8), 0.3)
            if self._chance.random() < 0.3:
                outputs = [
                    self._new_item(held.session_id) for _ in range(self._chance.randint(0, 2))
                ]
                await held.take_turn(messages, outputs, f"{self._name}.{next(self._numbers)}")
                continue
            if self._chance.random() < 0.5:
                await held.count_up(f"{self._name}.{next(self._numbers)}")
            await self._decide(held, messages)
        what = self._chance.random()
        if what < 0.2:
            await held.renew()
        elif what < 0.4:
            await held.look_at_state()

    async def _decide(self, held: HeldByUs, messages: list[ReceivedMessage]) -> None:
        if not messages:
            return
        what = self._chance.random()
        cut = self._chance.randint(0, len(messages) - 1)
        if what < 0.70:
            cut = len(messages)
        elif what >= 0.97:
            await self._clock.sleep(_OVERSLEEP_MS)
            cut = len(messages)
        if cut:
            await held.complete(messages[:cut])
        rest = messages[cut:]
        if not rest or what < 0.80:  # what is not settled goes back with the session
            return
        if what < 0.90:
            await held.abandon(rest)
            return
        await held.defer(rest)
        if self._chance.random() < 0.5:
            numbers = [message.sequence_number for message in rest]
            await held.complete(await held.receive_deferred(numbers))

    # --- definitions -----------------------------------------------------------------------------

    async def define_queue(self) -> None:
        """Create a queue, use it everywhere, and delete it; the next one of its name is of the other kind."""
        queue = f"{self._load.prefix}-{self._name}-{self._doubts}"
        self._doubts += 1  # another name next time, unless all of it is known to have happened
        administration = self._us.client.get_administration_client()
        number = next(self._numbers)
        sessions = self._sessions[::_SESSIONS_EACH] if number % 2 else [""]
        create = administration.create_queue(queue, requires_session=number % 2 == 1)
        await self._us.do(Kind.DEFINE, queue, create)
        for session_id in sessions:
            await self._us.send(queue, [Item(f"{number}", session_id)], Kind.USE)
        await self._us.do(Kind.DROP, queue, administration.delete_queue(queue))
        for session_id in sessions:
            with contextlib.suppress(EntityNotFound):
                await self._us.send(queue, [Item(f"{number}", session_id)], Kind.MISS)
        self._doubts -= 1
        await self._clock.sleep(_BETWEEN_DEFINITIONS_MS)

    async def handle_plain(self) -> None:
        queue, receiver = self._load.plain, self._us.receiver(self._load.plain)
        messages = await self._us.receive(receiver, queue, self._chance.randint(1, 6), 0.5)
        if not messages:
            return
        what = self._chance.random()
        cut = self._chance.randint(0, len(messages))
        done, back = messages[:cut], messages[cut:]
        if what < 0.75:
            done, back = messages, []
        if done:
            await self._us.settle(Kind.COMPLETE, queue, receiver.complete_messages(done), done)
        if back and what < 0.95:  # else their locks run out
            await self._us.settle(Kind.ABANDON, queue, receiver.abandon_messages(back), back)
