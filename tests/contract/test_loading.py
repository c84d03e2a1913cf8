"""What every store gives back of what was committed: bodies and states, to its owner only."""

from __future__ import annotations

import pytest

from lockstep.core.changes import (
    CountRow,
    Drop,
    GoneRow,
    PartitionRow,
    RequestRow,
    SessionRow,
    StateRow,
)
from lockstep.core.errors import Fenced
from lockstep.core.ids import ChunkId, EntityNumber
from lockstep.storage.port import PartitionStore
from tests.contract.conftest import Opener
from tests.contract.rows import (
    E1,
    E2,
    P,
    chunk_row,
    one_of_each,
    rows_of,
    session_row,
    state_row,
)


async def test_chunks_are_loaded_message_by_message(store: PartitionStore) -> None:
    messages = (b"one", b"", bytes(range(256)), b"x" * 100_000, b"")
    await store.open(P, E1)
    await store.commit(P, E1, [chunk_row(1, *messages), chunk_row(2, b"two"), chunk_row(3, b"")])

    assert await store.load_chunks(P, E1, [3, 1]) == {1: messages, 3: (b"",)}


async def test_a_chunk_is_loaded_with_the_messages_that_are_gone(store: PartitionStore) -> None:
    """Places do not move; what is gone is simply not asked for."""
    await store.open(P, E1)
    await store.commit(P, E1, [chunk_row(1, b"a", b"b", b"c"), GoneRow(ChunkId(1), 0, 1)])

    assert (await store.load_chunks(P, E1, [1]))[1][2] == b"c"


async def test_what_is_not_stored_is_left_out_of_what_is_loaded(store: PartitionStore) -> None:
    await store.open(P, E1)
    await store.commit(P, E1, one_of_each())

    assert await store.load_chunks(P, E1, []) == {}
    assert await store.load_chunks(P, E1, [99]) == {}
    assert await store.load_states(P, E1, []) == {}
    assert await store.load_states(P, E1, [(1, "other"), (2, "s")]) == {}


async def test_states_are_loaded_as_they_were_set(store: PartitionStore) -> None:
    names = ["", "s", "S", "é", "e\u0301", "a\u0000b", "😀" * 128]
    await store.open(P, E1)
    await store.commit(P, E1, [state_row(name, repr(name).encode()) for name in names])
    await store.commit(P, E1, [state_row("empty", b"")])

    loaded = await store.load_states(P, E1, [(1, name) for name in [*names, "empty"]])

    assert loaded == {(1, name): repr(name).encode() for name in names} | {(1, "empty"): b""}
    found = rows_of(await store.open(P, E2))
    assert {row.key for row in found[StateRow]} == {(1, name) for name in [*names, "empty"]}


async def test_session_ids_are_compared_exactly(store: PartitionStore) -> None:
    names = ["", "s", "S", "é", "e\u0301", "a\u0000b", "a\u0000c", " s", "s ", "😀" * 128]
    await store.open(P, E1)
    await store.commit(P, E1, [session_row(name, turn=n) for n, name in enumerate(names)])

    await store.commit(P, E1, [Drop(SessionRow, (1, name)) for name in ("s", "a\u0000b", "")])

    found = rows_of(await store.open(P, E2))
    assert {row.key: row for row in found[SessionRow]} == {
        (1, name): session_row(name, turn=n)
        for n, name in enumerate(names)
        if name not in ("s", "a\u0000b", "")
    }


async def test_chunks_come_in_the_order_they_were_sent(store: PartitionStore) -> None:
    await store.open(P, E1)
    for number in (3, 1, 20, 2):
        await store.commit(P, E1, [chunk_row(number, b"x", entity=number % 2)])

    snapshot = await store.open(P, E2)

    assert [row.chunk for row in snapshot.chunks] == [1, 2, 3, 20]


@pytest.mark.parametrize("number", [0, 1, 2**31, 2**48 - 1, 2**63 - 1])
async def test_numbers_up_to_63_bits_come_back(store: PartitionStore, number: int) -> None:
    row = CountRow(EntityNumber(1), number, 1)
    request = RequestRow("c", number, number, "[]")
    await store.open(P, E1)
    await store.commit(P, E1, [row, request, PartitionRow(number, number, number)])

    found = rows_of(await store.open(P, E2))

    assert found[CountRow] == [row]
    assert found[RequestRow] == [request]
    assert found[PartitionRow] == [PartitionRow(number, number, number)]


async def test_a_fenced_owner_cannot_read_either(another: Opener) -> None:
    """Design law 3: in a model of this design, unfenced reads broke sessions in most runs."""
    before, after = another(), another()
    await before.open(P, E1)
    await before.commit(P, E1, [chunk_row(1, b"x"), state_row("s", b"state")])
    await after.open(P, E2)

    with pytest.raises(Fenced):
        await before.load_chunks(P, E1, [1])
    with pytest.raises(Fenced):
        await before.load_states(P, E1, [(1, "s")])
