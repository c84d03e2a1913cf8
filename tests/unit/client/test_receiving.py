"""Receivers receive, and lose nothing on the way."""

from __future__ import annotations

from typing import Any

import pytest

from lockstep import (
    LockstepClient,
    QueueReceiver,
    ReceiveMode,
    SubQueue,
)
from lockstep.client.calls import RetryPolicy
from lockstep.errors import (
    ClientClosed,
    ConnectionFailed,
    InternalError,
    InvalidOperation,
    InvalidRequest,
    LimitExceeded,
    OperationTimeout,
    RequestIdExpired,
    SettingNotAvailable,
)
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.unit.client.scripted import (
    START_MS,
    After,
    ScriptedTransport,
    accepted,
    connect,
    deleting,
    open_aio_receiver,
    open_receiver,
    options,
    received,
    released,
    undone,
)

NOTHING = received()
EMPTY_AFTER_60_S = After(60_000, NOTHING)


def test_a_receive_says_what_it_wants() -> None:
    receiver, transport = open_receiver(received(1, 2))

    messages = receiver.receive_messages(10, max_wait_time=1.5)

    assert [(m.sequence_number, m.body) for m in messages] == [(1, b"body 1"), (2, b"body 2")]
    (call,) = transport.calls
    assert (call.request.namespace, call.request.entity) == ("shop", "orders")
    assert call.request.max_messages == 10
    assert call.request.max_wait.ToMilliseconds() == 1500
    assert call.request.mode == messaging.RECEIVE_MODE_PEEK_LOCK
    assert call.request.receiver_client_id == "me"
    assert not call.request.HasField("session")
    assert call.timeout_ms == 61_500


def test_delivery_counts_come_as_a_column_or_are_all_zero() -> None:
    response = received(1, 2)
    response.delivery_counts.extend([0, 3])
    receiver, _ = open_receiver(response, received(3))

    assert [m.delivery_count for m in receiver.receive_messages(10)] == [0, 3]
    assert [m.delivery_count for m in receiver.receive_messages(10)] == [0]


def test_no_message_in_time_is_an_empty_list() -> None:
    receiver, transport = open_receiver(EMPTY_AFTER_60_S)

    assert receiver.receive_messages() == []
    assert transport.calls[0].request.max_wait.ToMilliseconds() == 60_000


def test_a_wait_of_zero_does_not_wait() -> None:
    receiver, transport = open_receiver(NOTHING)

    assert receiver.receive_messages(max_wait_time=0) == []
    assert transport.calls[0].request.HasField("max_wait")
    assert transport.calls[0].request.max_wait.ToMilliseconds() == 0


def test_a_receiver_can_be_told_how_long_to_wait() -> None:
    receiver, transport = open_receiver(NOTHING, NOTHING, max_wait_time=3)

    receiver.receive_messages()
    receiver.receive_messages(max_wait_time=0)

    assert [c.request.max_wait.ToMilliseconds() for c in transport.calls] == [3000, 0]


def test_a_long_wait_is_cut_into_calls_of_a_minute() -> None:
    receiver, transport = open_receiver(EMPTY_AFTER_60_S, EMPTY_AFTER_60_S, After(30_000, NOTHING))

    assert receiver.receive_messages(max_wait_time=150) == []
    assert [c.request.max_wait.ToMilliseconds() for c in transport.calls] == [
        60_000,
        60_000,
        30_000,
    ]
    assert transport.counters() == [1, 2, 3]


def test_iterating_without_a_limit_waits_for_ever() -> None:
    receiver, transport = open_receiver(*[EMPTY_AFTER_60_S] * 20, received(1))

    assert next(receiver).sequence_number == 1
    assert len(transport.calls) == 21


def test_iterating_goes_on_where_it_stopped() -> None:
    receiver, _ = open_receiver(*[received(n) for n in range(1, 8)], NOTHING, max_wait_time=1)

    first = []
    for message in receiver:
        first.append(message.sequence_number)
        if len(first) == 5:
            break
    rest = [message.sequence_number for message in receiver]

    assert (first, rest) == ([1, 2, 3, 4, 5], [6, 7])


async def test_iterating_works_the_same_in_asyncio() -> None:
    receiver, _ = open_aio_receiver(received(1), received(2), NOTHING, max_wait_time=1)

    async for message in receiver:
        assert message.sequence_number == 1
        break

    assert [message.sequence_number async for message in receiver] == [2]


@pytest.mark.parametrize(("count", "wait_s"), [(0, 1.0), (-1, 1.0), (1, -0.1)])
def test_counts_and_waits_that_make_no_sense_are_refused(count: int, wait_s: float) -> None:
    receiver, transport = open_receiver()

    with pytest.raises(InvalidRequest):
        receiver.receive_messages(count, max_wait_time=wait_s)

    assert transport.calls == []


def test_a_response_whose_columns_differ_is_refused_rather_than_cut() -> None:
    response = received(1, 2)
    response.enqueued_times_unix_ms.pop()
    receiver, _ = open_receiver(response)

    with pytest.raises(InternalError):
        receiver.receive_messages(2)


def test_a_message_of_a_plain_queue_shows_until_when_it_is_locked() -> None:
    receiver, _ = open_receiver(received(1, lock_ms=9_000))

    (message,) = receiver.receive_messages()

    assert message.locked_until_utc is not None
    assert message.locked_until_utc.timestamp() * 1000 == START_MS + 9_000


def test_the_dead_letter_store_is_a_path_of_its_own() -> None:
    receiver, transport = open_receiver(received(1), sub_queue=SubQueue.DEAD_LETTER)

    receiver.receive_messages()

    assert transport.calls[0].request.entity == "orders/$DeadLetterQueue"


def test_receive_and_delete_asks_for_it() -> None:
    transport = ScriptedTransport(received(1))
    receiver = QueueReceiver(connect(transport), deleting(), None)

    receiver.receive_messages()

    assert transport.calls[0].request.mode == messaging.RECEIVE_MODE_RECEIVE_AND_DELETE


def test_a_closed_receiver_refuses_to_receive() -> None:
    receiver, transport = open_receiver()
    receiver.close()

    with pytest.raises(ClientClosed):
        receiver.receive_messages()
    with pytest.raises(ClientClosed):
        receiver.__enter__()

    assert transport.calls == []


def test_a_receive_that_timed_out_is_undone_with_its_id_and_session() -> None:
    transport = ScriptedTransport(accepted("A"), OperationTimeout("x"), undone(), released())
    connection = connect(transport, RetryPolicy(retries_max=0))

    with (
        QueueReceiver(connection, options(session_id="A"), None) as receiver,
        pytest.raises(OperationTimeout),
    ):
        receiver.receive_messages()

    undo = transport.calls[2].request
    assert (undo.namespace, undo.entity, undo.session_id) == ("shop", "orders", "A")
    assert undo.request_id == transport.calls[1].request.request_id


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ({"session_id": "x" * 129}, LimitExceeded),
        ({"session_id": 5}, TypeError),
        ({"client_identifier": "x" * 129}, LimitExceeded),
        ({"max_wait_time": -1}, InvalidRequest),
        ({"receive_mode": "peek"}, InvalidRequest),
        ({"sub_queue": "transfer"}, InvalidRequest),
        ({"session_id": "A", "sub_queue": SubQueue.DEAD_LETTER}, InvalidOperation),
        ({"prefetch_count": 1}, SettingNotAvailable),
    ],
)
def test_a_receiver_that_cannot_be_is_refused_before_any_call(
    kind: dict[str, Any], error: type[Exception]
) -> None:
    with LockstepClient("127.0.0.1:1") as client, pytest.raises(error):
        client.get_queue_receiver("orders", **kind)


@pytest.mark.parametrize(
    "name", ["peeklock", "PEEKLOCK", "peek_lock", "PeekLock", ReceiveMode.PEEK_LOCK]
)
def test_the_name_of_a_mode_is_read_in_any_case(name: str | ReceiveMode) -> None:
    assert ReceiveMode.parse(name) is ReceiveMode.PEEK_LOCK


def test_iterating_survives_an_outage() -> None:
    receiver, transport = open_receiver(
        received(1), *[After(100, ConnectionFailed("down"))] * 500, received(2)
    )

    assert [next(receiver).sequence_number for _ in range(2)] == [1, 2]
    assert transport.passed_ms > 300_000


def test_a_receive_begins_anew_when_an_outage_outlasts_the_servers_memory() -> None:
    receiver, transport = open_receiver(
        received(1),
        *[After(100, ConnectionFailed("down"))] * 100,
        RequestIdExpired("forgotten"),
        undone(),
        received(2),
    )

    assert [next(receiver).sequence_number for _ in range(2)] == [1, 2]
    assert len(set(transport.counters())) == 3


def test_a_receive_and_delete_that_the_server_forgot_is_an_error() -> None:
    transport = ScriptedTransport(
        received(1),
        *[After(100, ConnectionFailed("down"))] * 100,
        RequestIdExpired("forgotten"),
        undone(),
    )
    receiver = QueueReceiver(connect(transport), deleting(), None)

    next(receiver)
    with pytest.raises(RequestIdExpired):
        next(receiver)
