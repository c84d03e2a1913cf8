"""The databases of a PostgreSQL store: their tables, what they are, and the record of the cluster.

Here belong migrations and the records that say whose a database is. Never here: the rows of partitions. The laws:
tables are made and changed by one process at a time, in one transaction; a database of another program, of another
cluster, in another place of the order, or of a newer release is refused and not written to.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lockstep.core.errors import StoreRefused
from lockstep.storage.postgres.session import (
    Connection,
    PostgresSettings,
    Session,
    connected,
    within,
)
from lockstep.storage.queries import load_migrations, load_queries

log = logging.getLogger(__name__)

_LOCK_CLASS = 0x4C4B5354  # "LKST"


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """What a cluster is, as its first database remembers it.

    Attributes:
        partitions: How many it has; fixed at its creation.
        generation: Counts the lives of its etcd: the first field of every epoch.
        cluster_id: Made when the database was.
    """

    partitions: int
    generation: int
    cluster_id: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class _Record:
    version: int
    cluster_id: str
    shard: int
    shards: int


class Shards:
    """The databases of a store, in their order: partition n is in number n modulo their count.

    Attributes:
        dsns: How each is reached.
    """

    def __init__(self, dsns: Sequence[str], settings: PostgresSettings) -> None:
        """Name the databases; none is connected to.

        Raises:
            ValueError: There is no database.
        """
        if not dsns:
            raise ValueError("a PostgreSQL store needs at least one DSN")
        self.dsns = tuple(dsns)
        self._settings = settings
        self._queries = load_queries("postgres/schema.sql")
        self._migrations = load_migrations("postgres")
        self._cluster_id: str | None = None
        self._looked_at: set[int] = set()  # those of which this process has said what is wrong

    async def connected(self, shard: int) -> Session:
        """Return a session with a database whose tables are ours and up to date.

        Raises:
            StoreRefused: The database is not ours, of a newer release, or not this shard. Nothing was written.
            StoreUnavailable: No answer; try again.
        """
        session = await connected(self.dsns[shard], self._settings)
        try:
            await self._prepare(session.connection, shard)
        except BaseException:
            await session.close()
            raise
        return session

    async def _prepare(self, connection: Connection, shard: int) -> None:
        if shard and self._cluster_id is None:
            first = await self.connected(0)
            await first.close()
        record = await self._record(connection)
        if record is None or record.version < self._migrations[-1][0]:
            record = await self._migrate(connection, shard)
        self._check(record, shard)
        if shard not in self._looked_at:
            await self._warn(connection, shard)
            self._looked_at.add(shard)
        if not shard:
            self._cluster_id = record.cluster_id

    async def _row(self, connection: Connection, query: str, *parameters: Any) -> Any:
        cursor = await connection.execute(self._queries[query], parameters)
        return await cursor.fetchone()

    async def _record(self, connection: Connection) -> _Record | None:
        """Return what a database says of itself; None = it has no tables of ours, nor of anybody in our schema."""
        is_ours, tables = await self._row(connection, "look", self._settings.schema)
        if is_ours:
            return _Record(*await self._row(connection, "read_record"))
        if tables:
            raise StoreRefused(
                f"The PostgreSQL schema {self._settings.schema} holds the tables of another program. Nothing was"
                " written to it. Name another schema, or another database."
            )
        return None

    def _check(self, record: _Record, shard: int) -> None:
        newest, shards = self._migrations[-1][0], len(self.dsns)
        if record.version > newest:
            raise StoreRefused(
                f"The PostgreSQL schema {self._settings.schema} has version {record.version}; this release knows"
                f" versions up to {newest}. Nothing was written to it. Use the release that wrote it, or a newer one.",
                details={"observed": str(record.version), "limit": str(newest)},
            )
        if (record.shard, record.shards) != (shard, shards):
            raise StoreRefused(
                f"This database was made as number {record.shard + 1} of {record.shards}, and is named as number"
                f" {shard + 1} of {shards}. Nothing was written to it. Name all databases, in the order in which they"
                " were named first: partitions do not move between databases.",
                details={"observed": str(shards), "configured": str(record.shards)},
            )
        if shard and record.cluster_id != self._cluster_id:
            raise StoreRefused(
                f"Database number {shard + 1} belongs to another cluster than the first one. Nothing was written to it."
            )

    async def _migrate(self, connection: Connection, shard: int) -> _Record:
        """Bring the tables up to date, while all others who want that wait."""
        schema = self._settings.schema
        async with connection.transaction():
            await self._row(connection, "lock_migrations", _LOCK_CLASS, schema)
            record = await self._record(connection)
            version = 0 if record is None else record.version
            if record is not None:
                self._check(record, shard)
            (exists,) = await self._row(connection, "find_schema", schema)
            if not exists:
                (statement,) = await self._row(connection, "name_schema", schema)
                await connection.execute(statement)
            for number, script in self._migrations:
                if number > version:
                    await connection.execute(script)
                    log.info("postgres.migrated", extra={"database": shard + 1, "version": number})
            if record is None:
                values = (shard, len(self.dsns), self._cluster_id)
                await connection.execute(self._queries["create_record"], values)
            await connection.execute(self._queries["set_version"], (self._migrations[-1][0],))
            return _Record(*await self._row(connection, "read_record"))

    async def _warn(self, connection: Connection, shard: int) -> None:
        for name in ("fsync", "full_page_writes"):
            (value,) = await self._row(connection, "show", name)
            if value == "off":
                facts = {"database": shard + 1, "setting": name}
                log.warning("postgres.not_durable", extra=facts)

    # --- the record of the cluster ---------------------------------------------------------------

    async def prepare(self, partitions: int) -> ClusterRecord:
        """Create the record of the cluster, or check it.

        Raises:
            StoreRefused: The cluster was created with another number of partitions.
            StoreUnavailable: No answer; try again.
        """
        row = await self._first("prepare_cluster", partitions)
        record = ClusterRecord(*row)
        if record.partitions != partitions:
            raise StoreRefused(
                f"This cluster was created with {record.partitions} partitions, and {partitions} are configured."
                f" The number cannot change; configure {record.partitions}.",
                details={"observed": str(partitions), "configured": str(record.partitions)},
            )
        return record

    async def generation(self) -> int:
        """Return the generation of etcd."""
        return int((await self._first("read_generation"))[0])

    async def next_generation(self) -> int:
        """Raise the generation by one and return it: etcd lost its data, and begins to count anew."""
        generation = int((await self._first("raise_generation"))[0])
        log.warning("cluster.generation_raised", extra={"generation": generation})
        return generation

    async def _first(self, query: str, *parameters: Any) -> Any:
        async with within(self._settings.open_timeout_ms):
            session = await self.connected(0)
            try:
                return await self._row(session.connection, query, *parameters)
            finally:
                await session.close()
