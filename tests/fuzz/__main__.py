"""Fuzz the public API: `make fuzz SECONDS_MAX=300`, or one seed again with `make fuzz SEED=17`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom

from lockstep.runtime.clock import SystemClock
from tests.fuzz.broker import Fuzzed, LocalBroker
from tests.fuzz.campaign import Campaign, replay
from tests.fuzz.driver import Failure
from tests.fuzz.reducing import closed, reduced
from tests.fuzz.server import ProcessBroker
from tests.fuzz.steps import Journal, Step, explain, read_steps, write_steps

_SEEDS = 1_000_000
_SHOWN_STEPS = 30


def main() -> int:
    """Run what the arguments say and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for how long (default: 60)")
    parser.add_argument("--seed", type=int, help="what decides everything (default: a random one)")
    parser.add_argument("--calls", type=int, help="stop after so many calls")
    parser.add_argument(
        "--process", action="store_true", help="fuzz a server process, whose clock cannot be turned"
    )
    parser.add_argument("--replay", type=Path, help="carry out the steps of a file instead")
    parser.add_argument(
        "--steps", type=Path, help="where the steps are written; stays after a failure"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lockstep-fuzz-") as directory:
        return asyncio.run(_run(arguments, Path(directory)))


def _broker(arguments: argparse.Namespace, directory: Path) -> Fuzzed:
    return ProcessBroker(directory) if arguments.process else LocalBroker(directory)


async def _run(arguments: argparse.Namespace, directory: Path) -> int:
    if arguments.replay is not None:
        return await _replay(arguments, directory)
    seed = SystemRandom().randrange(_SEEDS) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    clock = SystemClock()
    ends_ms = clock.monotonic_ms() + arguments.seconds * 1000
    broker = _broker(arguments, directory / "fuzzed")
    await broker.open()
    journal = Journal(arguments.steps or Path(f"fuzz-{seed}.steps"))
    campaign = Campaign(seed, broker, journal)
    calls_max: int = arguments.calls or sys.maxsize
    before = broker.resident_bytes()

    def goes_on(calls: int) -> bool:
        return calls < calls_max and clock.monotonic_ms() < ends_ms

    try:
        await campaign.run(goes_on)
    except Failure as failure:
        await closed(broker)
        return await _explain(arguments, campaign, journal, failure, directory)
    grown = (broker.resident_bytes() - before) / 1024**2
    await broker.close()
    journal.path.unlink()
    _tell(campaign)
    print(f"seed {seed}: {campaign.driver.calls} calls, trace {campaign.driver.trace},", end=" ")
    print(f"memory grew by {grown:.0f} MiB, all answers as documented")
    return 0


async def _explain(
    arguments: argparse.Namespace,
    campaign: Campaign,
    journal: Journal,
    failure: Failure,
    directory: Path,
) -> int:
    """Tell what went wrong, with as few steps as do it again."""
    _tell(campaign)
    print(f"call {campaign.driver.calls} failed: {failure}", file=sys.stderr)
    if failure.call is not None:
        print(failure.call.explain(), file=sys.stderr)
    made = 0

    def make() -> Fuzzed:
        nonlocal made
        made += 1
        return _broker(arguments, directory / f"again-{made}")

    print("looking for fewer steps that fail alike …", file=sys.stderr, flush=True)
    steps = await reduced(journal.steps(), journal.effective(), failure, make)
    if steps is None:
        print("the same steps did not fail again", file=sys.stderr)
        steps = journal.steps()
    write_steps(steps, journal.path)
    if len(steps) <= _SHOWN_STEPS:
        print("\n".join(explain(step) for step in steps), file=sys.stderr)
    print(f"{len(steps)} steps: python -m tests.fuzz --replay {journal.path}", file=sys.stderr)
    return 1


async def _replay(arguments: argparse.Namespace, directory: Path) -> int:
    steps: Sequence[Step] = read_steps(arguments.replay)
    broker = _broker(arguments, directory / "replayed")
    await broker.open()
    try:
        await replay(steps, broker)
    except Failure as failure:
        await closed(broker)
        print(f"failed again: {failure}", file=sys.stderr)
        if failure.call is not None:
            print(failure.call.explain(), file=sys.stderr)
        return 1
    await broker.close()
    print(f"{len(steps)} steps, all answers as documented")
    return 0


def _tell(campaign: Campaign) -> None:
    for kind, count in sorted(campaign.driver.seen.items()):
        print(f"{count:>8} {kind}")


if __name__ == "__main__":
    sys.exit(main())
