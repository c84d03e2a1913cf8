"""Accepting sessions, by id and the next available one (section 5.2 of the contract)."""

from __future__ import annotations

import asyncio

import pytest

from lockstep.core.errors import (
    EntityNotFound,
    InvalidOperation,
    NoSessionAvailable,
    SessionCannotBeLocked,
)
from tests.spec.driver import (
    Broker,
    Held,
    bodies,
    complete,
    dead_letter,
    hold,
    needs_clock,
    needs_restart,
    numbered,
)


async def test_ses_7_a_session_without_messages_and_state_can_be_accepted_by_id(
    broker: Broker,
) -> None:
    held = await hold(broker)

    assert (held.session_id, held.state, held.state_version) == ("s", None, 0)
    assert await broker.receive(held) == []


@needs_clock
async def test_c04_accept_next_on_an_empty_queue_times_out_when_it_said(broker: Broker) -> None:
    """C04, SES-9, SES-10: a typed idle result after the wait, not earlier and not later."""
    await broker.create_queue("orders", requires_session=True)

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_accept_or_none(broker, wait_ms=10_000))
        await broker.parked()
        await broker.advance(9_999)
        assert not waiting.done()
        await broker.advance(1)

    assert waiting.result() is None


async def test_c04_accept_next_without_waiting_is_idle_at_once(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)

    with pytest.raises(NoSessionAvailable):
        await broker.accept("orders")


async def test_c05_after_an_idle_accept_the_next_one_grants_what_was_sent(broker: Broker) -> None:
    """C05, SES-11: after C04, send to session s → accept-next → grants s, one message."""
    await broker.create_queue("orders", requires_session=True)
    with pytest.raises(NoSessionAvailable):
        await broker.accept("orders")

    await broker.send("orders", b"1", session="s")
    held = await broker.accept("orders")

    assert held.session_id == "s"
    assert bodies(await broker.receive(held)) == [b"1"]


async def test_c07_a_held_session_cannot_be_accepted_and_others_can(broker: Broker) -> None:
    """C07, SES-8: `SessionCannotBeLocked` at once, even for a call that would wait; accept of t succeeds."""
    await hold(broker, b"1")

    with pytest.raises(SessionCannotBeLocked) as refused:
        await broker.accept("orders", "s", wait_ms=60_000, holder="second")

    assert refused.value.details["holder"] == "receiver"
    assert refused.value.details["session_id"] == "s"
    assert int(refused.value.details["locked_until_ms"]) > broker.now_ms() - 1
    assert (await broker.accept("orders", "t")).session_id == "t"


async def test_race_5_of_two_accepts_at_once_exactly_one_wins(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)

    outcomes = await asyncio.gather(
        broker.accept("orders", "s", holder="first"),
        broker.accept("orders", "s", holder="second"),
        return_exceptions=True,
    )

    assert {type(outcome) for outcome in outcomes} == {Held, SessionCannotBeLocked}


async def test_c08_a_closed_session_can_be_accepted_at_once(broker: Broker) -> None:
    """C08, SES-20: not after the lock's duration."""
    held = await hold(broker, b"1")

    await broker.release_session(held)
    again = await broker.accept("orders", "s", holder="second")

    assert bodies(await broker.receive(again)) == [b"1"]
    assert (await broker.session("orders", "s")).holder == "second"


@needs_clock
async def test_ses_20_an_expired_session_can_be_accepted_at_its_end_and_not_before(
    broker: Broker,
) -> None:
    held = await hold(broker, b"1", lock_duration_ms=30_000)

    await broker.advance(29_999)
    with pytest.raises(SessionCannotBeLocked):
        await broker.accept("orders", "s")
    await broker.advance(1)
    again = await broker.accept("orders", "s")

    assert held.locked_until_ms == broker.now_ms()
    assert again.token != held.token


async def test_c10_messages_of_a_session_without_holder_go_to_nobody(broker: Broker) -> None:
    """C10, SES-6: session "4" has messages but all receivers are bound to 1–3."""
    await broker.create_queue("orders", requires_session=True)
    held = [await broker.accept("orders", name) for name in ("1", "2", "3")]
    await broker.send("orders", b"a", b"b", session="4")

    assert [await broker.receive(each) for each in held] == [[], [], []]

    assert (await broker.session("orders", "4")).active == 2


@needs_clock
async def test_c10_receivers_that_wait_on_other_sessions_get_nothing(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    held = [await broker.accept("orders", name) for name in ("1", "2", "3")]

    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(broker.receive(each, wait_ms=5_000)) for each in held]
        await broker.parked(3)
        await broker.send("orders", b"a", session="4")
        await broker.advance(5_000)

    assert [task.result() for task in waiting] == [[], [], []]


async def test_c11_the_holder_of_an_empty_session_gets_what_is_sent_later(broker: Broker) -> None:
    """C11, SES-18: without re-accept; another accept-next does not get the session."""
    held = await hold(broker)

    await broker.send("orders", b"1", session="s")

    with pytest.raises(NoSessionAvailable):
        await broker.accept("orders")
    assert bodies(await broker.receive(held)) == [b"1"]


async def test_c11_a_waiting_holder_is_woken_by_a_message_for_its_session(broker: Broker) -> None:
    held = await hold(broker)

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(broker.receive(held, wait_ms=60_000))
        await broker.parked()
        await broker.send("orders", b"1", session="s")

    assert bodies(waiting.result()) == [b"1"]


async def test_c26_every_session_id_gets_exactly_its_messages(broker: Broker) -> None:
    """C26, SES-17: ids "a".."aaaaa", compared exactly; empty, case and Unicode forms differ."""
    names = ["a", "aa", "aaa", "aaaa", "aaaaa", "", "A", " a", "é", "e\u0301", "a\u0000", "😀"]
    await broker.create_queue("orders", requires_session=True)
    for name in names:
        await broker.send("orders", repr(name).encode(), session=name)

    for name in names:
        held = await broker.accept("orders", name)
        got = await broker.receive(held)
        assert bodies(got) == [repr(name).encode()]
        assert got[0].session_id == name


@needs_restart
async def test_ses_17_the_empty_session_id_is_one_like_any_other(broker: Broker) -> None:
    """Section 2.1: the empty string is a legal id and differs from absent."""
    await broker.create_queue("orders", requires_session=True)
    await broker.send("orders", b"1", session="")
    await broker.restart()

    held = await broker.accept("orders")

    assert held.session_id == ""
    assert bodies(await broker.receive(held)) == [b"1"]
    await broker.restart()
    assert await broker.set_state(held, b"x") > 0


async def test_bat_3_accepting_locks_no_message(broker: Broker) -> None:
    held = await hold(broker, b"1", b"2")

    assert (await broker.session("orders", "s")).locked == 0
    assert await broker.release_session(held) == 0


async def test_ses_12_a_session_with_only_a_state_is_not_available_but_can_be_accepted_by_id(
    broker: Broker,
) -> None:
    held = await hold(broker)
    await broker.set_state(held, b"kept")
    await broker.release_session(held)

    with pytest.raises(NoSessionAvailable):
        await broker.accept("orders")

    assert (await broker.accept("orders", "s")).state == b"kept"


async def test_ses_12_a_session_whose_messages_are_all_done_is_not_available(
    broker: Broker,
) -> None:
    held = await hold(broker, b"1", b"2")
    got = await broker.receive(held)
    await complete(broker, held, got[:1])
    await dead_letter(broker, held, got[1:])
    await broker.release_session(held)

    with pytest.raises(NoSessionAvailable):
        await broker.accept("orders")


async def test_ses_13_ties_go_to_the_oldest_active_message(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    for name in ("c", "a", "b"):
        await broker.send("orders", name.encode(), session=name)

    assert [(await broker.accept("orders")).session_id for _ in range(3)] == ["c", "a", "b"]


async def test_ses_13_a_session_that_was_just_closed_goes_to_the_back(broker: Broker) -> None:
    """Round robin: no eligible session starves while others cycle."""
    await broker.create_queue("orders", requires_session=True, placement="single")
    for name in ("a", "b", "c"):
        await broker.send("orders", b"1", session=name)

    assert await _rounds(broker, 7) == ["a", "b", "c", "a", "b", "c", "a"]


@needs_clock
async def test_ses_13_a_session_whose_lock_ran_out_goes_to_the_back_too(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    for name in ("a", "b"):
        await broker.send("orders", b"1", session=name)
    taken = [(await broker.accept("orders")).session_id]

    await broker.advance(60_000)
    taken += [(await broker.accept("orders")).session_id for _ in range(2)]

    assert taken == ["a", "b", "a"]


async def test_ses_13_the_least_recently_released_goes_first_whatever_its_messages(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", requires_session=True, placement="single")
    for name in ("a", "b", "c"):
        await broker.send("orders", b"1", session=name)
    held = {name: await broker.accept("orders", name) for name in ("a", "b", "c")}

    for name in ("b", "c", "a"):
        await broker.release_session(held[name])

    assert [(await broker.accept("orders")).session_id for _ in range(3)] == ["b", "c", "a"]


async def test_ses_13_new_sessions_do_not_starve_a_released_one(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    await broker.send("orders", b"1", session="waits")
    await broker.release_session(await broker.accept("orders", "waits"))
    for number in range(5):
        await broker.send("orders", b"1", session=f"new-{number}")

    assert (await broker.accept("orders")).session_id == "waits"


@needs_restart
async def test_ses_13_the_order_of_released_sessions_survives_a_restart(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    for name in ("a", "b", "c"):
        await broker.send("orders", b"1", session=name)
    held = {name: await broker.accept("orders", name) for name in ("a", "b", "c")}
    for name in ("b", "c", "a"):
        await broker.release_session(held[name])

    await broker.restart()

    assert [(await broker.accept("orders")).session_id for _ in range(3)] == ["b", "c", "a"]


@needs_restart
async def test_ses_13_a_session_that_was_just_closed_stays_behind_others_over_a_restart(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", requires_session=True)
    for name in ("a", "b"):
        await broker.send("orders", b"1", session=name)
    await broker.release_session(await broker.accept("orders"))

    await broker.restart()

    assert (await broker.accept("orders")).session_id == "b"


async def test_ses_14_concurrent_accepts_get_different_sessions(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    for number in range(10):
        await broker.send("orders", b"1", session=f"s{number}")

    held = await asyncio.gather(*(broker.accept("orders") for _ in range(10)))

    assert len({each.session_id for each in held}) == 10
    with pytest.raises(NoSessionAvailable):
        await broker.accept("orders")


async def test_ses_14_waiting_accepts_are_served_in_the_order_they_came(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)

    async with asyncio.TaskGroup() as group:
        waiting = []
        for number in range(3):
            waiting.append(group.create_task(_accept_or_none(broker, wait_ms=60_000)))
            await broker.parked(number + 1)
        for name in ("a", "b", "c"):
            await broker.send("orders", b"1", session=name)

    assert [_session_of(task) for task in waiting] == ["a", "b", "c"]


@needs_clock
async def test_ses_14_one_message_serves_one_waiting_accept(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)

    async with asyncio.TaskGroup() as group:
        first = group.create_task(_accept_or_none(broker, wait_ms=5_000))
        await broker.parked(1)
        second = group.create_task(_accept_or_none(broker, wait_ms=5_000))
        await broker.parked(2)
        await broker.send("orders", *numbered(5), session="s")
        await broker.advance(5_000)

    assert _session_of(first) == "s"
    assert second.result() is None


async def test_ses_14_one_batch_of_many_sessions_serves_many_waiting_accepts(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", requires_session=True)

    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(_accept_or_none(broker, wait_ms=60_000)) for _ in range(3)]
        await broker.parked(3)
        await broker.send("orders", b"1", b"2", b"3", sessions=("a", "b", "c"))

    assert sorted(_session_of(task) or "" for task in waiting) == ["a", "b", "c"]


async def test_a_released_session_with_messages_wakes_a_waiting_accept(broker: Broker) -> None:
    held = await hold(broker, b"1")

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_accept_or_none(broker, wait_ms=60_000))
        await broker.parked()
        await broker.release_session(held)

    assert _session_of(waiting) == "s"


@needs_clock
async def test_an_expired_session_with_messages_wakes_a_waiting_accept(broker: Broker) -> None:
    await hold(broker, b"1", lock_duration_ms=5_000)

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_accept_or_none(broker, wait_ms=60_000))
        await broker.parked()
        await broker.advance(5_000)

    assert _session_of(waiting) == "s"


async def test_race_16_a_waiting_accept_ends_with_not_found_when_its_queue_is_deleted(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", requires_session=True)

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_error_of_accept(broker))
        await broker.parked()
        await broker.delete_queue("orders")

    assert isinstance(waiting.result(), EntityNotFound)


async def test_ses_56_accept_next_can_be_disabled_and_accept_by_id_still_works(
    broker: Broker,
) -> None:
    await broker.create_queue("replies", requires_session=True, accept_next="disabled")
    await broker.send("replies", b"1", session="requester")

    with pytest.raises(InvalidOperation):
        await broker.accept("replies", wait_ms=60_000)

    held = await broker.accept("replies", "requester")
    assert bodies(await broker.receive(held)) == [b"1"]


async def test_ses_55_a_requester_may_accept_before_the_answer_exists(broker: Broker) -> None:
    """SES-54, SES-55: it sees only its own answers."""
    held = await hold(broker, session="me", queue="replies")

    await broker.send("replies", b"mine", b"other", sessions=("me", "you"))

    assert bodies(await broker.receive(held)) == [b"mine"]


async def _accept_or_none(broker: Broker, *, wait_ms: int) -> Held | None:
    try:
        return await broker.accept("orders", wait_ms=wait_ms)
    except NoSessionAvailable:
        return None


async def _error_of_accept(broker: Broker) -> EntityNotFound | None:
    try:
        await broker.accept("orders", wait_ms=60_000)
    except EntityNotFound as error:
        return error
    return None


def _session_of(task: asyncio.Task[Held | None]) -> str | None:
    held = task.result()
    return held.session_id if held else None


async def _rounds(broker: Broker, count: int) -> list[str]:
    taken = []
    for _ in range(count):
        held = await broker.accept("orders")
        taken.append(held.session_id)
        await broker.release_session(held)
    return taken
