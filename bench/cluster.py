"""The benchmark of a cluster: what the way over a front end costs, what PostgreSQL costs, how long a partition is away.

Here belong the flags, the order of the parts and the report. Never here: how a figure is taken (`measure`,
`cluster_hop`, `gaps`), what is run (`cluster_systems`, `cluster_faults`). The laws: each part is shown beside its aim,
missed or met; a broken promise ends everything; a speed, however bad, is never an error.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench import cluster_faults, cluster_hop, gaps, measure
from bench.cluster_faults import KILLS, MOVES, Course, Found
from bench.cluster_hop import HOP_SYSTEMS, STORE_SYSTEMS, Load, Turn
from bench.cluster_systems import SPREAD
from bench.ledger import Violation
from bench.lifecycle import batch_sizes, positive, violation_in

DESCRIPTION = (
    "Measure what a cluster costs beside one process, and how long its partitions are away."
)

EPILOG = """
what happens
  hop    the same load, the life of messages in batches, against: one process on SQLite; one process on PostgreSQL; an
         owner on PostgreSQL behind a front end, with one partition and with 16; and, as the yardstick, one process on
         SQLite behind a proxy that passes bytes on and knows nothing of them. The hop is the processor time a message
         of the front end and of the owner, less that of one process on the same store.
  store  messages a second on PostgreSQL, over SQLite. Both are synced.
  kills  owners are killed (SIGKILL), one after the other, each when all is as it should be again, and started again.
  moves  owners are stopped in order (SIGTERM), and join again.

  In kills and moves one program for each partition sends a message, receives it, completes it and rests, with the
  client's own retries. A gap is the longest time without a success on a partition. What a partition shows when nothing
  happens is told too: no gap can be shorter than the rest between two messages.

what is checked
  All of what bench.lifecycle checks. In kills and moves: no acknowledged message is lost, none comes again after its
  completion was acknowledged, and they come in order. The first broken promise is named, and the exit code is 1.
  A call that fails in moves is counted and makes the exit code 1 as well. Speed is never judged.

how to read it
  Each figure of hop and store is the median of the turns, with the lowest and the highest in brackets. Compare figures
  only if fdatasync took about as long and other_cores, what all other programs of the machine used meanwhile, was
  about 0. All data lie in the directory for temporary files; TMPDIR names another one, on another disk perhaps.

examples
  python -m bench.cluster                          everything; about 25 minutes
  python -m bench.cluster --parts kills,moves      two parts
  python -m bench.cluster --small                  whether it runs; the figures mean nothing
  python -m bench.cluster --json figures.json      every figure of every run
"""

HOP, STORE = "hop", "store"
PARTS = (HOP, STORE, KILLS, MOVES)
MOVE_SECONDS_AIM = 0.5
CRASH_SECONDS_OVER_LEASE_AIM = 1.0
HOP_US_AIM = 25
STORE_SHARE_AIM = 0.6


@dataclass(slots=True)
class Report:
    """All that was found.

    Attributes:
        turns: Of the hop and of the store, by batch.
        faults: Of kills and moves, by part.
    """

    turns: dict[int, list[Turn]] = field(default_factory=dict)
    faults: dict[str, Found] = field(default_factory=dict)


def measured(arguments: argparse.Namespace, bars: Progress) -> Report:
    """Do all parts that are asked for.

    Raises:
        Violation: A promise was broken.
    """
    report = Report()
    systems = systems_of(arguments.parts, is_small=arguments.small)
    if systems:
        loads = [load_of(arguments, batch) for batch in arguments.batches]
        tell = _bar(bars, "hop, store", len(systems) * len(loads) * arguments.runs)
        report.turns = cluster_hop.turns(systems, loads, arguments.runs, tell)
    parts = [part for part in (KILLS, MOVES) if part in arguments.parts]
    if parts:
        tell = _bar(bars, ", ".join(parts), len(parts) * arguments.times)
        try:
            report.faults = asyncio.run(cluster_faults.run(parts, course_of(arguments), tell))
        except BaseExceptionGroup as error:
            if violation := violation_in(error):
                raise violation from error
            raise
    return report


def _bar(bars: Progress, what: str, total: int) -> Callable[[str], None]:
    task = bars.add_task(what, total=total)
    return lambda now: bars.update(task, advance=1, description=now)


def systems_of(parts: Sequence[str], *, is_small: bool) -> tuple[str, ...]:
    """Return which brokers take part; the store's are among those of the hop."""
    if HOP in parts:
        return tuple(name for name in HOP_SYSTEMS if name != SPREAD or not is_small)
    return STORE_SYSTEMS if STORE in parts else ()


def load_of(arguments: argparse.Namespace, batch: int) -> Load:
    """Return the load of a batch."""
    return Load(
        batch=batch,
        workers=arguments.workers,
        sessions=arguments.sessions,
        body_bytes=arguments.body_bytes,
        warmup_seconds=arguments.warmup_seconds,
        seconds=arguments.seconds,
        latency_seconds=arguments.latency_seconds,
    )


def course_of(arguments: argparse.Namespace) -> Course:
    """Return what happens in kills and moves."""
    return Course(
        times=arguments.times,
        owners=arguments.owners,
        partitions=arguments.partitions,
        lease_ms=arguments.lease_ms,
        pace_seconds=arguments.pace_ms / 1000,
        body_bytes=arguments.body_bytes,
        calm_seconds=arguments.calm_seconds,
    )


# --- the report ---------------------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """Return what a reader must know of the machine to compare figures."""
    return measure.machine() | {"psycopg": psycopg.__version__}


def lines(report: Report, arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the report."""
    yield ", ".join(f"{name} {value}" for name, value in machine().items())
    for batch, turns in report.turns.items():
        yield ""
        yield from cluster_hop.lines(batch, turns)
    if HOP in arguments.parts:
        yield f"  aim: the hop at most {HOP_US_AIM} µs in batches of 100"
    if report.turns:
        yield f"  aim: PostgreSQL at least {STORE_SHARE_AIM} of SQLite"
    for part, found in report.faults.items():
        yield ""
        yield from _fault_lines(part, found, arguments)


def _fault_lines(part: str, found: Found, arguments: argparse.Namespace) -> Iterator[str]:
    what = "SIGKILLs of owners" if part == KILLS else "stops and joins of owners"
    yield (
        f"{part}: {arguments.times} {what}; {arguments.owners} owners, {arguments.partitions} partitions,"
        f" lease {arguments.lease_ms / 1000:g} s"
    )
    columns = ("gaps", "min", "median", "p95", "max", "failed calls")
    yield f"  {'seconds without a success when':<32}" + "".join(f"{c:>14}" for c in columns)
    for name, seconds in found.gaps.items():
        spread = gaps.distribution(seconds)
        cells = (str(len(seconds)), *map(measure.short, spread.values()), str(_total(found, name)))
        yield f"  {name:<32}" + "".join(f"{cell:>14}" for cell in cells)
    for name, reasons in found.failed.items():
        if reasons:
            yield f"  failed calls when {name}: {dict(reasons)}"
    yield f"  messages acknowledged: {found.acknowledged:,}; all of them came"
    yield f"  other_cores {measure.short(found.other_cores)}"
    if part == KILLS:
        aim = arguments.lease_ms / 1000 + CRASH_SECONDS_OVER_LEASE_AIM
        yield f"  aim: p95 when its owner is killed below {aim:g} s"
    else:
        yield f"  aim: below {MOVE_SECONDS_AIM:g} s; no call fails"


def _total(found: Found, name: str) -> int:
    return sum(found.failed.get(name, Counter()).values())


def as_json(report: Report, arguments: argparse.Namespace) -> Mapping[str, object]:
    """Return every figure of every run."""
    return {
        "machine": machine(),
        "options": {name: value for name, value in vars(arguments).items() if name != "json"},
        "turns": report.turns,
        "faults": {name: dataclasses.asdict(found) for name, found in report.faults.items()},
    }


# --- the command --------------------------------------------------------------------------------------------

SMALL: Mapping[str, object] = {
    "runs": 1,
    "seconds": 0.3,
    "warmup_seconds": 0.1,
    "latency_seconds": 0.0,
    "workers": 2,
    "times": 1,
    "owners": 2,
    "partitions": 4,
    "lease_ms": 2000,
    "calm_seconds": 0.5,
}


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the flags. Those that are given win over --small."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.cluster",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--parts",
        type=parts_of,
        default=PARTS,
        metavar="P,P",
        help=f"which ({','.join(PARTS)})",
    )
    add("--small", action="store_true", help="as little as possible of everything")
    add("--runs", type=positive, default=5, metavar="N", help="turns of hop and store (5)")
    add("--seconds", type=float, default=8.0, metavar="S", help="length of a window (8)")
    add("--warmup-seconds", type=float, default=2.0, metavar="S", help="load before it (2)")
    add("--latency-seconds", type=float, default=3.0, metavar="S", help="time at half load (3)")
    add("--batches", type=batch_sizes, default=[100], metavar="N,N", help="messages a call (100)")
    add("--workers", type=positive, default=16, metavar="N", help="cycles at a time (16)")
    add("--sessions", type=positive, default=1000, metavar="N", help="sessions in turn (1000)")
    add("--body-bytes", type=positive, default=1024, metavar="N", help="length of a body (1024)")
    add("--times", type=positive, default=20, metavar="N", help="kills, and moves (20)")
    add("--owners", type=positive, default=3, metavar="N", help="owners in kills and moves (3)")
    add("--partitions", type=positive, default=8, metavar="N", help="partitions there (8)")
    add(
        "--lease-ms", type=positive, default=3000, metavar="MS", help="lease of owners there (3000)"
    )
    add(
        "--pace-ms", type=positive, default=50, metavar="MS", help="rest after a message there (50)"
    )
    add("--calm-seconds", type=float, default=5.0, metavar="S", help="before anything happens (5)")
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


def main() -> int:
    """Measure, report, and return the exit code: 1 when a promise was broken."""
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers are ended too
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=Console(stderr=True)) as bars:
            report = measured(arguments, bars)
    except Violation as violation:
        sys.stderr.write(f"A promise was broken, so nothing is reported. {violation}\n")
        return 1
    for line in lines(report, arguments):
        sys.stdout.write(line + "\n")
    if arguments.json:
        text = json.dumps(as_json(report, arguments), indent=1, default=str)
        arguments.json.write_text(text + "\n")
    return 1 if any_call_failed(report.faults.get(MOVES)) else 0


def any_call_failed(moves: Found | None) -> bool:
    """Whether a call failed while owners moved in order."""
    return moves is not None and any(_total(moves, name) for name in moves.failed)


if __name__ == "__main__":
    sys.exit(main())
