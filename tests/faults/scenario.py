"""One run: a load, faults meanwhile, an end of the faults, an end of the load, and the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lockstep.aio import LockstepClient
from lockstep.runtime.clock import SystemClock
from tests.faults.book import Violation
from tests.faults.checker import idle_run, longest_gap_ms, unknown_outcomes, violations
from tests.faults.complaints import Logs
from tests.faults.draining import Drain, Ending
from tests.faults.history import Recorder, read_history
from tests.faults.nemesis import Fault, Nemesis, told
from tests.faults.rig import ClientProcess, FaultRig
from tests.faults.workers import LOCK_S, Crew, Load, work

_AROUND_MS = 2_000
_DELIVERIES_MAX = 2_000  # nothing becomes a dead letter
_clock = SystemClock()


@dataclass(frozen=True, slots=True)
class Scenario:
    """Faults, one after the other.

    Attributes:
        locks_survive: Whether all faults are of owners and of what they need, so that no lock may be lost (ADD-4).
    """

    name: str
    faults: tuple[Fault, ...]
    locks_survive: bool = False

    @property
    def is_calm(self) -> bool:
        """Whether nothing fails."""
        return self.faults == (Nemesis.leave_alone,)

    @property
    def told(self) -> str:
        return ", ".join(map(told, self.faults))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A line of the table."""

    scenario: Scenario
    operations: int
    unknown: int
    longest_gap_ms: int
    drained_ms: int
    violations: list[Violation]

    HEAD = ("scenario", "faults", "operations", "unknown", "longest gap", "drained in", "violations")  # fmt: skip

    @property
    def cells(self) -> tuple[str, ...]:
        drained = f"{self.drained_ms / 1000:.1f} s" if self.drained_ms < 10**9 else "never"
        return (
            self.scenario.name,
            self.scenario.told,
            str(self.operations),
            str(self.unknown),
            f"{self.longest_gap_ms / 1000:.1f} s",
            drained,
            str(len(self.violations)),
        )


async def play(rig: FaultRig, scenario: Scenario, tell: Callable[[str], None]) -> Verdict:
    """Run a scenario on a rig that is whole, and leave it whole."""
    prefix = scenario.name
    path = rig.directory / f"{prefix}.jsonl"
    client = ClientProcess(rig.other_address, prefix, rig.directory)
    logs = Logs(process.log_path for process in (*rig.owners, *rig.cluster.frontends))
    with Recorder(path) as recorder:
        load = Load(rig.address, prefix, "here", recorder)
        try:
            healed_ms = await _under_load(rig, scenario, load, client, tell)
            ending = await _drained(rig, load, healed_ms, tell)
        finally:
            client.close()
    verdict = _judged(scenario, [path, *client.histories], ending)
    verdict.violations.extend(logs.complaints())
    return verdict


async def _under_load(
    rig: FaultRig,
    scenario: Scenario,
    load: Load,
    client: ClientProcess,
    tell: Callable[[str], None],
) -> int:
    """Do the faults while the load runs, end it, and return when the last fault was over."""
    async with LockstepClient(rig.address) as administrator:
        administration = administrator.get_administration_client()
        for queue, has_sessions in ((load.orders, True), (load.plain, False)):
            await administration.create_queue(
                queue,
                requires_session=has_sessions,
                lock_duration=f"PT{LOCK_S}S",
                max_delivery_count=_DELIVERIES_MAX,
            )
    nemesis = Nemesis(rig, client, scenario.name, lambda what: tell(f"{scenario.name}: {what}"))
    client.launch()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work(load, Crew()))
        await _clock.sleep(_AROUND_MS)
        for fault in scenario.faults:
            tell(f"{scenario.name}: {told(fault)}")
            await fault(nemesis)
            healed_ms = _clock.monotonic_ms()
            await _clock.sleep(_AROUND_MS)
        healed_ms = _clock.monotonic_ms() - _AROUND_MS
        tell(f"{scenario.name}: the load ends")
        load.ending.set()
        code = await asyncio.to_thread(client.stop)
        assert code == 0, "the process of clients failed; see its log"
    return healed_ms


async def _drained(
    rig: FaultRig, load: Load, healed_ms: int, tell: Callable[[str], None]
) -> Ending:
    tell(f"{load.prefix}: what is left is received")
    async with LockstepClient(rig.address) as client:
        queues = {load.orders: True, load.plain: False}
        return await Drain(client, load.recorder, queues, healed_ms).run()


def _judged(scenario: Scenario, paths: Iterable[Path], ending: Ending) -> Verdict:
    history = read_history(paths)
    found = violations(
        history,
        ending,
        lock_ms=LOCK_S * 1000,
        is_calm=scenario.is_calm,
        locks_survive=scenario.locks_survive,
    )
    return Verdict(
        scenario,
        operations=len(history),
        unknown=unknown_outcomes(history),
        longest_gap_ms=longest_gap_ms(history),
        drained_ms=ending.drained_ms - ending.healed_ms,
        violations=[*found, *idle_run(history)],
    )
