"""After the storm: how soon everything is served again, and whether all of it is there.

Here belong the bounds of time after the last fault, and the last look at everything. Never here: the storm (`chaos`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from lockstep.core.errors import LockstepError, NoSessionAvailable
from lockstep.core.ids import PartitionId
from lockstep.core.invariants import check_partition
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.simcluster.clients import JOBS, ORDERS, SESSIONS, Client, GaveUp, home_of
from tests.simcluster.nodes import PARTITIONS, TTL_MS, World
from tests.simcluster.people import PlainWorker, Sender, settlement, tokens_of
from tests.simcluster.processes import sleep_ms

OWNED_MS = 5 * TTL_MS
"""In which every partition has an owner again: the end of a lease, the wait for nodes that come, and slow commits."""
DRAINED_MS = 60_000
"""In which everything is received: locks of clients that have gone last 5 s, and 8 s after an outage."""
SERVED_MS = 2000
"""In which who waits gets what there is."""
_DEFINED_MS = 9000  # a commit that the storm made slow takes 6 s
_ENDING_MS = 60_000
_LOCKED_MS = 20_000
_LOOK_MS = 100


class Calm:
    """The end of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._trial = world.trial
        self._check = world.trial.check
        self._drainers = [
            _Drainer(world, f"drainer{n}", front)
            for n, front in enumerate([*sorted(world.frontends)] * 2)
        ]
        self._collector = PlainWorker(world, "collector")

    async def run(self, storm: Sequence[asyncio.Task[None]]) -> None:
        """Look at everything, once those who took part in the storm have ended."""
        tasks = [self._world.loop.create_task(drainer.run()) for drainer in self._drainers]
        await self._becomes("no owner", OWNED_MS, self._without_owner)
        await self._becomes("ADD-12: a definition is missing", _DEFINED_MS, self._undefined)
        await self._becomes("a directory is wrong", _DEFINED_MS, self._misdirected)
        _, late = await asyncio.wait(storm, timeout=_ENDING_MS)
        self._check(not late, "a client never got an answer")
        await self._drain()
        for drainer in self._drainers:
            drainer.is_done = True
        await asyncio.wait(tasks)
        for task in tasks:
            task.result()
        await self._becomes("SES-20: a lock did not end", _LOCKED_MS, self._held)
        await self._see_hints_arrive()
        await self._count()
        for partition in range(PARTITIONS):
            node = self._world.owner_of(PartitionId(partition))
            if node is not None:
                check_partition(node.supervisor._actors[PartitionId(partition)].partition)

    async def _becomes(self, what: str, within_ms: int, wrong: Callable[[], Any]) -> None:
        """See that something is right within a time."""
        found = wrong()
        for _ in range(within_ms // _LOOK_MS):
            if not found:
                return
            await sleep_ms(_LOOK_MS)
            found = wrong()
        self._check(not found, f"{what} for {within_ms} ms after the last fault:", found)

    # --- who owns what -----------------------------------------------------------------------------

    def _without_owner(self) -> list[int]:
        numbers = map(PartitionId, range(PARTITIONS))
        return [number for number in numbers if self._world.owner_of(number) is None]

    def _undefined(self) -> list[Any]:
        """Return partitions that hold something else than the catalogue says (ADD-12)."""
        wrong: list[Any] = []
        wanted: dict[int, int] | None = None
        for number in map(PartitionId, range(PARTITIONS)):
            node = self._world.owner_of(number)
            if node is None:
                return [number]
            partition = node.supervisor._actors[number].partition
            if partition.catalogue is not None and number == 0:
                wanted = {d.number: d.revision for d in partition.catalogue.queues.values()}
            queues = partition.queues_by_number.values()
            held = {queue.number: queue.definition.revision for queue in queues}
            if held != wanted:
                wrong.append((number, held, wanted))
        return wrong

    def _misdirected(self) -> list[Any]:
        """Return where front ends look for partitions in vain."""
        wrong = []
        for name, front in sorted(self._world.frontends.items()):
            placements = front.directory.placements()
            for number in map(PartitionId, range(PARTITIONS)):
                node, placed = self._world.owner_of(number), placements.get(number)
                if node is None or placed is None or placed.node != node.name:
                    wrong.append((name, number, placed.node if placed else None))
        return wrong

    def _held(self) -> list[Any]:
        """Return the sessions that somebody has."""
        books = [court.ledger.books[number] for number, court in enumerate(self._world.courts)]
        return [
            place for book in books for place, row in book.sessions.items() if row.locked_until_ms
        ]

    # --- everything is received --------------------------------------------------------------------

    async def _drain(self) -> None:
        loop = self._world.loop
        ends_ms = loop.time() + DRAINED_MS
        runnable_since_ms = dict.fromkeys(range(PARTITIONS), loop.time())
        while loop.time() < ends_ms:
            await self._collect(JOBS.name)
            await self._collect(f"{JOBS.name}/$DeadLetterQueue")
            await self._collect(f"{ORDERS.name}/$DeadLetterQueue")
            if not any(
                court.ledger.books[n].messages for n, court in enumerate(self._world.courts)
            ):
                return
            for _ in range(5):
                await sleep_ms(_LOOK_MS)
                self._see_nobody_is_forgotten(runnable_since_ms)
        left = {n: sorted(c.ledger.books[n].messages) for n, c in enumerate(self._world.courts)}
        self._check(False, "I-1: stored, but not received", left)

    def _see_nobody_is_forgotten(self, since_ms: dict[int, float]) -> None:
        """No session is offered while somebody waits (SES-14, design section 5)."""
        now_ms = self._world.loop.time()
        for number in range(PARTITIONS):
            node = self._world.owner_of(PartitionId(number))
            partition = node.supervisor._actors[PartitionId(number)].partition if node else None
            queue = partition.queues.get(ORDERS) if partition is not None else None
            if queue is None or not queue.runnable:
                since_ms[number] = now_ms
            begun_ms = max(since_ms[number], *(d.waits_since_ms for d in self._drainers))
            is_forgotten = now_ms - begun_ms > SERVED_MS
            self._check(not is_forgotten, "a hint was lost: nobody takes from", number)

    async def _collect(self, path: str) -> None:
        try:
            while True:
                got = await self._collector.receive(path, most=100)
                if not got.sequence_numbers:
                    return
                await self._collector.settle(path, "complete", tokens_of(got))
        except (GaveUp, LockstepError) as error:
            self._check(False, "in the calm, a call was refused:", path, repr(error))

    async def _see_hints_arrive(self) -> None:
        """Whoever waits at any front end is served as soon as there is something, wherever it is."""
        world, sender = self._world, Sender(self._world, "last")
        for partition in range(PARTITIONS):
            there = [name for name in SESSIONS if home_of(ORDERS, name) == partition]
            waiting = []
            for number, front in enumerate(sorted(world.frontends)):
                client = _Drainer(world, f"waiter{partition}-{number}", front)
                waiting.append(world.loop.create_task(client.take_one(8000)))
            await sleep_ms(300)
            for session_id, front in zip(there, sorted(world.frontends, reverse=True), strict=True):
                await sender.send(ORDERS, [sender.letter(session_id)], at=front)
            _, late = await asyncio.wait(waiting, timeout=SERVED_MS)
            self._check(not late, "a hint was lost: nobody was told of", there)
            for task in waiting:
                task.cancel() if task in late else task.result()

    async def _count(self) -> None:
        """I-9: the sums over all partitions are those of what is stored: nothing."""
        for queue in (ORDERS, JOBS):
            request = admin.GetQueueRequest(name=queue.name)
            try:
                got = await self._collector.ask("GetQueue", request, admin.GetQueueResponse)
            except (GaveUp, LockstepError) as error:
                self._check(False, "in the calm, a call was refused:", queue, repr(error))
                return
            left = got.runtime.active_messages + got.runtime.dead_letter_messages
            self._check(not left, "I-9: counted", queue, got.runtime)


class _Drainer(Client):
    """Takes sessions until nothing is left.

    Attributes:
        is_done: Whether it may end.
        waits_since_ms: Since when it waits for a session; the present while it does not.
    """

    def __init__(self, world: World, name: str, front: str) -> None:
        super().__init__(world, name)
        self._front = front
        self._began_ms: float | None = None
        self.is_done = False

    @property
    def waits_since_ms(self) -> float:
        """Since when it waits; now = it does not."""
        return self._began_ms if self._began_ms is not None else self.world.loop.time()

    async def run(self) -> None:
        """Take sessions, and complete all that is in them."""
        while not self.is_done:
            try:
                await self.take_one(4000)
            except NoSessionAvailable:
                continue
            except (GaveUp, LockstepError):
                await sleep_ms(200)

    async def take_one(self, wait_ms: int) -> None:
        """Take one session, and complete all that is in it."""
        self._began_ms = self.world.loop.time()
        try:
            got = await self.accept(ORDERS, wait_ms=wait_ms, at=self._front)
        finally:
            self._began_ms = None
        while True:
            receive = messaging.ReceiveMessagesRequest(
                entity=ORDERS.name,
                request_id=self.request_id(),
                session=got.session,
                max_messages=100,
                mode=messaging.RECEIVE_MODE_PEEK_LOCK,
            )
            receive.max_wait.SetInParent()  # not at all
            some = await self.ask("ReceiveMessages", receive, messaging.ReceiveMessagesResponse)
            if not some.sequence_numbers:
                break
            settle = messaging.SettleMessagesRequest(
                entity=ORDERS.name, request_id=self.request_id(), session=got.session
            )
            settle.settlements.append(settlement("complete", numbers=list(some.sequence_numbers)))
            await self.ask("SettleMessages", settle, messaging.SettleMessagesResponse)
        release = messaging.ReleaseSessionRequest(
            entity=ORDERS.name, request_id=self.request_id(), session=got.session
        )
        await self.ask("ReleaseSession", release, messaging.ReleaseSessionResponse)
