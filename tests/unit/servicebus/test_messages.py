"""Messages under Azure's names: what a program sees, and what is sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from lockstep.client.received import Delivery, ReceivedMessage
from lockstep.servicebus import (
    ServiceBusMessage,
    ServiceBusMessageBatch,
    ServiceBusMessageState,
    ServiceBusReceivedMessage,
)
from lockstep.servicebus.exceptions import MessageSizeExceededError
from lockstep.servicebus.message import message_of, messages_of

UUID_ONE = UUID(int=1)
MOMENT = datetime(2026, 3, 4, 5, 6, 7, 891000, tzinfo=UTC)


def received(
    message: ServiceBusMessage, *, locked_until_ms: int | None = 9
) -> ServiceBusReceivedMessage:
    delivery = Delivery("orders", None, b"\1" * 8 if locked_until_ms else b"", locked_until_ms)
    return ServiceBusReceivedMessage(
        ReceivedMessage(message._to_message()._wire, 7, 2, 1000, delivery)
    )


@pytest.mark.parametrize("body", ["Größe", "Größe".encode()])
def test_a_body_is_an_iterable_of_bytes_and_a_text(body: str | bytes) -> None:
    for message in (ServiceBusMessage(body), received(ServiceBusMessage(body))):
        assert b"".join(message.body) == "Größe".encode()
        assert str(message) == "Größe"


def test_no_body_differs_from_an_empty_one() -> None:
    assert received(ServiceBusMessage(None)).body is None
    assert list(received(ServiceBusMessage(b"")).body) == [b""]


def test_properties_are_received_as_azure_gives_them() -> None:
    sent = ServiceBusMessage(
        "x",
        application_properties={
            "a": "text",
            b"b": 1,
            "c": MOMENT,
            "d": UUID_ONE,
            "e": True,
            "f": b"bytes",
        },
    )

    assert received(sent).application_properties == {
        b"a": b"text",
        b"b": 1,
        b"c": 1772600767891,
        b"d": UUID_ONE,
        b"e": True,
        b"f": b"bytes",
    }
    assert received(ServiceBusMessage("x")).application_properties is None


def test_a_received_message_can_be_sent_on_with_its_properties_in_their_own_kinds() -> None:
    message = received(
        ServiceBusMessage(
            "x",
            session_id="s",
            application_properties={"a": "text", "c": MOMENT, "DeadLetterReason": "broken"},
        )
    )
    message.session_id = "other"
    assert message.application_properties is not None
    message.application_properties["new"] = 5

    sent = message_of(message)

    assert sent.application_properties == {"a": "text", "c": MOMENT, "new": 5}
    assert sent.session_id == "other"


def test_what_the_broker_knows_of_a_message_has_azures_names() -> None:
    message = received(ServiceBusMessage("x", message_id="m", time_to_live=60))

    assert message.sequence_number == 7
    assert message.delivery_count == 2
    assert message.enqueued_time_utc == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert message.lock_token == UUID(bytes=b"\1" * 8 + b"\0" * 7 + b"\7")
    assert message.locked_until_utc == datetime(1970, 1, 1, 0, 0, 0, 9000, tzinfo=UTC)
    assert message.time_to_live == timedelta(seconds=60)
    assert message.state is ServiceBusMessageState.ACTIVE
    assert message.dead_letter_source is None
    assert message.enqueued_sequence_number is None


def test_a_message_may_be_changed_until_it_is_sent() -> None:
    message = ServiceBusMessage("x")
    message.session_id = "s"
    message.time_to_live = 5
    message.subject = "order"

    sent = message_of(message)

    assert (sent.session_id, sent.time_to_live, sent.subject) == (
        "s",
        timedelta(seconds=5),
        "order",
    )


def test_mappings_stand_for_messages() -> None:
    one = messages_of({"body": "x", "session_id": "s"})
    many = messages_of({"body": body} for body in ("y", "z"))

    assert [message.body for message in (*one, *many)] == [b"x", b"y", b"z"]
    assert one[0].session_id == "s"


@pytest.mark.parametrize("what", ["text", b"bytes", 5, [5], None])
def test_nothing_else_stands_for_a_message(what: object) -> None:
    with pytest.raises(TypeError):
        messages_of(what)  # type: ignore[arg-type]  # what a program without types may do


def test_a_wrong_body_or_id_is_refused_when_the_message_is_made() -> None:
    with pytest.raises(TypeError):
        ServiceBusMessage(5)  # type: ignore[arg-type]  # what a program without types may do
    with pytest.raises(ValueError, match="session_id"):
        ServiceBusMessage("x", session_id="s" * 129)


@pytest.mark.parametrize("name", ["raw_amqp_message", "body_type", "message"])
def test_what_belongs_to_amqp_is_refused_by_name(name: str) -> None:
    with pytest.raises(NotImplementedError, match=name):
        getattr(ServiceBusMessage("x"), name)


def test_a_batch_refuses_what_does_not_fit_and_stays_as_it_was() -> None:
    batch = ServiceBusMessageBatch(100)
    batch.add_message({"body": "x"})
    size_bytes = batch.size_in_bytes

    with pytest.raises(MessageSizeExceededError):
        batch.add_message(ServiceBusMessage("x" * 100))

    assert (len(batch), batch.size_in_bytes, batch.max_size_in_bytes) == (1, size_bytes, 100)
