"""A batch refuses what does not fit and stays usable (SND-6)."""

from __future__ import annotations

import pytest

from lockstep import Message, MessageBatch
from lockstep.errors import InvalidRequest, MessageSizeExceeded
from lockstep.v1 import messaging_service_pb2 as messaging


@pytest.mark.parametrize("body_bytes", [0, 1, 100, 127, 128, 20_000])
def test_the_size_of_a_batch_is_what_its_messages_take_on_the_wire(body_bytes: int) -> None:
    batch = MessageBatch()

    for _ in range(3):
        batch.add_message(Message(b"x" * body_bytes))

    request = messaging.SendMessagesRequest(messages=[m._wire for m in batch._messages])
    assert batch.size_in_bytes == request.ByteSize()
    assert len(batch) == 3


def test_a_message_that_would_overflow_is_refused_and_the_batch_stays_usable() -> None:
    batch = MessageBatch(60)
    batch.add_message(Message(b"x" * 40))

    with pytest.raises(MessageSizeExceeded, match="Send it"):
        batch.add_message(Message(b"x" * 40))

    batch.add_message(Message(b"x" * 5))
    assert len(batch) == 2
    assert batch.size_in_bytes <= batch.max_size_in_bytes == 60


def test_a_message_that_fills_the_batch_exactly_fits() -> None:
    batch = MessageBatch()
    batch.add_message(Message(b"x" * 40))

    exact = MessageBatch(batch.size_in_bytes)
    exact.add_message(Message(b"x" * 40))

    with pytest.raises(MessageSizeExceeded):
        MessageBatch(batch.size_in_bytes - 1).add_message(Message(b"x" * 40))


def test_a_message_too_large_for_an_empty_batch_says_so() -> None:
    with pytest.raises(MessageSizeExceeded, match="itself is too large") as caught:
        MessageBatch(10).add_message(Message(b"x" * 40))

    assert caught.value.details["configured"] == "10"


def test_a_batch_takes_as_many_messages_as_one_send_may_have() -> None:
    batch = MessageBatch()
    message = Message()
    for _ in range(4096):
        batch.add_message(message)

    with pytest.raises(MessageSizeExceeded):
        batch.add_message(message)

    assert len(batch) == 4096


def test_a_batch_must_have_room() -> None:
    with pytest.raises(InvalidRequest):
        MessageBatch(0)


def test_a_batch_takes_messages_only() -> None:
    with pytest.raises(TypeError):
        MessageBatch().add_message("text")  # type: ignore[arg-type]
