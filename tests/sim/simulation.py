"""One run: a cluster, its clients and its faults, from a seed to a verdict.

First the storm: everything happens at once. Then the calm: a new owner alone, no faults; whatever was
acknowledged must now be there and reachable.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from lockstep.core.commands import CreateQueue
from lockstep.core.entity import SettingValue
from lockstep.core.errors import LockstepError
from lockstep.core.ids import PartitionId
from lockstep.core.limits import Limits
from lockstep.core.snapshot import restore_partition
from tests.properties.dump import durable
from tests.sim.calm import drain
from tests.sim.clients import Client, GaveUp, Sender, World
from tests.sim.cluster import PARTITIONS, Cluster
from tests.sim.faults import Faults, draw_faults
from tests.sim.ledger import Ledger
from tests.sim.network import Network
from tests.sim.referee import Referee
from tests.sim.store import Disk
from tests.sim.trial import Trial
from tests.sim.virtual_time import Stuck, VirtualLoop, sleep_ms
from tests.sim.witness import Witness
from tests.sim.workers import Administrator, PlainWorker, SessionWorker

STORM_MS = (15_000, 45_000)
LIMITS = Limits(outage_grace_ms=4000, requests_per_client_max=24)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one run ended.

    Attributes:
        seed: Its seed.
        failure: What went wrong; None = nothing.
        trace_hash: Equal for equal runs.
        last: The last events.
        seen: How often each kind of fault and command occurred.
        steps: How many steps were committed and judged.
    """

    seed: int
    failure: str | None
    trace_hash: str
    last: tuple[str, ...]
    seen: Counter[str]
    steps: int

    def explain(self) -> str:
        """Return what a person needs to look into a failure."""
        events = "\n".join(self.last)
        return (
            f"seed {self.seed} failed: {self.failure}\n{events}\n"
            f"trace {self.trace_hash}; replay it with: make simulate SEED={self.seed}"
        )


class Simulation:
    """The parts of one run."""

    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        self.trial = Trial(seed, loop)
        self.faults = draw_faults(self.trial.random)
        referee = Referee(self.trial.check, LIMITS.outage_grace_ms)
        self.ledger = Ledger(self.trial, referee, PARTITIONS)
        self.disk = Disk(self.trial, self.ledger, Faults())
        self.cluster = Cluster(self.disk, LIMITS)
        self.witness = Witness(self.trial, self.ledger)
        self.network = Network(self.trial, self.cluster, self.witness)
        self.world = World(self.trial, self.network, self.ledger)
        self._tasks: list[asyncio.Task[Any]] = []

    async def run(self) -> None:
        """Let the storm and the calm happen, unless something fails before."""
        main = self.trial.loop.create_task(self._happen())
        await asyncio.wait([main, self.trial.failed], return_when=asyncio.FIRST_COMPLETED)
        if main.done() and not main.cancelled() and main.exception() is not None:
            self.trial.check(False, "the simulation itself failed:", repr(main.exception()))
        main.cancel()
        await self._end_all(main)

    async def _happen(self) -> None:
        await self._define()
        self.disk.faults = self.faults
        self.trial.note("storm", "begins", self.faults)
        storm = [self._go(task) for task in self._storm()]
        chaos = self._go(self.cluster.chaos())
        self._go(self.cluster.watch())
        await sleep_ms(self.trial.random.uniform(*STORM_MS))
        self.world.is_calm = self.cluster.is_calm = self.network.is_calm = True
        self.disk.faults = Faults()
        await asyncio.wait([*storm, chaos])
        for task in (*storm, chaos):
            task.result()
        await self._calm()

    def _go(self, what: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.trial.loop.create_task(what)
        self._tasks.append(task)
        return task

    def _storm(self) -> list[Coroutine[Any, Any, None]]:
        world, random = self.world, self.trial.random
        people: list[Sender | SessionWorker | PlainWorker | Administrator] = [
            *(Sender(world, f"sender{n}") for n in range(random.randint(1, 2))),
            *(SessionWorker(world, f"worker{n}") for n in range(random.randint(2, 4))),
            PlainWorker(world, "plain", dead_letter=False),
            PlainWorker(world, "reader", dead_letter=True),
            Administrator(world, "admin"),
        ]
        return [person.run() for person in people]

    async def _define(self) -> None:
        random = self.trial.random
        client = Client(self.world, "setup")
        common: dict[str, SettingValue] = {
            "lock_duration_ms": 5000,
            "max_delivery_count": random.choice((2, 3, 10)),
        }
        extension = random.choice(("on_receive", "off"))
        queues: dict[str, dict[str, SettingValue]] = {
            "orders": {"requires_session": True, "session_lock_extension": extension},
            "jobs": {"requires_session": False},
        }
        for name, special in queues.items():
            create = CreateQueue("default", name, {**common, **special}, name, client.request(), 1)
            while True:
                try:
                    await client.ask(PartitionId(0), create)
                    break
                except (GaveUp, LockstepError):
                    await sleep_ms(50)

    async def _calm(self) -> None:
        trial = self.trial
        trial.note("calm", "begins")
        await sleep_ms(2000)
        self._check_definitions()
        await self.cluster.settle()
        self._check_store()
        await sleep_ms(15_000)  # every lock and every grace is over
        await drain(self.cluster, trial)
        self._check_store()

    def _check_definitions(self) -> None:
        """ADD-12: with the owner open and nothing under way, partitions hold what the catalogue has."""
        node = self.cluster.current
        actors = [node.actor(PartitionId(number)) for number in range(PARTITIONS)]
        if not node.is_ready or any(a is None or a._failure for a in actors):
            return
        first = actors[0]
        assert first is not None
        assert first.partition.catalogue is not None
        wanted = {d.number: d.revision for d in first.partition.catalogue.queues.values()}
        for number, actor in enumerate(actors):
            assert actor is not None
            queues = actor.partition.queues_by_number.values()
            held = {queue.number: queue.definition.revision for queue in queues}
            self.trial.check(held == wanted, "ADD-12: partition", number, held, "not", wanted)

    def _check_store(self) -> None:
        """The owner's memory, and a partition restored from the store, agree in all that must last."""
        for number in range(PARTITIONS):
            actor = self.cluster.current.actor(PartitionId(number))
            self.trial.check(actor is not None, "partition", number, "is not open in the calm")
            if actor is None:
                return
            now_ms = actor.partition.last_time_ms
            opening = self.disk.memory.open(PartitionId(number), actor._epoch)
            try:
                opening.send(None)
            except StopIteration as stop:
                restored = restore_partition(PartitionId(number), LIMITS, stop.value, now_ms)
                kept = durable(restored, reopened_ms=None)
                held = durable(actor.partition, reopened_ms=now_ms)
                self.trial.check(kept == held, "the store differs from memory:", _first(kept, held))

    async def _end_all(self, main: asyncio.Task[None]) -> None:
        for node in (self.cluster.current, *self.cluster.deposed):
            node.kill()
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(main, *tasks, return_exceptions=True)


def _first(kept: Any, held: Any, path: str = "") -> str:
    """Return where two dumps differ first."""
    if isinstance(kept, dict) and isinstance(held, dict):
        for key in [*kept, *(k for k in held if k not in kept)]:
            if kept.get(key) != held.get(key):
                return _first(kept.get(key), held.get(key), f"{path}/{key}")
    return f"{path}: stored {kept}, in memory {held}"


def simulate(seed: int) -> Verdict:
    """Run one seed. Nothing but the seed and the code decides what happens."""
    loop = VirtualLoop()
    loop.set_exception_handler(lambda _loop, _context: None)  # what matters is checked by the trial
    silenced = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        simulation = loop.run_until_complete(_made(seed, loop))
        trial = simulation.trial
        try:
            loop.run_until_complete(simulation.run())
        except Stuck as error:
            trial.check(False, str(error))
        return Verdict(
            seed,
            trial.failure,
            trial.trace_hash,
            tuple(trial.last),
            trial.seen,
            simulation.ledger.moment,
        )
    finally:
        logging.disable(silenced)
        loop.close()


async def _made(seed: int, loop: VirtualLoop) -> Simulation:
    return Simulation(seed, loop)
