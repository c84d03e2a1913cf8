"""Between Python's values and those of the protos: times, durations, properties, choices.

Here belong pure conversions, and the choices that a program makes by name. Never here: a message as
a whole (`message`, `received`), a call. The law: what goes out and comes back is equal, to the
millisecond for times of the broker, to the microsecond for those of the application.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, Self
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from lockstep.core.errors import InvalidRequest, LimitExceeded
from lockstep.core.limits import ID_CHARS_MAX
from lockstep.v1 import message_pb2

PropertyValue = bool | int | float | str | bytes | datetime | UUID
"""A value of an application property; the kinds follow lockstep.v1.PropertyValue."""

_ISO_8601: Final = re.compile(
    r"P(?=.)(?:(?P<days>\d+)D)?"
    r"(?:T(?=.)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)
_UUID_BYTES: Final = 16
_MILLISECOND: Final = timedelta(milliseconds=1)
DATETIME_MS_MAX: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
"""The last millisecond that a datetime can tell; broker times may lie beyond it."""
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1
_UINT_MAX: Final = 2**64 - 1


class NamedChoice(Enum):
    """A choice that may also be given by its value, in any case (RCV-2)."""

    @classmethod
    def parse(cls, value: Self | str) -> Self:
        """Return the choice that is meant.

        Raises:
            InvalidRequest: There is no such choice; the text lists them.
        """
        if isinstance(value, cls):
            return value
        for choice in cls:
            if isinstance(value, str) and value.lower() in (choice.value, choice.name.lower()):
                return choice
        raise InvalidRequest(
            f"{value!r} is not a {cls.__name__}; use one of {', '.join(map(str, cls))}.",
            details={"observed": str(value)},
        )


class ReceiveMode(NamedChoice):
    """Which kind of delivery a receiver wants (RCV-1)."""

    PEEK_LOCK = "peeklock"
    """Messages are locked, and stay stored until they are settled."""
    RECEIVE_AND_DELETE = "receiveanddelete"
    """Messages are gone once they were delivered; a lost connection loses them."""


class SubQueue(NamedChoice):
    """A store beside the queue proper (ENT-2)."""

    DEAD_LETTER = "deadletter"
    """What could not be processed."""


class MessageState(NamedChoice):
    """What a message waits for (section 2.2 of the contract)."""

    ACTIVE = "active"
    """A receiver, or its settlement."""
    DEFERRED = "deferred"
    """Somebody who asks for it by its number (DEF-1)."""
    SCHEDULED = "scheduled"
    """Its time (SCH-2)."""


class NextAvailableSession(Enum):
    """The type of `NEXT_AVAILABLE_SESSION`."""

    NEXT_AVAILABLE = "next available"


NEXT_AVAILABLE_SESSION: Final = NextAvailableSession.NEXT_AVAILABLE
"""Asks for any session that has messages and that nobody holds (SES-9)."""


def datetime_of_ms(ms: int) -> datetime:
    """Return a moment given in milliseconds since the epoch as a datetime in UTC; beyond the year 9999, its end."""
    try:
        return _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return _EARLIEST if ms < 0 else _LATEST


def timestamp_to_ms(timestamp: Timestamp) -> int:
    """Return a moment in milliseconds since the epoch, rounded down."""
    return timestamp.seconds * 1000 + timestamp.nanos // 1_000_000


def timestamp_to_datetime(timestamp: Timestamp) -> datetime:
    """Return a moment as a datetime in UTC, rounded down to microseconds.

    Other languages have years that a datetime lacks; such a moment becomes the first or the last that it has, so that
    a message which holds one can be read.
    """
    try:
        return _EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)
    except OverflowError:
        return _EARLIEST if timestamp.seconds < 0 else _LATEST


def duration_to_timedelta(duration: Duration) -> timedelta:
    """Return a time span, rounded down to microseconds; one that a timedelta cannot hold becomes the longest."""
    try:
        return timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000)
    except OverflowError:
        return timedelta.min if duration.seconds < 0 else timedelta.max


def datetime_to_timestamp(moment: datetime) -> Timestamp:
    """Return a datetime as a protobuf value; one without a zone counts as UTC."""
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    seconds = since // timedelta(seconds=1)
    return Timestamp(
        seconds=seconds, nanos=(since - timedelta(seconds=seconds)).microseconds * 1000
    )


def timedelta_to_duration(span: timedelta) -> Duration:
    """Return a time span as a protobuf value."""
    duration = Duration()
    duration.FromTimedelta(span)
    return duration


def ms_to_duration(span_ms: int) -> Duration:
    """Return a time span in milliseconds, 0 or more, as a protobuf value."""
    return Duration(seconds=span_ms // 1000, nanos=span_ms % 1000 * 1_000_000)


def parse_duration(span: object) -> timedelta:
    """Return a time span that a program gave as such, or in ISO 8601, for example `PT1M30S`.

    Raises:
        InvalidRequest: It is neither; the text may have days, hours, minutes and seconds.
    """
    if isinstance(span, timedelta):
        return span
    match = _ISO_8601.fullmatch(span.strip().upper()) if isinstance(span, str) else None
    if match is None:
        raise InvalidRequest(
            f"{span!r} is not a duration; use a timedelta, or ISO 8601 as PT1M30S.",
            details={"observed": str(span)},
        )
    try:
        return timedelta(**{unit: float(n) for unit, n in match.groupdict().items() if n})
    except OverflowError as error:
        raise InvalidRequest(f"{span!r} is too long for a duration.") from error


def seconds_to_ms(seconds: float, what: str) -> int:
    """Return a time span that a program gave in seconds, in milliseconds.

    Raises:
        TypeError: It is no number.
        InvalidRequest: It is negative, or not finite.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{what} must be a number of seconds, not {type(seconds).__name__}.")
    if not 0 <= seconds < math.inf:
        raise InvalidRequest(f"{what} must be 0 or more seconds; {seconds} was given.")
    return round(seconds * 1000)


def whole_ms(span: timedelta) -> int:
    """Return a time span in milliseconds, rounded down."""
    return span // _MILLISECOND


def check_id(value: str | None, what: str) -> None:
    """Refuse an id that the broker would refuse (C28).

    Raises:
        TypeError: It is no text.
        LimitExceeded: It is longer than 128 characters.
    """
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}.")
    if len(value) > ID_CHARS_MAX:
        raise LimitExceeded(
            f"{what} is limited to {ID_CHARS_MAX} characters; this one has {len(value)}. Shorten it.",
            details={"limit": what, "configured": str(ID_CHARS_MAX), "observed": str(len(value))},
        )


def set_properties(message: message_pb2.Message, properties: Mapping[str, PropertyValue]) -> None:
    """Write application properties into a message.

    Raises:
        TypeError: A name is no text, or a value is of a kind that properties do not have.
        InvalidRequest: A whole number does not fit 64 bits.
    """
    target = message.application_properties
    for name, value in properties.items():
        if not isinstance(name, str):
            raise TypeError(f"The name of a property must be a str, not {type(name).__name__}.")
        _set_property(target[name], name, value)


def property_values(
    properties: Mapping[str, PropertyValue] | None,
) -> dict[str, message_pb2.PropertyValue]:
    """Return application properties as protobuf has them.

    Raises:
        TypeError, InvalidRequest: As `set_properties`.
    """
    holder = message_pb2.Message()
    set_properties(holder, properties or {})
    return dict(holder.application_properties)


def _set_property(target: message_pb2.PropertyValue, name: str, value: PropertyValue) -> None:
    match value:
        case bool():
            target.bool_value = value
        case int() if _INT_MIN <= value <= _INT_MAX:
            target.int_value = value
        case int() if 0 <= value <= _UINT_MAX:
            target.uint_value = value
        case int():
            raise InvalidRequest(f"The property {name!r} is {value}, which does not fit 64 bits.")
        case float():
            target.double_value = value
        case str():
            target.string_value = value
        case bytes():
            target.bytes_value = value
        case datetime():
            target.timestamp_value.CopyFrom(datetime_to_timestamp(value))
        case UUID():
            target.uuid_value = value.bytes
        case _:
            raise TypeError(
                f"The property {name!r} is of type {type(value).__name__}; use bool, int, float, str, bytes,"
                " datetime or UUID."
            )


def read_properties(message: message_pb2.Message) -> dict[str, PropertyValue]:
    """Return the application properties of a message; one of a kind of a later release is left out.

    What was sent as a UUID and has not its 16 bytes is given as the bytes that it has.
    """
    properties: dict[str, PropertyValue] = {}
    for name, value in message.application_properties.items():
        match kind := value.WhichOneof("kind"):
            case None:
                continue
            case "timestamp_value":
                properties[name] = timestamp_to_datetime(value.timestamp_value)
            case "uuid_value" if len(value.uuid_value) == _UUID_BYTES:
                properties[name] = UUID(bytes=value.uuid_value)
            case _:
                properties[name] = getattr(value, kind)
    return properties
