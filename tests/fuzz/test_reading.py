"""What programs and people read and write: messages that anybody sent, addresses, values of the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lockstep.cli.messages import message_json
from lockstep.cli.sources import BadInput, from_json_lines, message_fields
from lockstep.cli.values import (
    bytes_from_base64,
    format_duration,
    json_from_text,
    parse_duration,
    parse_property,
    printable,
    property_from_json,
    property_to_json,
)
from lockstep.client.connection import parse_address
from lockstep.client.message import Message
from lockstep.client.received import Delivery, ReceivedMessage
from lockstep.core.entity import parse_entity_path
from lockstep.core.errors import InvalidRequest
from lockstep.core.limits import ID_CHARS_MAX, TTL_MS_MAX
from lockstep.servicebus.connection_string import parse_connection_string
from lockstep.servicebus.message import ServiceBusReceivedMessage
from lockstep.v1 import message_pb2
from tests.fuzz.building import Builder
from tests.fuzz.knowledge import Knowledge

# Some messages are large, and a busy machine is slow: neither is a failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
_IDS = ("message_id", "session_id", "partition_key", "reply_to_session_id")
NOW_MS = 1_700_000_000_000
randoms = st.integers(0, 2**32).map(Random)
pieces = st.sampled_from(
    [
        *(
            "Endpoint",
            "=",
            ";",
            "lockstep://",
            "sb://",
            "Namespace",
            ":",
            "/",
            "[",
            "]",
            "::1",
            "7700",
        ),
        *(
            "host",
            " ",
            "\x00",
            "é",
            "$DeadLetterQueue",
            "\\",
            "EntityPath",
            "-1",
            "99999",
            "٣",
            "dns:",
        ),
    ]
)
texts = st.text(max_size=30) | st.lists(pieces, max_size=12).map("".join)


# --- messages that anybody sent ----------------------------------------------------------------------


def received(random: Random) -> ReceivedMessage:
    """Return any message that the protos allow, as a receiver gets it."""
    builder = Builder(random, Knowledge(random), lambda: NOW_MS)
    wire = builder.build(message_pb2.Message, care=0.0)
    assert isinstance(wire, message_pb2.Message)
    for field, value in wire.ListFields():
        if field.name in _IDS:
            setattr(wire, field.name, value[:ID_CHARS_MAX])  # longer ones are not stored
    delivery = Delivery("orders", None, bytes(8), NOW_MS)
    expires_ms = random.choice((0, NOW_MS, NOW_MS + TTL_MS_MAX))
    return ReceivedMessage(wire, 1, 0, NOW_MS, delivery, expires_ms)


def properties_of(message: object) -> dict[str, Any]:
    """Read everything that a message shows."""
    names = [name for name in dir(message) if not name.startswith("_")]
    return {name: getattr(message, name) for name in names}


@unhurried
@given(randoms)
def test_whatever_was_sent_can_be_read(random: Random) -> None:
    message = received(random)

    shown = properties_of(message)

    assert shown["body"] == message.body
    assert str(message) is not None
    assert repr(message)


@unhurried
@given(randoms)
def test_whatever_was_received_can_be_sent_again(random: Random) -> None:
    message = received(random)

    copy = Message.from_received(message)

    assert copy.body == message.body


@unhurried
@given(randoms)
def test_whatever_was_received_can_be_printed(random: Random) -> None:
    message = received(random)

    line = json.dumps(message_json(message))

    assert json.loads(line)["sequence_number"] == 1


@unhurried
@given(randoms)
def test_whatever_was_sent_can_be_read_under_the_names_of_azure(random: Random) -> None:
    message = ServiceBusReceivedMessage(received(random))

    assert message.sequence_number == 1
    assert message.expires_at_utc is None or message.expires_at_utc >= message.enqueued_time_utc


# --- addresses and paths -----------------------------------------------------------------------------


@unhurried
@given(texts)
def test_an_address_is_read_or_refused(text: str) -> None:
    try:
        address = parse_address(text)
    except InvalidRequest:
        return

    assert parse_address(address.target).target == address.target


@unhurried
@given(texts)
def test_a_connection_string_of_azure_is_read_or_refused(text: str) -> None:
    try:
        properties = parse_connection_string(text)
    except ValueError:
        return

    again = parse_connection_string(f"Endpoint={properties.endpoint}")
    assert again.fully_qualified_namespace == properties.fully_qualified_namespace


@unhurried
@given(namespace=texts, path=texts)
def test_an_entity_path_is_read_or_refused(namespace: str, path: str) -> None:
    try:
        key, dead_letter = parse_entity_path(namespace, path)
    except InvalidRequest:
        return

    suffix = "/$DeadLetterQueue" if dead_letter else ""
    assert parse_entity_path(key.namespace, key.name + suffix) == (key, dead_letter)


# --- values of the command line ----------------------------------------------------------------------

_READERS: list[Callable[[str], object]] = [
    parse_duration,
    parse_property,
    bytes_from_base64,
    lambda text: property_from_json(json_from_text(text)),
    lambda text: message_fields(json_from_text(text)),
    lambda text: list(from_json_lines([text.encode(errors="surrogatepass")])),  # type: ignore[arg-type]  # lines
]
_words = st.sampled_from(
    [
        *("1", "0", ".", "s", "m", "h", "d", "ms", "PT", "P", "T", "9" * 400, "٣", " ", "-", "e5"),
        *(
            "a",
            "=",
            ":=",
            "{",
            "}",
            "[",
            "]",
            '"',
            ",",
            '"$time":',
            '"$uuid":',
            '"$bytes":',
            "null",
        ),
        *('"body":', '"time_to_live":', '"application_properties":', "NaN", "true", "\x00"),
    ]
)
_typed = st.text(max_size=20) | st.lists(_words, max_size=12).map("".join)


@pytest.mark.parametrize("read", _READERS)
@unhurried
@given(text=_typed)
@example(text="[" * 100_000)
@example(text="a:=" + "[" * 100_000)
@example(text="a:=" + "9" * 5000)
@example(text="9" * 5000 + "s")
@example(text='{"$time": "9999-12-31T23:59:59-23:59"}')
@example(text='a:={"$time": "0001-01-01T00:00:00+23:59"}')
def test_what_people_type_is_read_or_refused(read: Callable[[str], object], text: str) -> None:
    try:
        value = read(text)
    except (ValueError, BadInput):
        return

    assert value is not None


@unhurried
@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(milliseconds=TTL_MS_MAX)))
def test_a_duration_that_is_shown_can_be_typed(span: timedelta) -> None:
    shown = format_duration(span)

    assert format_duration(parse_duration(shown)) == shown


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$bytes", "$time", "$uuid", "body", "session_id"])
            | st.text(max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@unhurried
@given(_json)
def test_a_property_in_json_is_read_or_refused(value: object) -> None:
    try:
        read = property_from_json(value)
    except ValueError:
        return

    json.dumps(property_to_json(read))


@unhurried
@given(_json)
def test_a_message_in_json_is_read_or_refused(value: object) -> None:
    try:
        fields = message_fields(value)
    except ValueError:
        return

    try:
        Message(**fields)
    except InvalidRequest:
        return


@unhurried
@given(st.text())
def test_printed_text_moves_no_cursor(text: str) -> None:
    shown = printable(text)

    assert all(c in "\t\n" or c.isprintable() or ord(c) > 0x9F for c in shown)
