"""The benchmark of the operator: how soon objects are Ready, what it writes, how it stands failures, what it keeps.

Here belong the flags, the aims and the report. Never here: how a figure is taken (`operator_parts`), what runs
(`operator_site`). The laws: a figure with an aim is shown beside it, missed or met; queues that are not as they are
declared end everything; a speed, however bad, is never an error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from bench import measure
from bench.lifecycle import positive
from bench.operator_parts import PARTS, Sizes
from bench.operator_site import WrongState, lab
from tests.kube.program import kubernetes_version

DESCRIPTION = (
    "Measure how soon the operator does what is declared, what it writes, and what it keeps."
)

EPILOG = """
what happens
  Each run starts a real API server of Kubernetes with its etcd, a broker, and the operator as a process of its own,
  which has the rights that the chart grants it. A watch tells when an object is Ready at a generation.

  singles   objects are applied one after the other, each when the one before is Ready; then each is changed
  mass      all objects at once, 16 calls at a time
  resync    every queue was changed behind the operator's back; new objects are applied while it sets them back
  restart   the operator starts; one new object waits for it, all others are as they should be
  outage    the broker is killed; half of the pending objects are new, half are changed; the broker starts again
  memory    of an operator that made all queues, and of one that found them
  handover  one operator works and one stands by; the first one gets SIGTERM
  kill      the same with SIGKILL
  many      memory again, with more objects

how to read it
  Figures are the median of the runs, with the lowest and the highest in brackets. Writes are requests to Kubernetes as
  the operator's own metrics count them, without those of the lease; "written" objects have another resource version
  than before. restart and the hand-overs happen several times in a run, and the worst counts. other_cores is what all
  other programs of the machine used meanwhile: API server, etcd, broker, operator and benchmark share the cores, so
  compare figures only if it was about 0. cpu.all is the processor time of these five together.

examples
  python -m bench.operator                                  everything; about 7 minutes
  python -m bench.operator --parts singles,mass --runs 3
  python -m bench.operator --small                          whether it runs; the figures mean nothing
  python -m bench.operator --json figures.json              every figure of every run
"""

AIMS: Mapping[str, Mapping[str, float]] = {
    "singles": {"new.p50_s": 1, "new.p99_s": 3, "changed.p50_s": 1, "changed.p99_s": 3},
    "mass": {"all_ready_s": 30, "writes.per_object": 2.1},
    "resync": {"new.p99_s": 3},
    "restart": {"leader_to_first_ready_s": 5, "unchanged_objects_written": 0},
    "outage": {"start_to_all_ready_s": 60, "others_not_ready": 0, "other_objects_written": 0},
    "memory": {"maker.resident_mib": 128, "finder.resident_mib": 128},
    "many": {"maker.resident_mib": 256, "finder.resident_mib": 256},
    "handover": {"other_leads.max_s": 2},
    "kill": {"other_leads.max_s": 20},
}
"""The most that each figure should be."""

Runs = dict[str, list[measure.Figures]]
"""What each run found, by part."""


def aims_of(part: str, sizes: Sizes) -> dict[str, float]:
    """Return the aims of a part; one follows from how many objects are pending: a status for each, and the Broker's."""
    more = {"during.status_writes": float(sizes.pending + 1)} if part == "outage" else {}
    return {**AIMS.get(part, {}), **more}


async def one_run(parts: Sequence[str], sizes: Sizes, runs: Runs) -> None:
    """Do all parts once, on an API server and a broker of their own.

    Raises:
        WrongState: The queues are not as they are declared.
    """
    async with lab() as made:
        for part in parts:
            began = time.perf_counter()
            with measure.other_programs([os.getpid()]) as others:
                figures = await PARTS[part](made, sizes)
            runs.setdefault(part, []).append({**figures, "other_cores": others[0]})
            told = ", ".join(f"{name} {measure.short(value)}" for name, value in figures.items())
            sys.stderr.write(f"{part}, {time.perf_counter() - began:.0f} s: {told}\n")
        await made.leading()
        await made.watched.until(made.declared)
        await made.check()


# --- the report ---------------------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """Return what a reader must know of the machine to compare figures."""
    of_kubernetes = {"kubernetes": kubernetes_version(), "kopf": metadata.version("kopf")}
    return measure.machine() | of_kubernetes


def lines(runs: Runs, sizes: Sizes) -> Iterator[str]:
    """Yield the report."""
    yield ", ".join(f"{name} {value}" for name, value in machine().items())
    count = len(next(iter(runs.values())))
    yield f"{sizes.queues} objects ({sizes.many} in many), {sizes.pending} pending, {count} runs"
    for part, found in runs.items():
        yield part
        aims = aims_of(part, sizes)
        for name, summary in measure.summarise(found).items():
            told = f"  {name:<32}{summary!s:>26}"
            yield told + (f"   {verdict(summary, aims[name])}" if name in aims else "")


def verdict(summary: measure.Summary, most: float) -> str:
    """Return the aim, and whether the median meets it."""
    return f"aim: at most {most:g}, {'met' if summary.median <= most else 'MISSED'}"


# --- the command --------------------------------------------------------------------------------------------

SMALL: Mapping[str, object] = {
    "parts": tuple(part for part in PARTS if part not in ("kill", "many")),
    "queues": 12,
    "many": 20,
    "singles": 2,
    "pending": 4,
    "outage_seconds": 2.0,
    "times": 1,
}


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the flags. Those that are given win over --small."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.operator",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--parts",
        type=parts_of,
        default=tuple(PARTS),
        metavar="P,P",
        help=f"which ({','.join(PARTS)})",
    )
    add("--small", action="store_true", help="as little as possible of everything")
    add("--runs", type=positive, default=1, metavar="N", help="runs (1)")
    add("--queues", type=positive, default=1000, metavar="N", help="objects (1000)")
    add("--many", type=positive, default=5000, metavar="N", help="objects in many (5000)")
    add("--singles", type=positive, default=100, metavar="N", help="objects in singles (100)")
    add("--pending", type=positive, default=50, metavar="N", help="pending ones in outage (50)")
    add("--outage-seconds", type=float, default=30.0, metavar="S", help="length of outage (30)")
    add("--times", type=positive, default=3, metavar="N", help="restarts and hand-overs a run (3)")
    add("--json", type=Path, metavar="FILE", help="also write every figure of every run")
    if parser.parse_args(words).small:
        parser.set_defaults(**SMALL)
    return parser.parse_args(words)


def parts_of(words: str) -> tuple[str, ...]:
    """Read names of parts with commas between them."""
    for word in words.split(","):
        if word not in PARTS:
            raise argparse.ArgumentTypeError(
                f"there is no part '{word}'; there are {', '.join(PARTS)}"
            )
    return tuple(words.split(","))


def sizes_of(arguments: argparse.Namespace) -> Sizes:
    """Return how much of everything is asked for."""
    return Sizes(
        singles=arguments.singles,
        queues=arguments.queues,
        many=arguments.many,
        pending=arguments.pending,
        outage_seconds=arguments.outage_seconds,
        times=arguments.times,
    )


def wrong_in(group: BaseExceptionGroup[BaseException]) -> WrongState | None:
    """Return the wrong state among errors, if there is one."""
    for error in group.exceptions:
        inner = wrong_in(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(inner, WrongState):
            return inner
    return None


def main() -> int:
    """Measure, report, and return the exit code: 1 when queues were not as they were declared."""
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers are ended too
    sizes, runs = sizes_of(arguments), Runs()
    try:
        for _ in range(arguments.runs):
            asyncio.run(one_run(arguments.parts, sizes, runs))
    except* WrongState as group:
        sys.stderr.write(f"Nothing is reported. {wrong_in(group)}\n")
        return_code = 1
    else:
        return_code = 0
    if return_code:
        return return_code
    for line in lines(runs, sizes):
        sys.stdout.write(line + "\n")
    if arguments.json:
        told = {"machine": machine(), "options": vars(arguments), "runs": runs}
        arguments.json.write_text(json.dumps(told, indent=1, default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
