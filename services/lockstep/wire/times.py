"""Times and durations on the wire.

Here belongs the way between milliseconds and protobuf's Timestamp and Duration. Never here: a clock.
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(at_ms: int) -> Timestamp:
    """Return a time of day, given in ms since the epoch."""
    return Timestamp(seconds=at_ms // 1000, nanos=at_ms % 1000 * 1_000_000)


def timestamp_ms(at: Timestamp) -> int:
    """Return a time of day in ms since the epoch, rounded down."""
    return at.seconds * 1000 + at.nanos // 1_000_000


def duration(length_ms: int) -> Duration:
    """Return a duration, given in ms."""
    return Duration(seconds=length_ms // 1000, nanos=length_ms % 1000 * 1_000_000)


def duration_ms(length: Duration) -> int:
    """Return a duration in ms, rounded down."""
    return length.seconds * 1000 + length.nanos // 1_000_000
