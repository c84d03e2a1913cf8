"""Run seeds by hand: `make simulate SEEDS=1000`, or one again with `make simulate SEED=17`.

A seed that fails is made smaller (`shrink`) and printed as a scenario, which `--scenario` runs again.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable

from tests.sim import known
from tests.sim.scenario import Scenario
from tests.sim.shrink import Shrinker, describe
from tests.sim.simulation import Verdict, simulate
from tests.sim.table import fault_table

_BAR = 40


def main() -> int:
    """Run what the arguments say and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many seeds to run")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument(
        "--seed", type=int, help="run only this one, twice, and show its last events"
    )
    parser.add_argument("--scenario", help="as --seed, of a run that was made smaller")
    parser.add_argument("--strict", action="store_true", help="forgive no known bug")
    parser.add_argument("--as-it-is", action="store_true", help="make no failing run smaller")
    arguments = parser.parse_args()
    if arguments.strict:
        known.FORGIVEN.clear()
    shrinks = not arguments.as_it_is
    if arguments.scenario is not None:
        return _one(Scenario.from_text(arguments.scenario), shrinks=False)
    if arguments.seed is not None:
        return _one(Scenario(arguments.seed), shrinks=shrinks)
    seeds = range(arguments.start, arguments.start + arguments.seeds)
    return _many(seeds, shrinks=shrinks)


def _one(scenario: Scenario, *, shrinks: bool) -> int:
    first, second = simulate(scenario), simulate(scenario)
    print("\n".join(first.last))
    _tell(first.seen, first.met, first.steps)
    if first.trace_hash != second.trace_hash:
        print(f"not deterministic: {first.trace_hash} and {second.trace_hash}", file=sys.stderr)
        return 1
    kept = first.failure or "all promises kept"
    print(f"seed {scenario.seed}: trace {first.trace_hash}, {kept}")
    if first.failure and shrinks:
        _show_smallest(first)
    return 1 if first.failure else 0


def _many(seeds: Iterable[int], *, shrinks: bool) -> int:
    todo = list(seeds)
    seen: Counter[str] = Counter()
    met: Counter[tuple[str, str]] = Counter()
    steps = 0
    failed: list[Verdict] = []
    for done, seed in enumerate(todo, 1):
        verdict = simulate(seed)
        seen += verdict.seen
        met += verdict.met
        steps += verdict.steps
        if verdict.failure:
            failed.append(verdict)
        _show_progress(done, len(todo), len(failed))
    print()
    _tell(seen, met, steps)
    if not failed:
        print(f"{len(todo)} seeds, all promises kept")
        return 0
    if shrinks:
        _show_smallest(failed[0])
    else:
        print(failed[0].explain(), file=sys.stderr)
    names = (f"{v.scenario.seed}: {v.failure:.160}" for v in failed)
    print("failed:", *names, sep="\n  ", file=sys.stderr)
    return 1


def _show_smallest(failing: Verdict) -> None:
    shrinker = Shrinker(failing)
    smallest = shrinker.shrink()
    print(smallest.explain(), file=sys.stderr)
    print(describe(smallest, shrinker.runs), file=sys.stderr)


def _show_progress(done: int, total: int, failed: int) -> None:
    if sys.stdout.isatty() or done == total:
        full = _BAR * done // total
        bar = "#" * full + "." * (_BAR - full)
        print(f"\r[{bar}] {done}/{total} seeds, {failed} failed", end="", flush=True)


def _tell(seen: Counter[str], met: Counter[tuple[str, str]], steps: int) -> None:
    print(f"{steps} committed steps judged")
    for kind in sorted(seen):
        if not kind.startswith("command "):
            print(f"{seen[kind]:>8} {kind}")
    print(fault_table(met))


if __name__ == "__main__":
    sys.exit(main())
