"""Partitions in PostgreSQL, in one database or in several: what a cluster runs on.

Here belong opening, committing and loading. Never here: how rows travel (`rows`), connections
(`session`) and whose a database is (`shards`). The laws: each open partition has a connection of its
own, and calls are carried out in the order they were made; a commit is one transaction in one round trip, with one
statement for each table, and it begins with the check of the epoch, which locks the partition's row; after a failure
nothing is known of a partition, and it must be opened again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any, NamedTuple

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
from lockstep.core.errors import StoreRefused, StoreUnavailable
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.snapshot import Snapshot
from lockstep.runtime.clock import Clock
from lockstep.storage.chunks import is_intact, messages_of, stored_chunk
from lockstep.storage.port import Key, StateKey, WriteSet, fenced
from lockstep.storage.postgres.rows import (
    TABLES,
    Column,
    as_columns,
    as_number,
    as_numbers,
    number_from,
)
from lockstep.storage.postgres.session import (
    OwnerRefused,
    PostgresSettings,
    Session,
    Statement,
    connected,
    conninfo_of,
    within,
)
from lockstep.storage.postgres.shards import ClusterRecord, Shards
from lockstep.storage.queries import load_queries

_ROWS_AT_ONCE = 1000  # others run while a large partition is read
_NO_PROGRESS = PartitionRow(0, 0, 0)
_IF_ETCD_IS_ANOTHER = (
    "If this lasts, etcd has lost its data or was restored: run `lockstep cluster next-generation`."
)


class PostgresStore:
    """Keeps partition n in database n modulo their number. Their order and number are fixed at the first use."""

    def __init__(
        self, dsns: Sequence[str], clock: Clock, settings: PostgresSettings | None = None
    ) -> None:
        """Name the databases; none is connected to before it is needed.

        Args:
            dsns: A connection string or URI of libpq for each database.
            clock: What the owner's time comes from; it is compared with the databases'.
            settings: What may be set; None = the defaults.

        Raises:
            InvalidRequest: One of them is no connection string.
        """
        for dsn in dsns:
            conninfo_of(dsn)
        self._settings = settings or PostgresSettings()
        self._shards = Shards(dsns, self._settings)
        self._shards_count = len(dsns)
        self._clock = clock
        self._opened: dict[PartitionId, _OpenPartition] = {}
        self._probing: dict[int, Session] = {}
        self._answered_ms = dict.fromkeys(range(len(dsns)), clock.monotonic_ms())

    async def open(self, partition: PartitionId, epoch: PartitionEpoch) -> Snapshot:
        """As the port says.

        Raises:
            Fenced: The stored epoch is higher.
            StoreRefused: A database is damaged, of a newer version, not ours, or not in its place.
            StoreUnavailable: No answer, or our clock differs too much from the database's; try again.
        """
        await self.close(partition)
        try:
            async with within(self._settings.open_timeout_ms):
                session = await self._shards.connected(partition % self._shards_count)
                try:
                    await self._compare_clocks(session, self._settings.call_timeout_ms)
                    opened = _OpenPartition(partition, session, self._settings.call_timeout_ms)
                    snapshot = await opened.claim(epoch, self._clock)
                except BaseException:
                    await session.close()
                    raise
        except OwnerRefused as refused:
            raise fenced(partition, epoch, refused.stored, _IF_ETCD_IS_ANOTHER) from refused
        self._opened[partition] = opened
        self._note_answer(partition)
        return snapshot

    async def _compare_clocks(self, session: Session, timeout_ms: int) -> None:
        sql = load_queries("postgres/schema.sql")["now_ms"]
        before_ms = self._clock.now_ms()
        (found,) = await session.run([Statement("now_ms", sql, ())], timeout_ms)
        theirs_ms = number_from(found.get_value(0, 0))
        after_ms, most_ms = self._clock.now_ms(), self._settings.skew_max_ms
        skew_ms = max(before_ms - theirs_ms, theirs_ms - after_ms)
        if skew_ms > most_ms:
            raise StoreUnavailable(
                f"This machine's clock differs from the database's by {skew_ms} ms, and at most {most_ms} ms are"
                " allowed. The partition stays closed here until one of them is set right.",
                details={"observed": str(skew_ms), "limit": str(most_ms)},
            )

    async def commit(
        self, partition: PartitionId, epoch: PartitionEpoch, changes: Sequence[Change]
    ) -> None:
        """As the port says."""
        opened = self._open_one(partition)
        try:
            await opened.commit(epoch, changes)
        except OwnerRefused as refused:
            raise fenced(partition, epoch, refused.stored) from refused
        self._note_answer(partition)

    async def load_chunks(
        self, partition: PartitionId, epoch: PartitionEpoch, chunks: Sequence[int]
    ) -> dict[int, tuple[bytes, ...]]:
        """As the port says."""
        opened = self._open_one(partition)
        try:
            return await opened.load_chunks(epoch, chunks)
        except OwnerRefused as refused:
            raise fenced(partition, epoch, refused.stored) from refused

    async def load_states(
        self, partition: PartitionId, epoch: PartitionEpoch, keys: Sequence[StateKey]
    ) -> dict[StateKey, bytes]:
        """As the port says."""
        opened = self._open_one(partition)
        try:
            return await opened.load_states(epoch, keys)
        except OwnerRefused as refused:
            raise fenced(partition, epoch, refused.stored) from refused

    def _open_one(self, partition: PartitionId) -> _OpenPartition:
        opened = self._opened.get(partition)
        if opened is None:
            raise StoreUnavailable(f"Partition {partition} is not open in this store.")
        return opened

    async def close(self, partition: PartitionId) -> None:
        """As the port says."""
        opened = self._opened.pop(partition, None)
        if opened is not None:
            await opened.close()

    # --- whether the databases are there ---------------------------------------------------------

    @property
    def databases(self) -> int:
        """How many there are."""
        return self._shards_count

    async def probe(self, database: int, *, timeout_ms: int) -> None:
        """Ask a database for the time, over a connection that is kept for it.

        Raises:
            StoreUnavailable: No answer in time, or our clock differs too much from the database's.
            LockstepError: It cannot be used from here.
        """
        session = self._probing.pop(database, None)
        async with within(timeout_ms):
            if session is None:
                session = await connected(self._shards.dsns[database], self._settings)
            try:
                await self._compare_clocks(session, timeout_ms)
            except BaseException:
                await session.close()
                raise
        self._probing[database] = session
        self._note_answer(database)

    def answered_ms(self, database: int) -> int:
        """Return when a database answered a probe, an opening or a commit last, by the monotonic clock."""
        return self._answered_ms[database]

    async def end_probes(self) -> None:
        """Close the connections of probes."""
        while self._probing:
            await self._probing.popitem()[1].close()

    def _note_answer(self, number: int) -> None:
        """Note that the database of a partition, or of a number, has answered."""
        self._answered_ms[number % self._shards_count] = self._clock.monotonic_ms()

    # --- the cluster -----------------------------------------------------------------------------

    async def prepare(self, partitions: int) -> ClusterRecord:
        """Create the record of the cluster in the first database, or check it.

        Raises:
            StoreRefused: The cluster was created with another number of partitions.
            StoreUnavailable: No answer; try again.
        """
        return await self._shards.prepare(partitions)

    async def generation(self) -> int:
        """Return the generation of etcd, the first field of every epoch."""
        return await self._shards.generation()

    async def next_generation(self) -> int:
        """Raise the generation by one and return it. To be called by an operator when etcd has lost its data."""
        return await self._shards.next_generation()


class _Rewrite(NamedTuple):
    """What a commit does with the rows of a table that are rewritten.

    Attributes:
        table: Their type.
        given: The numbers under which rows are written, by key.
        gone: The keys of rows that are deleted.
    """

    table: type[Row]
    given: dict[Key, int]
    gone: list[Key]


class _OpenPartition:
    """One partition and its connection."""

    def __init__(self, partition: PartitionId, session: Session, timeout_ms: int) -> None:
        self._partition = partition
        self._session = session
        self._timeout_ms = timeout_ms
        self._queries = load_queries("postgres/queries.sql")
        self._turn = (
            asyncio.Lock()
        )  # calls in the order they were made; the owner makes one at a time
        self._progress = _NO_PROGRESS
        # The number of the row of progress: the highest that was given out.
        self._last_number = 0
        # All and only the stored rows of tables that are rewritten: their numbers by key.
        self._numbers: dict[type[Row], dict[Key, int]] = {
            row: {} for row, table in TABLES.items() if table.is_rewritten
        }

    # --- opening ---------------------------------------------------------------------------------

    async def claim(self, epoch: PartitionEpoch, clock: Clock) -> Snapshot:
        """Fence every lower epoch and read everything, in one transaction.

        Each statement sees what was committed before it; nobody commits here after the first one, which locks.
        """
        connection = self._session.connection
        rows: dict[type[Row], list[Any]] = {}
        async with connection.transaction():
            await connection.execute(self._queries["claim_partition"], (self._partition, *epoch))
            cursor = await connection.execute(self._queries["read_progress"], (self._partition,))
            progress = await cursor.fetchone()
            async with connection.pipeline():
                cursors = {table: connection.cursor(binary=True) for table in TABLES}
                for table, reading in cursors.items():
                    query = self._queries[f"read_{TABLES[table].name}"]
                    await reading.execute(query, (self._partition,))
            for table, reading in cursors.items():
                rows[table] = await self._read(table, reading, clock)
        self._session.refuse_unsynced()
        if progress is not None:
            self._last_number = progress[0]
            self._progress = PartitionRow(*progress[1:])
        return _snapshot(self._progress, rows)

    async def _read(self, table: type[Row], cursor: Any, clock: Clock) -> list[Any]:
        make = TABLES[table].make
        rows: list[Any] = []
        numbers = self._numbers.get(table)
        while found := await cursor.fetchmany(_ROWS_AT_ONCE):
            if numbers is None:
                rows += map(make, found)
            else:
                for written, *columns in found:
                    row = make(columns)
                    numbers[row.key] = written
                    rows.append(row)
            await clock.sleep(0)
        return rows

    # --- committing ------------------------------------------------------------------------------

    async def commit(self, epoch: PartitionEpoch, changes: Sequence[Change]) -> None:
        """Write changes in one transaction, if the epoch is the stored one."""
        async with self._turn:
            writes = WriteSet(changes)
            given: Any = writes.rows.pop(PartitionRow, {}).get((0,), _NO_PROGRESS)
            progress = PartitionRow(*map(max, given, self._progress))
            rewrites = list(self._rewrites(writes))
            last_number = self._last_number + 1 + sum(len(rewrite.given) for rewrite in rewrites)
            header = (*epoch, self._last_number, last_number, *progress)
            statements = [self._statement("count_further", *map(as_number, header))]
            for rewrite in rewrites:
                statements += self._rewritten(rewrite, writes)
            statements += self._dropped(writes)
            statements += self._put(writes)
            statements += self._entities(writes)
            await self._session.run(statements, self._timeout_ms)
            self._progress, self._last_number = progress, last_number
            for table, numbers, gone in rewrites:
                self._numbers[table].update(numbers)
                for key in gone:
                    self._numbers[table].pop(key, None)

    def _rewrites(self, writes: WriteSet) -> Iterable[_Rewrite]:
        number = self._last_number + 1
        entities = set(writes.entities)
        for table, known in self._numbers.items():
            keys = [key for key in writes.rows.get(table, ()) if key[0] not in entities]
            gone = list(writes.dropped.get(table, ()))
            if entities:
                gone += [key for key in known if key[0] in entities]
            if keys or gone:
                yield _Rewrite(table, dict(zip(keys, count(number), strict=False)), gone)
                number += len(keys)

    def _rewritten(self, rewrite: _Rewrite, writes: WriteSet) -> Iterable[Statement]:
        table, known = TABLES[rewrite.table], self._numbers[rewrite.table]
        gone = {known[key] for key in rewrite.gone if key in known}
        if gone:
            yield self._statement(f"drop_{table.name}", as_numbers(list(gone)))
        if rewrite.given:
            rows = writes.rows[rewrite.table]
            replaced = [known[key] for key in rewrite.given if key in known]
            values = [(number, *rows[key]) for key, number in rewrite.given.items()]
            columns = as_columns(values, (Column.NUMBER, *table.columns))
            yield self._statement(f"put_{table.name}", as_numbers(replaced), *columns)

    def _dropped(self, writes: WriteSet) -> Iterable[Statement]:
        for row, keys in writes.dropped.items():
            table = TABLES[row]
            if keys and not table.is_rewritten:
                columns = as_columns(keys, table.columns[: table.key_columns])
                yield self._statement(f"drop_{table.name}", *columns)

    def _put(self, writes: WriteSet) -> Iterable[Statement]:
        for row, rows in writes.rows.items():
            table = TABLES[row]
            if rows and not table.is_rewritten:
                values: Iterable[Sequence[Any]] = rows.values()
                if row is ChunkRow:
                    values = map(stored_chunk, rows.values())
                yield self._statement(f"put_{table.name}", *as_columns(values, table.columns))

    def _entities(self, writes: WriteSet) -> Iterable[Statement]:
        """Delete what entities have, the rows of this commit included."""
        if writes.entities:
            for name in self._queries:
                if name.startswith("drop_entity_"):
                    yield self._statement(name, as_numbers(writes.entities))

    def _statement(self, name: str, *parameters: bytes) -> Statement:
        return Statement(name, self._queries[name], (as_number(self._partition), *parameters))

    # --- loading ---------------------------------------------------------------------------------

    async def load_chunks(
        self, epoch: PartitionEpoch, chunks: Sequence[int]
    ) -> dict[int, tuple[bytes, ...]]:
        """Read the messages of chunks and check them."""
        loaded = {}
        async with self._turn:
            rows = await self._load("load_chunks", epoch, chunks)
        for chunk, sizes, checksum, bodies in rows:
            if not is_intact(bodies, checksum):
                raise StoreRefused(
                    f"The messages of chunk {number_from(chunk)} of partition {self._partition} do not match their"
                    " checksum. The partition has stopped. Restore the database from a backup."
                )
            loaded[number_from(chunk)] = messages_of(bodies, sizes)
        return loaded

    async def load_states(
        self, epoch: PartitionEpoch, keys: Sequence[StateKey]
    ) -> dict[StateKey, bytes]:
        """Read session states."""
        known = self._numbers[StateRow]
        async with self._turn:
            numbers = [known[key] for key in keys if key in known]
            rows = await self._load("load_states", epoch, numbers)
        return {(number_from(entity), str(name, "utf-8")): value for entity, name, value in rows}

    async def _load(self, query: str, epoch: PartitionEpoch, numbers: Sequence[int]) -> list[Any]:
        """Read rows by number, then check the epoch: who is the owner after reading was it before."""
        statements = [
            self._statement(query, as_numbers(numbers)),
            self._statement("check_owner", *map(as_number, epoch)),
        ]
        found, _ = await self._session.run(statements, self._timeout_ms)
        return [
            tuple(found.get_value(row, column) for column in range(found.nfields))
            for row in range(found.ntuples)
        ]

    async def close(self) -> None:
        """Close the connection, after the calls that were made."""
        async with self._turn:
            await self._session.close()


def _snapshot(progress: PartitionRow, rows: dict[type[Row], list[Any]]) -> Snapshot:
    return Snapshot(
        partition=progress,
        entities=rows[EntityRow],
        catalogue=rows[CatalogueRow],
        counters=rows[CounterRow],
        chunks=rows[ChunkRow],
        gone=rows[GoneRow],
        moved=rows[MovedRow],
        sessions=rows[SessionRow],
        states=rows[StateRow],
        locks=rows[LockRow],
        counts=rows[CountRow],
        dead_letters=rows[DeadLetterRow],
        deferred=rows[DeferredRow],
        delays=rows[DelayRow],
        amendments=rows[AmendmentRow],
        jobs=rows[JobRow],
        arrivals=rows[ArrivalRow],
        duplicates=rows[DuplicatesRow],
        requests=rows[RequestRow],
        clients=rows[ClientRow],
    )
