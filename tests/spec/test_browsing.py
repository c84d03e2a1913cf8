"""Looking at messages without locking them (section 12 of the contract)."""

from __future__ import annotations

import pytest

from lockstep.core.errors import InvalidRequest
from tests.spec.driver import (
    Broker,
    DeadLetters,
    Got,
    Held,
    Plain,
    bodies,
    complete,
    counts,
    dead_letter,
    hold,
    needs_wire,
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

    assert sorted(bodies(await broker.browse(PLAIN))) == [b"1", b"2", b"3", b"4"]
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


# --- page after page ---------------------------------------------------------------------------------


async def pages(broker: Broker, source: Plain | DeadLetters, maximum: int) -> list[Got]:
    """Look page after page until there is nothing more."""
    found: list[Got] = []
    seen, cursor = await broker.look_on(source, maximum)
    while seen:
        assert len(seen) <= maximum
        found += seen
        seen, cursor = await broker.look_on(source, maximum, cursor)
    return found


@pytest.mark.parametrize("page", [1, 7, 100])
async def test_pek_3_a_look_across_sessions_goes_by_time_and_shows_each_once(
    broker: Broker, page: int
) -> None:
    await broker.create_queue("orders", requires_session=True)
    for number in range(30):
        session = f"session {number % 9}"
        await broker.send("orders", b"%d" % number, b"%d b" % number, session=session)

    found = await pages(broker, PLAIN, page)

    assert len(found) == len({message.sequence for message in found}) == 60
    assert found == sorted(found, key=lambda message: (message.enqueued_ms, message.sequence))


async def test_pek_7_a_look_is_filled_wherever_the_messages_are(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    await broker.send("orders", *numbered(80), session="s")
    await broker.send("orders", b"t", session="t")

    assert bodies(await broker.browse(PLAIN, 80)) == numbered(80)
    assert len(await broker.browse(PLAIN, 100)) == 81


async def test_add_1_a_cursor_neither_skips_nor_repeats_what_stayed_put(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    names = [f"session {number}" for number in range(12)]
    for body in (b"1", b"2", b"3"):
        for name in names:
            await broker.send("orders", body, session=name)

    seen, cursor = await broker.look_on(PLAIN, 10)
    for name in names[:4]:  # some were shown, some were not
        held = await broker.accept("orders", name)
        await complete(broker, held, await broker.receive(held, 2))
    await broker.send("orders", *(b"4" for _ in names), sessions=names)
    more, cursor = await broker.look_on(PLAIN, 1_000, cursor)

    stayed = {(name, b"3") for name in names} | {(n, b) for n in names[4:] for b in (b"1", b"2")}
    shown = [(message.session_id, message.body) for message in seen + more]
    assert len(shown) == len(set(shown))
    assert set(shown) >= stayed | {(name, b"4") for name in names}
    assert await broker.look_on(PLAIN, 10, cursor) == ([], cursor)

    await broker.send("orders", b"5", session=names[0])
    assert bodies((await broker.look_on(PLAIN, 10, cursor))[0]) == [b"5"]


async def test_pek_3_dead_letters_of_all_sessions_are_shown_page_after_page(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    for number in range(9):
        await broker.send("orders", b"%d" % number, session=f"session {number}")
        held = await broker.accept("orders", f"session {number}")
        await dead_letter(broker, held, await broker.receive(held), reason=f"why {number}")

    found = await pages(broker, DEAD, 4)

    assert {(m.body, m.reason) for m in found} == {
        (b"%d" % number, f"why {number}") for number in range(9)
    }
    assert found == sorted(found, key=lambda message: (message.enqueued_ms, message.sequence))
    assert len(found) == 9


@needs_wire
async def test_a_cursor_that_is_none_is_refused(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)

    for cursor in ("1", "5", "1.x", "1.-", "1.0", "1.1-2", "1.-5", "1.fffffffffffffffff"):
        with pytest.raises(InvalidRequest):
            await broker.look_on(PLAIN, 10, cursor)
