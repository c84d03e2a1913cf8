"""When messages expire, and what goes with them (section 7 of the contract)."""

from __future__ import annotations

import asyncio

import pytest

from lockstep.core.errors import LimitExceeded
from tests.spec.driver import (
    Broker,
    DeadLetters,
    Held,
    Plain,
    Source,
    abandon,
    bodies,
    complete,
    dead_letter,
    give_back,
    hold,
    needs_clock,
    needs_restart,
)
from tests.spec.stocked import both_kinds

DEAD = DeadLetters("orders")
MINUTE = 60_000
both_ends = pytest.mark.parametrize("dead_letters", [True, False], ids=["dead letters", "dropped"])


async def queue_with(
    broker: Broker, *ttls_ms: int, has_sessions: bool, **settings: object
) -> Source | None:
    """Make the queue "orders" with messages b"1", b"2", … of these times to live; None = accept "s" first."""
    await broker.create_queue("orders", requires_session=has_sessions, **settings)  # type: ignore[arg-type]
    sent = [str(number).encode() for number in range(1, len(ttls_ms) + 1)]
    session = "s" if has_sessions else None
    await broker.send("orders", *sent, session=session, ttls_ms=ttls_ms)
    return None if has_sessions else Plain("orders")


async def receive(broker: Broker, source: Source | None) -> list[bytes]:
    return bodies(await broker.receive(source or await broker.accept("orders", "s")))


async def expiries(broker: Broker, source: Source) -> list[int]:
    return [got.expires_ms - got.enqueued_ms for got in await broker.receive(source)]


async def test_ttl_1_the_queue_s_default_is_a_ceiling_too(broker: Broker) -> None:
    source = await queue_with(
        broker, 0, 1_000, 90_000, has_sessions=False, default_message_time_to_live_ms=MINUTE
    )
    assert source is not None

    assert await expiries(broker, source) == [MINUTE, 1_000, MINUTE]


async def test_ttl_2_a_message_without_a_time_to_live_never_expires(broker: Broker) -> None:
    source = await queue_with(broker, 0, has_sessions=False)
    assert source is not None

    assert [got.expires_ms for got in await broker.receive(source)] == [0]


@pytest.mark.parametrize("ttl_ms", [999, 0, -1])
async def test_ttl_11_a_default_below_a_second_is_refused(broker: Broker, ttl_ms: int) -> None:
    with pytest.raises(LimitExceeded):
        await broker.create_queue("orders", default_message_time_to_live_ms=ttl_ms)


@needs_clock
@both_kinds
@both_ends
async def test_ttl_3_i_8_an_expired_message_is_dead_lettered_or_dropped_never_delivered(
    broker: Broker, has_sessions: bool, dead_letters: bool
) -> None:
    source = await queue_with(
        broker,
        1_000,
        has_sessions=has_sessions,
        dead_lettering_on_message_expiration=dead_letters,
    )
    await broker.advance(1_000)

    assert await receive(broker, source) == []

    dead = await broker.receive(DEAD)
    assert bodies(dead) == ([b"1"] if dead_letters else [])
    assert [got.reason for got in dead] == ["TTLExpiredException"] * len(dead)
    runtime = await broker.runtime("orders")
    assert (runtime.active, runtime.dead_letters) == (0, int(dead_letters))


@needs_clock
@both_kinds
async def test_ttl_2_a_message_is_delivered_up_to_its_last_millisecond(
    broker: Broker, has_sessions: bool
) -> None:
    source = await queue_with(broker, 1_000, has_sessions=has_sessions)
    await broker.advance(999)

    assert await receive(broker, source) == [b"1"]


@needs_clock
async def test_ttl_4_what_has_expired_does_not_stand_in_the_way_of_others(broker: Broker) -> None:
    source = await queue_with(broker, 1_000, 0, 1_000, 0, has_sessions=False)
    await broker.advance(1_000)

    assert await receive(broker, source) == [b"2", b"4"]


@needs_clock
@both_kinds
async def test_c77_ttl_5_a_message_that_expires_in_hand_can_be_completed(
    broker: Broker, has_sessions: bool
) -> None:
    source = await queue_with(broker, 1_000, has_sessions=has_sessions)
    source = source or await broker.accept("orders", "s")
    got = await broker.receive(source)
    await broker.advance(2_000)

    await complete(broker, source, got)

    assert (await broker.runtime("orders")).active == 0


@needs_clock
@both_kinds
@both_ends
async def test_c77_ttl_5_a_message_that_expired_in_hand_and_is_abandoned_expires_at_once(
    broker: Broker, has_sessions: bool, dead_letters: bool
) -> None:
    source = await queue_with(
        broker,
        1_000,
        has_sessions=has_sessions,
        dead_lettering_on_message_expiration=dead_letters,
    )
    source = source or await broker.accept("orders", "s")
    got = await broker.receive(source)
    await broker.advance(2_000)

    await abandon(broker, source, got)

    runtime = await broker.runtime("orders")
    assert (runtime.active, runtime.dead_letters) == (0, int(dead_letters))
    assert await broker.receive(source) == []


@needs_clock
@both_kinds
async def test_ttl_5_a_message_that_expired_in_hand_and_is_released_expires_at_once(
    broker: Broker, has_sessions: bool
) -> None:
    source = await queue_with(broker, 1_000, has_sessions=has_sessions)
    source = source or await broker.accept("orders", "s")
    got = await broker.receive(source)
    await broker.advance(2_000)

    await give_back(broker, source, got)

    assert (await broker.runtime("orders")).active == 0


@needs_clock
@both_kinds
async def test_ttl_5_a_message_whose_lock_runs_out_after_its_expiry_expires_at_once(
    broker: Broker, has_sessions: bool
) -> None:
    source = await queue_with(
        broker,
        1_000,
        has_sessions=has_sessions,
        lock_duration_ms=5_000,
        session_lock_extension="off",
    )
    source = source or await broker.accept("orders", "s")
    await broker.receive(source)

    await broker.advance(6_000)

    assert (await broker.runtime("orders")).active == 0


@needs_clock
async def test_race_14_a_holder_who_closes_after_the_expiry_leaves_nothing_to_deliver(
    broker: Broker,
) -> None:
    await queue_with(broker, 1_000, has_sessions=True)
    held = await broker.accept("orders", "s")
    await broker.receive(held)
    await broker.advance(2_000)

    await broker.release_session(held)

    assert await receive(broker, None) == []


@needs_clock
async def test_race_14_what_a_holder_gives_back_by_closing_expires_at_once(
    broker: Broker,
) -> None:
    await queue_with(broker, 1_000, 0, has_sessions=True, dead_lettering_on_message_expiration=True)
    held = await broker.accept("orders", "s")
    await broker.receive(held)
    await broker.advance(1_000)

    await broker.release_session(held)

    runtime = await broker.runtime("orders")
    assert (runtime.active, runtime.dead_letters, runtime.runnable_sessions) == (0, 2, 0)


# --- the session rule ----------------------------------------------------------------------------


@needs_clock
@both_ends
async def test_c76_ttl_6_a_whole_session_expires_with_one_of_its_messages(
    broker: Broker, dead_letters: bool
) -> None:
    await queue_with(
        broker,
        0,
        1_000,
        0,
        has_sessions=True,
        dead_lettering_on_message_expiration=dead_letters,
    )
    await broker.send("orders", b"other", session="t")
    held = await broker.accept("orders", "s")
    await broker.set_state(held, b"state")
    await broker.release_session(held)
    await broker.advance(3_000)

    again = await broker.accept("orders", "s")

    assert await broker.receive(again) == []
    assert again.state == b"state"  # SES-48
    dead = await broker.receive(DEAD)
    assert bodies(dead) == ([b"1", b"2", b"3"] if dead_letters else [])
    assert all("message 2 of the session expired" in got.description for got in dead)
    assert bodies(await broker.receive(await broker.accept("orders", "t"))) == [b"other"]


@needs_clock
async def test_ttl_7_per_message_expiry_leaves_the_others(broker: Broker) -> None:
    await queue_with(broker, 0, 1_000, 0, has_sessions=True, session_expiry="per_message")
    await broker.advance(3_000)

    assert await receive(broker, None) == [b"1", b"3"]


@needs_clock
async def test_ttl_7_accept_next_does_not_grant_a_session_that_expiry_emptied(
    broker: Broker,
) -> None:
    await queue_with(broker, 1_000, has_sessions=True)
    await broker.send("orders", b"later", session="t")
    await broker.advance(1_000)

    assert (await broker.accept("orders")).session_id == "t"


@needs_clock
async def test_race_22_accept_by_id_grants_a_session_that_expiry_emptied(broker: Broker) -> None:
    await queue_with(broker, 1_000, has_sessions=True)
    await broker.advance(1_000)

    held = await broker.accept("orders", "s")

    await broker.send("orders", b"new", session="s")
    assert bodies(await broker.receive(held)) == [b"new"]


@needs_clock
async def test_race_15_what_the_holder_has_in_hand_stays_while_the_rest_expires(
    broker: Broker,
) -> None:
    await queue_with(
        broker, 0, 1_000, 0, has_sessions=True, dead_lettering_on_message_expiration=True
    )
    held = await broker.accept("orders", "s")
    got = await broker.receive(held, 1)
    await broker.advance(1_000)

    assert await broker.receive(held) == []

    assert bodies(await broker.receive(DEAD)) == [b"2", b"3"]
    await complete(broker, held, got)
    assert (await broker.runtime("orders")).active == 0


@needs_clock
@needs_restart
@both_kinds
async def test_ttl_2_expiries_outlive_a_restart(broker: Broker, has_sessions: bool) -> None:
    source = await queue_with(broker, 5_000, has_sessions=has_sessions)

    await broker.restart(after_ms=5_000)

    assert await receive(broker, source) == []


@needs_clock
async def test_ttl_4_thousands_of_expired_messages_go_in_several_steps(broker: Broker) -> None:
    await broker.create_queue("orders")
    for _ in range(2):
        await broker.send("orders", *[b"x"] * 4_000, ttls_ms=[1_000] * 4_000)
    await broker.send("orders", b"last")
    await broker.advance(1_000)

    got: list[bytes] = []
    for _ in range(4):
        got += bodies(await broker.receive(Plain("orders")))
        await broker.advance(5)

    assert got == [b"last"]
    assert (await broker.runtime("orders")).active == 1


@needs_clock
async def test_dlq_2_dead_letters_never_expire(broker: Broker) -> None:
    held = await hold(broker, b"1", default_message_time_to_live_ms=1_000)
    assert isinstance(held, Held)
    await broker.advance(1_000)
    await broker.update_queue("orders", dead_lettering_on_message_expiration=True)
    await broker.receive(held)

    await broker.advance(86_400_000)

    assert bodies(await broker.receive(DEAD)) == [b"1"]


@needs_clock
async def test_dlq_2_a_dead_letter_that_comes_back_after_its_time_stays(broker: Broker) -> None:
    source = await queue_with(broker, 1_000, has_sessions=False)
    assert source is not None
    await dead_letter(broker, source, await broker.receive(source))
    got = await broker.receive(DEAD)
    await broker.advance(1_000)

    await give_back(broker, DEAD, got)

    assert bodies(await broker.receive(DEAD)) == [b"1"]


@needs_clock
async def test_ttl_4_who_waits_behind_thousands_of_expired_messages_gets_the_next_one(
    broker: Broker,
) -> None:
    await broker.create_queue("orders")
    for _ in range(2):
        await broker.send("orders", *[b"x"] * 3_000, ttls_ms=[1_000] * 3_000)
    await broker.send("orders", b"last")
    await broker.advance(1_000)

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(broker.receive(Plain("orders"), wait_ms=MINUTE))
        await broker.parked()
        await broker.advance(5)

    assert bodies(waiting.result()) == [b"last"]
