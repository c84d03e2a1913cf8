"""The bytes of a receive response, which are joined and not built by protobuf (ADR 0003)."""

from __future__ import annotations

from array import array

from lockstep.core.ids import EntityNumber, GrantNumber, token_prefix
from lockstep.core.replies import DeadLetterInfo, Delivered, Short
from lockstep.v1 import message_pb2
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.wire.convert import receive_response

# Around each length at which one more byte says how long a message is.
LENGTHS = [0, 1, 100, 127, 128, 129, 16_383, 16_384, 16_390, 2_097_151, 2_097_152, 2_097_160]


def _message(length: int) -> bytes:
    """Return a message whose bytes are about so many."""
    return message_pb2.Message(body=b"x" * max(length - 6, 0)).SerializeToString()


def _delivered(count: int, **others: object) -> Delivered:
    numbers = array("q", range(7, 7 + count))
    return Delivered(
        entity=EntityNumber(1),
        grant=GrantNumber(5),
        size_bytes=0,
        sequences=numbers,
        chunks=numbers,
        places=array("I", range(count)),
        enqueued_ms=array("q", range(1_000, 1_000 + count)),
        counts=tuple(range(count)),
        locked_until_ms=1_700_000_000_123,
        short=Short.RESPONSE_SIZE,
        **others,  # type: ignore[arg-type]
    )


def test_messages_of_every_length_arrive_as_they_were_sent() -> None:
    sent = [_message(length) for length in LENGTHS]

    response = messaging.ReceiveMessagesResponse.FromString(
        receive_response(_delivered(len(sent)), sent)
    )

    assert [message.SerializeToString() for message in response.messages] == sent
    assert list(response.sequence_numbers) == list(range(7, 7 + len(sent)))
    assert list(response.enqueued_times_unix_ms) == list(range(1_000, 1_000 + len(sent)))
    assert list(response.delivery_counts) == list(range(len(sent)))
    assert response.lock_token_prefix == token_prefix(GrantNumber(5))
    assert response.locked_until.ToMilliseconds() == 1_700_000_000_123
    assert response.short_reason == messaging.SHORT_REASON_RESPONSE_SIZE


def test_the_lengths_are_those_around_each_further_byte() -> None:
    lengths = {len(_message(length)) for length in LENGTHS}

    assert any(length < 128 for length in lengths)
    assert any(128 <= length < 16_384 for length in lengths)
    assert any(16_384 <= length < 2_097_152 for length in lengths)
    assert any(length >= 2_097_152 for length in lengths)


def test_no_message_is_an_empty_list() -> None:
    response = messaging.ReceiveMessagesResponse.FromString(receive_response(_delivered(0), []))

    assert not response.messages
    assert not response.lock_token_prefix


def test_dlq_6_a_dead_letter_has_its_reason_among_its_properties() -> None:
    infos = (DeadLetterInfo("why", "é" * 200),)
    raw = message_pb2.Message(body=b"x").SerializeToString()

    response = messaging.ReceiveMessagesResponse.FromString(
        receive_response(_delivered(1, dead_letters=infos), [raw])
    )

    properties = response.messages[0].application_properties
    assert properties["DeadLetterReason"].string_value == "why"
    assert properties["DeadLetterErrorDescription"].string_value == "é" * 200
