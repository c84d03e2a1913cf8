"""A send that returned is stored; anything else raises and says what is stored."""

from __future__ import annotations

from typing import Any

import pytest

from lockstep import Message, QueueSender
from lockstep.client.batch import MessageBatch
from lockstep.client.sending import Sending
from lockstep.errors import (
    ClientClosed,
    Exhausted,
    InvalidOperation,
    MessageSizeExceeded,
    QuotaExceeded,
    SettingNotAvailable,
    StoreUnavailable,
)
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.unit.client.scripted import (
    Answer,
    ScriptedTransport,
    connect,
    open_receiver,
    received,
    sent,
)


def open_sender(*answers: Answer) -> tuple[QueueSender, ScriptedTransport]:
    transport = ScriptedTransport(*answers)
    return QueueSender(Sending(connect(transport), "orders")), transport


def partly(*failures: tuple[int, str], of: int) -> messaging.SendMessagesResponse:
    response = messaging.SendMessagesResponse(sequence_numbers=range(10, 10 + of))
    for index, reason in failures:
        response.sequence_numbers[index] = 0
        response.failures.add(index=index, reason=reason, description=f"It was message {index}.")
    return response


def test_a_send_names_everything_in_one_request() -> None:
    sender, transport = open_sender(sent(1, 2))

    numbers = sender.send_messages([Message("a", session_id="A"), Message("b")])

    assert numbers == [1, 2]
    request = transport.calls[0].request
    assert (request.namespace, request.entity, request.require_atomic) == ("shop", "orders", False)
    assert [m.body for m in request.messages] == [b"a", b"b"]
    assert request.messages[0].session_id == "A"
    assert (request.request_id.client_id, request.request_id.counter) == ("client-1", 1)


def test_one_message_or_a_batch_can_be_sent_as_well() -> None:
    limits = admin.SendLimits(bytes_max=1_000, messages_max=2)
    described = admin.GetQueueResponse(send_limits=limits)
    described.queue.settings.max_message_size_in_kilobytes = 1
    sender, transport = open_sender(described, sent(1), sent(2, 3))
    batch = sender.create_message_batch(max_size_in_bytes=100)
    batch.add_message(Message("b"))
    batch.add_message(Message("c"))
    with pytest.raises(MessageSizeExceeded, match="holds 2 messages"):
        batch.add_message(Message("d"))

    assert sender.create_message_batch().max_size_in_bytes == 1_000  # asked for once
    assert transport.names() == ["GetQueue"]
    transport.calls.clear()
    assert sender.send_messages(Message("a")) == [1]
    assert sender.send_messages(batch, require_atomic=True) == [2, 3]
    assert [m.body for m in transport.calls[1].request.messages] == [b"b", b"c"]
    assert transport.calls[1].request.require_atomic


@pytest.mark.parametrize("nothing", [[], (), MessageBatch()])
def test_sending_nothing_makes_no_call(nothing: Any) -> None:
    sender, transport = open_sender()

    assert sender.send_messages(nothing) == []
    assert transport.calls == []


@pytest.mark.parametrize("what", ["text", [b"bytes"], [Message(), None], None, 5])
def test_only_messages_can_be_sent(what: Any) -> None:
    sender, _ = open_sender()

    with pytest.raises(TypeError, match="from_received"):
        sender.send_messages(what)


def test_a_received_message_is_sent_on_as_a_copy_only() -> None:
    receiver, _ = open_receiver(received(1))
    (message,) = receiver.receive_messages()
    sender, _ = open_sender()
    what: Any = message

    with pytest.raises(TypeError, match="from_received"):
        sender.send_messages(what)
    with pytest.raises(TypeError, match="from_received"):
        MessageBatch().add_message(what)


def test_dup_11_the_sender_is_told_which_messages_were_duplicates() -> None:
    response = sent(1, 5, 2)
    response.duplicate_indexes.extend([0, 2])
    sender, _ = open_sender(response, sent(6))

    numbers = sender.send_messages([Message(), Message(), Message()])

    assert (numbers, numbers.duplicate_indexes) == ([1, 5, 2], (0, 2))
    assert sender.send_messages(Message()).duplicate_indexes == ()
    assert sender.send_messages([]).duplicate_indexes == ()


def test_the_same_message_can_be_sent_again() -> None:
    sender, transport = open_sender(sent(1), sent(2, 3))
    message = Message("a")

    sender.send_messages(message)
    sender.send_messages([message, message])

    assert transport.counters() == [1, 2]


def test_a_timeout_bounds_the_send() -> None:
    sender, transport = open_sender(StoreUnavailable("x"))

    with pytest.raises(StoreUnavailable):
        sender.send_messages(Message(), timeout=0.5)

    assert transport.calls[0].timeout_ms == 500


def test_a_batch_that_was_stored_in_part_is_sent_again_as_it_was() -> None:
    sender, transport = open_sender(partly((1, "PARTITION_MOVED"), of=3), sent(10, 11, 12))

    assert sender.send_messages([Message(), Message(), Message()]) == [10, 11, 12]
    assert transport.counters() == [1, 1]


def test_a_batch_that_stays_stored_in_part_names_what_is_missing() -> None:
    response = partly((4, "QUOTA_EXCEEDED"), (0, "QUOTA_EXCEEDED"), (1, "QUOTA_EXCEEDED"), of=6)
    sender, _ = open_sender(response)

    with pytest.raises(QuotaExceeded) as caught:
        sender.send_messages([Message()] * 6)

    assert caught.value.details == {
        "stored": "3",
        "not_stored": "3",
        "not_stored_indexes": "0-1,4",
    }
    assert "3 of 6 messages were not stored in 'orders'" in caught.value.message


def test_a_request_that_grpc_itself_refuses_is_too_large() -> None:
    refused = Exhausted("larger than max", details={"grpc_code": "RESOURCE_EXHAUSTED"})
    sender, _ = open_sender(refused)

    with pytest.raises(MessageSizeExceeded, match="fewer messages") as caught:
        sender.send_messages(Message(b"x" * 100))

    assert int(caught.value.details["observed"]) > 100


def test_a_full_queue_is_no_matter_of_size() -> None:
    sender, _ = open_sender(QuotaExceeded("full"))

    with pytest.raises(QuotaExceeded):
        sender.send_messages(Message())


@pytest.mark.parametrize("kind", [InvalidOperation, SettingNotAvailable])
def test_what_the_server_refuses_is_raised(kind: type[InvalidOperation]) -> None:
    sender, _ = open_sender(kind("no"))

    with pytest.raises(kind):
        sender.send_messages(Message())


def test_a_closed_sender_refuses_sends() -> None:
    sender, transport = open_sender()

    with sender:
        pass

    with pytest.raises(ClientClosed):
        sender.send_messages(Message())
    assert transport.calls == []
