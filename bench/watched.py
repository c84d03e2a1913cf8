"""A Lockstep server that is watched for pauses from the inside.

Here belong the clocks around a server: its event loop, the steps of its core and its garbage collections. Never here:
what a pause means (`scale`). The laws: the server is the shipped one, with the shipped settings; watching adds about a
microsecond to a step and to a turn of the loop; each span is told by the wall and by the processor time of its thread,
because on a busy machine other programs make spans long that are short.

    python -m bench.watched REPORT serve --port 7700 …     then SIGUSR1 writes REPORT (JSON) and begins anew
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOOP = "loop"
"""One turn of the event loop: from when it has looked for events until it looks again; new events wait meanwhile."""
STEP = "step."
"""One command in the core, with the name of the command behind it."""
COLLECTION = "gc."
"""One garbage collection, with its generation behind it."""
LONG_NS = 20_000_000


class Spans:
    """What is known of the spans of one kind; of collections also how many objects they freed."""

    __slots__ = ("count", "cpu_max_ns", "freed", "long", "wall_max_ns", "wall_total_ns")

    def __init__(self) -> None:
        self.count = 0
        self.wall_total_ns = 0
        self.wall_max_ns = 0
        self.cpu_max_ns = 0
        self.long = 0
        self.freed = 0

    def add(self, wall_ns: int, cpu_ns: int) -> None:
        """Count one span."""
        self.count += 1
        self.wall_total_ns += wall_ns
        if wall_ns > self.wall_max_ns:
            self.wall_max_ns = wall_ns
        if cpu_ns > self.cpu_max_ns:
            self.cpu_max_ns = cpu_ns
        if wall_ns > LONG_NS:
            self.long += 1

    def figures(self) -> dict[str, float]:
        """Return what is known, in milliseconds."""
        return {
            "count": self.count,
            "mean_ms": self.wall_total_ns / max(self.count, 1) / 1e6,
            "longest_ms": self.wall_max_ns / 1e6,
            "longest_cpu_ms": self.cpu_max_ns / 1e6,
            "over_20_ms": self.long,
            "freed": self.freed,
        }


class Watch:
    """Keeps the spans by kind."""

    def __init__(self, report: Path) -> None:
        self._report = report
        self._spans: dict[str, Spans] = {}
        self._collection = (0, 0)

    def add(self, kind: str, wall_ns: int, cpu_ns: int) -> None:
        """Count one span."""
        spans = self._spans.get(kind)
        if spans is None:
            spans = self._spans[kind] = Spans()
        spans.add(wall_ns, cpu_ns)

    def note_collection(self, phase: str, about: Mapping[str, Any]) -> None:
        """Be the callback of the collector; it runs in whatever thread collects, one at a time."""
        if phase == "start":
            self._collection = (time.perf_counter_ns(), time.thread_time_ns())
            return
        wall_ns, cpu_ns = self._collection
        kind = f"{COLLECTION}{about['generation']}"
        self.add(kind, time.perf_counter_ns() - wall_ns, time.thread_time_ns() - cpu_ns)
        self._spans[kind].freed += about["collected"]

    def write(self) -> None:
        """Write the report, all of it at once, and begin anew."""
        spans, self._spans = self._spans, {}
        content = {kind: spans[kind].figures() for kind in sorted(spans)}
        part = self._report.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1))
        part.replace(self._report)


class WatchedSelector(selectors.DefaultSelector):
    """Where the event loop waits; what is between two waits is one turn."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch
        self._turn = (0, 0)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        wall_ns, cpu_ns = self._turn
        if wall_ns:
            now_ns = time.perf_counter_ns()
            self._watch.add(LOOP, now_ns - wall_ns, time.thread_time_ns() - cpu_ns)
        events = super().select(timeout)
        self._turn = (time.perf_counter_ns(), time.thread_time_ns())
        return events


class WatchedLoops(asyncio.DefaultEventLoopPolicy):
    """Gives the process event loops that wait in a watched selector."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(WatchedSelector(self._watch))


def watch_steps(watch: Watch) -> None:
    """Put a clock around every step of every partition."""
    from lockstep.core.commands import Command
    from lockstep.core.decision import Decision
    from lockstep.core.partition import Partition

    step = Partition.step
    names: dict[type, str] = {}

    def watched(self: Partition, command: Command, now_ms: int) -> Decision:
        wall_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
        try:
            return step(self, command, now_ms)
        finally:
            kind = type(command)
            name = names.get(kind) or names.setdefault(kind, STEP + kind.__name__)
            watch.add(name, time.perf_counter_ns() - wall_ns, time.thread_time_ns() - cpu_ns)

    Partition.step = watched  # type: ignore[method-assign]  # the one place where a clock fits around all steps


def take_report(pid: int, report: Path, *, within_seconds: float = 20.0) -> dict[str, Any]:
    """Have a watched server write its report, and return it.

    Raises:
        RuntimeError: It did not in time.
    """
    report.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    give_up_at = time.perf_counter() + within_seconds
    while not report.exists():
        if time.perf_counter() > give_up_at:
            raise RuntimeError(f"process {pid} wrote no report in {within_seconds} s")
        time.sleep(0.02)
    content: dict[str, Any] = json.loads(report.read_text())
    return content


def main() -> None:
    """Be `lockstep` with these arguments, watched."""
    watch = Watch(Path(sys.argv[1]))
    signal.signal(signal.SIGUSR1, lambda *_: watch.write())
    gc.callbacks.append(watch.note_collection)
    watch_steps(watch)
    asyncio.set_event_loop_policy(WatchedLoops(watch))
    sys.argv[1:] = sys.argv[2:]
    from lockstep.cli.main import main as lockstep

    lockstep()


if __name__ == "__main__":
    main()
