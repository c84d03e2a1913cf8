"""Crashes, hand-overs and clocks: what an outage may not do (ADD-4, RACE-17, RACE-18)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from lockstep.core.errors import (
    MessageLockLost,
    SessionCannotBeLocked,
    SessionLockLost,
    StoreUnavailable,
)
from lockstep.core.ids import RequestId
from tests.spec.driver import (
    Broker,
    DeadLetters,
    Got,
    Held,
    Plain,
    abandon,
    bodies,
    complete,
    counts,
    dead_letter,
    hold,
    needs_clock,
    needs_faults,
    needs_requests,
    needs_restart,
    numbered,
)

pytestmark = [needs_restart, needs_clock]
L = 5_000
GRACE = 10_000
Q = Plain("orders")
Use = Callable[[Broker, Held, list[Got]], Awaitable[object]]

SIGNS_OF_LIFE: dict[str, Use] = {
    "receive": lambda broker, held, _: broker.receive(held),
    "receive nothing": lambda broker, held, _: _receive_twice(broker, held),
    "complete": complete,
    "abandon": abandon,
    "renew": lambda broker, held, _: broker.renew(held),
    "get-state": lambda broker, held, _: broker.get_state(held),
    "set-state": lambda broker, held, _: broker.set_state(held, b"1"),
}


async def _receive_twice(broker: Broker, held: Held) -> None:
    await broker.receive(held)
    await broker.restart()
    assert await broker.receive(held) == []


async def test_race_17_a_holder_goes_on_with_the_same_token_after_a_restart(
    broker: Broker,
) -> None:
    held = await hold(broker, *numbered(4), lock_duration_ms=L)
    got = await broker.receive(held, 2)
    version = await broker.set_state(held, b"progress")

    await broker.restart(after_ms=1_000)

    await complete(broker, held, got)
    rest = await broker.receive(held)
    assert bodies(rest) == [b"3", b"4"]
    assert counts(rest) == [0, 0]
    assert await broker.get_state(held) == (b"progress", version)
    await broker.release_session(held)


async def test_add_4_an_outage_longer_than_the_lock_ends_no_lock(broker: Broker) -> None:
    """ADD-4: an outage by itself never turns into an expiry."""
    held = await hold(broker, b"1", lock_duration_ms=L)
    got = await broker.receive(held)

    await broker.restart(after_ms=3_600_000)

    with pytest.raises(SessionCannotBeLocked):
        await broker.accept("orders", "s", holder="second")
    await complete(broker, held, got)


async def test_add_4_the_grace_lasts_ten_seconds_from_the_opening(broker: Broker) -> None:
    held = await hold(broker, b"1", lock_duration_ms=L)

    await broker.restart(after_ms=60_000)

    assert (await broker.session("orders", "s")).locked_until_ms == broker.now_ms() + GRACE
    await broker.advance(GRACE - 1)
    await broker.renew(held)


async def test_add_4_a_longer_lock_keeps_its_end(broker: Broker) -> None:
    held = await hold(broker, b"1", lock_duration_ms=60_000)

    await broker.restart(after_ms=5_000)

    assert (await broker.session("orders", "s")).locked_until_ms == held.locked_until_ms


async def test_add_4_no_second_holder_before_the_grace_is_over(broker: Broker) -> None:
    await hold(broker, b"1", lock_duration_ms=L)
    await broker.restart(after_ms=L)

    await broker.advance(GRACE - 1)
    with pytest.raises(SessionCannotBeLocked):
        await broker.accept("orders", "s")
    await broker.advance(1)

    assert (await broker.accept("orders")).session_id == "s"


async def test_add_4_a_holder_who_does_not_come_back_counts_as_a_close(broker: Broker) -> None:
    """ADD-4, DCN-4: +0, and the cause says so."""
    held = await hold(broker, b"1", b"2", lock_duration_ms=L)
    await broker.receive(held)
    await broker.restart(after_ms=L)

    await broker.advance(GRACE)

    with pytest.raises(SessionLockLost) as refused:
        await broker.renew(held)
    assert refused.value.details["cause"] == "grace_ended"
    assert refused.value.details["since_ms"] == str(broker.now_ms())
    again = await broker.receive(await broker.accept("orders", "s"))
    assert bodies(again) == [b"1", b"2"]
    assert counts(again) == [0, 0]


async def test_add_4_a_longer_lock_whose_holder_does_not_come_back_counts_as_a_close_too(
    broker: Broker,
) -> None:
    held = await hold(broker, b"1", lock_duration_ms=60_000)
    await broker.receive(held)
    await broker.restart()

    await broker.advance(60_000)

    assert counts(await broker.receive(await broker.accept("orders", "s"))) == [0]


async def test_add_4_a_holder_who_came_back_and_then_lets_the_lock_run_out_is_counted(
    broker: Broker,
) -> None:
    held = await hold(broker, b"1", lock_duration_ms=L)
    await broker.receive(held)
    await broker.restart()
    await broker.renew(held)

    await broker.advance(GRACE)

    with pytest.raises(SessionLockLost) as refused:
        await broker.renew(held)
    assert refused.value.details["cause"] == "expired"
    assert counts(await broker.receive(await broker.accept("orders", "s"))) == [1]


@pytest.mark.parametrize("use", SIGNS_OF_LIFE.values(), ids=SIGNS_OF_LIFE)
async def test_add_4_every_call_of_the_holder_says_that_it_came_back(
    broker: Broker, use: Use
) -> None:
    held = await hold(broker, *numbered(3), lock_duration_ms=L, session_lock_extension="off")
    got = await broker.receive(held, 2)
    await broker.restart()

    await use(broker, held, got[:1])
    await broker.advance(GRACE)

    with pytest.raises(SessionLockLost) as refused:
        await broker.renew(held)
    assert refused.value.details["cause"] == "expired"


async def test_add_4_many_outages_in_a_row_never_count(broker: Broker) -> None:
    held = await hold(broker, b"1", lock_duration_ms=L, max_delivery_count=1)
    got = await broker.receive(held)

    for _ in range(5):
        await broker.restart(after_ms=2 * L)
        await broker.advance(GRACE - 1)

    await complete(broker, held, got)


async def test_add_4_message_locks_have_the_grace_too(broker: Broker) -> None:
    await broker.create_queue("orders", lock_duration_ms=L, max_delivery_count=1)
    await broker.send("orders", b"1", b"2")
    first = await broker.receive(Q, 1)
    await broker.receive(Q, 1)

    await broker.restart(after_ms=3_600_000)

    assert await broker.receive(Q) == []
    await broker.advance(GRACE - 1)
    await complete(broker, Q, first)
    await broker.advance(1)
    again = await broker.receive(Q)
    assert bodies(again) == [b"2"]
    assert counts(again) == [0]


async def test_add_4_a_message_whose_receiver_does_not_come_back_is_not_counted(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", lock_duration_ms=L)
    await broker.send("orders", b"1")
    got = await broker.receive(Q)
    await broker.restart()

    await broker.advance(GRACE)

    with pytest.raises(MessageLockLost):
        await complete(broker, Q, got)
    assert counts(await broker.receive(Q)) == [0]


async def test_add_4_a_message_whose_receiver_came_back_and_went_again_is_counted(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", lock_duration_ms=L)
    await broker.send("orders", b"1")
    got = await broker.receive(Q)
    await broker.restart()
    await broker.renew_messages(Q, got)

    await broker.advance(GRACE)

    assert counts(await broker.receive(Q)) == [1]


@needs_requests
async def test_add_4_repeating_a_receive_says_that_its_receiver_came_back(broker: Broker) -> None:
    await broker.create_queue("orders", lock_duration_ms=L)
    await broker.send("orders", b"1")
    request = RequestId("c", 1)
    await broker.receive(Q, request=request)
    await broker.restart()
    await broker.receive(Q, request=request)

    await broker.advance(GRACE)

    assert counts(await broker.receive(Q)) == [1]


async def test_add_4_settling_one_message_of_a_batch_says_that_its_receiver_came_back(
    broker: Broker,
) -> None:
    """As renewing one does, and as any call of a session's holder does."""
    await broker.create_queue("orders", lock_duration_ms=L)
    await broker.send("orders", b"1", b"2")
    got = await broker.receive(Q)
    await broker.restart()
    await complete(broker, Q, got[:1])

    await broker.advance(GRACE)

    assert counts(await broker.receive(Q)) == [1]


async def test_add_4_dead_letters_under_a_lock_have_the_grace_too(broker: Broker) -> None:
    await broker.create_queue("orders", lock_duration_ms=L)
    await broker.send("orders", b"1", b"2")
    await dead_letter(broker, Q, await broker.receive(Q))
    dead = await broker.receive(DeadLetters("orders"))

    await broker.restart(after_ms=60_000)
    await broker.advance(GRACE - 1)

    await complete(broker, DeadLetters("orders"), dead[:1])
    await broker.advance(1)
    assert bodies(await broker.receive(DeadLetters("orders"))) == [b"2"]


async def test_race_18_time_does_not_go_back_when_the_successor_s_clock_is_behind(
    broker: Broker,
) -> None:
    held = await hold(broker, b"1", lock_duration_ms=60_000)
    before_ms = broker.now_ms()

    await broker.restart(after_ms=-3_600_000)

    assert broker.now_ms() == before_ms
    assert await broker.renew(held) == before_ms + 60_000


async def test_race_4_an_expiry_that_was_recorded_stays_one_over_a_crash(broker: Broker) -> None:
    held = await hold(broker, b"1", lock_duration_ms=L)
    await broker.receive(held)
    await broker.advance(L)

    await broker.restart()

    with pytest.raises(SessionLockLost):
        await broker.renew(held)
    assert counts(await broker.receive(await broker.accept("orders", "s"))) == [1]


async def test_i_3_grants_rise_over_restarts(broker: Broker) -> None:
    """SES-26: a token of before the restart is never granted again."""
    held = await hold(broker)
    tokens = [held.token]
    for _ in range(5):
        await broker.release_session(held)
        await broker.restart()
        held = await broker.accept("orders", "s")
        tokens.append(held.token)

    assert tokens == sorted(set(tokens))


async def test_everything_that_was_acknowledged_is_there_after_a_restart(broker: Broker) -> None:
    """SND-1, I-1: messages, hands, returned ones, dead letters, counts and states of many sessions."""
    await broker.create_queue("orders", requires_session=True)
    for name in ("a", "b", "c"):
        await broker.send("orders", *numbered(6), session=name)
    first = await broker.accept("orders", "a")
    second = await broker.accept("orders", "b")
    got = await broker.receive(first, 4)
    await complete(broker, first, got[:1])
    await abandon(broker, first, got[1:2])
    await dead_letter(broker, first, got[2:3])
    await broker.receive(second)
    await broker.set_state(second, b"b")

    for _ in range(2):
        await broker.restart()

    assert bodies(await broker.receive(first)) == [b"2", b"5", b"6"]
    assert await broker.receive(second) == []
    assert await broker.release_session(second) == 6
    third = await broker.accept("orders")
    assert (third.session_id, len(await broker.receive(third))) == ("c", 6)
    assert bodies(await broker.receive(DeadLetters("orders"))) == [b"3"]


async def test_waiting_calls_go_on_after_a_restart(broker: Broker) -> None:
    held = await hold(broker)

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(broker.receive(held, wait_ms=60_000))
        await broker.parked()
        await broker.restart(after_ms=2 * L)
        await broker.send("orders", b"1", session="s")

    assert bodies(waiting.result()) == [b"1"]


@needs_faults
@pytest.mark.parametrize("is_stored", [False, True])
async def test_race_1_a_complete_of_unknown_outcome_either_removed_or_left_the_message(
    broker: Broker, is_stored: bool
) -> None:
    """RACE-1, RACE-2: never both; without a request id the second attempt is told the truth."""
    held = await hold(broker, b"1")
    got = await broker.receive(held)
    broker.fail_next_commit(is_stored=is_stored)
    with pytest.raises(StoreUnavailable):
        await complete(broker, held, got)

    if is_stored:
        with pytest.raises(MessageLockLost):
            await complete(broker, held, got)
    else:
        await complete(broker, held, got)

    await broker.release_session(held)
    assert await broker.sessions("orders") == []


@needs_faults
@pytest.mark.parametrize("is_stored", [False, True])
async def test_race_10_a_state_of_unknown_outcome_is_the_old_or_the_new_one(
    broker: Broker, is_stored: bool
) -> None:
    held = await hold(broker)
    old = await broker.set_state(held, b"old")
    broker.fail_next_commit(is_stored=is_stored)
    with pytest.raises(StoreUnavailable):
        await broker.set_state(held, b"new")

    state, version = await broker.get_state(held)
    assert (state, version > old) == ((b"new", True) if is_stored else (b"old", False))


@needs_faults
async def test_dcn_4_an_expiry_whose_commit_was_lost_becomes_a_grace(broker: Broker) -> None:
    """The expiry was never durable, so the outage that swallowed it may not count (ADD-4)."""
    held = await hold(broker, b"1", lock_duration_ms=L)
    got = await broker.receive(held)
    broker.fail_next_commit(is_stored=False)
    with pytest.raises(StoreUnavailable):
        await broker.advance(L)

    await complete(broker, held, got)
