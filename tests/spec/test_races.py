"""Races of section 19 of the contract, each in an order that no other file forces.

Who comes first is not left to chance: the clock stands still until it is turned, and a call is made when the one
before it was answered. The other orders are where their rules are: RACE-1, RACE-3, RACE-4, RACE-7 and RACE-8 in
`test_session_lock` and `test_session_order`, RACE-2 in `test_requests` and `test_outages`, RACE-6 in `test_batches`
(an answer that cannot be delivered), RACE-12 in `test_scheduling`, RACE-17 and RACE-18 in `test_outages`.
"""

from __future__ import annotations

import asyncio

import pytest

from lockstep.core.commands import Outcome
from lockstep.core.errors import (
    EntityNotFound,
    MessageLockLost,
    MessageNotFound,
    NoSessionAvailable,
    SessionCannotBeLocked,
    SessionLockLost,
)
from tests.spec.driver import (
    Broker,
    DeadLetters,
    Held,
    Plain,
    Source,
    abandon,
    bodies,
    complete,
    counts,
    defer,
    hold,
    needs_clock,
    needs_restart,
    numbered,
)
from tests.spec.stocked import L, both_kinds, stocked

DEAD = DeadLetters("orders")
LIFE = 1_000


async def mortal(broker: Broker, *ttls_ms: int, has_sessions: bool = True) -> Source:
    """Return where to receive messages b"1", b"2", … of these times to live from; expired ones are kept."""
    await broker.create_queue(
        "orders",
        requires_session=has_sessions,
        lock_duration_ms=60_000,
        dead_lettering_on_message_expiration=True,
    )
    session = "s" if has_sessions else None
    await broker.send("orders", *numbered(len(ttls_ms)), session=session, ttls_ms=ttls_ms)
    return await broker.accept("orders", "s") if has_sessions else Plain("orders")


# --- accepting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("winner", ["ann", "bob"])
async def test_race_5_who_accepts_first_holds_and_the_other_is_told_at_once(
    broker: Broker, winner: str
) -> None:
    await broker.create_queue("orders", requires_session=True)
    loser = "bob" if winner == "ann" else "ann"
    await broker.accept("orders", "s", holder=winner)

    with pytest.raises(SessionCannotBeLocked) as refused:
        await broker.accept("orders", "s", holder=loser)

    assert refused.value.details["holder"] == winner
    assert (await broker.session("orders", "s")).holder == winner


@needs_clock
async def test_race_6_a_message_just_before_the_end_of_the_wait_is_granted(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(broker.accept("orders", wait_ms=1_000))
        await broker.parked()
        await broker.advance(999)
        await broker.send("orders", b"1", session="s")

    assert bodies(await broker.receive(waiting.result())) == [b"1"]
    with pytest.raises(SessionCannotBeLocked):
        await broker.accept("orders", "s")


@needs_clock
async def test_race_6_a_message_after_the_end_of_the_wait_leaves_its_session_free(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", requires_session=True)

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(_accept_or_none(broker, wait_ms=1_000))
        await broker.parked()
        await broker.advance(1_000)
    await broker.send("orders", b"1", session="s")

    assert waiting.result() is None
    assert bodies(await broker.receive(await broker.accept("orders"))) == [b"1"]


async def _accept_or_none(broker: Broker, wait_ms: int) -> Held | None:
    try:
        return await broker.accept("orders", wait_ms=wait_ms)
    except NoSessionAvailable:
        return None


@needs_clock
async def test_race_22_a_session_that_was_accepted_before_its_expiry_delivers_nothing_after_it(
    broker: Broker,
) -> None:
    """The accept first; the expiry first is in `test_time_to_live`."""
    held = await mortal(broker, 0, LIFE)
    await broker.advance(LIFE)

    assert await broker.receive(held) == []

    assert bodies(await broker.receive(DEAD)) == [b"1", b"2"]
    assert (await broker.session("orders", "s")).holder == "receiver"


# --- the hand of a holder ------------------------------------------------------------------------


async def test_race_9_abandon_first_a_younger_one_in_hand_is_completed_and_does_not_come_again(
    broker: Broker,
) -> None:
    held = await hold(broker, *numbered(4))
    older, younger, _ = await broker.receive(held, 3)

    await abandon(broker, held, [older])
    await complete(broker, held, [younger])

    assert bodies(await broker.receive(held)) == [b"1", b"4"]


async def test_race_9_complete_first_an_older_one_that_is_abandoned_comes_next(
    broker: Broker,
) -> None:
    held = await hold(broker, *numbered(4))
    older, younger, _ = await broker.receive(held, 3)

    await complete(broker, held, [younger])
    await abandon(broker, held, [older])

    assert bodies(await broker.receive(held)) == [b"1", b"4"]


@needs_restart
async def test_race_10_state_first_a_crash_before_the_complete_leaves_the_message(
    broker: Broker,
) -> None:
    held = await hold(broker, b"1")
    await broker.receive(held)
    await broker.set_state(held, b"done: 1")

    await broker.restart()

    await broker.release_session(held)
    again = await broker.accept("orders", "s")
    assert again.state == b"done: 1"
    assert bodies(await broker.receive(again)) == [b"1"]


@needs_restart
async def test_race_10_complete_first_a_crash_before_the_state_leaves_the_old_state(
    broker: Broker,
) -> None:
    held = await hold(broker, b"1", b"2")
    await broker.set_state(held, b"done: 0")
    await complete(broker, held, await broker.receive(held, 1))

    await broker.restart()

    await broker.release_session(held)
    again = await broker.accept("orders", "s")
    assert again.state == b"done: 0"
    assert bodies(await broker.receive(again)) == [b"2"]


@needs_clock
async def test_race_19_before_the_end_of_the_lock_a_holder_who_vanished_still_holds(
    broker: Broker,
) -> None:
    held = await hold(broker, b"1", lock_duration_ms=L)
    await broker.receive(held)

    await broker.advance(L - 1)

    with pytest.raises(SessionCannotBeLocked):
        await broker.accept("orders", "s")


@needs_clock
async def test_race_19_at_the_end_of_the_lock_the_delivery_to_who_vanished_counts(
    broker: Broker,
) -> None:
    held = await hold(broker, b"1", lock_duration_ms=L)
    await broker.receive(held)

    await broker.advance(L)

    again = await broker.receive(await broker.accept("orders", "s"))
    assert counts(again) == [1]


# --- by number -----------------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize("first", [0, 1])
async def test_race_13_of_two_who_ask_for_a_deferred_message_the_first_gets_it(
    broker: Broker, has_sessions: bool, first: int
) -> None:
    """Each asks for the same message and for one of its own; the loser gets neither (DEF-2)."""
    source = await stocked(broker, numbered(3), has_sessions=has_sessions)
    common, *own = await defer(broker, source, await broker.receive(source))
    second = 1 - first

    got = await broker.receive_deferred(source, [common, own[first]])
    with pytest.raises(MessageNotFound):
        await broker.receive_deferred(source, [common, own[second]])

    assert [message.sequence for message in got] == [common, own[first]]
    rest = await broker.receive_deferred(source, [own[second]])
    assert [message.sequence for message in rest] == [own[second]]


@both_kinds
@pytest.mark.parametrize("outcome", list(Outcome))
async def test_race_13_who_asks_when_the_first_has_settled_gets_what_is_deferred_again(
    broker: Broker, has_sessions: bool, outcome: Outcome
) -> None:
    source = await stocked(broker, numbered(1), has_sessions=has_sessions)
    numbers = await defer(broker, source, await broker.receive(source))
    got = await broker.receive_deferred(source, numbers)
    await broker.settle(source, outcome, got)

    if outcome in (Outcome.COMPLETE, Outcome.DEAD_LETTER):
        with pytest.raises(MessageNotFound):
            await broker.receive_deferred(source, numbers)
    else:
        again = await broker.receive_deferred(source, numbers)
        assert [message.sequence for message in again] == numbers


@needs_clock
@both_kinds
async def test_race_12_of_several_a_cancellation_takes_none_when_one_was_activated_first(
    broker: Broker, has_sessions: bool
) -> None:
    """All or nothing, half-way through their activations (SCH-5)."""
    await broker.create_queue("orders", requires_session=has_sessions)
    session = "s" if has_sessions else None
    due_ms = [broker.now_ms() + 1_000, broker.now_ms() + 2_000]
    numbers = await broker.send("orders", *numbered(2), session=session, due_ms=due_ms)
    await broker.advance(1_000)

    with pytest.raises(MessageNotFound):
        await broker.cancel_scheduled("orders", numbers)

    assert (await broker.runtime("orders")).scheduled == 1
    await broker.cancel_scheduled("orders", numbers[1:])
    await broker.advance(1_000)
    assert (await broker.runtime("orders")).active == 1


# --- expiry in hand ------------------------------------------------------------------------------


@needs_clock
@both_kinds
async def test_race_14_expiry_first_who_has_the_message_may_still_complete_it(
    broker: Broker, has_sessions: bool
) -> None:
    source = await mortal(broker, LIFE, has_sessions=has_sessions)
    got = await broker.receive(source)

    await broker.advance(LIFE)
    await complete(broker, source, got)

    assert (await broker.runtime("orders")).active == 0


@needs_clock
@both_kinds
@pytest.mark.parametrize("outcome", [Outcome.ABANDON, Outcome.RELEASE])
async def test_race_14_give_back_first_the_message_comes_again_and_expires_later(
    broker: Broker, has_sessions: bool, outcome: Outcome
) -> None:
    source = await mortal(broker, LIFE, LIFE, has_sessions=has_sessions)
    got = await broker.receive(source)

    await broker.advance(LIFE - 1)
    await broker.settle(source, outcome, got[:1])
    assert bodies(await broker.receive(source)) == [b"1"]
    await broker.advance(1)
    await broker.settle(source, outcome, got[1:])

    assert await broker.receive(source) == []
    assert bodies(await broker.receive(DEAD)) == [b"2"]


@needs_clock
async def test_race_15_delivery_first_the_rest_goes_and_what_is_in_hand_is_completed(
    broker: Broker,
) -> None:
    held = await mortal(broker, LIFE, 0, 0)
    in_hand = await broker.receive(held, 1)
    await broker.advance(LIFE)

    assert await broker.receive(held) == []
    await complete(broker, held, in_hand)

    assert bodies(await broker.receive(DEAD)) == [b"2", b"3"]


@needs_clock
async def test_race_15_complete_first_the_expired_one_takes_nothing_with_it(
    broker: Broker,
) -> None:
    held = await mortal(broker, LIFE, 0, 0)
    in_hand = await broker.receive(held, 1)
    await broker.advance(LIFE)

    await complete(broker, held, in_hand)

    assert bodies(await broker.receive(held)) == [b"2", b"3"]


# --- queues that are disabled or deleted -----------------------------------------------------------


@needs_clock
@both_kinds
@pytest.mark.parametrize("status", ["disabled", "receive_disabled"])
async def test_race_16_of_a_disabled_queue_what_was_delivered_is_settled_until_its_lock_ends(
    broker: Broker, has_sessions: bool, status: str
) -> None:
    source = await stocked(broker, numbered(2), has_sessions=has_sessions)
    first, second = await broker.receive(source)
    await broker.update_queue("orders", status=status)

    await broker.advance(L - 1)
    await complete(broker, source, [first])
    await broker.advance(1)

    with pytest.raises(SessionLockLost if has_sessions else MessageLockLost):
        await complete(broker, source, [second])


@both_kinds
async def test_race_16_delete_first_nothing_of_the_queue_is_settled(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(1), has_sessions=has_sessions)
    got = await broker.receive(source)

    await broker.delete_queue("orders")

    with pytest.raises(EntityNotFound):
        await complete(broker, source, got)


@both_kinds
async def test_race_16_complete_first_the_queue_is_deleted_all_the_same(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(1), has_sessions=has_sessions)
    got = await broker.receive(source)
    await complete(broker, source, got)

    await broker.delete_queue("orders")

    with pytest.raises(EntityNotFound):
        await broker.runtime("orders")
