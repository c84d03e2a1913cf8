"""Run seeds of the simulated cluster by hand: `make simulate-cluster SEEDS=1000`, or one again with `SEED=17`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable

from tests.simcluster.simulation import Verdict, simulate

_BAR = 40


def main() -> int:
    """Run what the arguments say and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simcluster", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many seeds to run")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument(
        "--seed", type=int, help="run only this one, twice, and show its last events"
    )
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _one(arguments.seed)
    return _many(range(arguments.start, arguments.start + arguments.seeds))


def _one(seed: int) -> int:
    first, second = simulate(seed), simulate(seed)
    print("\n".join(first.last))
    _tell(first.seen, first.steps)
    if first.trace_hash != second.trace_hash:
        print(f"not deterministic: {first.trace_hash} and {second.trace_hash}", file=sys.stderr)
        return 1
    kept = first.failure or "all promises kept"
    print(f"seed {seed}: trace {first.trace_hash}, {kept}")
    return 1 if first.failure else 0


def _many(seeds: Iterable[int]) -> int:
    todo = list(seeds)
    seen: Counter[str] = Counter()
    steps = 0
    failed: list[Verdict] = []
    for done, seed in enumerate(todo, 1):
        verdict = simulate(seed)
        seen += verdict.seen
        steps += verdict.steps
        if verdict.failure:
            failed.append(verdict)
        _show_progress(done, len(todo), len(failed))
    print()
    _tell(seen, steps)
    if not failed:
        print(f"{len(todo)} seeds, all promises kept")
        return 0
    print(failed[0].explain(), file=sys.stderr)
    names = (f"{v.scenario.seed}: {v.failure:.160}" for v in failed)
    print("failed:", *names, sep="\n  ", file=sys.stderr)
    return 1


def _show_progress(done: int, total: int, failed: int) -> None:
    if sys.stdout.isatty() or done == total:
        full = _BAR * done // total
        bar = "#" * full + "." * (_BAR - full)
        print(f"\r[{bar}] {done}/{total} seeds, {failed} failed", end="", flush=True)


def _tell(seen: Counter[str], steps: int) -> None:
    print(f"{steps} committed steps judged")
    for kind in sorted(seen):
        print(f"{seen[kind]:>8} {kind}")


if __name__ == "__main__":
    sys.exit(main())
