"""Messages that become active later (section 8 of the contract)."""

from __future__ import annotations

import asyncio

import pytest

from lockstep.core.errors import MessageNotFound, NoSessionAvailable
from tests.spec.driver import Broker, Plain, Source, bodies, needs_clock, needs_restart
from tests.spec.stocked import both_kinds

HOUR = 3_600_000


async def scheduled(
    broker: Broker, *delays_ms: int, has_sessions: bool, ttl_ms: int = 0
) -> list[int]:
    """Make the queue "orders" and schedule b"1", b"2", … so much later; 0 = at once."""
    await broker.create_queue("orders", requires_session=has_sessions)
    sent = [str(number).encode() for number in range(1, len(delays_ms) + 1)]
    due = [broker.now_ms() + delay if delay else 0 for delay in delays_ms]
    session = "s" if has_sessions else None
    ttls = [ttl_ms] * len(sent)
    return await broker.send("orders", *sent, session=session, due_ms=due, ttls_ms=ttls)


async def source_of(broker: Broker, *, has_sessions: bool) -> Source:
    return await broker.accept("orders", "s") if has_sessions else Plain("orders")


@both_kinds
async def test_sch_2_a_scheduled_message_is_counted_and_not_delivered(
    broker: Broker, has_sessions: bool
) -> None:
    numbers = await scheduled(broker, HOUR, 0, HOUR, has_sessions=has_sessions)

    got = await broker.receive(await source_of(broker, has_sessions=has_sessions))

    assert len(numbers) == 3
    assert bodies(got) == [b"2"]
    runtime = await broker.runtime("orders")
    assert (runtime.scheduled, runtime.active) == (2, 1)
    assert runtime.size_bytes > 0


@both_kinds
async def test_sch_1_a_time_that_is_over_means_at_once(broker: Broker, has_sessions: bool) -> None:
    await scheduled(broker, -HOUR, has_sessions=has_sessions)

    got = await broker.receive(await source_of(broker, has_sessions=has_sessions))

    assert bodies(got) == [b"1"]


@both_kinds
async def test_sch_1_a_message_whose_time_is_over_does_not_wait_for_the_others_of_its_send(
    broker: Broker, has_sessions: bool
) -> None:
    numbers = await scheduled(broker, -HOUR, HOUR, has_sessions=has_sessions)

    got = await broker.receive(await source_of(broker, has_sessions=has_sessions))

    assert [(message.body, message.sequence) for message in got] == [(b"1", numbers[0])]


@needs_clock
@both_kinds
async def test_c79_sch_3_a_scheduled_message_becomes_active_at_its_time_with_a_new_number(
    broker: Broker, has_sessions: bool
) -> None:
    (number,) = await scheduled(broker, 1_000, has_sessions=has_sessions)
    due_ms = broker.now_ms() + 1_000
    source = await source_of(broker, has_sessions=has_sessions)
    await broker.advance(999)
    assert await broker.receive(source) == []

    await broker.advance(1)

    (got,) = await broker.receive(source)
    assert got.sequence > number
    assert (got.enqueued_ms, got.count, got.body) == (due_ms, 0, b"1")
    assert (await broker.runtime("orders")).scheduled == 0


@needs_clock
@both_kinds
async def test_sch_3_scheduled_messages_stand_behind_those_sent_before_their_time(
    broker: Broker, has_sessions: bool
) -> None:
    await scheduled(broker, 2_000, 1_000, 0, has_sessions=has_sessions)
    source = await source_of(broker, has_sessions=has_sessions)
    await broker.advance(1_500)
    await broker.send("orders", b"between", session="s" if has_sessions else None)
    await broker.advance(1_500)

    assert bodies(await broker.receive(source)) == [b"3", b"2", b"between", b"1"]


@needs_clock
async def test_sch_6_a_scheduled_message_neither_offers_nor_delays_its_session(
    broker: Broker,
) -> None:
    await scheduled(broker, 1_000, has_sessions=True)
    with pytest.raises(NoSessionAvailable):
        await broker.accept("orders")
    await broker.send("orders", b"now", session="s")

    held = await broker.accept("orders")

    assert bodies(await broker.receive(held)) == [b"now"]
    await broker.advance(1_000)
    assert bodies(await broker.receive(held)) == [b"1"]


@needs_clock
async def test_sch_4_an_activation_wakes_who_waits(broker: Broker) -> None:
    await scheduled(broker, 1_000, has_sessions=True)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(broker.accept("orders", wait_ms=HOUR))
        await broker.parked()
        await broker.advance(1_000)

    assert waiting.result().session_id == "s"


@needs_clock
@both_kinds
async def test_ttl_2_the_life_of_a_scheduled_message_begins_at_its_activation(
    broker: Broker, has_sessions: bool
) -> None:
    await scheduled(broker, HOUR, has_sessions=has_sessions, ttl_ms=1_000)
    await broker.advance(HOUR + 999)
    source = await source_of(broker, has_sessions=has_sessions)

    (got,) = await broker.receive(source)

    assert got.expires_ms == got.enqueued_ms + 1_000


@both_kinds
async def test_c80_sch_5_cancelled_messages_never_become_active(
    broker: Broker, has_sessions: bool
) -> None:
    numbers = await scheduled(broker, HOUR, HOUR, has_sessions=has_sessions)

    await broker.cancel_scheduled("orders", numbers)

    runtime = await broker.runtime("orders")
    assert (runtime.scheduled, runtime.size_bytes, runtime.sessions) == (0, 0, 0)
    with pytest.raises(MessageNotFound):
        await broker.cancel_scheduled("orders", numbers)


@both_kinds
async def test_sch_5_one_that_is_not_scheduled_refuses_the_whole_cancellation(
    broker: Broker, has_sessions: bool
) -> None:
    first, active = await scheduled(broker, HOUR, 0, has_sessions=has_sessions)

    with pytest.raises(MessageNotFound):
        await broker.cancel_scheduled("orders", [first, active])

    assert (await broker.runtime("orders")).scheduled == 1


@needs_clock
@both_kinds
@pytest.mark.parametrize("cancels_first", [True, False])
async def test_race_12_cancellation_and_activation_of_a_message_exclude_each_other(
    broker: Broker, has_sessions: bool, cancels_first: bool
) -> None:
    numbers = await scheduled(broker, 1_000, has_sessions=has_sessions)
    if cancels_first:
        await broker.advance(999)
        await broker.cancel_scheduled("orders", numbers)
        await broker.advance(1)
    else:
        await broker.advance(1_000)
        with pytest.raises(MessageNotFound):
            await broker.cancel_scheduled("orders", numbers)

    got = await broker.receive(await source_of(broker, has_sessions=has_sessions))

    assert bodies(got) == ([] if cancels_first else [b"1"])


@needs_clock
@needs_restart
@both_kinds
@pytest.mark.parametrize("after_ms", [0, HOUR])
async def test_sch_4_schedules_and_activations_outlive_a_restart(
    broker: Broker, has_sessions: bool, after_ms: int
) -> None:
    await scheduled(broker, 1_000, HOUR, 0, has_sessions=has_sessions)
    await broker.advance(1_000)

    await broker.restart(after_ms=after_ms)

    await broker.advance(HOUR)
    source = await source_of(broker, has_sessions=has_sessions)
    assert bodies(await broker.receive(source)) == [b"3", b"1", b"2"]


@needs_clock
async def test_sch_7_thousands_that_are_due_at_once_become_active_in_several_steps(
    broker: Broker,
) -> None:
    await broker.create_queue("orders")
    due = broker.now_ms() + 1_000
    await broker.send("orders", *[b"x"] * 3_000, due_ms=[due] * 3_000)

    await broker.advance(2_000)

    assert (await broker.runtime("orders")).active == 3_000


@both_kinds
async def test_ttl_2_a_message_that_waits_has_no_end_yet(
    broker: Broker, has_sessions: bool
) -> None:
    await scheduled(broker, HOUR, has_sessions=has_sessions, ttl_ms=1_000)

    (seen,) = await broker.browse(Plain("orders"))

    assert seen.expires_ms == 0
