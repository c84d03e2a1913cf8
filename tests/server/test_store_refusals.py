"""A store that is damaged, foreign or taken: a clear refusal, and not a byte of it overwritten."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from lockstep.core.errors import StoreRefused, StoreUnavailable
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.storage.sqlite import SqliteStore
from tests.server import calls
from tests.server.server_process import MakeServer, ServerProcess, wait_until

FILE = "partition-0000.sqlite"
FIRST, SECOND = b"first body " * 300, b"second body " * 300
PAGE_BYTES = 16_384
HEADER_BYTES = 100


@pytest.fixture(scope="module")
def filled(make_shared_server: MakeServer) -> Path:
    """A data directory with two messages in one queue, after an orderly stop."""
    server = make_shared_server("filled").start()
    calls.create(server.stubs, "orders")
    calls.send(server.stubs, "orders", FIRST)
    calls.send(server.stubs, "orders", SECOND)
    server.restart()
    assert server.stop() == 0
    assert not (server.data_dir / f"{FILE}-wal").exists()
    return server.data_dir


@pytest.fixture
def copy(make_server: MakeServer, filled: Path) -> ServerProcess:
    """A server, not started, on a copy of the filled directory."""
    server = make_server()
    shutil.copytree(filled, server.data_dir)
    return server


def store_files(directory: Path) -> dict[str, bytes]:
    """Return the files that hold messages, or say what there is."""
    names = [FILE, f"{FILE}-wal", "store.json"]
    return {name: (directory / name).read_bytes() for name in names if (directory / name).is_file()}


def assert_refused(server: ServerProcess, *words: str) -> None:
    """Start a server that must end by itself, with one sentence, and change no file of its store."""
    before = store_files(server.data_dir)

    server.launch()
    code = server.wait()

    told = [line for line in server.last_log().splitlines() if not line.startswith("{")]
    assert code not in (0, None)
    assert code > 0, f"ended by signal {-code}"
    assert len(told) == 1, server.last_log()
    assert "Traceback" not in server.last_log()
    for word in words:
        assert word in told[0]
    assert store_files(server.data_dir) == before


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def flip(path: Path, offset: int) -> None:
    overwrite(path, offset, bytes([path.read_bytes()[offset] ^ 0xFF]))


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


# --- the file of a partition -----------------------------------------------------------------------


def _garbage(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)


def _another_program(path: Path) -> None:
    path.unlink()
    execute(path, "CREATE TABLE notes (text)", "INSERT INTO notes VALUES ('keep me')")


def _another_application_id(path: Path) -> None:
    path.unlink()
    execute(path, "PRAGMA application_id = 77")


def _other_partition(path: Path) -> None:
    async def make() -> None:
        store = SqliteStore(path.parent / "other")
        await store.open(PartitionId(1), PartitionEpoch(0, 1, 0))
        await store.close(PartitionId(1))

    asyncio.run(make())
    (path.parent / "other" / "partition-0001.sqlite").replace(path)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "garbage": (_garbage, "is not an SQLite file"),
    "empty": (lambda path: path.write_bytes(b""), "is not an SQLite file"),
    "50 bytes left": (lambda path: path.write_bytes(path.read_bytes()[:50]), "not an SQLite file"),
    "one page left": (lambda path: path.write_bytes(path.read_bytes()[:PAGE_BYTES]), "damaged"),
    "half left": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "damaged"),
    "magic": (lambda path: flip(path, 3), "is not an SQLite file"),
    "page size": (lambda path: flip(path, 16), "damaged"),
    "schema page": (lambda path: overwrite(path, 100, bytes(200)), "damaged"),
    "second page": (lambda path: overwrite(path, PAGE_BYTES, bytes(PAGE_BYTES)), "damaged"),
    "newer version": (lambda path: execute(path, "PRAGMA user_version = 999"), "version 999"),
    "another program": (_another_program, "another program"),
    "another application": (_another_application_id, "another program"),
    "missing": (lambda path: path.unlink(), "is missing"),
    "of another partition": (_other_partition, "holds partition 1, not 0"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_partition_file_that_cannot_be_right_is_refused(copy: ServerProcess, damage: str) -> None:
    spoil, word = DAMAGES[damage]
    spoil(copy.data_dir / FILE)

    assert_refused(copy, word, "STORE_REFUSED")


def test_no_flipped_byte_of_a_header_lets_the_file_be_overwritten(
    filled: Path, tmp_path: Path
) -> None:
    for offset in range(HEADER_BYTES):
        directory = tmp_path / str(offset)
        shutil.copytree(filled, directory)
        flip(directory / FILE, offset)
        before = store_files(directory)

        messages = asyncio.run(_open(directory))

        if messages is None:
            assert store_files(directory) == before, f"byte {offset}"
        else:
            assert messages == [FIRST, SECOND], f"byte {offset}"
        shutil.rmtree(directory)


async def _open(directory: Path) -> list[bytes] | None:
    """Return the bodies of a store; None = it was refused."""
    store = SqliteStore(directory)
    try:
        epoch = PartitionEpoch(0, 99, 0)
        snapshot = await store.open(PartitionId(0), epoch)
        named = [row.chunk for row in snapshot.chunks]
        chunks = await store.load_chunks(PartitionId(0), epoch, named)
        return [
            raw[-len(body) :] for (raw,), body in zip(chunks.values(), (FIRST, SECOND), strict=True)
        ]
    except (StoreRefused, StoreUnavailable):
        return None
    finally:
        await store.close(PartitionId(0))


def test_a_body_that_does_not_match_its_checksum_stops_the_partition(copy: ServerProcess) -> None:
    path = copy.data_dir / FILE
    at = path.read_bytes().index(SECOND) + 5
    flip(path, at)
    copy.start()
    asked = calls.receive_request("orders", request_id=calls.Ids("reader").next())

    got = calls.refused(copy.stubs.messaging.ReceiveMessages, asked)

    assert (got.code, got.reason) == (grpc.StatusCode.INTERNAL, "STORE_REFUSED")
    assert "checksum" in got.text
    status, text = copy.http("health", "/readyz")
    assert status == 503
    assert "checksum" in json.loads(text)["reasons"][0]
    send = calls.send_request("orders", b"more")
    assert calls.refused(copy.stubs.messaging.SendMessages, send).reason == "STORE_REFUSED"
    assert copy.stop() == 0
    damaged = bytearray(SECOND)
    damaged[5] ^= 0xFF
    assert bytes(damaged) in path.read_bytes()
    flip(path, path.read_bytes().index(damaged) + 5)
    copy.start()
    repeated = copy.stubs.messaging.ReceiveMessages(asked, timeout=20)
    assert calls.bodies_of(repeated) == [FIRST, SECOND]


# --- the other files, and other processes ------------------------------------------------------------


@pytest.mark.parametrize("name", ["node.json", "store.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}', "\x00\x01"])
def test_a_damaged_record_is_refused(copy: ServerProcess, name: str, text: str) -> None:
    record = copy.data_dir / name
    record.write_text(text)

    assert_refused(copy, name, "damaged")

    assert record.read_text() == text


@pytest.mark.parametrize("name", ["node.json", "store.json"])
@pytest.mark.parametrize("text", ['{"format": 99}', '{"format": 2, "created": {}}'])
def test_a_record_of_a_newer_release_is_refused_as_such(
    copy: ServerProcess, name: str, text: str
) -> None:
    record = copy.data_dir / name
    record.write_text(text)

    assert_refused(copy, name, "a newer one")

    assert record.read_text() == text


def test_a_missing_record_of_the_node_is_refused(copy: ServerProcess) -> None:
    record = copy.data_dir / "node.json"
    record.unlink()

    assert_refused(copy, "node.json")

    assert not record.exists()


def test_a_directory_in_use_is_refused_and_its_server_goes_on(make_server: MakeServer) -> None:
    first = make_server("first").start()
    calls.create(first.stubs, "orders")
    second = make_server("second", settings={"data_dir": first.data_dir})

    second.launch()
    code = second.wait()

    assert code > 0
    assert second.log().count("\n") == 1
    assert "Another process uses the data directory" in second.log()
    calls.send(first.stubs, "orders", b"still here")


def test_another_number_of_partitions_is_refused(copy: ServerProcess) -> None:
    record = copy.data_dir / "node.json"
    values = json.loads(record.read_text())
    record.write_text(json.dumps({**values, "partitions": 4}))

    assert_refused(copy, "4 partitions", "1")

    assert json.loads(record.read_text())["partitions"] == 4


def test_a_port_in_use_is_refused(make_server: MakeServer, copy: ServerProcess) -> None:
    first = make_server("first").start()
    copy.port = first.port

    copy.launch()
    code = copy.wait()

    told = [line for line in copy.last_log().splitlines() if not line.startswith("{")]
    assert code > 0
    assert len(told) == 1, copy.last_log()
    assert f"Cannot listen on 127.0.0.1:{first.port}" in told[0]
    assert "Traceback" not in copy.last_log()


def test_a_data_directory_that_is_a_file_is_refused(make_server: MakeServer) -> None:
    server = make_server()
    server.data_dir.write_text("not a directory")

    assert_refused(server, str(server.data_dir))


def test_a_store_that_fails_for_a_while_loses_nothing_that_was_acknowledged(
    make_server: MakeServer,
) -> None:
    resource = pytest.importorskip("resource")
    server = make_server().start()
    stubs = server.stubs
    calls.create(stubs, "orders")
    ids = calls.Ids("sender")
    numbers = calls.send(stubs, "orders", b"before", request_id=ids.next())
    limits = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
    large = calls.send_request("orders", bytes(500_000))

    got = calls.refused(stubs.messaging.SendMessages, large)

    assert (got.code, got.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, limits)
    wait_until(lambda: server.http("health", "/readyz")[0] == 200, "the partition is open again")
    numbers += calls.send(stubs, "orders", b"after", request_id=ids.next())
    received = calls.receive(stubs, "orders")
    assert calls.bodies_of(received) == [b"before", b"after"]
    assert list(received.sequence_numbers) == numbers
