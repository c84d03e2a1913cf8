"""Partitions in SQLite files, one file for each: the embedded default.

Here belong the file, its thread and its safety. The laws: one dedicated thread for each file, and calls
are carried out in the order they were made; a commit is one transaction with one statement for each
table, synced before it returns (WAL, synchronous=FULL); a file that is damaged, of a newer version or not
ours is refused and not written to.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from lockstep.core.changes import (
    AmendmentRow,
    ArrivalRow,
    CatalogueRow,
    Change,
    ChunkRow,
    ClientRow,
    CounterRow,
    CountRow,
    DeadLetterRow,
    DeferredRow,
    DelayRow,
    DuplicatesRow,
    EntityRow,
    GoneRow,
    JobRow,
    LockRow,
    MovedRow,
    PartitionRow,
    RequestRow,
    Row,
    SessionRow,
    StateRow,
)
from lockstep.core.errors import InternalError, StoreRefused, StoreUnavailable
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.snapshot import Snapshot
from lockstep.storage.chunks import is_intact, messages_of, stored_chunk
from lockstep.storage.port import StateKey, WriteSet, fenced
from lockstep.storage.queries import load_migrations, load_queries, with_rows

APPLICATION_ID = 0x4C4B5354  # "LKST"
_MAGIC = b"SQLite format 3\x00"
_PARAMETERS_MAX = 32_000
_MARKER = "store.json"
_MARKER_FORMAT = 1
_PAGE_BYTES = 16_384  # bodies are large; with 4 KiB a message cost a fifth more processor time
_CHECKPOINT_PAGES = 1000
_CACHE_KIB = 65_536
_ROWS_EXACT_MAX = 64
KEYS_MAX = 64  # a condition for each key: SQLite takes long to plan very many, and refuses 1000
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_marker_lock = threading.Lock()  # one process writes the marker, from several threads
_Result = TypeVar("_Result")

# How each row type is written: its table, its number of columns, its number of key columns.
_TABLES: dict[type[Row], tuple[str, int, int]] = {
    CatalogueRow: ("catalogue", 3, 1),
    EntityRow: ("entities", 3, 1),
    CounterRow: ("counters", 3, 1),
    ChunkRow: ("chunks", 10, 1),
    GoneRow: ("gone", 3, 2),
    MovedRow: ("moved", 6, 2),
    SessionRow: ("sessions", 15, 2),
    StateRow: ("states", 4, 2),
    LockRow: ("locks", 5, 2),
    CountRow: ("delivery_counts", 3, 2),
    DeadLetterRow: ("dead_letters", 6, 2),
    DeferredRow: ("deferred", 3, 2),
    DelayRow: ("delays", 3, 2),
    AmendmentRow: ("amendments", 3, 2),
    JobRow: ("jobs", 3, 2),
    ArrivalRow: ("arrivals", 4, 2),
    DuplicatesRow: ("duplicates", 4, 2),
    RequestRow: ("requests", 4, 2),
    ClientRow: ("clients", 3, 1),
}


class SqliteStore:
    """Keeps partitions as files of one directory, which no other process may use at the same time."""

    def __init__(self, directory: Path) -> None:
        """Name the directory; it is made when the first partition is opened."""
        self._directory = directory
        self._files: dict[PartitionId, _PartitionFile] = {}
        self._threads: dict[PartitionId, ThreadPoolExecutor] = {}

    async def open(self, partition: PartitionId, epoch: PartitionEpoch) -> Snapshot:
        """As the port says."""
        thread = self._threads.get(partition)
        if thread is None:
            thread = ThreadPoolExecutor(1, thread_name_prefix=f"sqlite-{partition}")
            self._threads[partition] = thread
        return await _run(thread, lambda: self._open(partition, epoch))

    def _open(self, partition: PartitionId, epoch: PartitionEpoch) -> Snapshot:
        known = self._files.pop(partition, None)
        if known is not None:
            known.close()
        file = _PartitionFile(self._directory, partition)
        try:
            snapshot = file.claim(epoch)
        except BaseException:
            file.close()
            raise
        self._files[partition] = file
        return snapshot

    async def commit(
        self, partition: PartitionId, epoch: PartitionEpoch, changes: Sequence[Change]
    ) -> None:
        """As the port says."""
        await _run(self._threads[partition], lambda: self._files[partition].commit(epoch, changes))

    async def load_chunks(
        self, partition: PartitionId, epoch: PartitionEpoch, chunks: Sequence[int]
    ) -> dict[int, tuple[bytes, ...]]:
        """As the port says."""
        return await _run(
            self._threads[partition], lambda: self._files[partition].load_chunks(epoch, chunks)
        )

    async def load_states(
        self, partition: PartitionId, epoch: PartitionEpoch, keys: Sequence[StateKey]
    ) -> dict[StateKey, bytes]:
        """As the port says."""
        return await _run(
            self._threads[partition], lambda: self._files[partition].load_states(epoch, keys)
        )

    async def close(self, partition: PartitionId) -> None:
        """As the port says."""
        thread = self._threads.pop(partition, None)
        if thread is None:
            return
        file = self._files.pop(partition, None)
        if file is not None:
            await _run(thread, file.close)
        thread.shutdown(wait=False)


async def _run(thread: ThreadPoolExecutor, call: Callable[[], _Result]) -> _Result:
    try:
        return await asyncio.get_running_loop().run_in_executor(thread, call)
    except sqlite3.OperationalError as error:
        raise StoreUnavailable(f"SQLite failed: {error}. The partition reopens.") from error
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0)  # the module's own errors have none
        if code & 0xFF in _DAMAGED:  # the low byte; the rest says where
            raise StoreRefused(
                f"SQLite says that the file is damaged: {error}. Restore it from a backup."
            ) from error
        raise InternalError(
            f"SQLite refused a statement: {type(error).__name__}: {error}. Report this."
        ) from error


class _PartitionFile:
    """One SQLite file; used by one thread at a time."""

    def __init__(self, directory: Path, partition: PartitionId) -> None:
        self._partition = partition
        self._path = directory / f"partition-{partition:04}.sqlite"
        self._queries = load_queries("sqlite/queries.sql")
        is_new = _is_new(directory, self._path, partition)
        if not is_new:
            _refuse_no_sqlite(self._path)
        self._connection = sqlite3.connect(
            self._path, isolation_level=None, cached_statements=1024, check_same_thread=False
        )
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise
        with _marker_lock:
            if partition not in _created(directory):
                _note_created(directory, partition)

    def _prepare(self) -> None:
        migrations = load_migrations("sqlite")
        version = _refuse_foreign(self._connection, self._path, newest=migrations[-1][0])
        self._connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        self._connection.execute("PRAGMA synchronous = FULL")
        for number, script in migrations:
            if number > version:
                self._migrate(number, script)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        # Some builds have it on: then every deleted page is written once more, full of zeros.
        self._connection.execute("PRAGMA secure_delete = OFF")
        self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")

    def _migrate(self, number: int, script: str) -> None:
        first = row = ""
        if number == 1:
            first = f"PRAGMA application_id = {APPLICATION_ID};"
            row = self._queries["create_partition"].replace("?", str(int(self._partition))) + ";"
        self._connection.executescript(
            f"BEGIN IMMEDIATE; {first} {script} {row} PRAGMA user_version = {number}; COMMIT;"
        )

    def claim(self, epoch: PartitionEpoch) -> Snapshot:
        """Fence every lower epoch and read everything, in one transaction."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            number, *stored = connection.execute(self._queries["read_partition"]).fetchone()[:4]
            if number != self._partition:
                raise StoreRefused(
                    f"{self._path.name} holds partition {number}, not {self._partition}. It was renamed or copied;"
                    " put the right file in its place."
                )
            if PartitionEpoch(*stored) > epoch:
                raise fenced(self._partition, epoch, PartitionEpoch(*stored))
            connection.execute(self._queries["claim_partition"], epoch)
            snapshot = self._read()
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return snapshot

    def _read(self) -> Snapshot:
        def rows(query: str, make: Callable[..., Any]) -> list[Any]:
            return [make(*row) for row in self._connection.execute(self._queries[query])]

        last = self._connection.execute(self._queries["read_partition"]).fetchone()[4:]
        return Snapshot(
            partition=PartitionRow(*last),
            entities=rows("read_entities", EntityRow),
            catalogue=rows("read_catalogue", CatalogueRow),
            counters=rows("read_counters", CounterRow),
            chunks=rows("read_chunks", partial(ChunkRow, messages=())),
            gone=rows("read_gone", GoneRow),
            moved=rows("read_moved", MovedRow),
            sessions=rows("read_sessions", SessionRow),
            states=rows("read_states", StateRow),
            locks=rows("read_locks", LockRow),
            counts=rows("read_delivery_counts", CountRow),
            dead_letters=rows("read_dead_letters", DeadLetterRow),
            deferred=rows("read_deferred", DeferredRow),
            delays=rows("read_delays", DelayRow),
            amendments=rows("read_amendments", AmendmentRow),
            jobs=rows("read_jobs", JobRow),
            arrivals=rows("read_arrivals", ArrivalRow),
            duplicates=rows("read_duplicates", DuplicatesRow),
            requests=rows("read_requests", RequestRow),
            clients=rows("read_clients", ClientRow),
        )

    def commit(self, epoch: PartitionEpoch, changes: Sequence[Change]) -> None:
        """Write changes in one transaction, if the epoch is the stored one."""
        writes = WriteSet(changes)
        header = writes.rows.pop(PartitionRow, {}).get((0,), PartitionRow(0, 0, 0))
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            checked = connection.execute(self._queries["count_further"], (*header, *epoch))
            if checked.rowcount != 1:
                raise fenced(self._partition, epoch, self._stored_epoch())
            self._write(writes)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _write(self, writes: WriteSet) -> None:
        for table, keys in writes.dropped.items():
            if not keys:
                continue
            name, _, key_columns = _TABLES[table]
            if table is ChunkRow:
                self._execute("drop_gone_of_chunks", keys, 1, most=KEYS_MAX)
                self._execute("drop_moved_of_chunks", keys, 1, most=KEYS_MAX)
            self._execute(f"drop_{name}", keys, key_columns, most=KEYS_MAX)
        for table, rows in writes.rows.items():
            if not rows:
                continue
            name, columns, _ = _TABLES[table]
            values: Iterable[Sequence[Any]] = rows.values()
            if table is ChunkRow:
                values = map(stored_chunk, rows.values())
            self._execute(f"put_{name}", values, columns, most=_PARAMETERS_MAX // columns)
        for entity in writes.entities:
            for name, query in self._queries.items():
                if name.startswith("drop_entity_"):
                    self._connection.execute(query, (entity,))

    def _execute(
        self, query: str, rows: Iterable[Sequence[Any]], columns: int, *, most: int
    ) -> None:
        for group in _groups(rows, most):
            statement = with_rows(self._queries[query], len(group), columns)
            self._connection.execute(statement, tuple(chain.from_iterable(group)))

    def load_chunks(
        self, epoch: PartitionEpoch, chunks: Sequence[int]
    ) -> dict[int, tuple[bytes, ...]]:
        """Read the messages of chunks and check them."""
        loaded = {}
        keys = [(chunk,) for chunk in chunks]
        for chunk, sizes, checksum, bodies in self._select(epoch, "load_chunks", keys, 1):
            if not is_intact(bodies, checksum):
                raise StoreRefused(
                    f"The messages of chunk {chunk} in {self._path.name} do not match their checksum. The partition"
                    " has stopped. Restore the file from a backup."
                )
            loaded[chunk] = messages_of(bodies, sizes)
        return loaded

    def load_states(self, epoch: PartitionEpoch, keys: Sequence[StateKey]) -> dict[StateKey, bytes]:
        """Read session states."""
        return {
            (entity, name): value
            for entity, name, value in self._select(epoch, "load_states", keys, 2)
        }

    def _select(
        self, epoch: PartitionEpoch, query: str, keys: Sequence[Sequence[Any]], columns: int
    ) -> list[Any]:
        """Read rows by key, in one transaction with the check of the epoch."""
        found: list[Any] = []
        self._connection.execute("BEGIN")
        try:
            stored = self._stored_epoch()
            if stored != epoch:
                raise fenced(self._partition, epoch, stored)
            for group in _groups(keys, KEYS_MAX):
                statement = with_rows(self._queries[query], len(group), columns)
                found += self._connection.execute(
                    statement, tuple(chain.from_iterable(group))
                ).fetchall()
        finally:
            self._connection.execute("ROLLBACK")
        return found

    def _stored_epoch(self) -> PartitionEpoch:
        row = self._connection.execute(self._queries["read_partition"]).fetchone()
        return PartitionEpoch(*row[1:4])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _groups(rows: Iterable[Sequence[Any]], most: int) -> Iterator[list[Sequence[Any]]]:
    """Yield rows in groups of few different sizes: each size is a statement of its own, which SQLite keeps.

    Up to 64 rows go in one group; more go in groups whose sizes are powers of two, and a rest.
    """
    left = list(rows)
    start = 0
    while start < len(left):
        count = min(len(left) - start, most)
        if count > _ROWS_EXACT_MAX:
            count = 1 << (count.bit_length() - 1)
        yield left[start : start + count]
        start += count


def _is_new(directory: Path, path: Path, partition: PartitionId) -> bool:
    directory.mkdir(parents=True, exist_ok=True)
    created = _created(directory)
    if path.exists():
        return partition not in created and path.stat().st_size == 0
    if partition in created:
        raise StoreRefused(
            f"{path.name} is missing from the data directory, where it was created before. An empty partition would"
            " hide the loss, so nothing was started. Restore the file from a backup."
        )
    return True


def _created(directory: Path) -> list[int]:
    marker = directory / _MARKER
    if not marker.exists():
        return []
    try:
        record = json.loads(marker.read_text(encoding="utf-8"))
        form = int(record["format"])
        created = list(record["created"]) if form <= _MARKER_FORMAT else []
    except (ValueError, KeyError, TypeError) as error:
        raise StoreRefused(
            f"{_MARKER} in the data directory is damaged. Restore it from a backup."
        ) from error
    if form > _MARKER_FORMAT:
        raise StoreRefused(
            f"{_MARKER} has format {form}; this release knows formats up to {_MARKER_FORMAT}. Nothing was written."
            " Use the release that wrote it, or a newer one.",
            details={"observed": str(form), "limit": str(_MARKER_FORMAT)},
        )
    return created


def _note_created(directory: Path, partition: PartitionId) -> None:
    created = sorted({*_created(directory), int(partition)})
    part = directory / f"{_MARKER}.part"
    with part.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps({"format": _MARKER_FORMAT, "created": created}))
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(directory / _MARKER)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_no_sqlite(path: Path) -> None:
    with path.open("rb") as stream:
        header = stream.read(100)
    if len(header) < 100 or not header.startswith(_MAGIC):
        raise StoreRefused(
            f"{path.name} is not an SQLite file, or its beginning is damaged. Nothing was written to it. Restore it"
            " from a backup, or use another data directory."
        )


def _refuse_foreign(connection: sqlite3.Connection, path: Path, *, newest: int) -> int:
    """Return the version of a file's tables; 0 = it has none yet."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreRefused(
            f"{path.name} is the SQLite file of another program. Nothing was written to it. Use another data directory."
        )
    if version > newest:
        raise StoreRefused(
            f"{path.name} has version {version}; this release knows versions up to {newest}. Nothing was written to it."
            " Use the release that wrote it, or a newer one.",
            details={"observed": str(version), "limit": str(newest)},
        )
    return version
