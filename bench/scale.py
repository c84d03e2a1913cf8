"""What a large backlog costs: memory, start-up, pauses, and processor time of each message.

Here belong the flags and the order of things. Never here: the loads (`scale_load`), the clocks inside the server
(`watched`), how figures are shown (`scale_report`). The laws: a broken promise ends everything; a missed aim is
reported, never an error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench import inside, measure, scale_load, watched
from bench.ledger import Violation
from bench.lifecycle import anchor_command, positive, violation_in
from bench.scale_report import FEW, MANY, report

DESCRIPTION = "Measure what a large backlog and many sessions cost a server on SQLite."

EPILOG = """
what happens
  many   a queue gets idle sessions with a state, then 1,000 messages, then all of them, over many sessions. The server
         is killed and started again.
  few    the same without idle sessions and restart, over 10 sessions.

  At each backlog a load runs that leaves it as it is (one send of 100 messages for ten sessions, then ten times accept
  next, receive, complete, close), and the same shape of calls against the anchor beside it: server processor time a
  message, and the ratio of the two.

how pauses are taken
  In the server (bench/watched.py): every turn of the event loop, every step of the core, every garbage collection;
  the longest by the wall, and the longest by the processor time of its thread. On a busy machine the wall also counts
  what other programs took; the truth is between the two. From outside: the slowest of many small calls, from a process
  of its own; `control` is how late that process itself was.

what is checked
  Exclusivity, order in each session, and that the broker holds as many messages as were sent and not completed, also
  after the kill. The first broken promise is named, and the exit code is 1. Speed and memory are never judged.

examples
  python -m bench.scale                  a million messages, 100,000 sessions; about ten minutes
  python -m bench.scale --small          a twentieth of it
  python -m bench.scale --only few       one part
"""

SMALL_BACKLOG = 1000
FEW_SESSIONS = 10
SMALL_DIVIDES_BY = 20
READY_SECONDS_MAX = 120.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything.

    Attributes:
        messages: The large backlog.
        sessions: Sessions that it lies in.
        idle_sessions: Sessions with a state and nothing else.
        state_bytes: Length of a state.
        body_bytes: Length of a body.
        workers: Cycles of the load at a time.
        seconds: Length of each load.
        warmup_seconds: Load before it.
        data_dir: On which disk; None = the system's temporary directory.
    """

    messages: int
    sessions: int
    idle_sessions: int
    state_bytes: int
    body_bytes: int
    workers: int
    seconds: float
    warmup_seconds: float
    data_dir: Path | None


@dataclass(slots=True)
class ServerProcess:
    """A server that can be killed and started again on its data."""

    directory: Path
    is_anchor: bool = False
    port: int = field(default_factory=measure.free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None, "it was started"
        return self._process.pid

    @property
    def data_dir(self) -> Path:
        """Where its data is."""
        return self.directory / "data"

    @property
    def report(self) -> Path:
        """Where the watch writes."""
        return self.directory / "watch.json"

    def start(self) -> float:
        """Start the server and return after how many seconds it answered a call.

        Raises:
            RuntimeError: It did not in time; the message holds the end of its output.
        """
        data_dir, log_path = self.data_dir, self.directory / "log"
        data_dir.mkdir(parents=True, exist_ok=True)
        command = anchor_command(self.port, data_dir) if self.is_anchor else self._watched(data_dir)
        started = time.perf_counter()
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        while time.perf_counter() - started < READY_SECONDS_MAX and self._process.poll() is None:
            if self._answers():
                return time.perf_counter() - started
            time.sleep(0.02)
        raise RuntimeError(f"the server does not answer:\n{log_path.read_text()[-4000:]}")

    def _watched(self, data_dir: Path) -> Sequence[str]:
        quiet = ["--metrics-port", "off", "--health-port", "off"]
        where = ["--port", str(self.port), "--data-dir", str(data_dir)]
        return [sys.executable, "-m", "bench.watched", str(self.report), "serve", *where, *quiet]

    def _answers(self) -> bool:
        if not measure.is_listening(self.port):
            return False
        if self.is_anchor:
            return True
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        with grpc.insecure_channel(self.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
            except grpc.RpcError:
                return False
            return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    def kill(self) -> None:
        """End the process without a word."""
        assert self._process is not None, "it was started"
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the process in order."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(measure.STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.kill()

    def cpu_seconds(self) -> tuple[float, float]:
        """Return the processor time of the process, and of its main thread, which runs the event loop."""
        pid = self.pid
        return measure.cpu_seconds(pid), measure.cpu_seconds(pid, thread=pid)

    def cpu_share_of_loop(self, before: tuple[float, float]) -> float:
        """Return which part of the processor time since `before` the main thread used."""
        used, by_loop = (now - then for now, then in zip(self.cpu_seconds(), before, strict=True))
        return by_loop / used if used else 0.0

    def rss_mib(self) -> float:
        """Return the memory that is resident now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * PAGE_BYTES / MIB


@dataclass(slots=True)
class Part:
    """One part under way: its servers, its client, what it found.

    Attributes:
        scale: How much of everything.
        server: The Lockstep server.
        anchor: The anchor's server, beside it.
        book: What was sent and received.
        figures: What was measured, by name.
    """

    scale: Scale
    server: ServerProcess
    anchor: ServerProcess
    book: scale_load.Book
    bars: Progress
    figures: measure.Figures = field(default_factory=dict)
    _connections: int = 0

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[scale_load.Lockstep]:
        """Connect to the Lockstep server as a new client."""
        self._connections += 1
        options = scale_load.CHANNEL_OPTIONS
        async with grpc.aio.insecure_channel(self.server.address, options=options) as channel:
            yield scale_load.Lockstep(
                channel=channel,
                client_id=f"scale-{self._connections}",
                sessions=len(self.book.last),
                body_bytes=self.scale.body_bytes,
                book=self.book,
            )

    async def fill(self, client: scale_load.Lockstep, name: str, backlog: int) -> None:
        """Send until so many messages are stored, and note how long it took, and the pauses."""
        sends = backlog // scale_load.SEND
        task = self.bars.add_task(f"{name}: fill", total=sends)
        started = time.perf_counter()
        await client.fill(backlog, lambda done: self.bars.update(task, completed=done))
        self.bars.update(task, completed=sends)
        self.figures[f"{name}.fill_seconds"] = time.perf_counter() - started
        self.note_pauses(f"{name}.fill")

    async def load(self, client: scale_load.Lockstep, name: str) -> None:
        """Note what a message costs Lockstep, and the anchor before and after; then, with a probe, the pauses."""
        task = self.bars.add_task(f"{name}: load", total=4)
        theirs = [await self._load_anchor()]
        self.bars.update(task, completed=1)
        watched.take_report(self.server.pid, self.server.report)
        before = self.server.cpu_seconds()
        ours = await measure.closed_loop(client.cycle, self._run(self.server))
        loop_share = self.server.cpu_share_of_loop(before)
        self.bars.update(task, completed=2)
        theirs.append(await self._load_anchor())
        self.bars.update(task, completed=3)
        cpu, anchors = ours["cpu.server_us_per_message"], sum(theirs) / len(theirs)
        self._note(
            name,
            {
                "cpu.server_us_per_message": cpu,
                "cpu.anchor_us_per_message": anchors,
                "cpu.ratio": cpu / anchors if anchors else math.nan,
                "cpu.loop_us_per_message": cpu * loop_share,
                "cpu.other_cores": ours["cpu.other_cores"],
                "messages_per_second": ours["throughput.messages_per_second"],
            },
        )
        asked = (self.server.address, self.scale.warmup_seconds + self.scale.seconds)
        with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
            probe = asyncio.get_running_loop().run_in_executor(pool, scale_load.probe, asked)
            await measure.closed_loop(client.cycle, self._run(self.server))
            self._note(name, await probe)
        self.note_pauses(name)
        self.bars.update(task, completed=4)

    async def _load_anchor(self) -> float:
        """Return the processor time that a message costs the anchor now, in µs."""
        options = scale_load.CHANNEL_OPTIONS
        async with grpc.aio.insecure_channel(self.anchor.address, options=options) as channel:
            anchor = scale_load.Anchor(channel, self.scale.body_bytes)
            figures = await measure.closed_loop(anchor.cycle, self._run(self.anchor))
        return figures["cpu.server_us_per_message"]

    def note_pauses(self, name: str) -> None:
        """Note the pauses since they were noted before."""
        report = watched.take_report(self.server.pid, self.server.report)
        for kind, spans in report.items():
            for figure, value in spans.items():
                self.figures[f"{name}.pause.{kind}.{figure}"] = value

    def _note(self, name: str, figures: measure.Figures) -> None:
        self.figures |= {f"{name}.{key}": value for key, value in figures.items()}

    def _run(self, server: ServerProcess) -> measure.Run:
        return measure.Run(
            job=measure.BUSY,
            address=server.address,
            server_pid=server.pid,
            batch=scale_load.OF_SESSION,
            workers=self.scale.workers,
            sessions=len(self.book.last),
            body_bytes=self.scale.body_bytes,
            warmup_seconds=self.scale.warmup_seconds,
            seconds=self.scale.seconds,
            latency_seconds=0.0,
        )


async def many(part: Part) -> None:
    """Idle sessions, a small backlog, a large one, a kill and a start."""
    scale, figures = part.scale, part.figures
    await _make_queue(part, scale.idle_sessions)
    figures["start.idle_seconds"] = part.server.start()
    part.note_pauses("start")
    figures["rss.idle_mib"] = part.server.rss_mib()
    async with part.connected() as client:
        await part.fill(client, "small", SMALL_BACKLOG)
        await part.load(client, "small")
        figures["rss.small_mib"] = part.server.rss_mib()
        await part.fill(client, "large", scale.messages)
        figures["rss.filled_mib"] = part.server.rss_mib()
        await part.load(client, "large")
        figures["rss.loaded_mib"] = part.server.rss_mib()
        await client.check_stored()
    part.server.kill()
    figures["start.ready_seconds"] = part.server.start()
    figures["start.ready_cpu_seconds"] = measure.cpu_seconds(part.server.pid)
    part.note_pauses("start again")
    figures["rss.restarted_mib"] = part.server.rss_mib()
    figures["rss.restarted_peak_mib"] = measure.peak_memory_mib(part.server.pid)
    async with part.connected() as client:
        await client.check_stored()
        await part.load(client, "restarted")
        await client.check_stored()
    _note_memory(part)


async def _make_queue(part: Part, idle_sessions: int) -> None:
    """Make the queue with a server, and its idle sessions without."""
    part.figures["start.empty_seconds"] = part.server.start()
    async with part.connected() as client:
        await client.create_queue()
    part.figures["rss.empty_mib"] = part.server.rss_mib()
    part.server.stop()
    state = bytes(part.scale.state_bytes)
    await inside.give_states(part.server.data_dir, scale_load.KEY, idle_sessions, state)


def _note_memory(part: Part) -> None:
    """Divide memory by messages and sessions.

    A restarted server keeps no bodies and no results of calls yet, so it shows what the rules keep of each message; a
    filled one has its cache of bodies full too.
    """
    scale, figures = part.scale, part.figures
    idle = figures["rss.idle_mib"] - figures["rss.empty_mib"]
    figures["bytes.idle_session"] = idle * MIB / scale.idle_sessions
    grown = figures["rss.filled_mib"] - figures["rss.small_mib"]
    figures["bytes.message_filled"] = grown * MIB / scale.messages
    left = figures["rss.restarted_mib"] - figures["rss.idle_mib"]
    figures["bytes.message_restarted"] = left * MIB / scale.messages


async def few(part: Part) -> None:
    """A small backlog and a large one, in few sessions."""
    await _make_queue(part, 1)
    part.server.start()
    part.note_pauses("start")
    async with part.connected() as client:
        for name, backlog in (("small", SMALL_BACKLOG), ("large", part.scale.messages)):
            await part.fill(client, name, backlog)
            await part.load(client, name)
        await client.check_stored()


PARTS = {MANY: many, FEW: few}


def run_part(name: str, scale: Scale, bars: Progress) -> measure.Figures:
    """Do one part in new data directories, and end its servers.

    Raises:
        Violation: A promise was broken.
    """
    sessions = scale.sessions if name == MANY else FEW_SESSIONS
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-", dir=scale.data_dir) as directory:
        server = ServerProcess(Path(directory, "server"))
        anchor = ServerProcess(Path(directory, "anchor"), is_anchor=True)
        part = Part(scale, server, anchor, scale_load.new_book(sessions), bars)
        try:
            anchor.start()
            asyncio.run(PARTS[name](part))
        except BaseExceptionGroup as error:
            if violation := violation_in(error):
                raise violation from error
            raise
        finally:
            server.stop()
            anchor.stop()
        return part.figures


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.scale",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--small",
        action="store_true",
        help="a twentieth of messages and sessions, for a quick check",
    )
    add("--messages", type=positive, default=1_000_000, metavar="N", help="the backlog (1000000)")
    add("--sessions", type=positive, default=100_000, metavar="N", help="its sessions (100000)")
    add(
        "--idle-sessions", type=positive, default=100_000, metavar="N", help="with a state (100000)"
    )
    add("--state-bytes", type=positive, default=100, metavar="N", help="length of a state (100)")
    add("--body-bytes", type=positive, default=1024, metavar="N", help="length of a body (1024)")
    add("--workers", type=positive, default=8, metavar="N", help="cycles of the load at a time (8)")
    add("--seconds", type=float, default=8.0, metavar="S", help="length of each load (8)")
    add("--warmup-seconds", type=float, default=2.0, metavar="S", help="load before it (2)")
    add("--only", choices=list(PARTS), help="one part")
    add("--data-dir", type=Path, metavar="DIR", help="on which disk (the temporary directory)")
    add("--json", type=Path, metavar="FILE", help="also write every figure")
    return parser.parse_args(words)


def chosen_scale(arguments: argparse.Namespace) -> Scale:
    """Return how much of everything the flags say."""
    divide_by = SMALL_DIVIDES_BY if arguments.small else 1
    return Scale(
        messages=arguments.messages // divide_by,
        sessions=arguments.sessions // divide_by,
        idle_sessions=arguments.idle_sessions // divide_by,
        state_bytes=arguments.state_bytes,
        body_bytes=arguments.body_bytes,
        workers=arguments.workers,
        seconds=arguments.seconds,
        warmup_seconds=arguments.warmup_seconds,
        data_dir=arguments.data_dir,
    )


def main() -> int:
    """Measure, report, and return the exit code: 1 when a promise was broken."""
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers are ended too
    scale = chosen_scale(arguments)
    found: dict[str, measure.Figures] = {}
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=Console(stderr=True)) as bars:
            for name in [arguments.only] if arguments.only else PARTS:
                found[name] = run_part(name, scale, bars)
    except Violation as violation:
        sys.stderr.write(f"A promise was broken, so nothing is reported. {violation}\n")
        return 1
    for line in report(found):
        sys.stdout.write(line + "\n")
    if arguments.json:
        content = {"machine": measure.machine(), "options": vars(arguments), "parts": found}
        arguments.json.write_text(json.dumps(content, indent=1, default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
