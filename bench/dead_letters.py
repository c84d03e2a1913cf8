"""The benchmark of jobs on dead letters: how long it takes to repair many, and what others feel of it.

Here belong the flags, the preparation and the report. Never here: how figures are taken (`measure`). The laws: the time
of a job is the broker's own, from its start to its end; what was taken is counted afterwards, and a wrong count ends
everything; a speed, however bad, is never an error.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import measure
from bench.lifecycle import lockstep_command, positive
from lockstep import (
    AdministrationClient,
    DeadLetterJob,
    LockstepClient,
    Message,
    QueueReceiver,
)

DESCRIPTION = "Measure how long jobs take that resubmit, purge and move dead letters."

EPILOG = """
what happens
  Each run starts a server. For each job a new queue is filled, everything in it is made dead letters, and the job goes
  over all of them. Meanwhile a second client asks every 5 ms how the queue stands.

  plain       a queue without sessions
  sessions    the messages spread over so many sessions
  duplicates  a plain queue with duplicate detection, for which a resubmission must read every message

how to read it
  seconds is from the start of the job to its end, as the broker's clock tells. server_us is processor time of the
  server a message, that of the second client's calls included. slowest_call is the longest that the second client
  waited. Each figure is the median of the runs, with the lowest and the highest in brackets. Compare figures only if
  other_cores, what all other programs of the machine used meanwhile, was about 0.

examples
  python -m bench.dead_letters                                  about five minutes
  python -m bench.dead_letters --shapes plain --runs 1
  python -m bench.dead_letters --messages 60000 --bytes 1024
"""

PLAIN, SESSIONS, DUPLICATES = "plain", "sessions", "duplicates"
QUEUE, TARGET = "orders", "parked"
BATCH = 500
PROBE_EVERY_SECONDS = 0.005

Start = Callable[[AdministrationClient], DeadLetterJob]
JOBS: dict[str, Start] = {
    "resubmit": lambda administration: administration.resubmit_dead_letters(QUEUE),
    "resubmit at head": lambda administration: administration.resubmit_dead_letters(
        QUEUE, at_head=True
    ),
    "move": lambda administration: administration.move_dead_letters(QUEUE, TARGET),
    "purge": lambda administration: administration.purge_dead_letters(QUEUE),
}


class WrongCount(Exception):
    """A job did not take everything, or messages are missing."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a run is about.

    Attributes:
        shape: PLAIN, SESSIONS or DUPLICATES.
        messages: How many there are.
        body_bytes: The length of each body.
        sessions: Over how many sessions they are spread, where there are sessions.
    """

    shape: str
    messages: int
    body_bytes: int
    sessions: int


class Probe:
    """A second client that asks how the queue stands, again and again, in a thread of its own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.seconds = array("d")

    def _ask(self) -> None:
        with LockstepClient(self._address) as client:
            administration = client.get_administration_client()
            while not self._over.wait(PROBE_EVERY_SECONDS):
                began = time.perf_counter()
                administration.get_queue_runtime_properties(QUEUE)
                self.seconds.append(time.perf_counter() - began)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


# --- preparing ----------------------------------------------------------------------------------------------


def fill(client: LockstepClient, load: Load) -> None:
    """Make the queues and send all messages."""
    administration = client.get_administration_client()
    administration.create_queue(
        QUEUE,
        requires_session=load.shape == SESSIONS,
        requires_duplicate_detection=load.shape == DUPLICATES,
    )
    administration.create_queue(TARGET)
    body = os.urandom(load.body_bytes)
    with client.get_queue_sender(QUEUE) as sender:
        for first in range(0, load.messages, BATCH):
            numbers = range(first, min(first + BATCH, load.messages))
            sender.send_messages(
                [Message(body, message_id=f"m{n}", session_id=session_of(n, load)) for n in numbers]
            )


def session_of(number: int, load: Load) -> str | None:
    """Return the session of a message."""
    return f"s{number % load.sessions}" if load.shape == SESSIONS else None


def make_dead(client: LockstepClient, load: Load) -> None:
    """Make every message of the queue a dead letter."""
    if load.shape != SESSIONS:
        with client.get_queue_receiver(QUEUE, max_wait_time=0) as receiver:
            dead_letter_all(receiver)
        return
    for number in range(min(load.sessions, load.messages)):
        session_id = session_of(number, load)
        with client.get_queue_receiver(QUEUE, session_id=session_id, max_wait_time=0) as receiver:
            dead_letter_all(receiver)


def dead_letter_all(receiver: QueueReceiver) -> None:
    """Make everything a dead letter that a receiver gets."""
    while messages := receiver.receive_messages(BATCH):
        if receiver.dead_letter_messages(messages, reason="benchmark"):
            raise WrongCount("a message could not be dead-lettered")


# --- measuring ----------------------------------------------------------------------------------------------


def one_run(
    load: Load, jobs: Mapping[str, Start], scratch_dir: Path | None
) -> Iterator[tuple[str, measure.Figures]]:
    """Let each job go over all messages once, and yield what it took."""
    with (
        measure.running_server(lockstep_command, scratch_dir=scratch_dir) as server,
        LockstepClient(server.address) as client,
    ):
        administration = client.get_administration_client()
        for name, start in jobs.items():
            fill(client, load)
            make_dead(client, load)
            yield name, job_figures(name, start, client, server, load)
            administration.delete_queue(QUEUE)
            administration.delete_queue(TARGET)


def job_figures(
    name: str, start: Start, client: LockstepClient, server: measure.Server, load: Load
) -> measure.Figures:
    """Return what one job took.

    Raises:
        WrongCount: It did not take all messages, or they are not where they belong.
    """
    administration = client.get_administration_client()
    others = measure.machine_cpu_seconds() - measure.cpu_seconds(server.pid) - own_cpu_seconds()
    used, began = measure.cpu_seconds(server.pid), time.perf_counter()
    with Probe(server.address) as probe:
        job = administration.wait_for_dead_letter_job(start(administration))
    elapsed = time.perf_counter() - began
    used = measure.cpu_seconds(server.pid) - used
    others = (
        measure.machine_cpu_seconds() - measure.cpu_seconds(server.pid) - own_cpu_seconds() - others
    )
    check(name, administration, job, load)
    assert job.ended_at_utc is not None
    seconds = max(0.001, (job.ended_at_utc - job.started_at_utc).total_seconds())
    return {
        "seconds": seconds,
        "messages_per_second": load.messages / seconds,
        "server_us": used / load.messages * 1e6,
        "slowest_call_ms": max(probe.seconds, default=0.0) * 1e3,
        "other_cores": max(0.0, others) / elapsed,
        "server_peak_mib": measure.peak_memory_mib(server.pid),
    }


def own_cpu_seconds() -> float:
    """Return the processor time of this process."""
    return measure.cpu_seconds(os.getpid())


def check(name: str, administration: AdministrationClient, job: DeadLetterJob, load: Load) -> None:
    """Count what a job took, and where the messages are.

    Raises:
        WrongCount: Something is missing, or left.
    """
    runtime = administration.get_queue_runtime_properties(QUEUE)
    parked = administration.get_queue_runtime_properties(TARGET).active_message_count
    seen = (job.matched_message_count, runtime.active_message_count, parked)
    all_ = load.messages
    expected = {"purge": (all_, 0, 0), "move": (all_, 0, all_)}.get(name, (all_, all_, 0))
    if seen != expected or runtime.dead_letter_message_count:
        raise WrongCount(f"{name}: taken, active, moved are {seen}, not {expected}")


# --- the report ---------------------------------------------------------------------------------------------


def report(results: Sequence[tuple[str, str, measure.Figures]]) -> Iterator[str]:
    """Yield the lines of the report."""
    yield ", ".join(f"{name} {value}" for name, value in measure.machine().items())
    for shape, job in dict.fromkeys((shape, job) for shape, job, _ in results):
        figures = [one for where, what, one in results if (where, what) == (shape, job)]
        yield ""
        yield f"{shape}: {job}"
        for name, summary in measure.summarise(figures).items():
            yield f"  {name:<22}{summary}"


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.dead_letters",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--runs", type=positive, default=3, metavar="N", help="runs of each shape (3)")
    add("--messages", type=positive, default=60_000, metavar="N", help="dead letters (60000)")
    add("--bytes", type=positive, default=1024, metavar="N", help="length of a body (1024)")
    add("--sessions", type=positive, default=1000, metavar="N", help="sessions (1000)")
    add(
        "--shapes",
        nargs="+",
        choices=[PLAIN, SESSIONS, DUPLICATES],
        default=[PLAIN, SESSIONS, DUPLICATES],
        help="which queues (all)",
    )
    add("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS), help="which jobs (all)")
    add("--data-dir", type=Path, metavar="DIR", help="on which disk (the temporary directory)")
    return parser.parse_args(words)


def main() -> int:
    """Measure, report, and return the exit code: 1 when a count was wrong."""
    given = parse_arguments()
    jobs = {name: JOBS[name] for name in given.jobs}
    results: list[tuple[str, str, measure.Figures]] = []
    try:
        for number in range(1, given.runs + 1):
            for shape in given.shapes:
                load = Load(shape, given.messages, given.bytes, given.sessions)
                for job, figures in one_run(load, jobs, given.data_dir):
                    took = figures["seconds"]
                    sys.stderr.write(f"run {number}: {shape:<12}{job:<18}{took:.2f} s\n")
                    results.append((shape, job, figures))
    except WrongCount as error:
        sys.stderr.write(f"Nothing is reported. {error}\n")
        return 1
    for line in report(results):
        sys.stdout.write(line + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
