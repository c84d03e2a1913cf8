"""One run: a cluster, its clients and its faults, from a seed to a verdict.

First the storm: everything happens at once. Then the calm: a new owner alone, no faults; whatever was
acknowledged must now be there and reachable.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from lockstep.core import sending
from lockstep.core.commands import CreateQueue
from lockstep.core.entity import SettingValue
from lockstep.core.errors import LockstepError
from lockstep.core.ids import PartitionId
from lockstep.core.limits import Limits
from lockstep.core.snapshot import restore_partition
from tests.properties.dump import durable
from tests.sim.administrators import Administrator
from tests.sim.calm import drain
from tests.sim.clients import Client, GaveUp, Sender, World
from tests.sim.cluster import PARTITIONS, Cluster
from tests.sim.faults import Faults, draw_faults
from tests.sim.known import forgiven
from tests.sim.ledger import Ledger
from tests.sim.menders import Mender
from tests.sim.movers import Mover
from tests.sim.network import Network
from tests.sim.referee import Referee
from tests.sim.refusals import Refusals
from tests.sim.scenario import Scenario
from tests.sim.standing import aside
from tests.sim.store import Disk
from tests.sim.trial import Trial
from tests.sim.virtual_time import Stuck, VirtualLoop, sleep_ms
from tests.sim.witness import Witness
from tests.sim.workers import PlainWorker, SessionWorker

STORM_MS = (15_000, 45_000)
_EXPIRING = 0.6  # of the runs
_DETECTING = 0.6
_RECALLING = 0.4
_RELEASING = 0.5  # of the queues
_GRACE_MS = 4000
_COLLECTED_AT = 50_000  # objects; a run is short, and looking for garbage often takes a tenth of it
_JOBS_MS = 300_000  # in which every job ends
_BRINGING_MS = 2000  # in which definitions reach every partition, where nothing is slow

Person = Sender | SessionWorker | PlainWorker | Administrator | Mender


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one run ended.

    Attributes:
        scenario: What was run.
        failure: What went wrong; None = nothing.
        broken: The promise that was broken, without the facts of this run.
        trace_hash: Equal for equal runs.
        last: The last events.
        seen: How often each kind of fault and command occurred.
        met: How often each command met each fault.
        struck: The faults that happened.
        people: The clients that took part.
        storm_ms: How long the storm was, or would have been.
        ended_ms: When the run ended.
        steps: How many steps were committed and judged.
    """

    scenario: Scenario
    failure: str | None
    broken: str
    trace_hash: str
    last: tuple[str, ...]
    seen: Counter[str]
    met: Counter[tuple[str, str]]
    struck: tuple[str, ...]
    people: tuple[str, ...]
    storm_ms: int
    ended_ms: int
    steps: int

    def explain(self) -> str:
        """Return what a person needs to look into a failure."""
        events = "\n".join(self.last)
        return (
            f"seed {self.scenario.seed} failed: {self.failure}\n{events}\n"
            f"trace {self.trace_hash}; replay it with:"
            f" .venv/bin/python -m tests.sim --scenario '{self.scenario.to_text()}'"
        )


class Simulation:
    """The parts of one run."""

    def __init__(self, scenario: Scenario, loop: VirtualLoop) -> None:
        self.trial = trial = Trial(scenario, loop)
        random = trial.stream("world")
        self.faults = draw_faults(random)
        limits = Limits(outage_grace_ms=_GRACE_MS, requests_per_client_max=random.choice((6, 24)))
        self.limits = limits
        self.ledger = Ledger(trial, Referee(trial.check, _GRACE_MS, PARTITIONS), PARTITIONS)
        self.disk = Disk(trial, self.ledger, Faults())
        self.cluster = Cluster(self.disk, limits)
        witness = Witness(trial, self.ledger)
        refusals = Refusals(trial, self.ledger, witness, limits.requests_per_client_max)
        self.network = Network(trial, self.cluster, witness, refusals)
        self.world = World(trial, self.network, self.ledger, has_ttls=random.random() < _EXPIRING)
        storm_ms = random.randint(*STORM_MS)
        self.storm_ms = scenario.storm_ms if scenario.storm_ms is not None else storm_ms
        self.people = self._people()
        self._tasks: list[asyncio.Task[Any]] = []

    def _people(self) -> list[Person]:
        world, random = self.world, self.trial.stream("world")
        people: list[Person] = [
            *(Sender(world, f"sender{n}") for n in range(random.randint(1, 2))),
            *(SessionWorker(world, f"worker{n}") for n in range(random.randint(2, 4))),
            PlainWorker(world, "plain", dead_letter=False),
            PlainWorker(world, "reader", dead_letter=True),
            Administrator(world, "admin"),
            Mender(world, "mender"),
            Mover(world, "mover"),
        ]
        chosen = self.trial.scenario.people
        return [person for person in people if chosen is None or person.name in chosen]

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
        storm = [self._go(person.run()) for person in self.people]
        chaos = self._go(self.cluster.chaos())
        self._go(self.cluster.watch())
        await sleep_ms(self.storm_ms)
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

    async def _define(self) -> None:
        random = self.trial.stream("queues")
        client = Client(self.world, "setup")
        common: dict[str, SettingValue] = {
            "lock_duration_ms": 5000,
            "max_delivery_count": random.choice((2, 3, 10)),
            "dead_lettering_on_message_expiration": random.random() < _EXPIRING,
            "duplicate_detection_history_time_window_ms": 20_000,
        }
        extension = random.choice(("on_receive", "off"))
        queues: dict[str, dict[str, SettingValue]] = {
            "orders": {
                "requires_session": True,
                "session_lock_extension": extension,
                "recall_on_abandon": random.random() < _RECALLING,
            },
            "jobs": {"requires_session": False},
        }
        streams = self.trial.stream("streams")
        for name, special in queues.items():
            common["release_on_disconnect"] = streams.random() < _RELEASING
            common["requires_duplicate_detection"] = random.random() < _DETECTING
            create = CreateQueue("default", name, {**common, **special}, name, client.request())
            while True:
                try:
                    await client.ask(PartitionId(0), create)
                    break
                except (GaveUp, LockstepError):
                    await sleep_ms(50)

    async def _calm(self) -> None:
        trial = self.trial
        trial.note("calm", "begins")
        await self._nothing_is_under_way()  # what the storm made slow has ended
        await sleep_ms(_BRINGING_MS)
        self._check_definitions()
        await self.cluster.settle()
        await self._check_store()
        await sleep_ms(15_000)  # every lock and every grace is over
        await self._see_jobs_end()
        await drain(self.cluster, trial)
        await self._check_store()

    async def _see_jobs_end(self) -> None:
        """ADD-11: jobs survive every owner, and end."""
        running: list[object] = []
        for _ in range(_JOBS_MS // 1000):
            running = [j for book in self.ledger.books for j in book.jobs.values() if j.is_running]
            if not running:
                self._see_all_arrived()
                return
            await sleep_ms(1000)
        self.trial.check(False, "ADD-11: does not end", running)

    def _see_all_arrived(self) -> None:
        """RSB-2: when all jobs have ended, nothing is on its way, but what went with its queue."""
        books = self.ledger.books
        for (source, entity, grant), sent in self.ledger.referee.memory.transfers.items():
            is_over = sent.is_over or entity not in books[source].entities
            self.trial.check(is_over, "RSB-2: still on its way", source, entity, grant, sent)
            held = books[source].locks.get((entity, grant))
            self.trial.check(held is None, "RSB-2: still held", source, held)

    def _check_definitions(self) -> None:
        """ADD-12: with the owner open and nothing slow under way, partitions hold what the catalogue has."""
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

    async def _check_store(self) -> None:
        """The owner's memory, and a partition restored from the store, agree in all that must last."""
        for number in range(PARTITIONS):
            await self._nothing_is_under_way()
            actor = self.cluster.current.actor(PartitionId(number))
            self.trial.check(actor is not None, "partition", number, "is not open in the calm")
            if actor is None:
                return
            now_ms = actor.partition.last_time_ms
            opening = self.disk.memory.open(PartitionId(number), actor.epoch)
            try:
                opening.send(None)
            except StopIteration as stop:
                restored = restore_partition(PartitionId(number), self.limits, stop.value, now_ms)
                kept = {**durable(restored, reopened_ms=None), "aside": aside(restored)}
                held = durable(actor.partition, reopened_ms=now_ms)
                held["aside"] = aside(actor.partition)
                self.trial.check(kept == held, "the store differs from memory:", _first(kept, held))

    async def _nothing_is_under_way(self) -> None:
        """Wait until the current owner has no commit and no read under way."""
        while self.cluster.current.store.under_way:
            await sleep_ms(1)

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


def simulate(what: int | Scenario) -> Verdict:
    """Run a seed, or a part of one. Nothing but the scenario and the code decides what happens."""
    scenario = Scenario(what) if isinstance(what, int) else what
    loop = VirtualLoop()
    silenced, collected = logging.root.manager.disable, gc.get_threshold()
    logging.disable(logging.CRITICAL)
    gc.set_threshold(_COLLECTED_AT)
    roomy = patch.object(sending, "check_share", lambda *_: None)  # nobody here shares quotas out
    roomy.start()
    try:
        simulation = loop.run_until_complete(_made(scenario, loop))
        trial = simulation.trial
        loop.set_exception_handler(lambda _loop, context: _note_bug(trial, context))
        try:
            loop.run_until_complete(simulation.run())
        except Stuck as error:
            trial.check(False, "stuck:", str(error))
        bug = forgiven(trial.failure) if trial.failure is not None else None
        if bug is not None:
            trial.count(f"known bug: {bug}")
        return Verdict(
            scenario=scenario,
            failure=trial.failure if bug is None else None,
            broken=trial.broken,
            trace_hash=trial.trace_hash,
            last=tuple(trial.last),
            seen=trial.seen,
            met=trial.met,
            struck=tuple(trial.struck),
            people=tuple(person.name for person in simulation.people),
            storm_ms=simulation.storm_ms,
            ended_ms=int(loop.time()),
            steps=simulation.ledger.moment,
        )
    finally:
        roomy.stop()
        logging.disable(silenced)
        gc.set_threshold(*collected)
        loop.close()


def _note_bug(trial: Trial, context: dict[str, Any]) -> None:
    """Note an error of a timer of the simulation; whatever else a loop tells is checked where it happens."""
    if "handle" in context:
        trial.check(False, "the simulation itself failed:", repr(context.get("exception")))


async def _made(scenario: Scenario, loop: VirtualLoop) -> Simulation:
    return Simulation(scenario, loop)
