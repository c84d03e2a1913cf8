"""Request ids: a repeat of a call has no second effect (ADD-3)."""

from __future__ import annotations

import pytest

from lockstep.core.commands import Outcome
from lockstep.core.errors import (
    MessageLockLost,
    MessageSizeExceeded,
    RequestCancelled,
    RequestIdExpired,
    RequestIdReused,
    SessionLockLost,
    StoreUnavailable,
)
from lockstep.core.ids import RequestId
from tests.spec.driver import (
    Broker,
    DeadLetters,
    Plain,
    bodies,
    complete,
    counts,
    hold,
    needs_clock,
    needs_faults,
    needs_requests,
    needs_restart,
    numbered,
)

pytestmark = needs_requests
Q = Plain("orders")
over_a_restart = pytest.mark.parametrize(
    "restarts", [False, pytest.param(True, marks=needs_restart)]
)


async def _perhaps_restart(broker: Broker, restarts: bool) -> None:
    if restarts:
        await broker.restart()


@over_a_restart
async def test_a_repeated_send_returns_the_same_numbers_and_stores_nothing(
    broker: Broker, restarts: bool
) -> None:
    await broker.create_queue("orders")
    request = broker.new_request()
    first = await broker.send("orders", *numbered(3), request=request)
    await _perhaps_restart(broker, restarts)

    assert await broker.send("orders", *numbered(3), request=request) == first

    assert bodies(await broker.receive(Q)) == numbered(3)


@over_a_restart
async def test_a_repeated_send_is_answered_though_the_messages_are_gone(
    broker: Broker, restarts: bool
) -> None:
    await broker.create_queue("orders")
    request = broker.new_request()
    first = await broker.send("orders", b"1", request=request)
    await complete(broker, Q, await broker.receive(Q))
    await _perhaps_restart(broker, restarts)

    assert await broker.send("orders", b"1", request=request) == first

    assert await broker.receive(Q) == []


@over_a_restart
async def test_a_repeated_accept_returns_the_same_grant(broker: Broker, restarts: bool) -> None:
    await broker.create_queue("orders", requires_session=True)
    await broker.send("orders", b"1", b"2", sessions=("a", "b"))
    request = broker.new_request()
    first = await broker.accept("orders", request=request)
    await _perhaps_restart(broker, restarts)

    again = await broker.accept("orders", request=request)

    assert (again.session_id, again.token) == (first.session_id, first.token)
    assert (await broker.session("orders", "b")).holder == ""


async def test_a_repeated_accept_of_an_ended_grant_is_refused_not_granted_anew(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", requires_session=True)
    request = broker.new_request()
    held = await broker.accept("orders", "s", request=request)
    await broker.release_session(held)

    with pytest.raises(SessionLockLost) as refused:
        await broker.accept("orders", "s", request=request)

    assert refused.value.details["cause"] == "closed"
    assert await broker.sessions("orders") == []


@over_a_restart
@pytest.mark.parametrize("has_sessions", [True, False])
async def test_a_repeated_receive_returns_the_same_messages(
    broker: Broker, restarts: bool, has_sessions: bool
) -> None:
    """ADD-3: of a receive the ranges are stored, not the bodies."""
    source = await hold(broker, *numbered(6)) if has_sessions else Q
    if not has_sessions:
        await broker.create_queue("orders")
        await broker.send("orders", *numbered(6))
    request = broker.new_request()
    first = await broker.receive(source, 3, request=request)
    await _perhaps_restart(broker, restarts)

    again = await broker.receive(source, 3, request=request)

    assert again == first
    assert bodies(await broker.receive(source)) == [b"4", b"5", b"6"]
    await complete(broker, source, again)


@pytest.mark.parametrize("has_sessions", [True, False])
async def test_a_repeated_receive_returns_only_what_is_still_locked_by_it(
    broker: Broker, has_sessions: bool
) -> None:
    source = await hold(broker, *numbered(4)) if has_sessions else Q
    if not has_sessions:
        await broker.create_queue("orders")
        await broker.send("orders", *numbered(4))
    request = broker.new_request()
    first = await broker.receive(source, request=request)
    await complete(broker, source, first[1:2])
    await broker.settle(source, Outcome.DEAD_LETTER, first[2:3])

    assert bodies(await broker.receive(source, request=request)) == [b"1", b"4"]


async def test_a_receive_that_found_nothing_may_find_something_when_it_is_repeated(
    broker: Broker,
) -> None:
    await broker.create_queue("orders")
    request = broker.new_request()
    assert await broker.receive(Q, request=request) == []

    await broker.send("orders", b"1")

    assert bodies(await broker.receive(Q, request=request)) == [b"1"]


@over_a_restart
@pytest.mark.parametrize("outcome", list(Outcome))
async def test_a_repeated_settlement_succeeds_and_settles_nothing_more(
    broker: Broker, restarts: bool, outcome: Outcome
) -> None:
    """RACE-2 with a request id: the first result, no ghost effect."""
    await broker.create_queue("orders")
    await broker.send("orders", b"1")
    got = await broker.receive(Q)
    request = broker.new_request()
    await broker.settle(Q, outcome, got, request=request)
    await broker.receive(Q)
    before = await broker.runtime("orders")
    await _perhaps_restart(broker, restarts)

    assert await broker.settle(Q, outcome, got, request=request) == []

    assert await broker.runtime("orders") == before


@over_a_restart
async def test_a_repeated_settlement_names_the_same_failures(
    broker: Broker, restarts: bool
) -> None:
    held = await hold(broker, *numbered(3))
    got = await broker.receive(held)
    await complete(broker, held, got[1:2])
    request = broker.new_request()
    first = await broker.settle(held, Outcome.COMPLETE, got, request=request)
    await _perhaps_restart(broker, restarts)

    again = await broker.settle(held, Outcome.COMPLETE, got, request=request)

    assert [failure.sequence for failure in again] == [failure.sequence for failure in first]
    assert [type(failure.error) for failure in again] == [MessageLockLost]


@needs_clock
async def test_a_repeated_settlement_is_answered_though_the_session_was_lost_since(
    broker: Broker,
) -> None:
    held = await hold(broker, b"1", lock_duration_ms=5_000)
    got = await broker.receive(held)
    request = broker.new_request()
    await broker.settle(held, Outcome.COMPLETE, got, request=request)
    await broker.advance(5_000)

    assert await broker.settle(held, Outcome.COMPLETE, got, request=request) == []


@over_a_restart
async def test_a_repeated_close_returns_the_same_and_closes_no_later_grant(
    broker: Broker, restarts: bool
) -> None:
    held = await hold(broker, *numbered(3))
    await broker.receive(held, 2)
    request = broker.new_request()
    await broker.release_session(held, request=request)
    later = await broker.accept("orders", "s", holder="later")
    await _perhaps_restart(broker, restarts)

    assert await broker.release_session(held, request=request) == 2

    await broker.renew(later)


@over_a_restart
async def test_a_repeated_set_of_a_state_does_not_overwrite_a_later_one(
    broker: Broker, restarts: bool
) -> None:
    held = await hold(broker)
    request = broker.new_request()
    first = await broker.set_state(held, b"first", request=request)
    second = await broker.set_state(held, b"second")
    await _perhaps_restart(broker, restarts)

    assert await broker.set_state(held, b"first", request=request) == first

    assert await broker.get_state(held) == (b"second", second)


async def test_a_repeat_with_another_payload_is_refused(broker: Broker) -> None:
    await broker.create_queue("orders")
    request = broker.new_request()
    await broker.send("orders", b"1", request=request)

    with pytest.raises(RequestIdReused):
        await broker.send("orders", b"2", request=request)

    assert bodies(await broker.receive(Q)) == [b"1"]


async def test_a_repeat_as_another_kind_of_call_is_refused(broker: Broker) -> None:
    await broker.create_queue("orders")
    request = broker.new_request()
    await broker.send("orders", b"1", request=request)

    with pytest.raises(RequestIdReused):
        await broker.receive(Q, request=request)

    assert (await broker.runtime("orders")).locked == 0


async def test_a_refused_call_is_not_remembered(broker: Broker) -> None:
    """What had no effect may be corrected and sent again under its id."""
    await broker.create_queue("orders", max_message_size_in_kilobytes=1)
    request = broker.new_request()
    with pytest.raises(MessageSizeExceeded):
        await broker.send("orders", bytes(2000), request=request)

    assert await broker.send("orders", b"1", request=request) == [1]


async def test_each_client_has_ids_of_its_own(broker: Broker) -> None:
    await broker.create_queue("orders")

    sent = [
        await broker.send("orders", b"1", request=RequestId(client, 1)) for client in ("a", "b")
    ]

    assert sent == [[1], [2]]


@pytest.mark.limits(requests_per_client_max=8)
@over_a_restart
async def test_an_id_older_than_the_window_is_refused_and_never_executed(
    broker: Broker, restarts: bool
) -> None:
    await broker.create_queue("orders")
    for counter in range(1, 20):
        await broker.send("orders", b"x", request=RequestId("a", counter))
    await _perhaps_restart(broker, restarts)

    with pytest.raises(RequestIdExpired) as refused:
        await broker.send("orders", b"x", request=RequestId("a", 1))

    assert refused.value.details["observed"] == "1"
    assert int(refused.value.details["oldest"]) > 1
    assert (await broker.runtime("orders")).active == 19


@pytest.mark.limits(requests_per_client_max=8)
async def test_the_last_ids_of_a_client_are_remembered_however_many_came_before(
    broker: Broker,
) -> None:
    await broker.create_queue("orders")
    sent = {c: await broker.send("orders", b"x", request=RequestId("a", c)) for c in range(1, 100)}

    for counter in range(92, 100):
        repeated = await broker.send("orders", b"x", request=RequestId("a", counter))
        assert repeated == sent[counter]

    assert (await broker.runtime("orders")).active == 99


@pytest.mark.limits(requests_per_client_max=8)
async def test_a_busy_client_does_not_push_out_the_ids_of_another(broker: Broker) -> None:
    await broker.create_queue("orders")
    first = await broker.send("orders", b"x", request=RequestId("quiet", 1))
    for counter in range(1, 50):
        await broker.send("orders", b"x", request=RequestId("busy", counter))

    assert await broker.send("orders", b"x", request=RequestId("quiet", 1)) == first


@needs_clock
async def test_results_are_remembered_for_ten_minutes_of_silence_and_then_refused(
    broker: Broker,
) -> None:
    """ADD-3: bounded by time, at least 10 minutes."""
    await broker.create_queue("orders")
    request = RequestId("a", 7)
    first = await broker.send("orders", b"1", request=request)

    await broker.advance(600_000 - 1)
    assert await broker.send("orders", b"1", request=request) == first
    await broker.advance(1)

    with pytest.raises(RequestIdExpired):
        await broker.send("orders", b"1", request=request)
    with pytest.raises(RequestIdExpired):
        await broker.send("orders", b"1", request=RequestId("a", 6))
    assert await broker.send("orders", b"2", request=RequestId("a", 8)) == [2]


@needs_clock
@needs_restart
async def test_a_restart_does_not_shorten_how_long_results_are_remembered(broker: Broker) -> None:
    await broker.create_queue("orders")
    request = RequestId("a", 1)
    first = await broker.send("orders", b"1", request=request)
    await broker.advance(300_000)
    await broker.restart()
    await broker.advance(299_999)

    assert await broker.send("orders", b"1", request=request) == first


@needs_clock
async def test_a_client_that_goes_on_calling_keeps_its_results(broker: Broker) -> None:
    await broker.create_queue("orders")
    first = await broker.send("orders", b"1", request=RequestId("a", 1))
    for counter in range(2, 6):
        await broker.advance(400_000)
        await broker.send("orders", b"x", request=RequestId("a", counter))

    assert await broker.send("orders", b"1", request=RequestId("a", 1)) == first


@needs_clock
async def test_a_client_that_is_silent_for_a_day_is_forgotten(broker: Broker) -> None:
    await broker.create_queue("orders")
    await broker.send("orders", b"1", request=RequestId("a", 5))

    await broker.advance(86_400_000)

    assert await broker.send("orders", b"2", request=RequestId("a", 5)) == [2]


async def test_a_call_that_was_cancelled_before_it_arrived_has_no_effect(broker: Broker) -> None:
    await broker.create_queue("orders")
    request = broker.new_request()

    assert not await broker.cancel("orders", request)

    with pytest.raises(RequestCancelled):
        await broker.send("orders", b"1", request=request)
    assert await broker.receive(Q) == []


@over_a_restart
async def test_an_accept_that_was_cancelled_before_it_arrived_takes_no_lock(
    broker: Broker, restarts: bool
) -> None:
    await broker.create_queue("orders", requires_session=True)
    request = broker.new_request()
    await broker.cancel("orders", request)
    await _perhaps_restart(broker, restarts)

    with pytest.raises(RequestCancelled):
        await broker.accept("orders", "s", request=request)

    assert await broker.sessions("orders") == []


async def test_cancelling_an_accept_gives_the_session_back_uncounted(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    await broker.send("orders", b"1", session="s")
    request = broker.new_request()
    held = await broker.accept("orders", request=request)
    await broker.receive(held)

    assert await broker.cancel("orders", request)

    again = await broker.accept("orders")
    assert counts(await broker.receive(again)) == [0]
    with pytest.raises(RequestCancelled):
        await broker.accept("orders", request=request)


async def test_cancelling_an_accept_does_not_touch_a_later_grant(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    request = broker.new_request()
    held = await broker.accept("orders", "s", request=request)
    await broker.release_session(held)
    later = await broker.accept("orders", "s")

    assert not await broker.cancel("orders", request)

    await broker.renew(later)


async def test_cancelling_a_call_that_is_no_accept_or_receive_undoes_nothing(
    broker: Broker,
) -> None:
    await broker.create_queue("orders")
    request = broker.new_request()
    first = await broker.send("orders", b"1", request=request)

    assert not await broker.cancel("orders", request)

    assert await broker.send("orders", b"1", request=request) == first
    assert bodies(await broker.receive(Q)) == [b"1"]


@needs_faults
@pytest.mark.parametrize("is_stored", [False, True])
async def test_a_send_of_unknown_outcome_is_stored_once_when_it_is_repeated(
    broker: Broker, is_stored: bool
) -> None:
    """SND-1, SND-15: the store did not say; the same request id makes the repeat safe."""
    await broker.create_queue("orders")
    request = broker.new_request()
    broker.fail_next_commit(is_stored=is_stored)
    with pytest.raises(StoreUnavailable):
        await broker.send("orders", b"1", b"2", request=request)

    assert await broker.send("orders", b"1", b"2", request=request) == [1, 2]

    assert bodies(await broker.receive(Q)) == [b"1", b"2"]


@needs_faults
@pytest.mark.parametrize("is_stored", [False, True])
async def test_an_accept_of_unknown_outcome_leaves_one_holder_when_it_is_repeated(
    broker: Broker, is_stored: bool
) -> None:
    await broker.create_queue("orders", requires_session=True)
    await broker.send("orders", b"1", b"2", sessions=("a", "b"))
    request = broker.new_request()
    broker.fail_next_commit(is_stored=is_stored)
    with pytest.raises(StoreUnavailable):
        await broker.accept("orders", request=request)

    held = await broker.accept("orders", request=request)

    assert held.session_id == "a"
    assert (await broker.runtime("orders")).locked_sessions == 1
    assert bodies(await broker.receive(held)) == [b"1"]


@needs_faults
@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("dead_letters", [False, True])
async def test_a_receive_of_unknown_outcome_delivers_once_when_it_is_repeated(
    broker: Broker, is_stored: bool, dead_letters: bool
) -> None:
    await broker.create_queue("orders")
    await broker.send("orders", *numbered(3))
    source: Plain | DeadLetters = Q
    if dead_letters:
        await broker.settle(Q, Outcome.DEAD_LETTER, await broker.receive(Q))
        source = DeadLetters("orders")
    request = broker.new_request()
    broker.fail_next_commit(is_stored=is_stored)
    with pytest.raises(StoreUnavailable):
        await broker.receive(source, 2, request=request)

    got = await broker.receive(source, 2, request=request)

    assert bodies(got) == [b"1", b"2"]
    assert counts(got) == [0, 0]
    await complete(broker, source, got)
    assert bodies(await broker.receive(source)) == [b"3"]
