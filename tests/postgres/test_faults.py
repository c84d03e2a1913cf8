"""Networks and servers that fail: what is known afterwards, and that nothing is lost or done twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from lockstep.core.changes import SessionRow
from lockstep.core.commands import CreateQueue, Receive, Send
from lockstep.core.errors import Fenced, Moved, StoreUnavailable
from lockstep.core.ids import EntityKey, PartitionEpoch, RequestId
from lockstep.core.replies import Delivered, Reply
from lockstep.runtime.clock import ManualClock, SystemClock
from lockstep.storage.postgres import PostgresSettings, PostgresStore
from lockstep.storage.postgres.session import connected
from tests.contract.rows import (
    E1,
    E2,
    P,
    as_loaded,
    chunk_row,
    one_of_each,
    rows_of,
    session_row,
    state_row,
)
from tests.postgres.conftest import MakeStore, Query
from tests.postgres.proxy import Fault, Proxy, running_proxy
from tests.postgres.server import PostgresServer, running_server
from tests.unit.owner.owner_rig import PARTITION, Owner, running_owner

QUEUE = EntityKey("default", "plain")
CUTS = [Fault.LOST_QUESTION, Fault.HALF_A_QUESTION, Fault.LOST_ANSWER]
TRIES = 400
_clock = SystemClock()


@pytest.fixture
async def proxy(postgres_server: PostgresServer) -> AsyncIterator[Proxy]:
    """A way to the server of the worker that can be cut."""
    async with running_proxy(postgres_server.socket) as proxy:
        yield proxy


@pytest.fixture
def through(postgres_server: PostgresServer, proxy: Proxy) -> str:
    """The DSN of the way through the proxy."""
    with psycopg.connect(postgres_server.dsn("postgres"), autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = 'faults'").fetchone()
    if found is None:
        postgres_server.make_database("faults")
    return f"host=127.0.0.1 port={proxy.port} user=postgres dbname=faults sslmode=disable gssencmode=disable"


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that tests stop, crash and set up as they like."""
    with running_server() as server:
        yield server


async def persistently(owner: Owner, do: Callable[[], Awaitable[Reply]]) -> tuple[Reply, int]:
    """Repeat a call as a client does, with the same request id; return its reply and how often it failed."""
    for failed in range(TRIES):
        try:
            return await do(), failed
        except (StoreUnavailable, Moved):
            await _clock.sleep(10)
            await owner.pass_time(200)  # for the owner's pause before it opens the partition again
    raise AssertionError("it does not work again")


# --- commits of unknown outcome ----------------------------------------------------------------------------


@pytest.mark.parametrize("cut", CUTS)
async def test_add_3_a_commit_that_was_cut_and_tried_again_is_done_once(
    make_store: MakeStore, proxy: Proxy, through: str, cut: Fault
) -> None:
    """ADD-3, SND-15: the outcome is unknown to the owner, and known again once the partition is open again."""
    async with running_owner(make_store(through)) as owner:
        create = CreateQueue("default", QUEUE.name, {}, "uid")
        await owner.supervisor.call(PARTITION, create)
        bodies = (b"one", b"two")
        send = Send(QUEUE, bodies, (None,), RequestId("client", 1), 7)

        async def do() -> Reply:
            return (await owner.supervisor.call(PARTITION, send)).reply

        proxy.next(cut)
        reply, failed = await persistently(owner, do)

        assert failed
        again, _ = await persistently(owner, do)
        assert again == reply
        received = await owner.supervisor.call(PARTITION, Receive(QUEUE, False, None, 10))
        assert isinstance(received.reply, Delivered)
        assert list(received.messages) == list(bodies)


@pytest.mark.parametrize("cut", CUTS)
async def test_a_commit_that_was_cut_is_stored_as_a_whole_or_not_at_all(
    make_store: MakeStore, proxy: Proxy, through: str, cut: Fault
) -> None:
    store = make_store(through)
    await store.open(P, E1)
    proxy.next(cut)

    with pytest.raises(StoreUnavailable):
        await store.commit(P, E1, one_of_each())

    with pytest.raises(StoreUnavailable):  # nothing is known of the partition now
        await store.commit(P, E1, [session_row("s")])
    stored = one_of_each() if cut is Fault.LOST_ANSWER else []
    assert rows_of(await store.open(P, E2)) == as_loaded(stored)
    await store.commit(P, E2, [session_row("s", turn=9)])


@pytest.mark.parametrize("cut", CUTS)
async def test_an_opening_that_was_cut_can_be_tried_again(
    make_store: MakeStore, proxy: Proxy, through: str, cut: Fault
) -> None:
    await make_store(through).open(P, E1)
    proxy.next(cut)
    store = make_store(through)

    with pytest.raises(StoreUnavailable):
        await store.open(P, E2)

    await store.open(P, E2)


async def test_a_load_that_was_cut_is_no_empty_answer(
    make_store: MakeStore, proxy: Proxy, through: str
) -> None:
    store = make_store(through)
    await store.open(P, E1)
    await store.commit(P, E1, [chunk_row(1, b"x"), state_row("s", b"state")])
    proxy.next(Fault.LOST_ANSWER)

    with pytest.raises(StoreUnavailable):
        await store.load_chunks(P, E1, [1])
    with pytest.raises(StoreUnavailable):
        await store.load_states(P, E1, [(1, "s")])

    await store.open(P, E1)
    assert await store.load_states(P, E1, [(1, "s")]) == {(1, "s"): b"state"}


async def test_a_server_that_stays_silent_is_given_up(
    make_store: MakeStore, proxy: Proxy, through: str
) -> None:
    store = make_store(through, call_timeout_ms=200)
    await store.open(P, E1)
    proxy.next(Fault.NO_ANSWER)

    with pytest.raises(StoreUnavailable, match="within 200 ms"):
        await store.commit(P, E1, one_of_each())
    with pytest.raises(StoreUnavailable):
        await store.commit(P, E1, [])


@pytest.mark.parametrize(("call_timeout_ms", "ends"), [(200, "1min"), (45_000, "90s")])
async def test_the_server_ends_by_itself_what_nobody_waits_for(
    postgres_dsn: str, call_timeout_ms: int, ends: str
) -> None:
    session = await connected(postgres_dsn, PostgresSettings(call_timeout_ms=call_timeout_ms))
    try:
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            cursor = await session.connection.execute(f"SHOW {name}".encode())
            assert await cursor.fetchone() == (ends,)
    finally:
        await session.close()


async def test_a_cancelled_commit_leaves_no_half_of_an_answer_behind(
    make_store: MakeStore, proxy: Proxy, through: str
) -> None:
    store = make_store(through)
    await store.open(P, E1)
    proxy.next(Fault.NO_ANSWER)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await store.commit(P, E1, one_of_each())

    with pytest.raises(StoreUnavailable):
        await store.load_chunks(P, E1, [1])


async def test_a_commit_is_one_round_trip(
    make_store: MakeStore, proxy: Proxy, through: str
) -> None:
    """The first commit prepares its statements, the second uses them; neither waits in between."""
    store = make_store(through)
    await store.open(P, E1)
    trips = []

    for number in (1, 2):
        proxy.directions.clear()
        await store.commit(P, E1, one_of_each(number, number))
        trips.append(list(proxy.directions))

    assert trips == [["question", "answer"]] * 2


# --- servers that go -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
async def test_an_owner_survives_its_server(
    make_store: MakeStore, own_server: PostgresServer, how: signal.Signals
) -> None:
    """Connections are made anew; what was acknowledged is there, once and in order."""
    async with running_owner(make_store(own_server.dsn("postgres"))) as owner:
        create = CreateQueue("default", QUEUE.name, {}, "uid")
        await owner.supervisor.call(PARTITION, create)
        bodies = [b"%d" % number for number in range(6)]
        for number, body in enumerate(bodies):
            send = Send(QUEUE, (body,), (None,), RequestId("client", number), number)

            async def do(send: Send = send) -> Reply:
                return (await owner.supervisor.call(PARTITION, send)).reply

            if number == 3:
                own_server.stop(how)
                with pytest.raises(StoreUnavailable):
                    await do()
                own_server.start()
            await persistently(owner, do)

        received = await owner.supervisor.call(PARTITION, Receive(QUEUE, False, None, 10))

        assert list(received.messages) == bodies


@pytest.fixture
def standby_missing(own_server: PostgresServer) -> Iterator[psycopg.Connection]:
    """An administrator of a server that waits for a standby that there is not."""
    with psycopg.connect(own_server.dsn("postgres"), autocommit=True) as administrator:
        administrator.execute("SET synchronous_commit = local")
        _set_standbys(administrator, "nobody")
        try:
            yield administrator
        finally:
            _set_standbys(administrator, "")
            while _end_waits(administrator):
                pass


@pytest.mark.parametrize("set_to", ["on", "off", "local"])
@pytest.mark.parametrize("call", ["open", "commit"])
async def test_what_was_not_synced_is_not_acknowledged(
    make_store: MakeStore,
    own_server: PostgresServer,
    standby_missing: psycopg.Connection,
    set_to: str,
    call: str,
) -> None:
    """Whatever the user or the database is set to, we wait; when somebody ends the wait, nothing is known.

    PostgreSQL then says that the transaction was committed; on the standby it may never be.
    """
    store = make_store(own_server.dsn("postgres") + f" options='-c synchronous_commit={set_to}'")
    await _meanwhile_without_standbys(standby_missing, store.open(P, E1))

    async with asyncio.TaskGroup() as tasks:
        doing = store.open(P, E2) if call == "open" else store.commit(P, E1, one_of_each())
        failing = tasks.create_task(_failure(doing))
        while not failing.done():
            _end_waits(standby_missing)
            await _clock.sleep(10)

    assert isinstance(failing.result(), StoreUnavailable)


async def _meanwhile_without_standbys(
    administrator: psycopg.Connection, call: Awaitable[object]
) -> None:
    _set_standbys(administrator, "")
    await call
    _set_standbys(administrator, "nobody")


def _set_standbys(administrator: psycopg.Connection, names: str) -> None:
    administrator.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'".encode())
    administrator.execute("SELECT pg_reload_conf()")
    while _standbys(administrator) != names:  # each process hears of it in its own time
        pass
    if names:
        _wait_until_commits_wait(administrator)


def _wait_until_commits_wait(administrator: psycopg.Connection) -> None:
    """Commits wait only once the checkpointer has heard of the standby, too, which nothing shows but a commit."""
    with (
        psycopg.connect(administrator.info.dsn, autocommit=True) as probe,
        ThreadPoolExecutor(1) as pool,
    ):
        has_waited = False
        while not has_waited:
            write = pool.submit(probe.execute, "SELECT pg_logical_emit_message(true, 'probe', '')")
            while not write.done():
                has_waited |= _end_waits(administrator)
            write.result()


def _standbys(administrator: psycopg.Connection) -> str:
    row = administrator.execute("SHOW synchronous_standby_names").fetchone()
    assert row is not None
    return str(row[0])


def _end_waits(administrator: psycopg.Connection) -> bool:
    """End the commits that wait for a standby; return whether there was one."""
    return bool(
        administrator.execute(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        ).fetchall()
    )


async def _failure(call: Awaitable[object]) -> BaseException | None:
    try:
        await call
    except StoreUnavailable as error:
        return error
    return None


async def test_a_commit_whose_connection_an_administrator_ended_is_unknown(
    make_store: MakeStore, query: Query, postgres_dsn: str, schema: str
) -> None:
    store = make_store(make_conninfo(postgres_dsn, application_name=schema))
    await store.open(P, E1)
    ended = query(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = %s",
        schema,
    )

    with pytest.raises(StoreUnavailable):
        await store.commit(P, E1, one_of_each())

    assert ended == [(True,)]
    assert rows_of(await store.open(P, E2)) == as_loaded([])


# --- clocks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off_ms", [-9_000, 9_000])
async def test_an_owner_whose_clock_is_off_does_not_open(
    make_store: MakeStore, query: Query, off_ms: int
) -> None:
    """Design law 2: the database's clock is the reference. It may be set right, so it is no refusal for good."""
    await make_store().open(P, E1)
    before = query("SELECT * FROM partitions")
    clock = ManualClock(_clock.now_ms() + off_ms)
    store = make_store(clock=clock)

    with pytest.raises(StoreUnavailable, match="clock") as refused:
        await store.open(P, E2)

    assert int(refused.value.details["observed"]) > 5_000
    assert query("SELECT * FROM partitions") == before
    clock.set_wall_clock(_clock.now_ms())
    await store.open(P, E2)


async def test_how_far_a_clock_may_be_off_can_be_set(make_store: MakeStore) -> None:
    clock = ManualClock(_clock.now_ms() - 9_000)

    await make_store(clock=clock, skew_max_ms=60_000).open(P, E1)


# --- two owners at the same time --------------------------------------------------------------------------


async def test_i_4_nothing_of_an_owner_is_stored_after_another_one_read(
    make_store: MakeStore,
) -> None:
    """What the next owner reads is all that the one before was told is stored, and stays all there is."""
    for round_ in range(8):
        epochs = PartitionEpoch(1, 2 * round_ + 1, 0), PartitionEpoch(1, 2 * round_ + 2, 0)
        before, after = make_store(), make_store()
        await before.open(P, epochs[0])

        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(_write_until_fenced(before, epochs[0]))
            await _clock.sleep(5 * round_)
            found = rows_of(await after.open(P, epochs[1]))

        seen = {row.key for row in found[SessionRow]}
        assert {(1, name) for name in writing.result()} <= seen
        assert rows_of(await make_store().open(P, epochs[1])) == found


async def _write_until_fenced(store: PostgresStore, epoch: PartitionEpoch) -> list[str]:
    """Return the sessions whose commits were acknowledged."""
    acknowledged: list[str] = []
    with suppress(Fenced):
        while True:
            name = f"{epoch.revision}-{len(acknowledged)}"
            await store.commit(P, epoch, [session_row(name)])
            acknowledged.append(name)
    return acknowledged


async def test_i_4_an_opening_waits_for_the_commit_that_was_let_in_before_it(
    make_store: MakeStore, query: Query, postgres_dsn: str, schema: str
) -> None:
    """A commit that passed the check of its epoch must be in what the next owner reads."""
    named = make_conninfo(postgres_dsn, application_name=schema)
    before, after = make_store(named), make_store(named)
    await before.open(P, E1)

    async with asyncio.TaskGroup() as tasks:
        with psycopg.connect(postgres_dsn) as other:
            # Others may read the table; a commit that writes to it stops half-way.
            other.execute(f"LOCK TABLE {schema}.sessions IN EXCLUSIVE MODE".encode())
            committing = tasks.create_task(before.commit(P, E1, [session_row("s")]))
            await _waiting(query, 1, committing)
            opening = tasks.create_task(after.open(P, E2))
            await _waiting(query, 2, opening)

    assert committing.exception() is None
    assert rows_of(opening.result())[SessionRow] == [session_row("s")]


async def _waiting(query: Query, count: int, unless: asyncio.Task[Any]) -> None:
    """Return when so many connections wait for a lock, or when a task did not wait."""
    while not unless.done():
        ((waiting,),) = query(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = current_schema() AND wait_event_type = 'Lock'"
        )
        if waiting == count:
            return
        await _clock.sleep(5)


# --- signs of life -----------------------------------------------------------------------------------------


async def test_a_probe_tells_whether_the_server_answers(
    make_store: MakeStore, proxy: Proxy, through: str
) -> None:
    store = make_store(through)
    await store.probe(0, timeout_ms=5_000)
    proxy.cut_all()

    with pytest.raises(StoreUnavailable):
        await store.probe(0, timeout_ms=5_000)

    await store.probe(0, timeout_ms=5_000)  # over another connection
    await store.end_probes()


async def test_a_probe_that_hangs_is_given_up(
    make_store: MakeStore, proxy: Proxy, through: str
) -> None:
    store = make_store(through)
    await store.probe(0, timeout_ms=5_000)
    proxy.next(Fault.NO_ANSWER)

    with pytest.raises(StoreUnavailable, match="within 100 ms"):
        await store.probe(0, timeout_ms=100)


async def test_a_probe_finds_a_clock_that_is_off(make_store: MakeStore) -> None:
    """Partitions could not be opened either."""
    store = make_store(clock=ManualClock(_clock.now_ms() - 60_000))

    with pytest.raises(StoreUnavailable, match="clock"):
        await store.probe(0, timeout_ms=5_000)


async def test_whatever_a_database_answers_is_a_sign_of_life(make_store: MakeStore) -> None:
    clock = ManualClock(_clock.now_ms())
    store = make_store(clock=clock)
    seen = []
    for step in (
        lambda: store.open(P, E1),
        lambda: store.commit(P, E1, [session_row("s")]),
        lambda: store.probe(0, timeout_ms=5_000),
    ):
        clock.advance(100)
        await step()
        seen.append(store.answered_ms(0))

    assert seen == [100, 200, 300]
    await store.end_probes()
