"""Looking at messages without locking them (section 12 of the contract)."""

from __future__ import annotations

import pytest

from tests.spec.driver import (
    Broker,
    DeadLetters,
    Held,
    Plain,
    bodies,
    complete,
    counts,
    dead_letter,
    hold,
    numbered,
)
from tests.spec.stocked import both_kinds, stocked

PLAIN, DEAD = Plain("orders"), DeadLetters("orders")
HOUR = 3_600_000


@both_kinds
async def test_pek_1_looking_changes_nothing(broker: Broker, has_sessions: bool) -> None:
    source = await stocked(broker, numbered(5), has_sessions=has_sessions)
    before = await broker.runtime("orders")

    seen = await broker.browse(PLAIN)

    assert bodies(seen) == numbered(5)
    assert {message.token for message in seen} == {b""}
    assert await broker.runtime("orders") == before
    assert counts(await broker.receive(source)) == [0] * 5


@both_kinds
async def test_c83_pek_3_a_look_goes_on_at_any_number(broker: Broker, has_sessions: bool) -> None:
    await stocked(broker, numbered(10), has_sessions=has_sessions)

    first = await broker.browse(PLAIN, 5)
    rest = await broker.browse(PLAIN, first=first[-1].sequence + 1)

    assert bodies(first + rest) == numbered(10)
    assert await broker.browse(PLAIN, first=rest[-1].sequence + 1) == []


@both_kinds
async def test_pek_2_locked_and_scheduled_messages_are_shown_and_dead_letters_apart(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(3), has_sessions=has_sessions)
    got = await broker.receive(source, 2)
    await dead_letter(broker, source, got[:1], reason="why")
    session = "s" if has_sessions else None
    await broker.send("orders", b"later", session=session, due_ms=[broker.now_ms() + HOUR])

    assert bodies(await broker.browse(PLAIN)) == [b"2", b"3", b"later"]
    dead = await broker.browse(DEAD)
    assert [(message.body, message.reason) for message in dead] == [(b"1", "why")]


async def test_pek_5_one_session_or_all_while_somebody_holds_it(broker: Broker) -> None:
    held = await hold(broker, b"1", b"2")
    assert isinstance(held, Held)
    await broker.send("orders", b"3", b"4", sessions=["t", "s"])

    assert bodies(await broker.browse(PLAIN)) == [b"1", b"2", b"3", b"4"]
    assert bodies(await broker.browse(PLAIN, session_id="s")) == [b"1", b"2", b"4"]
    assert bodies(await broker.browse(PLAIN, session_id="t")) == [b"3"]
    assert await broker.browse(PLAIN, session_id="nobody") == []


async def test_pek_4_an_empty_queue_shows_nothing(broker: Broker) -> None:
    await broker.create_queue("orders")

    assert await broker.browse(PLAIN) == []
    assert await broker.browse(DEAD) == []


@both_kinds
async def test_what_was_completed_is_shown_no_more(broker: Broker, has_sessions: bool) -> None:
    source = await stocked(broker, numbered(300), has_sessions=has_sessions)
    got = await broker.receive(source, 200)
    await complete(broker, source, got[50:])

    seen = await broker.browse(PLAIN, 1_000)

    assert bodies(seen) == numbered(50) + numbered(100, first=201)


@pytest.mark.limits(response_bytes_max=10 * 1024)
@both_kinds
async def test_pek_7_a_look_is_cut_at_the_size_of_an_answer(
    broker: Broker, has_sessions: bool
) -> None:
    await stocked(broker, [bytes(4 * 1024)] * 3 + [bytes(20 * 1024)], has_sessions=has_sessions)

    first = await broker.browse(PLAIN)
    second = await broker.browse(PLAIN, first=first[-1].sequence + 1)
    third = await broker.browse(PLAIN, first=second[-1].sequence + 1)

    assert [len(seen) for seen in (first, second, third)] == [2, 1, 1]
