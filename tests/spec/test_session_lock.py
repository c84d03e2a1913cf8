"""The life of a session's lock, and the races at its end (section 5.3, section 19)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from lockstep.core.errors import (
    LockstepError,
    MessageLockLost,
    NoSessionAvailable,
    SessionCannotBeLocked,
    SessionLockLost,
)
from lockstep.core.ids import GrantNumber, lock_token
from tests.spec.driver import (
    Broker,
    Got,
    Held,
    abandon,
    bodies,
    complete,
    counts,
    dead_letter,
    give_back,
    hold,
    needs_clock,
    needs_requests,
    needs_restart,
    numbered,
)

L = 5_000
Use = Callable[[Broker, Held, list[Got]], Awaitable[object]]

USES: dict[str, Use] = {
    "receive": lambda broker, held, _: broker.receive(held),
    "waiting receive": lambda broker, held, _: broker.receive(held, wait_ms=60_000),
    "complete": complete,
    "abandon": abandon,
    "release": give_back,
    "dead-letter": dead_letter,
    "renew": lambda broker, held, _: broker.renew(held),
    "get-state": lambda broker, held, _: broker.get_state(held),
    "set-state": lambda broker, held, _: broker.set_state(held, b"stale"),
    "clear-state": lambda broker, held, _: broker.set_state(held, None),
    "close": lambda broker, held, _: broker.release_session(held),
}
each_use = pytest.mark.parametrize("use", USES.values(), ids=USES)


@each_use
@needs_clock
async def test_c13_a_stale_holder_is_refused_after_another_took_the_session(
    broker: Broker, use: Use
) -> None:
    """C13, SES-20, SES-37, I-4: and the newer holder's copy is untouched."""
    stale = await hold(broker, b"1", b"2", lock_duration_ms=L)
    got = await broker.receive(stale)
    await broker.advance(L)
    newer = await broker.accept("orders", "s", holder="newer")
    again = await broker.receive(newer)

    with pytest.raises(SessionLockLost) as refused:
        await use(broker, stale, got)

    assert refused.value.details["cause"] == "expired"
    assert refused.value.details["holder"] == "newer"
    await complete(broker, newer, again)
    assert await broker.get_state(newer) == (None, 0)


@each_use
@needs_clock
async def test_ses_20_every_call_after_the_expiry_is_refused_though_nobody_took_the_session(
    broker: Broker, use: Use
) -> None:
    held = await hold(broker, b"1", b"2", lock_duration_ms=L)
    got = await broker.receive(held)
    await broker.advance(L)

    with pytest.raises(SessionLockLost) as refused:
        await use(broker, held, got)

    assert refused.value.details["cause"] == "expired"
    assert refused.value.details["since_ms"] == str(broker.now_ms())


@each_use
async def test_every_call_after_a_close_is_refused_with_its_cause(broker: Broker, use: Use) -> None:
    held = await hold(broker, b"1", b"2")
    got = await broker.receive(held)
    await broker.release_session(held)

    with pytest.raises(SessionLockLost) as refused:
        await use(broker, held, got)

    assert refused.value.details["cause"] == "closed"
    assert refused.value.details["since_ms"] == str(broker.now_ms())


@each_use
async def test_ses_21_a_token_that_was_never_granted_is_refused_with_its_cause(
    broker: Broker, use: Use
) -> None:
    held = await hold(broker, b"1", b"2")
    got = await broker.receive(held)
    forged = replace(held, token=lock_token(GrantNumber(999)))

    with pytest.raises(SessionLockLost) as refused:
        await use(broker, forged, got)

    assert refused.value.details["cause"] == "unknown"
    await complete(broker, held, got)


@each_use
async def test_ses_21_a_session_that_nobody_ever_accepted_is_refused(
    broker: Broker, use: Use
) -> None:
    held = await hold(broker, b"1")
    got = await broker.receive(held)

    with pytest.raises(SessionLockLost) as refused:
        await use(broker, replace(held, session_id="other"), got)

    assert refused.value.details["cause"]
    assert refused.value.details["session_id"] == "other"


@needs_restart
@needs_clock
async def test_a_lock_that_ended_before_a_restart_still_has_a_cause(broker: Broker) -> None:
    held = await hold(broker, b"1", lock_duration_ms=L)
    await broker.advance(L)
    await broker.restart()

    with pytest.raises(SessionLockLost) as refused:
        await broker.renew(held)

    assert refused.value.details["cause"] == "ended_earlier"


@pytest.mark.limits(losses_remembered_max=2)
async def test_a_lock_that_ended_long_ago_still_has_a_cause(broker: Broker) -> None:
    old = await hold(broker)
    await broker.release_session(old)
    await broker.release_session(await broker.accept("orders", "s"))
    last = await broker.accept("orders", "s")
    await broker.release_session(last)

    with pytest.raises(SessionLockLost) as of_old:
        await broker.renew(old)
    with pytest.raises(SessionLockLost) as of_last:
        await broker.renew(last)

    assert of_old.value.details["cause"] == "ended_earlier"
    assert of_last.value.details["cause"] == "closed"


@needs_requests
async def test_a_lock_whose_accept_was_cancelled_has_a_cause(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    request = broker.new_request()
    held = await broker.accept("orders", "s", request=request)
    await broker.cancel("orders", request)

    with pytest.raises(SessionLockLost) as refused:
        await broker.receive(held)

    assert refused.value.details["cause"] == "cancelled"


@needs_clock
async def test_c35_an_old_delivery_is_not_settled_by_a_holder_who_came_back(
    broker: Broker,
) -> None:
    """C35, SES-26: settle old delivery → `SessionLockLost`; the new delivery settles."""
    first = await hold(broker, b"1", lock_duration_ms=L)
    old = await broker.receive(first)
    await broker.advance(L)
    second = await broker.accept("orders", "s")
    new = await broker.receive(second)

    with pytest.raises(SessionLockLost):
        await complete(broker, first, old)
    with pytest.raises(MessageLockLost):
        await complete(broker, second, old)

    await complete(broker, second, new)
    assert counts(new) == [1]


@needs_clock
async def test_c35_an_old_delivery_is_refused_before_the_message_was_delivered_anew(
    broker: Broker,
) -> None:
    first = await hold(broker, b"1", lock_duration_ms=L)
    old = await broker.receive(first)
    await broker.advance(L)
    second = await broker.accept("orders", "s")

    with pytest.raises(MessageLockLost):
        await complete(broker, second, old)

    assert bodies(await broker.receive(second)) == [b"1"]


@needs_clock
async def test_c35_another_holder_keeps_the_old_one_from_coming_back(broker: Broker) -> None:
    await hold(broker, b"1", lock_duration_ms=L)
    await broker.advance(L)
    await broker.accept("orders", "s", holder="another")

    with pytest.raises(SessionCannotBeLocked) as refused:
        await broker.accept("orders", "s")

    assert refused.value.details["holder"] == "another"


@needs_clock
async def test_c17_a_renewal_moves_the_end_to_now_plus_the_duration(broker: Broker) -> None:
    """C17, SES-18: now + L, not the previous end + L."""
    held = await hold(broker, lock_duration_ms=30_000)
    await broker.advance(5_000)

    until_ms = await broker.renew(held)

    assert until_ms == broker.now_ms() + 30_000
    assert until_ms - held.locked_until_ms == 5_000
    assert (await broker.session("orders", "s")).locked_until_ms == until_ms


@needs_clock
async def test_ses_18_renewals_keep_a_session_for_any_time(broker: Broker) -> None:
    held = await hold(broker, b"1", lock_duration_ms=L)
    got = await broker.receive(held)

    for _ in range(10):
        await broker.advance(L - 1)
        await broker.renew(held)

    await complete(broker, held, got)


@needs_clock
@pytest.mark.parametrize("has_message", [True, False])
async def test_ses_23_a_receive_extends_the_lock_by_default(
    broker: Broker, has_message: bool
) -> None:
    held = await hold(broker, *([b"1"] if has_message else []), lock_duration_ms=L)
    await broker.advance(L - 1)

    got = await broker.receive(held)

    until_ms = broker.now_ms() + L
    assert (await broker.session("orders", "s")).locked_until_ms == until_ms
    assert [message.locked_until_ms for message in got] == [until_ms] * len(got)


@needs_clock
async def test_ses_23_a_waiting_receive_keeps_the_lock(broker: Broker) -> None:
    held = await hold(broker, lock_duration_ms=L)

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(broker.receive(held, wait_ms=60_000))
        await broker.parked()
        await broker.advance(59_000)
        await broker.send("orders", b"1", session="s")

    assert bodies(waiting.result()) == [b"1"]


@needs_clock
async def test_ses_23_with_extension_off_a_receive_does_not_extend(broker: Broker) -> None:
    held = await hold(broker, b"1", lock_duration_ms=L, session_lock_extension="off")
    await broker.advance(L - 1)

    got = await broker.receive(held)

    assert got[0].locked_until_ms == held.locked_until_ms
    await broker.advance(1)
    with pytest.raises(SessionLockLost):
        await complete(broker, held, got)


@needs_clock
async def test_ses_23_with_extension_off_a_waiting_receive_loses_the_lock_and_is_told(
    broker: Broker,
) -> None:
    held = await hold(broker, lock_duration_ms=L, session_lock_extension="off")

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_error_of(broker.receive(held, wait_ms=60_000)))
        await broker.parked()
        await broker.advance(L)

    assert isinstance(waiting.result(), SessionLockLost)


@needs_clock
async def test_ses_23_calls_other_than_receive_and_renew_do_not_extend(broker: Broker) -> None:
    held = await hold(broker, b"1", b"2", lock_duration_ms=L)
    got = await broker.receive(held)
    end_ms = (await broker.session("orders", "s")).locked_until_ms
    await broker.advance(1_000)

    await complete(broker, held, got[:1])
    await abandon(broker, held, got[1:])
    await broker.set_state(held, b"1")
    await broker.get_state(held)

    assert (await broker.session("orders", "s")).locked_until_ms == end_ms


@needs_clock
async def test_dcn_8_extending_and_renewing_never_count(broker: Broker) -> None:
    held = await hold(broker, b"1", b"2", lock_duration_ms=L)
    await broker.receive(held, 1)
    await broker.advance(1_000)
    await broker.receive(held, 1)
    await broker.renew(held)
    await broker.release_session(held)

    again = await broker.receive(await broker.accept("orders", "s"))

    assert counts(again) == [0, 0]


@needs_clock
async def test_race_1_a_complete_just_before_the_end_removes_the_message(broker: Broker) -> None:
    held = await hold(broker, b"1", lock_duration_ms=L)
    got = await broker.receive(held)
    await broker.advance(L - 1)

    await complete(broker, held, got)
    await broker.advance(1)

    assert await broker.sessions("orders") == []


@needs_clock
async def test_race_1_a_complete_at_the_end_is_refused_and_the_message_comes_again(
    broker: Broker,
) -> None:
    held = await hold(broker, b"1", lock_duration_ms=L)
    got = await broker.receive(held)
    await broker.advance(L)

    with pytest.raises(SessionLockLost):
        await complete(broker, held, got)

    again = await broker.receive(await broker.accept("orders", "s"))
    assert bodies(again) == [b"1"]
    assert counts(again) == [1]


@needs_clock
async def test_race_3_a_renewal_just_before_the_end_holds(broker: Broker) -> None:
    held = await hold(broker, lock_duration_ms=L)
    await broker.advance(L - 1)

    await broker.renew(held)
    await broker.advance(L - 1)

    assert (await broker.session("orders", "s")).holder == "receiver"


@needs_clock
async def test_race_3_a_renewal_at_the_end_revives_nothing_though_nobody_took_the_session(
    broker: Broker,
) -> None:
    held = await hold(broker, b"1", lock_duration_ms=L)
    await broker.advance(L)

    with pytest.raises(SessionLockLost):
        await broker.renew(held)

    view = await broker.session("orders", "s")
    assert (view.holder, view.locked_until_ms) == ("", 0)
    assert (await broker.accept("orders")).session_id == "s"


@needs_clock
@pytest.mark.parametrize("expires", [False, True])
async def test_race_4_close_first_counts_nothing_and_expiry_first_counts_once(
    broker: Broker, expires: bool
) -> None:
    """RACE-4: exactly one of them applies."""
    held = await hold(broker, b"1", lock_duration_ms=L)
    await broker.receive(held)
    await broker.advance(L if expires else L - 1)

    closing = await _error_of(broker.release_session(held))
    await broker.advance(L)

    assert isinstance(closing, SessionLockLost) == expires
    again = await broker.receive(await broker.accept("orders", "s"))
    assert counts(again) == [1 if expires else 0]


async def test_race_8_what_was_on_the_wire_at_the_close_is_back_in_order_when_the_session_is_eligible(
    broker: Broker,
) -> None:
    held = await hold(broker, *numbered(6))
    in_hand = await broker.receive(held, 5)
    await abandon(broker, held, [in_hand[3]])

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(broker.accept("orders", wait_ms=60_000))
        await broker.parked()
        await broker.release_session(held)

    again = await broker.receive(waiting.result())
    assert bodies(again) == numbered(6)
    assert counts(again) == [0, 0, 0, 1, 0, 0]


async def test_a_waiting_receive_is_told_when_its_session_is_closed(broker: Broker) -> None:
    held = await hold(broker)

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_error_of(broker.receive(held, wait_ms=60_000)))
        await broker.parked()
        await broker.release_session(held)

    error = waiting.result()
    assert isinstance(error, SessionLockLost)
    assert error.details["cause"] == "closed"


async def test_race_7_a_message_never_goes_to_the_receive_of_a_closed_holder(
    broker: Broker,
) -> None:
    held = await hold(broker)

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_error_of(broker.receive(held, wait_ms=60_000)))
        await broker.parked()
        await broker.release_session(held)
        await broker.send("orders", b"1", session="s")

    assert isinstance(waiting.result(), SessionLockLost)
    assert bodies(await broker.receive(await broker.accept("orders"))) == [b"1"]


@needs_clock
async def test_i_3_grants_rise_with_every_holder(broker: Broker) -> None:
    """I-3, SES-26: every grant has a number of its own that only rises."""
    await broker.create_queue("orders", requires_session=True, lock_duration_ms=L)
    grants = []
    for turn in range(6):
        held = await broker.accept("orders", "s")
        grants.append((await broker.session("orders", "s")).grant)
        if turn % 2:
            await broker.release_session(held)
        else:
            await broker.advance(L)

    assert grants == sorted(set(grants))


@needs_clock
async def test_closing_twice_says_that_it_was_closed(broker: Broker) -> None:
    held = await hold(broker)
    await broker.release_session(held)

    with pytest.raises(SessionLockLost) as refused:
        await broker.release_session(held)

    assert refused.value.details["cause"] == "closed"


async def test_ses_2_a_session_leaves_nothing_behind_when_it_is_empty_and_free(
    broker: Broker,
) -> None:
    held = await hold(broker, b"1")
    await complete(broker, held, await broker.receive(held))

    assert [view.session_id for view in await broker.sessions("orders")] == ["s"]
    await broker.release_session(held)

    assert await broker.sessions("orders") == []
    with pytest.raises(NoSessionAvailable):
        await broker.accept("orders")


async def _error_of(call: Awaitable[object]) -> LockstepError | None:
    try:
        await call
    except LockstepError as error:
        return error
    return None
