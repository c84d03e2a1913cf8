"""Message locks and settlement in plain queues (sections 4.1 and 4.2 of the contract)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import product

import pytest

from lockstep.core.commands import Outcome
from lockstep.core.errors import InvalidOperation, LimitExceeded, MessageLockLost
from tests.spec.driver import (
    Broker,
    DeadLetters,
    Plain,
    abandon,
    bodies,
    complete,
    counts,
    dead_letter,
    give_back,
    hold,
    needs_clock,
    needs_restart,
    numbered,
)

L = 5_000
Q = Plain("orders")


async def _queue(broker: Broker, count: int, **settings: int) -> None:
    await broker.create_queue("orders", lock_duration_ms=L, **settings)
    await broker.send("orders", *numbered(count))


async def test_rcv_4_each_message_goes_to_exactly_one_receiver_at_a_time(broker: Broker) -> None:
    await _queue(broker, 20)

    batches = await asyncio.gather(*(broker.receive(Q, 3) for _ in range(8)))

    got = [body for batch in batches for body in bodies(batch)]
    assert sorted(got) == sorted(numbered(20))


async def test_rcv_6_a_late_receiver_sees_everything_at_once(broker: Broker) -> None:
    await _queue(broker, 50)

    assert bodies(await broker.receive(Q)) == numbered(50)


async def test_a_completed_message_is_gone_for_good(broker: Broker) -> None:
    await _queue(broker, 2)
    got = await broker.receive(Q)

    await complete(broker, Q, got[:1])
    await give_back(broker, Q, got[1:])

    assert bodies(await broker.receive(Q)) == [b"2"]


@needs_clock
async def test_lck_1_the_lock_starts_when_the_broker_hands_over(broker: Broker) -> None:
    await _queue(broker, 1)

    (got,) = await broker.receive(Q)

    assert got.locked_until_ms == broker.now_ms() + L


@needs_clock
async def test_c55_after_the_lock_complete_and_renew_are_refused_and_the_message_is_counted(
    broker: Broker,
) -> None:
    """C55: hold 2L → `MessageLockLost`; redelivered with count > 0."""
    await _queue(broker, 1)
    got = await broker.receive(Q)
    await broker.advance(2 * L)

    with pytest.raises(MessageLockLost) as refused:
        await complete(broker, Q, got)
    _, failed = await broker.renew_messages(Q, got)

    assert refused.value.details["sequence_number"] == str(got[0].sequence)
    assert isinstance(failed[0].error, MessageLockLost)
    again = await broker.receive(Q)
    assert counts(again) == [1]
    await complete(broker, Q, again)


@needs_clock
async def test_a_message_lock_holds_until_its_end_and_no_longer(broker: Broker) -> None:
    await _queue(broker, 2)
    got = await broker.receive(Q)
    await broker.advance(L - 1)

    await complete(broker, Q, got[:1])
    await broker.advance(1)

    with pytest.raises(MessageLockLost):
        await complete(broker, Q, got[1:])


@needs_clock
async def test_c56_a_message_that_is_renewed_can_be_completed_after_any_time(
    broker: Broker,
) -> None:
    """C56, section 4.2: lock-until becomes now + L."""
    await _queue(broker, 2)
    got = await broker.receive(Q)

    for _ in range(5):
        await broker.advance(L - 1)
        until_ms, failed = await broker.renew_messages(Q, got[:1])
        assert (until_ms, failed) == (broker.now_ms() + L, [])

    await complete(broker, Q, got[:1])
    with pytest.raises(MessageLockLost):
        await complete(broker, Q, got[1:])


@needs_clock
async def test_renewing_some_of_a_batch_lets_the_others_expire(broker: Broker) -> None:
    await _queue(broker, 3)
    got = await broker.receive(Q)
    await broker.advance(1_000)
    await broker.renew_messages(Q, [got[1]])

    await broker.advance(L - 1_000)

    again = await broker.receive(Q)
    assert bodies(again) == [b"1", b"3"]
    await broker.advance(1_000)
    assert bodies(await broker.receive(Q)) == [b"2"]


@needs_clock
async def test_a_renewal_of_some_lost_locks_renews_the_others(broker: Broker) -> None:
    await _queue(broker, 3)
    got = await broker.receive(Q)
    await complete(broker, Q, [got[1]])

    until_ms, failed = await broker.renew_messages(Q, got)

    assert until_ms == broker.now_ms() + L
    assert [(f.sequence, type(f.error)) for f in failed] == [(got[1].sequence, MessageLockLost)]


@pytest.mark.limits(settle_messages_max=2)
async def test_a_renewal_of_too_many_is_refused(broker: Broker) -> None:
    await _queue(broker, 3)

    with pytest.raises(LimitExceeded):
        await broker.renew_messages(Q, await broker.receive(Q))


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_c58_lck_4_anyone_with_the_token_settles_over_any_connection(
    broker: Broker, outcome: Outcome
) -> None:
    """C58: the token is all that is needed; what received it may be long gone."""
    await _queue(broker, 2)
    (got, _) = await broker.receive(Q)

    assert await broker.settle(Q, outcome, [got]) == []

    left = await broker.runtime("orders")
    expected = {
        Outcome.COMPLETE: (1, 1, 0),
        Outcome.ABANDON: (2, 1, 0),
        Outcome.RELEASE: (2, 1, 0),
        Outcome.DEAD_LETTER: (1, 1, 1),
        Outcome.DEFER: (2, 1, 0),
    }
    assert (left.active, left.locked, left.dead_letters) == expected[outcome]


@pytest.mark.parametrize("has_sessions", [True, False])
@pytest.mark.parametrize(("first", "second"), list(product(Outcome, repeat=2)))
async def test_c59_lck_3_settling_twice_is_refused_whatever_the_outcomes(
    broker: Broker, first: Outcome, second: Outcome, has_sessions: bool
) -> None:
    """C59: each combination of two outcomes; the second has no effect."""
    source = await hold(broker, b"1") if has_sessions else Q
    if not has_sessions:
        await _queue(broker, 1)
    got = await broker.receive(source)
    assert await broker.settle(source, first, got) == []
    after_first = await broker.runtime("orders")

    failures = await broker.settle(source, second, got)

    assert [type(failure.error) for failure in failures] == [MessageLockLost]
    assert await broker.runtime("orders") == after_first


@pytest.mark.parametrize("has_sessions", [True, False])
async def test_c59_naming_a_message_twice_in_one_call_settles_it_once(
    broker: Broker, has_sessions: bool
) -> None:
    source = await hold(broker, b"1", b"2") if has_sessions else Q
    if not has_sessions:
        await _queue(broker, 2)
    one, two = await broker.receive(source)

    failures = await broker.settle(source, Outcome.ABANDON, [two, one, two])

    assert [failure.sequence for failure in failures] == [two.sequence]
    assert counts(await broker.receive(source)) == [1, 1]


async def test_a_forged_token_settles_nothing(broker: Broker) -> None:
    await _queue(broker, 2)
    (first,) = await broker.receive(Q, 1)
    (second,) = await broker.receive(Q, 1)
    forged = first.token[:8] + second.token[8:]

    with pytest.raises(MessageLockLost):
        await complete(broker, Q, [replace(first, token=forged)])

    await complete(broker, Q, [first, second])


@needs_clock
async def test_lck_9_an_expired_message_goes_back_to_its_place(broker: Broker) -> None:
    """LCK-9: and is the next one delivered."""
    await _queue(broker, 5)
    await broker.receive(Q, 1)
    await broker.advance(1_000)
    await broker.receive(Q, 1)
    await broker.advance(L - 1_000)

    assert bodies(await broker.receive(Q, 2)) == [b"1", b"3"]


async def test_an_abandoned_message_returns_ahead_of_younger_ones(broker: Broker) -> None:
    """Section 4.2: released at once, to its original place; count 1."""
    await _queue(broker, 4)
    got = await broker.receive(Q, 3)

    await abandon(broker, Q, got[2:])
    await abandon(broker, Q, got[:1])
    again = await broker.receive(Q)

    assert bodies(again) == [b"1", b"3", b"4"]
    assert counts(again) == [1, 1, 0]


async def test_a_released_message_returns_to_its_place_uncounted(broker: Broker) -> None:
    await _queue(broker, 3)
    got = await broker.receive(Q, 2)

    await give_back(broker, Q, got[:1])
    again = await broker.receive(Q)

    assert bodies(again) == [b"1", b"3"]
    assert counts(again) == [0, 0]


@needs_restart
async def test_lck_9_a_message_goes_back_to_its_place_after_a_restart_too(broker: Broker) -> None:
    await _queue(broker, 3)
    first = await broker.receive(Q, 1)
    second = await broker.receive(Q, 1)
    await abandon(broker, Q, first)

    await broker.restart()
    await abandon(broker, Q, second)

    assert bodies(await broker.receive(Q)) == [b"1", b"2", b"3"]


@needs_restart
async def test_every_message_keeps_its_body_when_the_order_is_disturbed_by_a_restart(
    broker: Broker,
) -> None:
    await _queue(broker, 5)
    first = await broker.receive(Q, 1)
    second = await broker.receive(Q, 1)
    third = await broker.receive(Q, 1)
    fourth = await broker.receive(Q, 1)
    await abandon(broker, Q, first)
    await abandon(broker, Q, third)
    await complete(broker, Q, fourth)

    await broker.restart()
    await abandon(broker, Q, second)

    got = await broker.receive(Q)
    assert {message.sequence: message.body for message in got} == {
        1: b"1",
        2: b"2",
        3: b"3",
        5: b"5",
    }


@needs_restart
async def test_locks_of_messages_survive_a_restart(broker: Broker) -> None:
    await _queue(broker, 6)
    got = await broker.receive(Q, 4)
    await complete(broker, Q, got[:1])
    await dead_letter(broker, Q, got[1:2])

    await broker.restart()

    assert bodies(await broker.receive(Q)) == [b"5", b"6"]
    await complete(broker, Q, got[2:4])
    with pytest.raises(MessageLockLost):
        await complete(broker, Q, got[:1])


async def test_dlq_3_a_dead_letter_cannot_be_dead_lettered(broker: Broker) -> None:
    await _queue(broker, 1)
    await dead_letter(broker, Q, await broker.receive(Q))
    dead = await broker.receive(DeadLetters("orders"))

    with pytest.raises(InvalidOperation):
        await dead_letter(broker, DeadLetters("orders"), dead)

    await complete(broker, DeadLetters("orders"), dead)


async def test_a_token_of_the_queue_is_worth_nothing_in_its_dead_letter_store(
    broker: Broker,
) -> None:
    await _queue(broker, 2)
    got = await broker.receive(Q)
    await dead_letter(broker, Q, got[:1])
    dead = await broker.receive(DeadLetters("orders"))

    with pytest.raises(MessageLockLost):
        await complete(broker, DeadLetters("orders"), got[1:])
    with pytest.raises(MessageLockLost):
        await complete(broker, Q, dead)

    await complete(broker, Q, got[1:])
    await complete(broker, DeadLetters("orders"), dead)
