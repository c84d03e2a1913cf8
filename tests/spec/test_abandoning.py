"""Abandon with a delay (ADD-6), with changes of properties (MSG-8), and with a recall (SES-29)."""

from __future__ import annotations

import asyncio

import pytest

from lockstep.core.commands import Outcome
from lockstep.core.errors import LimitExceeded, MessageLockLost, NoSessionAvailable
from tests.spec.driver import (
    Broker,
    DeadLetters,
    Got,
    Held,
    Plain,
    Source,
    abandon,
    bodies,
    complete,
    counts,
    hold,
    needs_clock,
    needs_restart,
    numbered,
)
from tests.spec.stocked import both_kinds, stocked

PLAIN, DEAD = Plain("orders"), DeadLetters("orders")
MINUTE_MS = 60_000


async def delay(broker: Broker, source: Source, got: list[Got], delay_ms: int) -> None:
    """Abandon messages with a delay; raise the first refusal."""
    for failure in await broker.settle(source, Outcome.ABANDON, got, delay_ms=delay_ms):
        raise failure.error


# --- with a delay ------------------------------------------------------------------------------------


@needs_clock
async def test_add_6_nothing_younger_of_the_session_goes_before_a_delayed_message(
    broker: Broker,
) -> None:
    held = await hold(broker, *numbered(3), lock_duration_ms=5 * MINUTE_MS)
    got = await broker.receive(held, 2)
    await delay(broker, held, got[1:], MINUTE_MS)

    assert await broker.receive(held) == []
    await broker.advance(MINUTE_MS - 1)
    assert await broker.receive(held) == []
    await broker.advance(1)
    again = await broker.receive(held)
    assert (bodies(again), counts(again)) == ([b"2", b"3"], [1, 0])


async def test_add_6_older_messages_go_before_a_delayed_one(broker: Broker) -> None:
    held = await hold(broker, *numbered(4))
    got = await broker.receive(held, 3)
    await delay(broker, held, got[1:2], MINUTE_MS)
    await abandon(broker, held, got[:1])

    assert bodies(await broker.receive(held)) == [b"1"]
    assert await broker.receive(held) == []


@needs_clock
async def test_add_6_a_waiting_receive_gets_the_message_when_its_delay_ends(broker: Broker) -> None:
    held = await hold(broker, *numbered(2))
    got = await broker.receive(held, 1)
    await delay(broker, held, got, 10_000)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(broker.receive(held, wait_ms=MINUTE_MS))
        await broker.parked()
        await broker.advance(10_000)
    assert bodies(waiting.result()) == [b"1", b"2"]


@needs_clock
async def test_add_6_accept_next_does_not_offer_a_session_that_waits(broker: Broker) -> None:
    held = await hold(broker, *numbered(2))
    await delay(broker, held, await broker.receive(held, 1), MINUTE_MS)
    await broker.release_session(held)

    with pytest.raises(NoSessionAvailable):
        await broker.accept("orders")
    by_id = await broker.accept("orders", "s")
    assert await broker.receive(by_id) == []
    await broker.release_session(by_id)

    await broker.advance(MINUTE_MS)
    assert bodies(await broker.receive(await broker.accept("orders"))) == [b"1", b"2"]


@needs_clock
async def test_add_6_a_waiting_accept_gets_the_session_when_the_delay_ends(broker: Broker) -> None:
    held = await hold(broker, *numbered(1))
    await delay(broker, held, await broker.receive(held), 10_000)
    await broker.release_session(held)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(broker.accept("orders", wait_ms=MINUTE_MS))
        await broker.parked()
        await broker.advance(10_000)
    assert waiting.result().session_id == "s"


@needs_clock
async def test_add_6_in_a_plain_queue_the_others_go_ahead(broker: Broker) -> None:
    source = await stocked(broker, numbered(3), has_sessions=False)
    await delay(broker, source, await broker.receive(source, 1), MINUTE_MS)

    others = await broker.receive(source)
    assert bodies(others) == [b"2", b"3"]
    assert (await broker.runtime("orders")).active == 3
    await complete(broker, source, others)
    await broker.advance(MINUTE_MS)
    again = await broker.receive(source)
    assert (bodies(again), counts(again)) == ([b"1"], [1])


@both_kinds
@needs_clock
@needs_restart
async def test_add_6_a_delay_outlives_a_restart(broker: Broker, has_sessions: bool) -> None:
    source = await stocked(broker, numbered(2), has_sessions=has_sessions)
    await delay(broker, source, await broker.receive(source, 1), MINUTE_MS)
    if isinstance(source, Held):
        await broker.release_session(source)

    await broker.restart(after_ms=MINUTE_MS - 10)
    if isinstance(source, Held):
        source = await broker.accept("orders", "s")
    assert bodies(await broker.receive(source)) == ([] if has_sessions else [b"2"])
    await broker.advance(10)
    assert bodies(await broker.receive(source))[0] == b"1"


@both_kinds
async def test_add_6_the_last_delivery_dead_letters_at_once(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(2), has_sessions=has_sessions, max_delivery_count=1)
    await delay(broker, source, await broker.receive(source, 1), MINUTE_MS)

    assert bodies(await broker.receive(DEAD)) == [b"1"]
    assert bodies(await broker.receive(source)) == [b"2"]


@both_kinds
@needs_clock
async def test_add_6_a_message_that_expires_while_it_waits_is_not_delivered(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(
        broker,
        numbered(1),
        has_sessions=has_sessions,
        default_message_time_to_live_ms=30_000,
        dead_lettering_on_message_expiration=True,
        lock_duration_ms=5 * MINUTE_MS,
    )
    await delay(broker, source, await broker.receive(source), MINUTE_MS)

    await broker.advance(MINUTE_MS)
    assert await broker.receive(source) == []
    (dead,) = await broker.receive(DEAD)
    assert dead.reason == "TTLExpiredException"


@both_kinds
@needs_clock
async def test_ttl_5_a_message_that_expired_while_it_was_locked_is_not_delayed(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(
        broker,
        numbered(1),
        has_sessions=has_sessions,
        default_message_time_to_live_ms=30_000,
        dead_lettering_on_message_expiration=True,
        lock_duration_ms=5 * MINUTE_MS,
    )
    late = await broker.receive(source)
    await broker.advance(MINUTE_MS)

    await delay(broker, source, late, MINUTE_MS)

    (dead,) = await broker.receive(DEAD)
    assert dead.reason == "TTLExpiredException"


@both_kinds
async def test_add_6_a_delay_over_seven_days_is_refused(broker: Broker, has_sessions: bool) -> None:
    source = await stocked(broker, numbered(1), has_sessions=has_sessions)
    got = await broker.receive(source)
    with pytest.raises(LimitExceeded, match="7d"):
        await delay(broker, source, got, 7 * 24 * 60 * MINUTE_MS + 1)
    await complete(broker, source, got)


@needs_clock
async def test_add_6_a_delayed_dead_letter_comes_back_too(broker: Broker) -> None:
    source = await stocked(broker, numbered(1), has_sessions=False)
    await broker.settle(source, Outcome.DEAD_LETTER, await broker.receive(source))
    await delay(broker, DEAD, await broker.receive(DEAD), MINUTE_MS)

    assert await broker.receive(DEAD) == []
    await broker.advance(MINUTE_MS)
    assert (await broker.receive(DEAD))[0].count == 0  # DCN-9


@needs_clock
async def test_ttl_10_a_dead_letter_whose_time_is_over_is_delayed_all_the_same(
    broker: Broker,
) -> None:
    source = await stocked(
        broker, numbered(1), has_sessions=False, default_message_time_to_live_ms=30_000
    )
    await broker.settle(source, Outcome.DEAD_LETTER, await broker.receive(source))
    await broker.advance(MINUTE_MS)

    await delay(broker, DEAD, await broker.receive(DEAD), MINUTE_MS)

    assert await broker.receive(DEAD) == []
    await broker.advance(MINUTE_MS)
    assert bodies(await broker.receive(DEAD)) == [b"1"]


# --- with properties ---------------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize("outcome", [Outcome.ABANDON, Outcome.DEFER, Outcome.DEAD_LETTER])
async def test_c67_msg_8_the_next_delivery_shows_the_change(
    broker: Broker, has_sessions: bool, outcome: Outcome
) -> None:
    source = await stocked(broker, numbered(2), has_sessions=has_sessions)
    (got,) = await broker.receive(source, 1)
    changes = {"attempt": "1", "reason": "ö"}
    assert await broker.settle(source, outcome, [got], properties=changes) == []

    match outcome:
        case Outcome.DEFER:
            (again,) = await broker.receive_deferred(source, [got.sequence])
        case Outcome.DEAD_LETTER:
            (again,) = await broker.receive(DEAD)
        case _:
            again = (await broker.receive(source))[0]
    assert (again.body, dict(again.properties)) == (b"1", changes)


@both_kinds
@needs_restart
async def test_msg_8_changes_add_up_and_outlive_a_restart(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(1), has_sessions=has_sessions)
    for changes in ({"a": "1", "b": "1"}, {"b": "2"}):
        got = await broker.receive(source)
        assert await broker.settle(source, Outcome.ABANDON, got, properties=changes) == []
    if isinstance(source, Held):
        await broker.release_session(source)

    await broker.restart()
    if isinstance(source, Held):
        source = await broker.accept("orders", "s")
    (again,) = await broker.receive(source)
    assert dict(again.properties) == {"a": "1", "b": "2"}
    await complete(broker, source, [again])
    assert (await broker.runtime("orders")).size_bytes == 0


@both_kinds
async def test_msg_8_too_many_changes_refuse_the_settlement_of_that_message(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(2), has_sessions=has_sessions)
    (first,) = await broker.receive(source, 1)
    await broker.settle(source, Outcome.ABANDON, [first], properties={"a": "x" * 30_000})
    got = await broker.receive(source)

    more = {"b": "x" * 30_000, "c": "x" * 6_000}
    (failed,) = await broker.settle(source, Outcome.ABANDON, got, properties=more)
    assert (failed.sequence, type(failed.error)) == (got[0].sequence, LimitExceeded)
    await complete(broker, source, got[:1])
    (left,) = await broker.receive(source)
    assert (left.body, dict(left.properties)) == (b"2", more)


@both_kinds
async def test_msg_8_a_message_that_is_not_held_is_not_changed(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(1), has_sessions=has_sessions)
    stale = await broker.receive(source)
    await abandon(broker, source, stale)

    (failed,) = await broker.settle(source, Outcome.ABANDON, stale, properties={"a": "1"})
    assert isinstance(failed.error, MessageLockLost)
    assert dict((await broker.receive(source))[0].properties) == {}


# --- with a recall -----------------------------------------------------------------------------------


async def test_ses_29_a_recall_takes_younger_deliveries_back_without_counting(
    broker: Broker,
) -> None:
    held = await hold(broker, *numbered(4), recall_on_abandon=True)
    got = await broker.receive(held, 3)
    await abandon(broker, held, got[1:2])

    for failure in await broker.settle(held, Outcome.COMPLETE, got[2:]):
        assert isinstance(failure.error, MessageLockLost)
    await complete(broker, held, got[:1])
    again = await broker.receive(held)
    assert (bodies(again), counts(again)) == ([b"2", b"3", b"4"], [1, 0, 0])


async def test_ses_29_without_recall_younger_deliveries_stay_valid(broker: Broker) -> None:
    held = await hold(broker, *numbered(3))
    got = await broker.receive(held, 3)
    await abandon(broker, held, got[1:2])

    await complete(broker, held, got[2:])
    assert bodies(await broker.receive(held)) == [b"2"]
