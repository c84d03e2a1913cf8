"""Retries repeat the same call; what nobody heard the end of is undone."""

from __future__ import annotations

import asyncio

import pytest

from lockstep.client.calls import Caller, RetryPolicy, Tries
from lockstep.client.transport import (
    GET_QUEUE,
    RECEIVE_MESSAGES,
    SEND_MESSAGES,
    run_to_completion,
)
from lockstep.core.errors import (
    ConnectionFailed,
    EntityNotFound,
    Fenced,
    InternalError,
    LockstepError,
    Moved,
    NoSessionAvailable,
    OperationTimeout,
    QuotaExceeded,
    ServerBusy,
    SessionLockLost,
    ShuttingDown,
    StoreUnavailable,
    Unavailable,
)
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.unit.client.scripted import (
    After,
    Answer,
    Never,
    ScriptedTransport,
    advised,
    received,
    sent,
    undone,
)

FOUND = admin.GetQueueResponse()
SERVER = "broker.example:7700"


def caller(transport: ScriptedTransport, **policy: int) -> Caller:
    return Caller(transport, RetryPolicy(**policy), client_id="client-1", server=SERVER)


def get(transport: ScriptedTransport, *, budget_ms: int | None = None, **policy: int) -> None:
    calls = caller(transport, **policy)
    run_to_completion(calls.call(GET_QUEUE, admin.GetQueueRequest(), budget_ms=budget_ms))


@pytest.mark.parametrize(
    "kind",
    [
        Unavailable,
        ServerBusy,
        StoreUnavailable,
        ShuttingDown,
        ConnectionFailed,
        Moved,
        Fenced,
        OperationTimeout,
    ],
)
def test_what_may_pass_is_tried_again(kind: type[LockstepError]) -> None:
    transport = ScriptedTransport(kind("x"), FOUND)

    get(transport)

    assert transport.names() == ["GetQueue", "GetQueue"]


@pytest.mark.parametrize(
    "kind",
    [
        EntityNotFound,
        SessionLockLost,
        QuotaExceeded,
        NoSessionAvailable,
        InternalError,
        LockstepError,
    ],
)
def test_what_will_not_pass_is_raised_at_once(kind: type[LockstepError]) -> None:
    transport = ScriptedTransport(kind("x"))

    with pytest.raises(kind):
        get(transport)

    assert transport.sleeps_ms == []


def test_a_call_is_tried_four_times_with_growing_pauses() -> None:
    transport = ScriptedTransport(*[ConnectionFailed(str(n)) for n in range(4)])

    with pytest.raises(ConnectionFailed) as caught:
        get(transport)

    assert str(caught.value.__cause__) == "3"
    assert transport.sleeps_ms == [800, 1600, 3200]


def test_an_unreachable_server_is_named_with_how_long_it_was_tried_and_what_to_do() -> None:
    raw = ConnectionFailed("failed to connect: errno 111", details={"grpc_code": "UNAVAILABLE"})
    transport = ScriptedTransport(*[After(250, raw)] * 2)

    with pytest.raises(ConnectionFailed) as caught:
        get(transport, retries_max=1)

    error = caught.value
    assert error.details == {
        "server": SERVER,
        "tries": "2",
        "tried_ms": "1300",
        "grpc_code": "UNAVAILABLE",
        "cause": "failed to connect: errno 111",
    }
    assert SERVER in error.message
    assert "1.3 s" in error.message
    assert "lockstep serve" in error.message
    assert raw.message not in error.message


def test_a_silent_server_is_named_in_place_of_the_words_of_grpc() -> None:
    raw = OperationTimeout("Deadline Exceeded", details={"grpc_code": "DEADLINE_EXCEEDED"})
    transport = ScriptedTransport(After(400, raw))

    with pytest.raises(OperationTimeout) as caught:
        get(transport, retries_max=0)

    assert caught.value.details["server"] == SERVER
    assert caught.value.details["tried_ms"] == "400"
    assert SERVER in caught.value.message
    assert raw.message not in caught.value.message


def test_what_the_server_itself_says_of_a_time_out_stays_as_it_is() -> None:
    told = OperationTimeout("The commit took too long.", details={"limit": "commit"})
    transport = ScriptedTransport(told)

    with pytest.raises(OperationTimeout) as caught:
        get(transport, retries_max=0)

    assert caught.value is told


@pytest.mark.parametrize(("chance", "pause_ms"), [(0.0, 400), (0.5, 600), (1.0, 800)])
def test_pauses_are_spread_over_half_their_length(chance: float, pause_ms: int) -> None:
    transport = ScriptedTransport(ConnectionFailed("x"), FOUND)
    transport.chance = chance

    get(transport)

    assert transport.sleeps_ms == [pause_ms]


@pytest.mark.parametrize(("back_after_ms", "paused_ms"), [(0, 0), (70, 70), (900, 800)])
def test_a_call_that_was_sent_away_is_made_again_as_soon_as_a_server_is_there(
    back_after_ms: int, paused_ms: int
) -> None:
    """A front end that stops says so before it goes; another one may be there already."""
    transport = ScriptedTransport(ShuttingDown("x"), FOUND)
    transport.away_ms = back_after_ms

    get(transport)

    assert transport.sleeps_ms == [paused_ms]


def test_pauses_have_a_cap() -> None:
    transport = ScriptedTransport(*[ConnectionFailed("x")] * 50, FOUND)

    get(transport, retries_max=50, backoff_ms_max=5000)

    assert max(transport.sleeps_ms) == 5000


def test_no_retries_means_one_try() -> None:
    transport = ScriptedTransport(ConnectionFailed("x"))

    with pytest.raises(ConnectionFailed):
        get(transport, retries_max=0)


def test_the_advice_of_the_server_is_followed() -> None:
    transport = ScriptedTransport(
        advised(ServerBusy("x"), 2500), advised(ServerBusy("x"), 10), FOUND
    )

    get(transport)

    assert transport.sleeps_ms == [2500, 1600]


def test_an_advice_to_wait_longer_than_the_cap_is_left_to_the_program() -> None:
    transport = ScriptedTransport(advised(ServerBusy("x"), 60_001))

    with pytest.raises(ServerBusy) as caught:
        get(transport)

    assert caught.value.retry_after_ms == 60_001


def test_each_try_has_a_deadline_beyond_the_waiting() -> None:
    transport = ScriptedTransport(FOUND)
    calls = caller(transport)

    run_to_completion(calls.call(GET_QUEUE, admin.GetQueueRequest(), wait_ms=5000))

    assert transport.calls[0].timeout_ms == 65_000


def test_a_budget_bounds_all_tries_together() -> None:
    transport = ScriptedTransport(
        After(700, OperationTimeout("1")), After(300, OperationTimeout("2")), FOUND
    )

    with pytest.raises(OperationTimeout, match="2"):
        get(transport, budget_ms=3000)

    assert [call.timeout_ms for call in transport.calls] == [3000, 1500]
    assert transport.sleeps_ms == [800]


def test_a_retry_has_the_same_bytes_and_a_new_call_a_new_id() -> None:
    transport = ScriptedTransport(OperationTimeout("x"), sent(1), sent(2))
    calls = caller(transport)

    for _ in range(2):
        request = messaging.SendMessagesRequest(request_id=calls.new_request_id())
        run_to_completion(calls.call(SEND_MESSAGES, request))

    assert transport.counters() == [1, 1, 2]
    assert transport.calls[0].request == transport.calls[1].request
    assert transport.calls[0].request.request_id.client_id == "client-1"


def test_an_error_that_a_response_holds_is_retried_like_any_other() -> None:
    transport = ScriptedTransport(sent(0), sent(0), sent(5))
    calls = caller(transport)

    response = run_to_completion(
        calls.call(
            SEND_MESSAGES,
            messaging.SendMessagesRequest(),
            judge=lambda r: None if r.sequence_numbers[0] else Moved("x"),
        )
    )

    assert response.sequence_numbers == [5]
    assert len(transport.calls) == 3


@pytest.mark.parametrize(
    ("answers", "is_uncertain"),
    [
        ([FOUND], False),
        ([EntityNotFound("x")], False),
        ([ServerBusy("x")] * 4, False),
        ([OperationTimeout("x")] * 4, True),
        ([OperationTimeout("x"), EntityNotFound("x")], True),
        ([OperationTimeout("x"), FOUND], False),
        ([InternalError("x")], True),
    ],
)
def test_it_is_known_whether_a_try_may_have_had_an_effect(
    answers: list[Answer], is_uncertain: bool
) -> None:
    transport = ScriptedTransport(*answers)
    tries = Tries()
    call = caller(transport).call(GET_QUEUE, admin.GetQueueRequest(), tries=tries)

    if answers[-1] is FOUND:
        run_to_completion(call)
    else:
        with pytest.raises(LockstepError):
            run_to_completion(call)

    assert tries.is_uncertain is is_uncertain


def receive(transport: ScriptedTransport, **policy: int) -> messaging.ReceiveMessagesResponse:
    return run_to_completion(
        caller(transport, **policy).call_or_undo(
            RECEIVE_MESSAGES,
            messaging.ReceiveMessagesRequest(),
            messaging.CancelRequestRequest(entity="orders"),
            wait_ms=0,
        )
    )


def test_a_receive_whose_answer_never_came_is_undone() -> None:
    transport = ScriptedTransport(OperationTimeout("x"), undone())

    with pytest.raises(OperationTimeout):
        receive(transport, retries_max=0)

    assert transport.names() == ["ReceiveMessages", "CancelRequest"]
    assert transport.calls[1].request.entity == "orders"
    assert transport.calls[1].timeout_ms == 2000


def test_a_receive_that_was_interrupted_is_undone() -> None:
    transport = ScriptedTransport(KeyboardInterrupt(), undone())

    with pytest.raises(KeyboardInterrupt):
        receive(transport)

    assert transport.names() == ["ReceiveMessages", "CancelRequest"]


@pytest.mark.parametrize("answer", [SessionLockLost("x"), EntityNotFound("x"), ServerBusy("x")])
def test_a_receive_that_had_no_effect_needs_no_undoing(answer: LockstepError) -> None:
    transport = ScriptedTransport(answer)

    with pytest.raises(type(answer)):
        receive(transport, retries_max=0)


def test_the_error_of_the_call_is_what_matters_when_undoing_fails_too() -> None:
    transport = ScriptedTransport(OperationTimeout("x"), ConnectionFailed("y"))

    with pytest.raises(OperationTimeout):
        receive(transport, retries_max=0)


def test_a_receive_that_was_retried_with_success_is_not_undone() -> None:
    transport = ScriptedTransport(OperationTimeout("x"), received(1))

    assert receive(transport).sequence_numbers == [1]


async def test_a_receive_whose_task_was_cancelled_is_undone_before_the_task_ends() -> None:
    waiting = Never()
    transport = ScriptedTransport(waiting, undone())

    async def work() -> None:
        await caller(transport).call_or_undo(
            RECEIVE_MESSAGES,
            messaging.ReceiveMessagesRequest(),
            messaging.CancelRequestRequest(),
            wait_ms=0,
        )

    async with asyncio.TaskGroup() as group:
        task = group.create_task(work())
        await waiting.has_begun.wait()
        task.cancel()

    assert task.cancelled()
    assert transport.names() == ["ReceiveMessages", "CancelRequest"]


async def test_a_receive_that_is_thrown_away_does_not_await() -> None:
    transport = ScriptedTransport(Never())
    coroutine = caller(transport).call_or_undo(
        RECEIVE_MESSAGES,
        messaging.ReceiveMessagesRequest(),
        messaging.CancelRequestRequest(),
        wait_ms=0,
    )
    coroutine.send(None)

    coroutine.close()

    assert transport.names() == ["ReceiveMessages"]


def test_a_blocking_call_that_suspends_is_a_bug() -> None:
    async def suspends() -> None:
        await asyncio.Future(loop=loop)

    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(AssertionError, match="suspended"):
            run_to_completion(suspends())
    finally:
        loop.close()


def wait_through(
    transport: ScriptedTransport, *, patience_ms: int | None, **policy: int
) -> messaging.ReceiveMessagesResponse:
    """Make a call that waits anyway."""
    return run_to_completion(
        caller(transport, **policy).call(
            RECEIVE_MESSAGES, messaging.ReceiveMessagesRequest(), patience_ms=patience_ms
        )
    )


def test_a_wait_without_an_end_survives_an_outage_of_any_length() -> None:
    transport = ScriptedTransport(*[ConnectionFailed("x")] * 5000, received(1))

    assert wait_through(transport, patience_ms=None).sequence_numbers == [1]
    assert transport.passed_ms > 3_600_000
    assert max(transport.sleeps_ms) == 1000


def test_a_wait_is_tried_again_until_its_own_time_is_over() -> None:
    transport = ScriptedTransport(*[After(100, ConnectionFailed("x"))] * 100)

    with pytest.raises(ConnectionFailed) as caught:
        wait_through(transport, patience_ms=60_000)

    assert 60_000 <= int(caught.value.details["tried_ms"]) < 62_000


def test_a_short_wait_is_tried_as_often_as_any_call() -> None:
    transport = ScriptedTransport(*[ConnectionFailed("x")] * 4)

    with pytest.raises(ConnectionFailed):
        wait_through(transport, patience_ms=500)

    assert transport.names().count("ReceiveMessages") == 4


def test_a_wait_for_a_server_that_never_answered_ends_as_any_call() -> None:
    transport = ScriptedTransport(*[ConnectionFailed("x")] * 4)
    transport.was_started = False

    with pytest.raises(ConnectionFailed):
        run_to_completion(
            caller(transport).call(
                RECEIVE_MESSAGES, messaging.ReceiveMessagesRequest(), patience_ms=None
            )
        )


def test_without_retries_a_wait_has_none_either() -> None:
    transport = ScriptedTransport(ConnectionFailed("x"))

    with pytest.raises(ConnectionFailed):
        wait_through(transport, patience_ms=None, retries_max=0)


def test_a_wait_follows_a_long_advice_and_gives_up_at_what_will_not_pass() -> None:
    transport = ScriptedTransport(advised(ServerBusy("x"), 70_000), EntityNotFound("deleted"))

    with pytest.raises(EntityNotFound):
        wait_through(transport, patience_ms=None)

    assert transport.sleeps_ms == [70_000]


def test_an_outage_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lockstep.client")
    transport = ScriptedTransport(*[ConnectionFailed("x")] * 50, received(1))

    wait_through(transport, patience_ms=None)

    assert [r.message for r in caplog.records] == ["client.server_away", "client.server_back"]


def test_a_call_resumes_when_the_server_is_back() -> None:
    transport = ScriptedTransport(ConnectionFailed("x"), StoreUnavailable("y"), FOUND)
    transport.away_ms = 120

    get(transport)

    assert transport.sleeps_ms == [120, 1600]


def test_a_wait_remembers_that_the_server_has_answered() -> None:
    transport = ScriptedTransport(FOUND, *[ConnectionFailed("x")] * 500, received(1))
    transport.was_started = False
    calls = caller(transport)

    run_to_completion(calls.call(GET_QUEUE, admin.GetQueueRequest()))
    response = run_to_completion(
        calls.call(RECEIVE_MESSAGES, messaging.ReceiveMessagesRequest(), patience_ms=None)
    )

    assert response.sequence_numbers == [1]
