"""The benchmark of the product: the life of a message, beside a yardstick on the same machine at the same time.

Here belong the flags, the order of the runs and the report. Never here: how a figure is taken (`measure`), what a
worker does (`session_load`, `anchor`). The laws: no figure of one system without the same figure of the other, taken in
turns; a broken promise ends everything; a speed, however bad, is never an error.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import measure
from bench.ledger import Violation

DESCRIPTION = (
    "Measure the life of messages in Lockstep, beside the least that any durable queue must do."
)

EPILOG = """
what happens
  One server process and one client process at a time, both on this machine, the server's data in a new
  directory. The runs of both systems alternate, so that a machine that slows down slows both.

  busy   workers send a batch to the next session, accept the next available session, receive, complete, close,
         and begin again: messages per second, and processor time per message of server and client. Then the same
         cycles on a timetable of half that rate: the latency of each call, from when it was due.
  calm   one message at a time: what a call takes without load. Then hand-off: from a holder's close to the end of
         the accept of a worker that waits for that session.

  The anchor sends, receives and completes, without sessions. It stores each message as a row, synced before the
  reply, and knows no rules. "ratio" compares a run of Lockstep with the run of the anchor beside it.

what is checked
  Order in each session, exclusivity, locks that hold, no loss, no duplicate. The first broken promise is
  named, and the exit code is 1. Speed is never judged.

how to read it
  Each figure is the median of the runs, with the lowest and the highest in brackets. Messages count once
  they are completed. Compare figures only if fdatasync took about as long and other_cores, which is what all other
  programs of the machine used meanwhile, was about 0.

examples
  python -m bench.lifecycle                                        everything; about 10 minutes
  python -m bench.lifecycle --runs 1 --seconds 3 --batches 100     a quick look
  python -m bench.lifecycle --only anchor                          the yardstick alone
  python -m bench.lifecycle --json figures.json                    every figure of every run
"""

LOCKSTEP = "lockstep"
ANCHOR = "anchor"


@dataclass(frozen=True, slots=True)
class Result:
    """What one run found."""

    system: str
    job: str
    batch: int
    number: int
    figures: measure.Figures


def lockstep_command(port: int, data_dir: Path) -> Sequence[str]:
    """Return the command line of a Lockstep server on its shipped defaults."""
    address = ["--port", str(port), "--data-dir", str(data_dir)]
    quiet = ["--metrics-port", "off", "--health-port", "off"]
    program = str(Path(sys.executable).with_name("lockstep"))
    return [program, "serve", *address, *quiet]


def anchor_command(port: int, data_dir: Path) -> Sequence[str]:
    """Return the command line of the yardstick's server."""
    return [sys.executable, "-m", "bench.anchor", str(port), str(data_dir)]


COMMANDS: dict[str, Callable[[int, Path], Sequence[str]]] = {
    LOCKSTEP: lockstep_command,
    ANCHOR: anchor_command,
}


def drive(system_and_run: tuple[str, measure.Run]) -> measure.Figures | Violation:
    """Be the client process of one run."""
    system, run = system_and_run
    if system == LOCKSTEP:
        from bench.session_load import drive as drive_system  # the process loads one client only
    else:
        from bench.anchor import drive as drive_system
    try:
        figures = asyncio.run(drive_system(run))
    except (Violation, BaseExceptionGroup) as error:
        if violation := violation_in(error):
            return violation
        raise
    return figures | {"memory.client_peak_mib": measure.peak_memory_mib(os.getpid())}


def violation_in(error: BaseException) -> Violation | None:
    """Return the first violation among the errors of parallel workers."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(violation_in, error.exceptions)), None)
    return error if isinstance(error, Violation) else None


def runs(arguments: argparse.Namespace) -> Iterator[Result]:
    """Do all runs, the systems in turns.

    Raises:
        Violation: A promise was broken.
    """
    systems = [arguments.only] if arguments.only else [LOCKSTEP, ANCHOR]
    jobs = [(measure.BUSY, batch) for batch in arguments.batches] + [(measure.CALM, 1)]
    for number in range(1, arguments.runs + 1):
        for job, batch in jobs:
            for system in systems:
                figures = one_run(system, job, batch, arguments)
                rate = figures.get("throughput.messages_per_second")
                note = f"{rate:,.0f} messages/s" if rate else ""
                sys.stderr.write(f"run {number}: {title(job, batch):<12} {system:<9} {note}\n")
                yield Result(system, job, batch, number, figures)


def one_run(system: str, job: str, batch: int, arguments: argparse.Namespace) -> measure.Figures:
    """Do one run in a server process and a client process of its own."""
    disk = measure.sync_figures(arguments.data_dir)
    with measure.running_server(COMMANDS[system], scratch_dir=arguments.data_dir) as server:
        run = measure.Run(
            job=job,
            address=server.address,
            server_pid=server.pid,
            batch=batch,
            workers=arguments.workers,
            sessions=arguments.sessions,
            body_bytes=arguments.body_bytes,
            warmup_seconds=arguments.warmup_seconds,
            seconds=arguments.seconds,
            latency_seconds=arguments.latency_seconds,
        )
        figures = measure.in_fresh_process(drive, (system, run))
        if isinstance(figures, Violation):
            raise figures
        memory = {"memory.server_peak_mib": measure.peak_memory_mib(server.pid)}
    return figures | memory | disk


def title(job: str, batch: int) -> str:
    """Name a job."""
    return f"batch {batch}" if job == measure.BUSY else job


def tables(
    results: Sequence[Result],
) -> Iterator[tuple[str, dict[str, dict[str, measure.Summary]]]]:
    """Yield each job with its figures: name → system or "ratio" → summary."""
    for job, batch in dict.fromkeys((result.job, result.batch) for result in results):
        columns: dict[str, list[measure.Figures]] = {}
        for result in results:
            if (result.job, result.batch) == (job, batch):
                columns.setdefault(result.system, []).append(result.figures)
        if len(columns) == len(COMMANDS):
            pairs = zip(columns[LOCKSTEP], columns[ANCHOR], strict=True)
            columns["ratio"] = [ratios(ours, theirs) for ours, theirs in pairs]
        rows: dict[str, dict[str, measure.Summary]] = {}
        for column, figures in columns.items():
            for name, summary in measure.summarise(figures).items():
                rows.setdefault(name, {})[column] = summary
        yield title(job, batch), rows


def ratios(ours: measure.Figures, theirs: measure.Figures) -> measure.Figures:
    """Divide the figures of two runs that were made side by side."""
    return {name: ours[name] / theirs[name] for name in ours if theirs.get(name)}


def report(results: Sequence[Result], machine: dict[str, str]) -> Iterator[str]:
    """Yield the lines of the report."""
    yield ", ".join(f"{name} {value}" for name, value in machine.items())
    for name, rows in tables(results):
        columns = list(dict.fromkeys(column for row in rows.values() for column in row))
        yield ""
        yield f"{name:<34}" + "".join(f"{column:>27}" for column in columns)
        for figure, row in rows.items():
            cells = (str(row.get(column, "")) for column in columns)
            yield f"  {figure:<32}" + "".join(f"{cell:>27}" for cell in cells)


def write_json(
    path: Path, results: Sequence[Result], machine: dict[str, str], arguments: argparse.Namespace
) -> None:
    """Write every figure of every run."""
    content = {
        "machine": machine,
        "options": {name: value for name, value in vars(arguments).items() if name != "json"},
        "runs": [dataclasses.asdict(result) for result in results],
        "summary": {
            name: {
                figure: {column: dataclasses.asdict(cell) for column, cell in row.items()}
                for figure, row in rows.items()
            }
            for name, rows in tables(results)
        },
    }
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.lifecycle",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--runs", type=positive, default=5, metavar="N", help="runs of each system and job (5)")
    add("--seconds", type=float, default=8.0, metavar="S", help="length of a throughput window (8)")
    add("--warmup-seconds", type=float, default=2.0, metavar="S", help="load before it begins (2)")
    add("--latency-seconds", type=float, default=4.0, metavar="S", help="time at half load (4)")
    add(
        "--batches",
        type=batch_sizes,
        default=[1, 10, 100],
        metavar="N,N",
        help="messages in a call (1,10,100)",
    )
    add("--workers", type=positive, default=16, metavar="N", help="cycles at a time (16)")
    add("--sessions", type=positive, default=1000, metavar="N", help="sessions in turn (1000)")
    add("--body-bytes", type=positive, default=1024, metavar="N", help="length of a body (1024)")
    add(
        "--only",
        choices=[LOCKSTEP, ANCHOR],
        help="leave the other system out, and the ratio with it",
    )
    add(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="on which disk (the system's temporary directory)",
    )
    add("--json", type=Path, metavar="FILE", help="also write every figure of every run")
    return parser.parse_args(words)


def positive(word: str) -> int:
    """Read a number of at least 1."""
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def batch_sizes(words: str) -> list[int]:
    """Read numbers with commas between them."""
    return [positive(word) for word in words.split(",")]


def main() -> int:
    """Measure, report, and return the exit code: 1 when a promise was broken."""
    arguments = parse_arguments()
    results: list[Result] = []
    violation: Violation | None = None
    try:
        results.extend(runs(arguments))
    except Violation as found:
        violation = found
    machine = measure.machine()
    if violation:
        sys.stderr.write(f"A promise was broken, so nothing is reported. {violation}\n")
        return 1
    for line in report(results, machine):
        sys.stdout.write(line + "\n")
    if arguments.json:
        write_json(arguments.json, results, machine, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
