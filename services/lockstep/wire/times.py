"""Times and durations on the wire.

Here belongs the way between milliseconds and protobuf's Timestamp and Duration. Never here: a clock. The law: what the
well-known types do not allow, no reader could read, so it is refused.
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from lockstep.core.errors import InvalidRequest

_NANOS_MAX = 999_999_999


def timestamp(at_ms: int) -> Timestamp:
    """Return a time of day, given in ms since the epoch."""
    return Timestamp(seconds=at_ms // 1000, nanos=at_ms % 1000 * 1_000_000)


def timestamp_ms(at: Timestamp) -> int:
    """Return a time of day in ms since the epoch, rounded down.

    Raises:
        InvalidRequest: Its nanos are no part of a second.
    """
    if not 0 <= at.nanos <= _NANOS_MAX:
        raise InvalidRequest(
            f"The nanos of a Timestamp must be between 0 and {_NANOS_MAX}; {at.nanos} was given.",
            details={"observed": str(at.nanos)},
        )
    return at.seconds * 1000 + at.nanos // 1_000_000


def duration(length_ms: int) -> Duration:
    """Return a duration, given in ms."""
    return Duration(seconds=length_ms // 1000, nanos=length_ms % 1000 * 1_000_000)


def duration_ms(length: Duration) -> int:
    """Return a duration in ms, rounded down.

    Raises:
        InvalidRequest: Its nanos are no part of a second, or have another sign than its seconds.
    """
    seconds, nanos = length.seconds, length.nanos
    if not -_NANOS_MAX <= nanos <= _NANOS_MAX or (nanos < 0 < seconds) or (seconds < 0 < nanos):
        raise InvalidRequest(
            f"The nanos of a Duration must be at most {_NANOS_MAX} and have the sign of its seconds; {nanos} was given"
            f" beside {seconds} seconds.",
            details={"observed": str(nanos)},
        )
    return length.seconds * 1000 + length.nanos // 1_000_000
