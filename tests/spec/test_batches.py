"""Batch receive, waiting and cancelling (section 6 of the contract)."""

from __future__ import annotations

import asyncio

import pytest

from lockstep.core.commands import Outcome
from lockstep.core.errors import EntityNotFound, LimitExceeded, LockstepError, RequestCancelled
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
    dead_letter,
    hold,
    needs_clock,
    needs_requests,
    numbered,
)

KIB = 1024


async def test_c46_five_messages_of_one_session_arrive_in_one_receive(broker: Broker) -> None:
    """C46, BAT-2: five of five, after accept-next, in one answer."""
    await broker.create_queue("orders", requires_session=True)
    await broker.send("orders", *numbered(5), session="s")

    held = await broker.accept("orders")
    got = await broker.receive(held, 100, wait_ms=5_000)

    assert bodies(got) == numbered(5)


@pytest.mark.parametrize("maximum", [1, 2, 5, 99, 100, 101])
async def test_bat_2_a_receive_hands_over_all_there_is_up_to_its_maximum(
    broker: Broker, maximum: int
) -> None:
    """BAT-2: whatever batches they were sent in."""
    held = await hold(broker, *numbered(40))
    await broker.send("orders", b"other", session="t")
    await broker.send("orders", *numbered(60, first=41), session="s")

    got = await broker.receive(held, maximum)

    assert bodies(got) == numbered(min(maximum, 100))


@pytest.mark.parametrize("maximum", [1, 99, 100, 101])
async def test_bat_2_a_plain_receive_hands_over_all_there_is_up_to_its_maximum(
    broker: Broker, maximum: int
) -> None:
    await broker.create_queue("orders")
    await broker.send("orders", *numbered(40))
    await broker.send("orders", *numbered(60, first=41))

    assert bodies(await broker.receive(Plain("orders"), maximum)) == numbered(min(maximum, 100))


async def test_bat_2_what_came_back_and_what_is_new_fill_one_batch_together(
    broker: Broker,
) -> None:
    held = await hold(broker, *numbered(6))
    got = await broker.receive(held, 3)
    await abandon(broker, held, got)

    assert bodies(await broker.receive(held)) == numbered(6)


async def test_bat_2_every_message_of_many_is_received_exactly_once(broker: Broker) -> None:
    """More than two segments of the message log, in receives that do not fit its bounds."""
    held = await hold(broker, *numbered(1000))
    for first in (1001, 2001):
        await broker.send("orders", *numbered(1000, first=first), session="s")

    got = []
    while batch := await broker.receive(held, 700):
        got += bodies(batch)
        await complete(broker, held, batch)

    assert got == numbered(3000)


async def test_bat_7_a_batch_never_spans_sessions(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    await broker.send("orders", *numbered(6), sessions=("a", "b", "a", "b", "a", "b"))

    got = await broker.receive(await broker.accept("orders", "b"))

    assert bodies(got) == [b"2", b"4", b"6"]
    assert {message.session_id for message in got} == {"b"}


async def test_bat_6_all_messages_of_a_batch_are_locked_from_the_same_moment(
    broker: Broker,
) -> None:
    await broker.create_queue("orders")
    await broker.send("orders", *numbered(5))

    got = await broker.receive(Plain("orders"))

    assert len({message.locked_until_ms for message in got}) == 1


@pytest.mark.limits(response_bytes_max=10 * KIB)
@pytest.mark.parametrize("has_sessions", [True, False])
async def test_bat_6_an_answer_is_cut_at_its_size_and_nothing_is_skipped(
    broker: Broker, has_sessions: bool
) -> None:
    sent = [bytes([number]) * (4 * KIB) for number in range(7)]
    source = await _filled(broker, sent, has_sessions=has_sessions)

    sizes = []
    got: list[bytes] = []
    while batch := await broker.receive(source):
        sizes.append(len(batch))
        got += bodies(batch)

    assert sizes == [2, 2, 2, 1]
    assert got == sent


@pytest.mark.limits(response_bytes_max=10 * KIB)
@pytest.mark.parametrize("has_sessions", [True, False])
async def test_bat_6_a_message_larger_than_an_answer_goes_alone(
    broker: Broker, has_sessions: bool
) -> None:
    sent = [bytes(20 * KIB), b"2", bytes(20 * KIB), b"4"]
    source = await _filled(broker, sent, has_sessions=has_sessions)

    got = []
    while batch := await broker.receive(source):
        got.append([len(body) for body in bodies(batch)])

    assert got == [[20 * KIB], [1], [20 * KIB], [1]]


@pytest.mark.limits(response_bytes_max=10 * KIB)
async def test_bat_6_what_was_cut_off_is_not_locked(broker: Broker) -> None:
    source = await _filled(broker, [bytes(4 * KIB)] * 5, has_sessions=False)

    await broker.receive(source)

    assert (await broker.runtime("orders")).locked == 2


@needs_clock
@pytest.mark.parametrize("has_sessions", [True, False])
async def test_c49_a_receive_that_finds_nothing_is_empty_when_its_time_is_over(
    broker: Broker, has_sessions: bool
) -> None:
    """C49, BAT-5: empty at 5 s, not an error; the receiver is still usable."""
    source = await _filled(broker, [], has_sessions=has_sessions)

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(broker.receive(source, wait_ms=5_000))
        await broker.parked()
        await broker.advance(4_999)
        assert not waiting.done()
        await broker.advance(1)

    assert waiting.result() == []
    await broker.send("orders", b"1", session="s")
    assert bodies(await broker.receive(source)) == [b"1"]


@pytest.mark.parametrize("has_sessions", [True, False])
async def test_bat_1_a_waiting_receive_is_answered_by_the_first_message(
    broker: Broker, has_sessions: bool
) -> None:
    source = await _filled(broker, [], has_sessions=has_sessions)

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(broker.receive(source, wait_ms=60_000))
        await broker.parked()
        await broker.send("orders", b"1", b"2", session="s")

    assert bodies(waiting.result()) == [b"1", b"2"]


async def test_a_waiting_receive_on_dead_letters_is_answered_by_the_first_one(
    broker: Broker,
) -> None:
    source = await _filled(broker, [b"1"], has_sessions=False)
    got = await broker.receive(source)

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(broker.receive(DeadLetters("orders"), wait_ms=60_000))
        await broker.parked()
        await dead_letter(broker, source, got)

    assert bodies(waiting.result()) == [b"1"]


@needs_clock
@pytest.mark.parametrize("outcome", [Outcome.ABANDON, Outcome.RELEASE, None])
async def test_a_message_that_comes_back_wakes_a_waiting_receive(
    broker: Broker, outcome: Outcome | None
) -> None:
    """By abandon, by release, and by the end of its lock."""
    source = await _filled(broker, [b"1"], has_sessions=False)
    got = await broker.receive(source)

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(broker.receive(source, wait_ms=120_000))
        await broker.parked()
        if outcome is None:
            await broker.advance(60_000)
        else:
            await broker.settle(source, outcome, got)

    assert bodies(waiting.result()) == [b"1"]


async def test_waiting_plain_receives_are_served_in_the_order_they_came(broker: Broker) -> None:
    source = await _filled(broker, [], has_sessions=False)

    async with asyncio.TaskGroup() as group:
        first = group.create_task(broker.receive(source, 2, wait_ms=60_000))
        await broker.parked(1)
        second = group.create_task(broker.receive(source, wait_ms=60_000))
        await broker.parked(2)
        await broker.send("orders", *numbered(5))

    assert bodies(first.result()) == [b"1", b"2"]
    assert bodies(second.result()) == [b"3", b"4", b"5"]


async def test_race_16_a_waiting_receive_ends_with_not_found_when_its_queue_is_deleted(
    broker: Broker,
) -> None:
    held = await hold(broker)
    await broker.create_queue("plain")

    async with asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(_error_of(broker, source))
            for source in (held, Plain("plain"), DeadLetters("plain"))
        ]
        await broker.parked(3)
        await broker.delete_queue("orders")
        await broker.delete_queue("plain")

    assert [type(task.result()) for task in waiting] == [EntityNotFound] * 3


@pytest.mark.parametrize("has_sessions", [True, False])
async def test_c50_a_receive_that_was_cancelled_before_a_message_arrives_takes_nothing(
    broker: Broker, has_sessions: bool
) -> None:
    """C50, BAT-9: the cancellation first."""
    source = await _filled(broker, [], has_sessions=has_sessions)

    await _cancelled(broker, source, sends_first=False)

    again = await broker.receive(source)
    assert bodies(again) == [b"1", b"2"]
    assert counts(again) == [0, 0]


@pytest.mark.parametrize("has_sessions", [True, False])
async def test_c50_a_receive_that_is_cancelled_after_a_message_arrived_gives_it_back(
    broker: Broker, has_sessions: bool
) -> None:
    """C50, BAT-9: the message first; deliverable to another at once, count 0."""
    source = await _filled(broker, [], has_sessions=has_sessions)

    await _cancelled(broker, source, sends_first=True)

    again = await broker.receive(source)
    assert bodies(again) == [b"1", b"2"]
    assert counts(again) == [0, 0]


@pytest.mark.parametrize("sends_first", [True, False])
async def test_ses_15_an_accept_that_was_cancelled_leaves_no_locked_orphan(
    broker: Broker, sends_first: bool
) -> None:
    """SES-15, RACE-6: both orders."""
    await broker.create_queue("orders", requires_session=True)

    await _cancelled(broker, None, sends_first=sends_first)

    held = await broker.accept("orders")
    assert bodies(await broker.receive(held)) == [b"1", b"2"]


@needs_requests
@pytest.mark.parametrize("has_sessions", [True, False])
async def test_bat_9_cancelling_a_receive_gives_back_only_what_it_took(
    broker: Broker, has_sessions: bool
) -> None:
    source = await _filled(broker, numbered(6), has_sessions=has_sessions)
    kept = await broker.receive(source, 2)
    request = broker.new_request()
    taken = await broker.receive(source, 3, request=request)
    await complete(broker, source, [taken[1]])

    assert await broker.cancel("orders", request)

    again = await broker.receive(source)
    assert bodies(again) == [b"3", b"5", b"6"]
    assert counts(again) == [0, 0, 0]
    await complete(broker, source, kept)


@needs_requests
@pytest.mark.parametrize("has_sessions", [True, False])
async def test_bat_9_cancelling_twice_undoes_once(broker: Broker, has_sessions: bool) -> None:
    source = await _filled(broker, [b"1"], has_sessions=has_sessions)
    request = broker.new_request()
    await broker.receive(source, request=request)

    undone = [await broker.cancel("orders", request) for _ in range(2)]
    again = await broker.receive(source)

    assert undone == [True, False]
    assert not await broker.cancel("orders", request)
    await complete(broker, source, again)


@needs_requests
async def test_bat_9_cancelling_a_receive_from_the_dead_letters_gives_them_back(
    broker: Broker,
) -> None:
    source = await _filled(broker, numbered(3), has_sessions=False)
    await dead_letter(broker, source, await broker.receive(source))
    request = broker.new_request()
    await broker.receive(DeadLetters("orders"), 2, request=request)

    assert await broker.cancel("orders", request)

    assert bodies(await broker.receive(DeadLetters("orders"))) == numbered(3)


@needs_requests
async def test_bat_9_a_cancelled_receive_of_an_ended_lock_undoes_nothing(broker: Broker) -> None:
    held = await hold(broker, b"1")
    request = broker.new_request()
    await broker.receive(held, request=request)
    await broker.release_session(held)
    again = await broker.accept("orders", "s")
    got = await broker.receive(again)

    assert not await broker.cancel("orders", request)

    await complete(broker, again, got)


@needs_requests
@pytest.mark.parametrize("has_sessions", [True, False])
async def test_a_receive_that_arrives_after_its_cancellation_has_no_effect(
    broker: Broker, has_sessions: bool
) -> None:
    source = await _filled(broker, [b"1"], has_sessions=has_sessions)
    request = broker.new_request()
    assert not await broker.cancel("orders", request)

    with pytest.raises(RequestCancelled):
        await broker.receive(source, request=request)

    assert bodies(await broker.receive(source)) == [b"1"]


async def test_bat_10_many_are_settled_in_one_call_with_a_result_for_each(broker: Broker) -> None:
    source = await _filled(broker, numbered(5), has_sessions=False)
    got = await broker.receive(source)
    await complete(broker, source, got[1:3])

    failures = await broker.settle(source, Outcome.COMPLETE, got)

    assert [failure.sequence for failure in failures] == [got[1].sequence, got[2].sequence]
    assert (await broker.runtime("orders")).active == 0


@pytest.mark.limits(settle_messages_max=3)
@pytest.mark.parametrize("has_sessions", [True, False])
async def test_bat_10_too_many_in_one_settlement_are_refused_whole(
    broker: Broker, has_sessions: bool
) -> None:
    source = await _filled(broker, numbered(4), has_sessions=has_sessions)
    got = await broker.receive(source)

    with pytest.raises(LimitExceeded):
        await complete(broker, source, got)

    await complete(broker, source, got[:3])
    await complete(broker, source, got[3:])


async def _filled(broker: Broker, sent: list[bytes], *, has_sessions: bool) -> Source:
    if has_sessions:
        return await hold(broker, *sent)
    await broker.create_queue("orders")
    if sent:
        await broker.send("orders", *sent)
    return Plain("orders")


async def _cancelled(broker: Broker, source: Source | None, *, sends_first: bool) -> None:
    """Let a call wait and cancel it before or after two messages arrived for it."""
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_wait(broker, source))
        await broker.parked()
        if not sends_first:
            waiting.cancel()
        await broker.send("orders", b"1", b"2", session="s")
        if sends_first:
            waiting.cancel()
    assert waiting.cancelled()


async def _wait(broker: Broker, source: Source | None) -> object:
    if source is None:
        return await broker.accept("orders", wait_ms=60_000)
    return await broker.receive(source, wait_ms=60_000)


async def _error_of(broker: Broker, source: Source | Held) -> LockstepError | None:
    try:
        await broker.receive(source, wait_ms=60_000)
    except LockstepError as error:
        return error
    return None
