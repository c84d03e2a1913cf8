"""Measuring: server processes, CPU and memory, loads, percentiles, medians.

Here belongs what is the same for every system under test. What a system is, how it is called and what it promises
must never be here. The law: a figure is measured from when work was due, in one process for the client and one
for the server, over a window that begins after the warm-up.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import platform
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TypeVar

Figures = dict[str, float]
"""What one run measured: a name that ends in its unit, and the value."""

SYNC_WRITES = 200
SYNC_WRITE_BYTES = 4096
READY_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 20.0
IN_FLIGHT_MAX = 512
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Latencies:
    """How long operations took, by the name of the operation."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))

    def record(self, operation: str, seconds: float) -> None:
        """Add one observation."""
        self._seconds[operation].append(seconds)

    def figures(self, prefix: str) -> Figures:
        """Return p50, p90, p99 and the maximum of every operation, in milliseconds."""
        return {
            f"{prefix}.{operation}.{name}_ms": value * 1e3
            for operation, seconds in self._seconds.items()
            for name, value in percentiles(seconds).items()
        }


def percentiles(seconds: Sequence[float]) -> Figures:
    """Return p50, p90, p99 and max by the nearest rank: each is a value that was observed."""
    ranked = sorted(seconds)
    ranks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: ranked[math.ceil(rank * len(ranked)) - 1] for name, rank in ranks.items()}


Cycle = Callable[[Latencies, float], Awaitable[int]]
"""One unit of load: told where to record and since when it is due, returns how many messages it finished."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one client process does to one running server.

    Attributes:
        job: BUSY measures throughput and then latency at half of it; CALM one call at a time.
        address: Where the server listens.
        server_pid: The process whose processor time counts as the server's.
        batch: Messages in a call.
        workers: Cycles at a time while throughput is measured.
        sessions: Sessions that messages are spread over.
        body_bytes: Length of a message's body.
        warmup_seconds: Load before the window begins.
        seconds: Length of the window.
        latency_seconds: Length of the timetable at half load; 0 = none.
        beside: Further processes of the system, by name; what they and their children use is told apart.
    """

    job: str
    address: str
    server_pid: int
    batch: int
    workers: int
    sessions: int
    body_bytes: int
    warmup_seconds: float
    seconds: float
    latency_seconds: float
    beside: Mapping[str, int] = field(default_factory=dict)


BUSY = "busy"
CALM = "calm"
CALM_CYCLES = 100
CALM_PAUSE_SECONDS = 0.01

# --- processes ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    """A running server process that accepts connections on 127.0.0.1."""

    pid: int
    port: int
    data_dir: Path

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self.port}"


@contextmanager
def running_server(
    command: Callable[[int, Path], Sequence[str]], *, scratch_dir: Path | None
) -> Iterator[Server]:
    """Run a server for the time of the block, in a data directory of its own that is removed at the end.

    Args:
        command: Makes the command line from a free port and a data directory.
        scratch_dir: Where to make the data directory; None = the system's temporary directory.

    Raises:
        RuntimeError: The server ended, or did not listen in time; the message holds the end of its output.
    """
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-", dir=scratch_dir) as name:
        directory = Path(name)
        data_dir, log_path, port = directory / "data", directory / "log", free_port()
        data_dir.mkdir()
        with log_path.open("wb") as log:
            process = subprocess.Popen(command(port, data_dir), stdout=log, stderr=log)
        try:
            _wait_until_listening(process, port, log_path)
            yield Server(process.pid, port, data_dir)
            if process.poll() is not None:
                raise RuntimeError(f"the server ended by itself:\n{_tail(log_path)}")
        finally:
            _stop(process)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
    give_up_at = time.perf_counter() + READY_SECONDS_MAX
    while time.perf_counter() < give_up_at and process.poll() is None:
        if is_listening(port):
            return
        time.sleep(0.02)
    raise RuntimeError(f"the server does not listen on port {port}:\n{_tail(log_path)}")


def is_listening(port: int) -> bool:
    """Whether something on 127.0.0.1 accepts connections on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _tail(log_path: Path) -> str:
    return log_path.read_text(errors="replace")[-4000:] or "(it wrote nothing)"


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def in_fresh_process(function: Callable[[Argument], Result], argument: Argument) -> Result:
    """Return what the function returns, called in a new process, so that no run inherits another's heap."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(function, argument).result()


def cpu_seconds(pid: int, *, thread: int | None = None) -> float:
    """Return the processor time of a process, user and system: of all its threads, or of one."""
    where = f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat"
    fields = Path(where).read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def family_cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and of all that descend from it, also of those that have ended."""
    ticks: dict[int, int] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile, and its parent counts it
        number = int(path.parent.name)
        children[int(fields[1])].append(number)
        ticks[number] = sum(map(int, fields[11:15]))
    family = [pid]
    for member in family:
        family += children[member]
    return sum(ticks[member] for member in family) / TICKS_PER_SECOND


def machine_cpu_seconds() -> float:
    """Return the processor time that all processes of the machine used, and what a hypervisor took."""
    user, nice, system, _, _, irq, softirq, steal = (
        int(ticks) for ticks in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND


def peak_memory_mib(pid: int) -> float:
    """Return the most resident memory that a process had so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} shows no VmHWM")


# --- the machine --------------------------------------------------------------------------------------------


def sync_figures(scratch_dir: Path | None) -> Figures:
    """Measure how long the disk of the data directories takes to write 4 KiB and to sync them."""
    seconds = array("d")
    with tempfile.TemporaryFile(prefix="lockstep-bench-", dir=scratch_dir) as file:
        for _ in range(SYNC_WRITES):
            started = time.perf_counter()
            os.write(file.fileno(), bytes(SYNC_WRITE_BYTES))
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - started)
    return {f"fdatasync.{name}_ms": value * 1e3 for name, value in percentiles(seconds).items()}


def machine() -> dict[str, str]:
    """Return what a reader must know of the machine to compare figures."""
    cpu_lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in cpu_lines if line.startswith("model name")]
    return {
        "cores": str(os.cpu_count()),
        "cpu": models[0] if models else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: metadata.version(name) for name in ("grpcio", "protobuf", "lockstep-broker")},
    }


# --- loads --------------------------------------------------------------------------------------------------


async def job_figures(cycle: Cycle, run: Run) -> Figures:
    """Do the job of a run with a system's cycle."""
    if run.job == CALM:
        return (await one_at_a_time(cycle)).figures("calm")
    figures = await closed_loop(cycle, run)
    if not run.latency_seconds:
        return figures
    half = figures["throughput.messages_per_second"] / run.batch / 2
    with other_programs(families_of(run)) as others:
        latencies = await open_loop(cycle, cycles_per_second=half, seconds=run.latency_seconds)
    return figures | latencies.figures("half_load") | {"half_load.other_cores": others[0]}


@contextmanager
def other_programs(families: Sequence[int]) -> Iterator[list[float]]:
    """Give, after the block, how many cores programs kept busy in it that are not of these families."""

    def other_cpu_seconds() -> float:
        return machine_cpu_seconds() - sum(map(family_cpu_seconds, families))

    cores: list[float] = []
    started, used = time.perf_counter(), other_cpu_seconds()
    yield cores
    cores.append(max(0.0, other_cpu_seconds() - used) / (time.perf_counter() - started))


def families_of(run: Run) -> list[int]:
    """Return the processes that, with their children, are the system and its client."""
    return [run.server_pid, *run.beside.values(), os.getpid()]


async def one_at_a_time(cycle: Cycle) -> Latencies:
    """Measure latency without load: each cycle begins a pause after the last one ended."""
    latencies = Latencies()
    for number in range(-CALM_CYCLES // 10, CALM_CYCLES):
        await asyncio.sleep(CALM_PAUSE_SECONDS)
        await cycle(latencies if number >= 0 else Latencies(), time.perf_counter())
    return latencies


async def closed_loop(cycle: Cycle, run: Run) -> Figures:
    """Measure throughput: each worker begins its next cycle as soon as the last one ended.

    Returns once every cycle has ended; cycles that end outside the window are not counted. The window is longer when
    no cycle ended in it.
    """
    finished = 0
    running = True

    async def work() -> None:
        nonlocal finished
        ignored = Latencies()
        while running:
            messages = await cycle(ignored, time.perf_counter())
            finished += messages  # read after the await: other workers add meanwhile

    def snapshot() -> tuple[float, ...]:
        beside = map(family_cpu_seconds, run.beside.values())
        own = cpu_seconds(run.server_pid), cpu_seconds(os.getpid())
        return time.perf_counter(), finished, *own, *beside

    async with asyncio.TaskGroup() as tasks:
        for _ in range(run.workers):
            tasks.create_task(work())
        await asyncio.sleep(run.warmup_seconds)
        with other_programs(families_of(run)) as others:
            first = snapshot()
            await asyncio.sleep(run.seconds)
            while finished == first[1]:  # noqa: ASYNC110 - an event would cost each cycle
                await asyncio.sleep(run.seconds / 10)
            last = snapshot()
        running = False

    elapsed, messages, server_cpu, client_cpu, *others_cpu = (
        after - before for before, after in zip(first, last, strict=True)
    )
    beside = {
        f"cpu.{name}_us_per_message": cpu / messages * 1e6
        for name, cpu in zip(run.beside, others_cpu, strict=True)
    }
    return {
        "throughput.messages_per_second": messages / elapsed,
        "cpu.server_us_per_message": server_cpu / messages * 1e6,
        "cpu.client_us_per_message": client_cpu / messages * 1e6,
        **beside,
        "cpu.server_cores": server_cpu / elapsed,
        "cpu.client_cores": client_cpu / elapsed,
        "cpu.other_cores": others[0],
    }


async def open_loop(cycle: Cycle, *, cycles_per_second: float, seconds: float) -> Latencies:
    """Measure latency at a given load: cycles begin on a timetable, however long earlier ones take.

    A cycle is told when it was due, so waiting for a late client or a late server counts as latency.
    """
    latencies = Latencies()
    count = max(1, int(cycles_per_second * seconds))
    due_times: asyncio.Queue[float] = asyncio.Queue()
    slots = asyncio.Semaphore(IN_FLIGHT_MAX)

    async def start(due: float) -> None:
        try:
            await cycle(latencies, due)
        finally:
            slots.release()

    with _timetable(due_times, count, cycles_per_second):
        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                due = await due_times.get()
                await slots.acquire()
                tasks.create_task(start(due))
    return latencies


@contextmanager
def _timetable(due_times: asyncio.Queue[float], count: int, per_second: float) -> Iterator[None]:
    """Put each due time into the queue when it has come, for the time of the block.

    A thread of its own keeps the time: timers of the event loop are up to a millisecond late.
    """
    loop = asyncio.get_running_loop()
    stopping = threading.Event()

    def keep_time() -> None:
        started = time.perf_counter()
        for number in range(count):
            due = started + number / per_second
            if stopping.wait(max(0.0, due - time.perf_counter())):
                return
            loop.call_soon_threadsafe(due_times.put_nowait, due)

    interval_before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # a busy event loop must not hold this thread back for 5 ms
    thread = threading.Thread(target=keep_time, name="timetable")
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        sys.setswitchinterval(interval_before)


# --- repeated runs ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Summary:
    """One figure over repeated runs."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return short(self.median)
        return f"{short(self.median)} ({short(self.low)}–{short(self.high)})"


def summarise(runs: Sequence[Figures]) -> dict[str, Summary]:
    """Return median, minimum and maximum of every figure that all the runs measured."""
    names = [name for name in runs[0] if all(name in run for run in runs)]
    columns = {name: [run[name] for run in runs] for name in names}
    return {
        name: Summary(statistics.median(column), min(column), max(column))
        for name, column in columns.items()
    }


def short(value: float) -> str:
    """Write a figure with three or four digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
