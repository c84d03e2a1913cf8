"""Connections to PostgreSQL: how they are made, how statements go through them in one round trip, how they fail.

Here belong settings of sessions, deadlines, and the translation of errors. Never here: what is read or written. The
laws: a call ends by its deadline, whatever the network does; a connection of which one call failed half-way is closed
and not used again; an error of PostgreSQL becomes one of ours by its SQLSTATE, never by its text.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from lockstep.core.errors import InternalError, InvalidRequest, StoreRefused, StoreUnavailable
from lockstep.core.ids import PartitionEpoch

Connection = psycopg.AsyncConnection[Any]

FENCED = "LK001"
"""The SQLSTATE of our own functions when another owner has the partition."""

# What a DSN may say otherwise. https://www.postgresql.org/docs/current/libpq-connect.html
CONNECTION_DEFAULTS = {
    "application_name": "lockstep",
    "connect_timeout": "5",
    "target_session_attrs": "read-write",  # of several hosts the primary
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}

# What each session sets for itself, besides its time limits. https://www.postgresql.org/docs/current/runtime-config.html
SESSION_SETTINGS = {
    # Each statement of an opening must see what was committed while the first one waited for the partition.
    "default_transaction_isolation": "read committed",
    "lock_timeout": "10s",
    # The server's side: an owner that vanished must not keep its partition locked for hours.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    # Rows are found by key, whatever the statistics say: they are wrong whenever a queue fills or empties.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}

_STATEMENT_MS_MIN = 60_000
_SYNC_WAIT = "SyncRepWaitForLSN"
_NO_RIGHTS = "42501"
_DAMAGED_CLASS = "XX"
_DAMAGED = ("XX001", "XX002")
# Classes of SQLSTATE that pass: connections, wrong state (a server that became a standby), rollbacks, resources,
# states that others cause (a lock that was not to be had), operators, the system below.
_PASSING_CLASSES = ("08", "25", "40", "53", "55", "57", "58")


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """What may be set about a PostgreSQL store.

    Attributes:
        schema: The PostgreSQL schema of the tables, in each database.
        skew_max_ms: By how much an owner's clock may differ from the database's.
        call_timeout_ms: How long a commit or a load may take; then its connection is cut.
        open_timeout_ms: How long connecting, migrating and reading a partition may take together.
    """

    schema: str = "lockstep"
    skew_max_ms: int = 5_000
    call_timeout_ms: int = 30_000
    open_timeout_ms: int = 300_000

    @property
    def time_limits(self) -> dict[str, str]:
        """What the server ends by itself, because nobody waits for it any more. An opening reads whole tables."""
        ends = f"{max(_STATEMENT_MS_MIN, 2 * self.call_timeout_ms)}ms"
        return {"statement_timeout": ends, "idle_in_transaction_session_timeout": ends}


class Statement(NamedTuple):
    """A query with its parameters, in binary. Queries of one name have one text."""

    name: str
    sql: str
    parameters: Sequence[bytes | None]


class OwnerRefused(Exception):
    """The stored epoch is not that of the caller; `stored` is what it is. It does not leave the store."""

    def __init__(self, stored: PartitionEpoch) -> None:
        super().__init__(stored)
        self.stored = stored


class Session:
    """One connection, and the statements that were prepared on it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._prepared: set[str] = set()
        self._was_unsynced = False
        connection.add_notice_handler(self._note)

    def _note(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        # Somebody ended the wait for a synchronous standby: the commit is reported as done, but is not.
        # https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION-HA
        self._was_unsynced |= diagnostic.source_function == _SYNC_WAIT

    def refuse_unsynced(self) -> None:
        """Fail if a commit of this session did not wait for a standby that it should have waited for."""
        if self._was_unsynced:
            raise StoreUnavailable(
                "PostgreSQL ended the wait for a synchronous standby. The partition reopens."
            )

    async def run(self, statements: Sequence[Statement], timeout_ms: int) -> list[pq.abc.PGresult]:
        """Carry out statements in one transaction and one round trip, and return the result of each.

        Raises:
            OwnerRefused: Our functions say that another owner has the partition.
            StoreUnavailable: Whether the transaction was committed is not known; the session is closed.
            LockstepError: PostgreSQL refused a statement; nothing was done, and the session may be used again.
        """
        link = self.connection.pgconn
        if link.status != pq.ConnStatus.OK:
            raise StoreUnavailable("The connection to PostgreSQL is closed. The partition reopens.")
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                preparing = self._send(link, statements)
                results = await _results(link)
        except TimeoutError as error:
            await self.close()
            raise StoreUnavailable(
                f"PostgreSQL did not answer within {timeout_ms} ms. The partition reopens."
            ) from error
        except psycopg.Error as error:
            await self.close()
            raise translated(error) from error
        except BaseException:
            await self.close()
            raise
        return self._checked(results, preparing)

    def _send(self, link: pq.abc.PGconn, statements: Sequence[Statement]) -> list[str | None]:
        """Queue statements, and return what each result will be of: a name that is prepared, or None."""
        queued: list[str | None] = []
        link.enter_pipeline_mode()
        for name, sql, parameters in statements:
            if name not in self._prepared and name not in queued:
                link.send_prepare(name.encode(), sql.encode())
                queued.append(name)
            formats = [pq.Format.BINARY] * len(parameters)
            link.send_query_prepared(name.encode(), parameters, formats, pq.Format.BINARY)
            queued.append(None)
        link.pipeline_sync()
        return queued

    def _checked(
        self, results: list[pq.abc.PGresult], queued: Sequence[str | None]
    ) -> list[pq.abc.PGresult]:
        failed = next((r for r in results if r.status == pq.ExecStatus.FATAL_ERROR), None)
        answers = []
        for result, name in zip(results, queued, strict=False):  # one may fail at the end of all
            if name is None:
                answers.append(result)
            elif result.status == pq.ExecStatus.COMMAND_OK:
                self._prepared.add(name)
        if failed is not None:
            raise _refused(failed)
        self.refuse_unsynced()
        return answers

    async def close(self) -> None:
        """Close the connection; what it was doing may still happen."""
        await self.connection.close()


async def _results(link: pq.abc.PGconn) -> list[pq.abc.PGresult]:
    """Send what is queued and return all results up to the end of the pipeline."""
    loop = asyncio.get_running_loop()
    bell = asyncio.Event()
    results: list[pq.abc.PGresult] = []
    socket = link.socket
    loop.add_reader(socket, bell.set)
    try:
        while link.flush():
            loop.add_writer(socket, bell.set)
            await bell.wait()
            bell.clear()
            loop.remove_writer(socket)
            link.consume_input()  # the server may wait until its answers are taken
        while True:
            while link.is_busy():
                await bell.wait()
                bell.clear()
                link.consume_input()
            result = link.get_result()
            if result is None:  # the end of one statement, or of everything
                if link.status == pq.ConnStatus.BAD:
                    raise psycopg.OperationalError("the connection was lost")
                continue
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                break
            results.append(result)
    finally:
        loop.remove_reader(socket)
        loop.remove_writer(socket)
    link.exit_pipeline_mode()
    return results


def _refused(result: pq.abc.PGresult) -> Exception:
    def field(which: pq.DiagnosticField) -> str:
        return (result.error_field(which) or b"").decode("utf-8", "replace")

    return _error_of(
        field(pq.DiagnosticField.SQLSTATE),
        field(pq.DiagnosticField.MESSAGE_PRIMARY) or "the connection was lost",
        field(pq.DiagnosticField.MESSAGE_DETAIL),
    )


def translated(error: psycopg.Error) -> Exception:
    """Return our error for one of psycopg."""
    if error.sqlstate is None and isinstance(
        error, psycopg.OperationalError | psycopg.InterfaceError
    ):
        return StoreUnavailable(f"PostgreSQL does not answer: {error}. Try again.")
    return _error_of(
        error.sqlstate or "",
        error.diag.message_primary or str(error),
        error.diag.message_detail or "",
    )


def _error_of(state: str, message: str, detail: str) -> Exception:
    if state == FENCED:
        return OwnerRefused(PartitionEpoch(*map(int, detail.split(","))))
    if state in _DAMAGED:
        return StoreRefused(
            f"PostgreSQL says that its data is damaged: {message}. Restore it from a backup."
        )
    if state == _NO_RIGHTS:
        return StoreRefused(
            f"PostgreSQL refuses the rights that the store needs: {message}. Grant them, then start again."
        )
    if not state or state[:2] in _PASSING_CLASSES:
        return StoreUnavailable(f"PostgreSQL failed: {message}. The partition reopens.")
    return InternalError(f"PostgreSQL refused a statement: {state}: {message}. Report this.")


async def connected(dsn: str, settings: PostgresSettings) -> Session:
    """Return a new session.

    Raises:
        StoreUnavailable: No server, or none that can be written to, lets us in.
        LockstepError: Another refusal.
    """
    with errors_translated():
        connection = await psycopg.AsyncConnection.connect(
            conninfo_of(dsn), autocommit=True, cursor_factory=psycopg.AsyncRawCursor
        )
        try:
            await _set_up(connection, settings)
        except BaseException:
            await connection.close()
            raise
    return Session(connection)


def conninfo_of(dsn: str) -> str:
    """Return a DSN with our defaults where it says nothing.

    Raises:
        InvalidRequest: It is no connection string; neither the text nor the cause of the error shows any of it.
    """
    try:
        said = conninfo_to_dict(dsn)
    except psycopg.Error:
        raise InvalidRequest(  # without its cause, which quotes the DSN, and so its password
            "A database in cluster.postgres_dsns (--postgres) is no connection string of libpq. It may hold a"
            " password, so it is not shown. Write it as host=… dbname=… user=…, or as"
            " postgresql://user:password@host/database, with % and hexadecimal digits for what means something there"
            " (%3B for a semicolon, which stands between databases).",
            details={"setting": "cluster.postgres_dsns"},
        ) from None
    given: dict[str, Any] = {**CONNECTION_DEFAULTS, **said}
    return make_conninfo(**{**given, "client_encoding": "utf8"})


async def _set_up(connection: Connection, settings: PostgresSettings) -> None:
    setters = ", ".join(
        f"set_config('{name}', '{value}', false)"
        for name, value in {**SESSION_SETTINGS, **settings.time_limits}.items()
    )
    await connection.execute(
        f"SELECT {setters}, set_config('search_path', quote_ident($1), false)", [settings.schema]
    )


@contextmanager
def errors_translated() -> Iterator[None]:
    """Turn psycopg's errors into ours."""
    try:
        yield
    except psycopg.Error as error:
        raise translated(error) from error


@asynccontextmanager
async def within(timeout_ms: int) -> AsyncIterator[None]:
    """Bound what is done with PostgreSQL.

    Raises:
        StoreUnavailable: It took longer.
    """
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            with errors_translated():
                yield
    except TimeoutError as error:
        raise StoreUnavailable(
            f"PostgreSQL did not answer within {timeout_ms} ms. Try again."
        ) from error
