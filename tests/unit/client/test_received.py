"""A received message shows what the broker said, and computes it when asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from lockstep import Message, ReceivedMessage
from lockstep.client.received import Delivery, SettlementFailure
from lockstep.core.limits import TTL_MS_MAX
from lockstep.errors import LockstepError, MessageLockLost
from lockstep.v1 import session_pb2
from tests.unit.client.scripted import START_MS

START = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=START_MS)


def deliver(
    message: Message,
    *,
    session: bool = False,
    prefix: bytes = b"\x00" * 7 + b"\x09",
    locked_until_ms: int | None = None,
) -> ReceivedMessage:
    lock = session_pb2.SessionLock(session_id="A") if session else None
    delivery = Delivery("orders", lock, prefix, locked_until_ms)
    return ReceivedMessage(message._wire, 258, 2, START_MS + 1, delivery)


def test_what_the_sender_wrote_is_readable() -> None:
    got = deliver(Message("body", session_id="A", message_id="m", application_properties={"a": 1}))

    assert (got.body, got.session_id, got.message_id) == (b"body", "A", "m")
    assert got.application_properties == {"a": 1}
    assert str(got) == "body"


def test_what_the_broker_added_is_readable() -> None:
    got = deliver(Message(), locked_until_ms=START_MS + 5)

    assert got.sequence_number == 258
    assert got.delivery_count == 2
    assert got.enqueued_time_utc == START + timedelta(milliseconds=1)
    assert got.locked_until_utc == START + timedelta(milliseconds=5)


def test_the_lock_token_is_the_prefix_and_the_sequence_number() -> None:
    assert deliver(Message()).lock_token == bytes.fromhex("0000000000000009 0000000000000102")


def test_a_message_that_is_not_locked_has_no_token() -> None:
    assert deliver(Message(), prefix=b"").lock_token is None


def test_a_message_of_a_session_has_no_lock_time_of_its_own() -> None:
    assert deliver(Message(), session=True).locked_until_utc is None


def test_why_a_message_is_dead_is_read_from_its_properties() -> None:
    dead = deliver(
        Message(
            application_properties={"DeadLetterReason": "bad", "DeadLetterErrorDescription": "very"}
        )
    )

    assert (dead.dead_letter_reason, dead.dead_letter_error_description) == ("bad", "very")


@pytest.mark.parametrize("properties", [{}, {"DeadLetterReason": 5}])
def test_a_reason_that_is_absent_or_no_text_is_none(properties: dict[str, int]) -> None:
    got = deliver(Message(application_properties=properties))

    assert got.dead_letter_reason is None
    assert got.application_properties == properties


def test_what_other_languages_sent_and_python_lacks_is_still_readable() -> None:
    message = Message("body")
    far = Timestamp(seconds=253_402_300_800)  # the year 10000
    message._wire.scheduled_enqueue_time.CopyFrom(far)
    message._wire.application_properties["far"].timestamp_value.CopyFrom(far)
    message._wire.application_properties["early"].timestamp_value.seconds = -(2**60)
    message._wire.application_properties["short"].uuid_value = b"abc"

    got = deliver(message)

    latest = datetime.max.replace(tzinfo=UTC)
    earliest = datetime.min.replace(tzinfo=UTC)
    assert got.scheduled_enqueue_time_utc == latest
    assert got.application_properties == {"far": latest, "early": earliest, "short": b"abc"}


def test_a_message_that_expires_after_the_last_year_says_no_end() -> None:
    delivery = Delivery("orders", None, b"", None)

    got = ReceivedMessage(Message()._wire, 1, 0, START_MS, delivery, START_MS + TTL_MS_MAX)

    assert got.expires_at_utc is None


def test_a_received_message_is_read_only() -> None:
    got = deliver(Message())

    with pytest.raises(AttributeError):
        got.sequence_number = 5  # type: ignore[misc]
    with pytest.raises(AttributeError):
        got.anything = 5  # type: ignore[attr-defined]


def test_a_received_message_is_of_another_type_than_a_message_to_send() -> None:
    assert not isinstance(deliver(Message()), Message)


def test_a_failure_becomes_the_error_of_its_reason() -> None:
    failure = SettlementFailure(deliver(Message()), "MESSAGE_LOCK_LOST", "expired")

    assert type(failure.error) is MessageLockLost
    assert failure.error.message == "expired"
    assert failure.error.details == {"sequence_number": "258"}


def test_a_failure_of_an_unknown_reason_is_still_an_error() -> None:
    failure = SettlementFailure(deliver(Message()), "OF_A_LATER_RELEASE", "new")

    assert type(failure.error) is LockstepError
    assert failure.error.details["reason"] == "OF_A_LATER_RELEASE"


def test_an_end_that_no_datetime_can_tell_is_none() -> None:
    delivery = Delivery("orders", None, b"", None)
    last_ms = 253_402_300_799_999

    def expires(ms: int) -> datetime | None:
        return ReceivedMessage(Message()._wire, 1, 0, START_MS, delivery, ms).expires_at_utc

    assert expires(last_ms) == datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    assert (expires(last_ms + 1), expires(0)) == (None, None)
