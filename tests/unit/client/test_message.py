"""A message holds what its sender wrote, and refuses what cannot be sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from lockstep import Message, PropertyValue
from lockstep.errors import InvalidRequest, LimitExceeded
from tests.unit.client.scripted import START_MS


def test_a_message_gives_back_what_it_was_made_of() -> None:
    values: dict[str, Any] = {
        "session_id": "A",
        "message_id": "m-1",
        "subject": "start",
        "correlation_id": "c-1",
        "content_type": "text/plain",
        "reply_to": "answers",
        "reply_to_session_id": "R",
        "to": "you",
        "partition_key": "A",
        "time_to_live": timedelta(seconds=1, microseconds=5),
        "scheduled_enqueue_time_utc": datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        "application_properties": {"n": 1},
    }

    message = Message(b"body", **values)

    assert {name: getattr(message, name) for name in values} == values
    assert message.body == b"body"


def test_a_message_of_nothing_has_nothing() -> None:
    message = Message()

    assert message.body is None
    assert message.session_id is None
    assert message.message_id is None
    assert message.partition_key is None
    assert message.reply_to_session_id is None
    assert message.time_to_live is None
    assert message.scheduled_enqueue_time_utc is None
    assert message.application_properties == {}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("räka", "räka".encode()),
        (b"", b""),
        ("", b""),
        (bytearray(b"x"), b"x"),
        (memoryview(b"y"), b"y"),
    ],
)
def test_a_body_is_bytes_or_text_as_utf_8(body: Any, expected: bytes) -> None:
    assert Message(body).body == expected


def test_a_body_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="not dict"):
        Message({"a": 1})  # type: ignore[arg-type]


def test_an_empty_session_id_differs_from_none() -> None:
    assert Message(session_id="").session_id == ""
    assert Message(session_id="")._wire.HasField("session_id")


@pytest.mark.parametrize(
    "what", ["session_id", "message_id", "reply_to_session_id", "partition_key"]
)
def test_an_id_may_have_128_characters_and_not_one_more(what: str) -> None:
    longest: dict[str, Any] = {what: "å" * 128}
    assert getattr(Message(**longest), what) == "å" * 128

    too_long: dict[str, Any] = {what: "å" * 129}
    with pytest.raises(LimitExceeded) as caught:
        Message(**too_long)

    assert caught.value.details == {"limit": what, "configured": "128", "observed": "129"}


@pytest.mark.parametrize("what", ["session_id", "message_id"])
def test_an_id_must_be_text(what: str) -> None:
    number: dict[str, Any] = {what: 5}
    with pytest.raises(TypeError, match=what):
        Message(**number)


def test_a_partition_key_must_equal_the_session_id() -> None:
    with pytest.raises(InvalidRequest):
        Message(session_id="A", partition_key="B")


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_time_to_live_must_be_more_than_zero(seconds: int) -> None:
    with pytest.raises(InvalidRequest):
        Message(time_to_live=timedelta(seconds=seconds))


def test_a_scheduled_time_without_zone_is_utc() -> None:
    naive = datetime(2030, 1, 1, 12)  # noqa: DTZ001  # what is tested
    east = datetime(2030, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))

    assert Message(scheduled_enqueue_time_utc=naive).scheduled_enqueue_time_utc == east
    assert Message(scheduled_enqueue_time_utc=east).scheduled_enqueue_time_utc == east


def test_application_properties_keep_value_and_kind() -> None:
    properties: dict[str, PropertyValue] = {
        "yes": True,
        "small": -(2**63),
        "large": 2**64 - 1,
        "half": 0.5,
        "text": "räka",
        "bytes": b"\x00\xff",
        "time": datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        "uuid": UUID(int=5),
    }

    read = Message(application_properties=properties).application_properties

    assert read == properties
    assert {name: type(value) for name, value in read.items()} == {
        name: type(value) for name, value in properties.items()
    }


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_a_property_must_fit_64_bits(number: int) -> None:
    with pytest.raises(InvalidRequest, match="64 bits"):
        Message(application_properties={"n": number})


@pytest.mark.parametrize("properties", [{"x": None}, {"x": []}, {5: "x"}])
def test_a_property_of_another_kind_is_refused(properties: Any) -> None:
    with pytest.raises(TypeError):
        Message(application_properties=properties)


def test_a_copy_of_a_received_message_leaves_out_what_the_broker_added() -> None:
    from lockstep.client.received import Delivery, ReceivedMessage

    wire = Message(
        "x",
        session_id="A",
        application_properties={
            "mine": 1,
            "DeadLetterReason": "r",
            "DeadLetterErrorDescription": "d",
        },
    )._wire
    got = ReceivedMessage(wire, 3, 10, START_MS, Delivery("orders", None, b"", None))

    copy = Message.from_received(got)

    assert (copy.body, copy.session_id) == (b"x", "A")
    assert copy.application_properties == {"mine": 1}
    assert got.dead_letter_reason == "r"


def test_a_message_shows_its_ids_and_its_length_but_not_its_body() -> None:
    assert (
        repr(Message("secret", message_id="m"))
        == "Message(message_id='m', session_id=None, body_bytes=6)"
    )
