"""Messages that receivers set aside (section 9 of the contract)."""

from __future__ import annotations

import pytest

from lockstep.core.errors import (
    InvalidOperation,
    MessageLockLost,
    MessageNotFound,
    NoSessionAvailable,
    SessionLockLost,
)
from lockstep.core.ids import RequestId
from tests.spec.driver import (
    Broker,
    DeadLetters,
    Held,
    Plain,
    abandon,
    bodies,
    complete,
    counts,
    dead_letter,
    defer,
    give_back,
    hold,
    needs_clock,
    needs_requests,
    needs_restart,
    numbered,
)
from tests.spec.stocked import L, both_kinds, held_again, stocked

PLAIN, DEAD = Plain("orders"), DeadLetters("orders")


@both_kinds
async def test_c61_def_1_a_deferred_message_is_received_by_its_number_only(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(10), has_sessions=has_sessions)
    deferred = await defer(broker, source, (await broker.receive(source))[::2])
    assert await broker.receive(source) == []

    for number in deferred:
        (got,) = await broker.receive_deferred(source, [number])
        assert got.sequence == number
        await complete(broker, source, [got])
        with pytest.raises(MessageNotFound):
            await broker.receive_deferred(source, [number])

    assert (await broker.runtime("orders")).active == 5


@both_kinds
async def test_def_2_one_that_is_not_there_refuses_all(broker: Broker, has_sessions: bool) -> None:
    source = await stocked(broker, numbered(3), has_sessions=has_sessions)
    got = await broker.receive(source)
    numbers = await defer(broker, source, got[:2])

    with pytest.raises(MessageNotFound):
        await broker.receive_deferred(source, [*numbers, got[2].sequence])

    assert bodies(await broker.receive_deferred(source, numbers)) == [b"1", b"2"]


@both_kinds
async def test_race_13_what_somebody_has_in_hand_nobody_else_gets(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(1), has_sessions=has_sessions)
    numbers = await defer(broker, source, await broker.receive(source))
    await broker.receive_deferred(source, numbers)

    with pytest.raises(MessageNotFound):
        await broker.receive_deferred(source, numbers)


@both_kinds
async def test_c65_def_8_every_deferral_and_every_abandon_counts(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(1), has_sessions=has_sessions)
    numbers = await defer(broker, source, await broker.receive(source))
    seen = []
    for settle in (defer, abandon, give_back, defer):
        got = await broker.receive_deferred(source, numbers)
        seen += counts(got)
        await settle(broker, source, got)

    assert seen == [1, 2, 3, 3]
    assert (await broker.runtime("orders")).deferred == 1


@both_kinds
async def test_def_8_an_abandon_at_the_maximum_dead_letters(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(1), has_sessions=has_sessions, max_delivery_count=2)
    numbers = await defer(broker, source, await broker.receive(source))
    got = await broker.receive_deferred(source, numbers)

    await abandon(broker, source, got)

    runtime = await broker.runtime("orders")
    assert (runtime.deferred, runtime.dead_letters) == (0, 1)


@both_kinds
async def test_def_3_a_deferred_message_can_be_dead_lettered(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(1), has_sessions=has_sessions)
    numbers = await defer(broker, source, await broker.receive(source))

    await dead_letter(broker, source, await broker.receive_deferred(source, numbers), reason="why")

    (dead,) = await broker.receive(DEAD)
    assert (dead.body, dead.reason) == (b"1", "why")
    assert (await broker.runtime("orders")).deferred == 0


@needs_clock
@both_kinds
async def test_def_3_a_lock_that_runs_out_counts_and_the_message_is_deferred_again(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(1), has_sessions=has_sessions)
    numbers = await defer(broker, source, await broker.receive(source))
    await broker.receive_deferred(source, numbers)
    await broker.advance(2 * L)
    source = await held_again(broker, source)

    assert await broker.receive(source) == []
    assert counts(await broker.receive_deferred(source, numbers)) == [2]


async def test_c64_def_5_of_a_session_only_its_holder_gets_them(broker: Broker) -> None:
    held = await hold(broker, *numbered(2))
    numbers = await defer(broker, held, await broker.receive(held))
    other = await broker.accept("orders", "other")

    with pytest.raises(InvalidOperation):
        await broker.receive_deferred(PLAIN, numbers)
    with pytest.raises(MessageNotFound):
        await broker.receive_deferred(other, numbers)
    await broker.break_lock("orders", "s")
    with pytest.raises(SessionLockLost):
        await broker.receive_deferred(held, numbers)


async def test_def_6_ses_34_a_deferred_message_neither_offers_nor_delays_its_session(
    broker: Broker,
) -> None:
    held = await hold(broker, *numbered(2))
    await defer(broker, held, await broker.receive(held, 1))
    assert bodies(await broker.receive(held)) == [b"2"]
    await complete(broker, held, [])
    await broker.release_session(held)
    again = await broker.accept("orders", "s")
    await complete(broker, again, await broker.receive(again))
    await broker.release_session(again)

    with pytest.raises(NoSessionAvailable):
        await broker.accept("orders")

    view = await broker.session("orders", "s")
    assert (view.deferred, view.active) == (1, 0)
    assert [shown.session_id for shown in await broker.sessions("orders")] == ["s"]


async def test_dcn_4_a_closed_session_counts_nothing_for_what_it_had_of_deferred_ones(
    broker: Broker,
) -> None:
    held = await hold(broker, *numbered(1))
    numbers = await defer(broker, held, await broker.receive(held))
    await broker.receive_deferred(held, numbers)
    await broker.release_session(held)

    again = await broker.accept("orders", "s")

    assert counts(await broker.receive_deferred(again, numbers)) == [1]


async def test_def_9_dead_letters_can_be_deferred_without_a_session(broker: Broker) -> None:
    held = await hold(broker, *numbered(2))
    await dead_letter(broker, held, await broker.receive(held))
    numbers = await defer(broker, DEAD, (await broker.receive(DEAD))[:1])

    with pytest.raises(MessageNotFound):  # they are not in the queue proper
        await broker.receive_deferred(held, numbers)
    got = await broker.receive_deferred(DEAD, numbers)
    assert (bodies(got), counts(got)) == ([b"1"], [0])  # DCN-9
    await complete(broker, DEAD, got)

    assert (await broker.runtime("orders")).dead_letters == 1


@needs_clock
@both_kinds
async def test_ttl_9_who_asks_for_an_expired_one_is_told_that_it_is_not_there(
    broker: Broker, has_sessions: bool
) -> None:
    await broker.create_queue(
        "orders", requires_session=has_sessions, dead_lettering_on_message_expiration=True
    )
    await broker.send("orders", b"1", session="s" if has_sessions else None, ttls_ms=[1_000])
    source = await broker.accept("orders", "s") if has_sessions else PLAIN
    numbers = await defer(broker, source, await broker.receive(source))
    await broker.advance(5_000)
    assert (await broker.runtime("orders")).deferred == 1

    with pytest.raises(MessageNotFound):
        await broker.receive_deferred(source, numbers)

    runtime = await broker.runtime("orders")
    assert (runtime.deferred, runtime.dead_letters) == (0, 1)


@needs_restart
@both_kinds
async def test_def_1_deferrals_and_their_locks_outlive_a_restart(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(4), has_sessions=has_sessions)
    numbers = await defer(broker, source, (await broker.receive(source))[:2])
    (got,) = await broker.receive_deferred(source, numbers[:1])

    await broker.restart()

    with pytest.raises(MessageNotFound):
        await broker.receive_deferred(source, numbers[:1])
    await complete(broker, source, [got])
    assert bodies(await broker.receive_deferred(source, numbers[1:])) == [b"2"]


@needs_requests
@both_kinds
async def test_add_3_a_repeat_gets_what_the_first_call_got(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(2), has_sessions=has_sessions)
    numbers = await defer(broker, source, await broker.receive(source))
    request = RequestId("c", 1)
    first = await broker.receive_deferred(source, numbers, request=request)

    assert bodies(await broker.receive_deferred(source, numbers, request=request)) == bodies(first)

    assert await broker.cancel("orders", request)
    got = await broker.receive_deferred(source, numbers)
    assert counts(got) == counts(first)
    assert not isinstance(source, Held) or (await broker.session("orders", "s")).locked == 2


@needs_requests
@both_kinds
async def test_add_3_a_repeat_gets_no_more_than_is_still_in_hand(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(2), has_sessions=has_sessions)
    numbers = await defer(broker, source, await broker.receive(source))
    request = RequestId("c", 1)
    first = await broker.receive_deferred(source, numbers, request=request)
    await abandon(broker, source, first[:1])

    again = await broker.receive_deferred(source, numbers, request=request)

    assert bodies(again) == [b"2"]
    assert bodies(await broker.receive_deferred(source, numbers[:1])) == [b"1"]


@needs_clock
async def test_ses_37_an_old_delivery_is_not_settled_by_a_holder_who_came_back(
    broker: Broker,
) -> None:
    first = await hold(broker, b"1", lock_duration_ms=L)
    numbers = await defer(broker, first, await broker.receive(first))
    old = await broker.receive_deferred(first, numbers)
    await broker.advance(L)
    second = await broker.accept("orders", "s")
    new = await broker.receive_deferred(second, numbers)

    with pytest.raises(MessageLockLost):
        await complete(broker, second, old)

    await complete(broker, second, new)


async def test_def_9_a_queue_and_its_dead_letters_have_deferred_messages_of_their_own(
    broker: Broker,
) -> None:
    await stocked(broker, numbered(2), has_sessions=False)
    dead, other = await broker.receive(PLAIN)
    await dead_letter(broker, PLAIN, [dead])
    of_dead = await defer(broker, DEAD, await broker.receive(DEAD))
    of_queue = await defer(broker, PLAIN, [other])

    with pytest.raises(MessageNotFound):
        await broker.receive_deferred(PLAIN, of_dead)
    with pytest.raises(MessageNotFound):
        await broker.receive_deferred(DEAD, of_queue)


@needs_clock
async def test_dcn_9_a_deferred_dead_letter_whose_lock_runs_out_is_deferred_again_uncounted(
    broker: Broker,
) -> None:
    source = await stocked(broker, numbered(1), has_sessions=False)
    await dead_letter(broker, source, await broker.receive(source))
    numbers = await defer(broker, DEAD, await broker.receive(DEAD))
    await broker.receive_deferred(DEAD, numbers)
    await broker.advance(L)

    assert await broker.receive(DEAD) == []
    assert counts(await broker.receive_deferred(DEAD, numbers)) == [0]


@needs_clock
async def test_ttl_10_a_deferred_dead_letter_never_expires(broker: Broker) -> None:
    await broker.create_queue("orders")
    await broker.send("orders", b"1", ttls_ms=[1_000])
    await dead_letter(broker, PLAIN, await broker.receive(PLAIN))
    numbers = await defer(broker, DEAD, await broker.receive(DEAD))
    await broker.advance(1_000)

    assert bodies(await broker.receive_deferred(DEAD, numbers)) == [b"1"]
