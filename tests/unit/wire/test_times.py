"""Times and durations that no reader could read are refused."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from lockstep.core.errors import InvalidRequest
from lockstep.wire.times import duration, duration_ms, timestamp, timestamp_ms


@given(st.integers(-(2**53), 2**53))
def test_a_span_survives_the_way_there_and_back(span_ms: int) -> None:
    made = Duration(seconds=duration(abs(span_ms)).seconds, nanos=duration(abs(span_ms)).nanos)
    if span_ms < 0:
        made = Duration(seconds=-made.seconds, nanos=-made.nanos)

    assert duration_ms(made) == span_ms
    assert timestamp_ms(timestamp(span_ms)) == span_ms


@pytest.mark.parametrize(
    "wrong",
    [
        Duration(nanos=10**9),
        Duration(nanos=-(10**9)),
        Duration(seconds=1, nanos=-1),
        Duration(seconds=-1, nanos=1),
        Duration(seconds=5, nanos=2**31 - 1),
    ],
)
def test_a_duration_with_wrong_nanos_is_refused(wrong: Duration) -> None:
    with pytest.raises(InvalidRequest, match="nanos"):
        duration_ms(wrong)


@pytest.mark.parametrize("nanos", [-1, 10**9, -(2**31), 2**31 - 1])
def test_a_timestamp_with_wrong_nanos_is_refused(nanos: int) -> None:
    with pytest.raises(InvalidRequest, match="nanos"):
        timestamp_ms(Timestamp(seconds=1, nanos=nanos))
