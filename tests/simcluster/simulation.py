"""One run: a whole cluster, its clients and its faults, from a seed to a verdict.

First the storm: everything happens at once. Then the healing, and the calm: within bounds of time everything must be
owned, directed, defined and served again, and whatever was acknowledged must be there.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from lockstep.core.errors import EntityAlreadyExists, LockstepError
from lockstep.core.limits import Limits
from tests.sim.scenario import Scenario
from tests.sim.trial import Trial
from tests.sim.virtual_time import Stuck
from tests.simcluster.calm import Calm
from tests.simcluster.chaos import Chaos
from tests.simcluster.clients import GaveUp
from tests.simcluster.court import Court
from tests.simcluster.etcd import Etcd
from tests.simcluster.faults import Faults, draw_faults
from tests.simcluster.network import Network
from tests.simcluster.nodes import PARTITIONS, TTL_MS, World
from tests.simcluster.people import Administrator, Onlooker, PlainWorker, Sender, SessionWorker
from tests.simcluster.processes import Outside, ProcessLoop, sleep_ms

STORM_MS = (10_000, 25_000)
_GRACE_MS = TTL_MS + 5000
_RATES = (0.97, 1.03)
_CANCELLED_MAX = 20

Person = Sender | SessionWorker | PlainWorker | Administrator | Onlooker


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
        struck: The faults that happened.
        ended_ms: When the run ended.
        steps: How many steps were committed and judged.
    """

    scenario: Scenario
    failure: str | None
    broken: str
    trace_hash: str
    last: tuple[str, ...]
    seen: Counter[str]
    struck: tuple[str, ...]
    ended_ms: int
    steps: int

    def explain(self) -> str:
        """Return what a person needs to look into a failure."""
        events = "\n".join(self.last)
        return (
            f"seed {self.scenario.seed} failed: {self.failure}\n{events}\n"
            f"trace {self.trace_hash}; replay it with:"
            f" .venv/bin/python -m tests.simcluster --seed {self.scenario.seed}"
        )


class Simulation:
    """The parts of one run."""

    def __init__(self, scenario: Scenario, loop: ProcessLoop, faults: Faults | None) -> None:
        self.trial = trial = Trial(scenario, loop)
        draw = trial.stream("world")
        drawn = draw_faults(draw)
        self.faults = faults if faults is not None else drawn
        limits = Limits(outage_grace_ms=_GRACE_MS, requests_per_client_max=24)
        outside = Outside(loop)
        self.world = World(
            trial,
            loop,
            outside,
            Etcd(trial, outside, rate=draw.uniform(*_RATES)),
            Network(trial, outside),
            [Court(trial, PARTITIONS, limits) for _ in range(PARTITIONS)],
            limits,
        )
        self.chaos = Chaos(self.world, self.faults)
        storm_ms = draw.randint(*STORM_MS)
        self.storm_ms = scenario.storm_ms if scenario.storm_ms is not None else storm_ms
        self.people = self._people()

    def _people(self) -> list[Person]:
        world, draw = self.world, self.trial.stream("world")
        people: list[Person] = [
            *(Sender(world, f"sender{n}") for n in range(draw.randint(1, 2))),
            *(SessionWorker(world, f"worker{n}") for n in range(draw.randint(2, 4))),
            PlainWorker(world, "plain"),
            Administrator(world, "admin"),
            *(Onlooker(world, f"onlooker{n}") for n in range(2)),
        ]
        chosen = self.trial.scenario.people
        return [person for person in people if chosen is None or person.name in chosen]

    async def run(self) -> None:
        """Let the storm and the calm happen, unless something fails before."""
        main = self.trial.loop.create_task(self._happen())
        await asyncio.wait([main, self.trial.failed], return_when=asyncio.FIRST_COMPLETED)
        if main.done() and not main.cancelled() and main.exception() is not None:
            self.trial.check(False, "the simulation itself failed:", repr(main.exception()))

    async def _happen(self) -> None:
        self.chaos.start_all()
        await self._define()
        self.trial.note("storm", "begins", self.faults)
        storm = [self._go(person.run()) for person in self.people]
        chaos = self._go(self.chaos.run())
        await sleep_ms(self.storm_ms)
        self.world.is_calm = True
        await chaos
        await self.chaos.heal()
        await Calm(self.world).run(storm)
        for task in storm:
            task.result()

    def _go(self, what: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self.trial.loop.create_task(what)

    async def _define(self) -> None:
        setup = Administrator(self.world, "setup")
        for name, spread in (("orders", True), ("jobs", False)):
            while True:
                try:
                    await setup.create(name, spread=spread)
                    break
                except GaveUp:
                    await sleep_ms(50)
                except EntityAlreadyExists:  # by a call that was given up
                    break
                except LockstepError as error:
                    self.trial.check(False, "a queue was refused:", repr(error))
                    return

    async def end(self) -> None:
        """Let go of everything; nothing is judged any more."""
        for node in (*self.world.owners.values(), *self.world.frontends.values()):
            node.kill()
        for process in self.world.buried:
            process.bury()
        for _ in range(_CANCELLED_MAX):  # some wait for others once more
            tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            if not tasks:
                return
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1)


def simulate(what: int | Scenario, faults: Faults | None = None) -> Verdict:
    """Run a seed, or a part of one, with the faults that it draws or with others. Nothing else decides what happens."""
    scenario = Scenario(what) if isinstance(what, int) else what
    loop = ProcessLoop()
    silenced, drawn = logging.root.manager.disable, random.getstate()
    logging.disable(logging.CRITICAL)
    gc.disable()  # what is collected when is none of the seed's business
    random.seed(scenario.seed)  # of the front ends
    try:
        simulation = loop.run_until_complete(_made(scenario, loop, faults))
        trial = simulation.trial
        loop.set_exception_handler(lambda _loop, context: _note_bug(trial, context))
        try:
            loop.run_until_complete(simulation.run())
        except Stuck as error:
            trial.check(False, "stuck:", str(error))
        verdict = Verdict(
            scenario=scenario,
            failure=trial.failure,
            broken=trial.broken,
            trace_hash=trial.trace_hash,
            last=tuple(trial.last),
            seen=trial.seen,
            struck=tuple(trial.struck),
            ended_ms=int(loop.time()),
            steps=sum(court.ledger.moment for court in simulation.world.courts),
        )
        loop.run_until_complete(simulation.end())
        return verdict
    finally:
        logging.disable(silenced)
        random.setstate(drawn)
        loop.close()
        gc.enable()
        gc.collect()


def _note_bug(trial: Trial, context: dict[str, Any]) -> None:
    """Note an error of a timer of the simulation; whatever else a loop tells is checked where it happens."""
    if "handle" in context:
        trial.check(False, "the simulation itself failed:", repr(context.get("exception")))


async def _made(scenario: Scenario, loop: ProcessLoop, faults: Faults | None) -> Simulation:
    return Simulation(scenario, loop, faults)
