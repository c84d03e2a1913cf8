"""What durable stores take of the life of messages, and what an old snapshot of somebody else adds to it.

Here belongs the core on a store, one commit for each command, without an owner or a network. Never here: what a store
does. The law: a store is measured as the owner uses it, with syncs; all stores take turns in each repetition.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg

from bench import inside, measure
from bench.micro import BATCH, BODY, EPOCH, Life, live
from lockstep.core.commands import ApplyDefinition, Command
from lockstep.core.entity import QueueDefinition, QueueSettings
from lockstep.core.ids import EntityNumber
from lockstep.core.limits import Limits
from lockstep.core.partition import Partition
from lockstep.core.replies import Reply
from lockstep.runtime.clock import SystemClock
from lockstep.storage.port import PartitionStore
from lockstep.storage.postgres import PostgresStore
from lockstep.storage.sqlite import SqliteStore
from tests.postgres.server import PostgresServer, running_server

DESCRIPTION = "Measure commits to stores: median, and lowest to highest, of several repetitions."
HELD = "PostgreSQL, with an old snapshot"
# As a small server is set up; everything else is PostgreSQL's default, syncs included.
SERVER = ("shared_buffers=256MB", "max_wal_size=4GB")


@asynccontextmanager
async def old_snapshot(dsn: str) -> AsyncIterator[None]:
    """Keep a snapshot of a database, as a dump does, so that none of its dead rows can be cleaned up."""
    connection = await psycopg.AsyncConnection.connect(dsn)
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await connection.execute("SELECT 1")
        yield
    finally:
        await connection.close()


class Course:
    """A partition that lives on one store."""

    def __init__(self, store: PartitionStore) -> None:
        self._store = store
        self._life = Life()
        self._partition = Partition(inside.PARTITION, Limits(), now_ms=1)
        self._commits = array("d")

    async def begin(self) -> None:
        """Open the partition and make the queue."""
        await self._store.open(inside.PARTITION, EPOCH)
        settings = QueueSettings(requires_session=True)
        definition = QueueDefinition("default", "micro", EntityNumber(1), "uid", 1, settings, 1, 1)
        await self._do(ApplyDefinition(definition))

    async def _do(self, command: Command) -> Reply:
        decision = self._partition.step(command, 1)
        started = time.perf_counter()
        await self._store.commit(inside.PARTITION, EPOCH, decision.changes)
        self._commits.append(time.perf_counter() - started)
        return decision.reply

    async def run(self, seconds: float) -> measure.Figures:
        """Send, receive and complete batches for a time."""
        self._commits = array("d")
        batches, cpu = 0, time.process_time()
        started = time.perf_counter()
        while not batches or time.perf_counter() - started < seconds:
            await live(self._life, self._do)
            batches += 1
        taken, cpu = time.perf_counter() - started, time.process_time() - cpu
        ranks = measure.percentiles(self._commits)
        return {
            "messages_per_second": batches * BATCH / taken,
            "commits_per_second": len(self._commits) / taken,
            "commit.p50_ms": ranks["p50"] * 1e3,
            "commit.p99_ms": ranks["p99"] * 1e3,
            "own_cpu_us_per_commit": cpu / len(self._commits) * 1e6,
        }

    async def end(self) -> None:
        """Check that nothing is left, and let go."""
        snapshot = await self._store.open(inside.PARTITION, EPOCH)
        assert list(snapshot.chunks) == [], "all that was sent was completed"
        await self._store.close(inside.PARTITION)


async def compared(
    server: PostgresServer, repetitions: int, seconds: float
) -> dict[str, list[measure.Figures]]:
    """Return what each repetition found, by store. The old snapshot is held from the first to the last."""
    plain, held = server.make_database("plain"), server.make_database("held")
    clock = SystemClock()
    found: dict[str, list[measure.Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as directory:
        courses = {
            "SQLite": Course(SqliteStore(Path(directory))),
            "PostgreSQL": Course(PostgresStore([plain], clock)),
            HELD: Course(PostgresStore([held], clock)),
        }
        for course in courses.values():
            await course.begin()
            await course.run(seconds / 10)  # the first statements are prepared
        async with old_snapshot(held):
            for _ in range(repetitions):
                for name, course in courses.items():
                    found.setdefault(name, []).append(await course.run(seconds))
        for course in courses.values():
            await course.end()
    return found


def lines(found: dict[str, list[measure.Figures]]) -> Iterator[str]:
    """Yield the report."""
    yield ", ".join(f"{name} {value}" for name, value in measure.machine().items())
    yield f"batches of {BATCH} messages of {len(BODY)} bytes: 5 commits for the life of each batch"
    for name, runs in found.items():
        yield name
        for figure, summary in measure.summarise(runs).items():
            yield f"  {figure:<28}{summary!s:>28}"
    held = [run["messages_per_second"] for run in found[HELD]]
    yield "messages a second while the snapshot grew older: " + " ".join(map(measure.short, held))


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(prog="python -m bench.stores", description=DESCRIPTION)
    add = parser.add_argument
    add("--repetitions", type=int, default=5, metavar="N", help="repetitions (5)")
    add("--seconds", type=float, default=5.0, metavar="S", help="length of each (5)")
    return parser.parse_args(words)


def main() -> int:
    """Measure and report."""
    arguments = parse_arguments()
    with running_server(SERVER) as server:
        found = asyncio.run(compared(server, arguments.repetitions, arguments.seconds))
    for line in lines(found):
        sys.stdout.write(line + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
