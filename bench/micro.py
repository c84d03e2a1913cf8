"""What a message costs on each floor of the broker, without the others.

Here belongs one bench for each floor. Never here: servers and networks (`lifecycle`, `scale`). The laws: a bench calls
the shipped code as the floor above it does; what it prepares is not counted; what it did is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import inside, measure
from lockstep.aio import LockstepClient
from lockstep.client.message import Message
from lockstep.core.changes import Change, ChunkRow, Drop, PartitionRow
from lockstep.core.commands import (
    Accept,
    ApplyDefinition,
    Command,
    CreateQueue,
    Outcome,
    Receive,
    ReleaseSession,
    Send,
    Settle,
    Settlement,
)
from lockstep.core.entity import QueueDefinition, QueueSettings
from lockstep.core.ids import (
    ChunkId,
    EntityKey,
    EntityNumber,
    GrantNumber,
    PartitionEpoch,
    RequestId,
    SessionId,
)
from lockstep.core.limits import Limits
from lockstep.core.partition import Partition
from lockstep.core.replies import Accepted, Delivered, Reply, Settled, Short
from lockstep.storage.memory import MemoryStore
from lockstep.storage.port import PartitionStore
from lockstep.storage.sqlite import SqliteStore
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.wire import convert, sends

DESCRIPTION = "Measure what a message costs on each floor: median, and lowest to highest, of several repetitions."
BATCH = 100
BODY = bytes(1024)
KEY = EntityKey("default", "micro")
SESSION = SessionId("session")
EPOCH = PartitionEpoch(0, 1, 0)

Times = dict[str, int]
"""What each part of one turn took, in ns."""
Turn = Callable[[], Awaitable[Times]]
"""Does the same once more; the names of its parts are always the same."""


class Timer:
    """Tells the parts of a turn."""

    def __init__(self) -> None:
        self.times: Times = {}
        self._since = time.perf_counter_ns()

    def start(self) -> None:
        """Begin a part."""
        self._since = time.perf_counter_ns()

    def stop(self, name: str) -> None:
        """End a part, and begin the next."""
        now = time.perf_counter_ns()
        self.times[name] = now - self._since
        self._since = time.perf_counter_ns()


# --- the floors -------------------------------------------------------------------------------------------


class Life:
    """The commands of the life of one batch in one session."""

    def __init__(self) -> None:
        self._counter = 0
        self._raw = Message(BODY, session_id=SESSION)._wire.SerializeToString()

    def request(self) -> RequestId:
        """Name the next call."""
        self._counter += 1
        return RequestId("micro", self._counter)

    def send(self) -> Send:
        """Store a batch."""
        return Send(KEY, (self._raw,) * BATCH, (SESSION,), self.request(), 1)

    def accept(self) -> Accept:
        """Take the session."""
        return Accept(KEY, None, "holder", self.request(), 1)

    def receive(self, accepted: Accepted) -> Receive:
        """Get the batch."""
        return Receive(KEY, False, accepted.session, BATCH, self.request(), 1)  # noqa: FBT003

    def settle(self, accepted: Accepted, delivered: Delivered) -> Settle:
        """Complete the batch."""
        assert len(delivered.sequences) == BATCH, "what was sent comes"
        done = Settlement(Outcome.COMPLETE, delivered.grant, delivered.sequences)
        return Settle(KEY, False, accepted.session, (done,), self.request(), 1)  # noqa: FBT003

    def release(self, accepted: Accepted) -> ReleaseSession:
        """Give the session back."""
        return ReleaseSession(KEY, accepted.session, self.request(), 1)


async def live(life: Life, do: Callable[[Command], Awaitable[Reply]]) -> Times:
    """Carry out the life of one batch and time its parts."""
    timer = Timer()
    send = life.send()
    timer.start()
    await do(send)
    timer.stop("send")
    accepted = await do(life.accept())
    assert isinstance(accepted, Accepted), "there is a session with messages"
    timer.stop("accept")
    delivered = await do(life.receive(accepted))
    assert isinstance(delivered, Delivered), "the session is held"
    timer.stop("receive")
    settled = await do(life.settle(accepted, delivered))
    assert isinstance(settled, Settled), "the session is held"
    assert not settled.failures, "all were in hand"
    timer.stop("settle")
    await do(life.release(accepted))
    timer.stop("release")
    times = timer.times
    times["accept and release (a session)"] = BATCH * (times.pop("accept") + times.pop("release"))
    return times


@asynccontextmanager
async def core() -> AsyncIterator[Turn]:
    """The rules alone: steps of a partition."""
    partition = Partition(inside.PARTITION, Limits(), now_ms=1)
    settings = QueueSettings(requires_session=True)
    definition = QueueDefinition("default", "micro", EntityNumber(1), "uid", 1, settings, 1, 1)
    partition.step(ApplyDefinition(definition), 1)
    life = Life()

    async def do(command: Command) -> Reply:
        return partition.step(command, 1).reply

    yield lambda: live(life, do)


@asynccontextmanager
async def storage_memory() -> AsyncIterator[Turn]:
    """Commits to the memory store: one chunk of a batch each, and the drop of the one before."""
    async with _commits(MemoryStore()) as turn:
        yield turn


@asynccontextmanager
async def storage_sqlite() -> AsyncIterator[Turn]:
    """The same to SQLite, synced."""
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as directory:
        async with _commits(SqliteStore(Path(directory))) as turn:
            yield turn


@asynccontextmanager
async def _commits(store: PartitionStore) -> AsyncIterator[Turn]:
    await store.open(inside.PARTITION, EPOCH)
    raw = Message(BODY, session_id=SESSION)._wire.SerializeToString()
    sizes = array("I", [len(raw)] * BATCH).tobytes()
    last = 0

    async def commit() -> Times:
        nonlocal last
        last += 1
        first, messages = last * BATCH, (raw,) * BATCH
        sessions = f'["{SESSION}"]'
        changes: list[Change] = [
            ChunkRow(ChunkId(last), EntityNumber(1), first, 1, sizes, sessions, b"", b"", messages),
            Drop(ChunkRow, (last - 1,)),
            PartitionRow(1, ChunkId(last), GrantNumber(0)),
        ]
        timer = Timer()
        await store.commit(inside.PARTITION, EPOCH, changes)
        timer.stop("commit")
        return timer.times

    yield commit
    snapshot = await store.open(inside.PARTITION, EPOCH)
    assert [row.chunk for row in snapshot.chunks] == [last], "the last batch is stored"
    await store.close(inside.PARTITION)


@asynccontextmanager
async def wire() -> AsyncIterator[Turn]:
    """From the bytes of a send to its command, and from a reply to the bytes of a response."""
    request = messaging.SendMessagesRequest(
        entity=KEY.name, messages=[Message(BODY, session_id=SESSION)._wire] * BATCH
    )
    payload = request.SerializeToString()
    messages = sends.send_command(payload).messages
    delivered = _delivered()

    async def there_and_back() -> Times:
        timer = Timer()
        command = sends.send_command(payload)
        timer.stop("send")
        response = convert.receive_response(delivered, messages)
        timer.stop("receive")
        assert len(command.messages) == BATCH, "all were read"
        assert len(response) > BATCH * len(BODY), "all were written"
        return timer.times

    yield there_and_back


def _delivered() -> Delivered:
    numbers = array("q", range(1, BATCH + 1))
    return Delivered(
        entity=EntityNumber(1),
        grant=GrantNumber(1),
        size_bytes=BATCH * len(BODY),
        sequences=numbers,
        chunks=numbers,
        places=numbers,
        enqueued_ms=array("q", [1_700_000_000_000]) * BATCH,
        counts=(),
        locked_until_ms=1_700_000_060_000,
        short=Short.NO,
    )


@asynccontextmanager
async def owner() -> AsyncIterator[Turn]:
    """Rounds of an owner with the memory store, one call in each: the core, a commit, the answer."""
    async with inside.running_owner(MemoryStore()) as supervisor:
        settings = {"requires_session": True}
        await supervisor.call(inside.PARTITION, CreateQueue("default", KEY.name, settings, "uid"))
        life = Life()

        async def do(command: Command) -> Reply:
            return (await supervisor.call(inside.PARTITION, command)).reply

        yield lambda: live(life, do)


@asynccontextmanager
async def client() -> AsyncIterator[Turn]:
    """From a program's values to the bytes of a send, and from the bytes of a response to received messages."""
    raws = [Message(BODY, session_id=SESSION)._wire.SerializeToString()] * BATCH
    response = convert.receive_response(_delivered(), raws)
    async with LockstepClient("127.0.0.1:1") as unconnected:
        receiver = unconnected.get_queue_receiver(KEY.name)

        async def there_and_back() -> Times:
            timer = Timer()
            messages = [Message(BODY, session_id=SESSION) for _ in range(BATCH)]
            request = messaging.SendMessagesRequest(
                entity=KEY.name, messages=[message._wire for message in messages]
            )
            payload = request.SerializeToString()
            timer.stop("encode")
            read = messaging.ReceiveMessagesResponse.FromString(response)
            received = [message.body for message in receiver._receiving.read(read)]
            timer.stop("decode")
            assert len(payload) > BATCH * len(BODY), "all were written"
            assert received == [BODY] * BATCH, "all were read"
            return timer.times

        yield there_and_back


BENCHES: dict[str, Callable[[], AbstractAsyncContextManager[Turn]]] = {
    "core": core,
    "storage-memory": storage_memory,
    "storage-sqlite": storage_sqlite,
    "wire": wire,
    "owner": owner,
    "client": client,
}

# --- repetitions ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: so many repetitions of so many seconds, after one that is not counted."""

    repetitions: int
    seconds: float


async def measured(name: str, effort: Effort) -> dict[str, measure.Summary]:
    """Return what a message costs in each part of a bench, in µs."""
    async with BENCHES[name]() as turn:
        runs = [await _repetition(turn, effort.seconds) for _ in range(effort.repetitions + 1)]
    columns = {part: [run[part] for run in runs[1:]] for part in runs[0]}
    return {
        part: measure.Summary(statistics.median(column), min(column), max(column))
        for part, column in columns.items()
    }


async def _repetition(turn: Turn, seconds: float) -> measure.Figures:
    gc.collect()
    totals: Times = {}
    turns = 0
    ends_at = time.perf_counter() + seconds
    while not turns or time.perf_counter() < ends_at:
        for part, ns in (await turn()).items():
            totals[part] = totals.get(part, 0) + ns
        turns += 1
    return {part: ns / turns / BATCH / 1000 for part, ns in totals.items()}


def lines(found: dict[str, dict[str, measure.Summary]]) -> Iterator[str]:
    """Yield the report."""
    yield ", ".join(f"{name} {value}" for name, value in measure.machine().items())
    yield f"batches of {BATCH} messages of {len(BODY)} bytes; µs a message"
    for name, parts in found.items():
        for part, summary in parts.items():
            yield f"  {name + ': ' + part:<44}{summary!s:>24}"


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description=DESCRIPTION)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"what to measure, of {', '.join(BENCHES)} (all)")
    add("--repetitions", type=int, default=9, metavar="N", help="counted repetitions (9)")
    add("--seconds", type=float, default=0.5, metavar="S", help="length of each (0.5)")
    chosen = parser.parse_args(words)
    for name in chosen.names:
        if name not in BENCHES:
            parser.error(f"there is no bench '{name}'; there are {', '.join(BENCHES)}")
    return chosen


def main() -> int:
    """Measure and report."""
    arguments = parse_arguments()
    effort = Effort(arguments.repetitions, arguments.seconds)
    found = {}
    for name in arguments.names or BENCHES:
        found[name] = asyncio.run(measured(name, effort))
    for line in lines(found):
        sys.stdout.write(line + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
