"""Durations as custom resources write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_operator.durations import InvalidDuration, duration_text, parse_duration


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("PT5M", timedelta(minutes=5)),
        ("P1DT12H", timedelta(days=1, hours=12)),
        ("PT0.25S", timedelta(milliseconds=250)),
        ("PT90S", timedelta(seconds=90)),
        ("P7D", timedelta(days=7)),
        ("P10675199DT2H48M5.4775807S", None),
    ],
)
def test_what_is_written_is_read(text: str, value: timedelta | None) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "P1DT", "5m", "PT5", "P1M", "P1Y", "pt5m", "-PT5M"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidDuration, match="PT5M is five minutes"):
        parse_duration(text)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=10_000)))
def test_what_is_shown_is_read_again(value: timedelta) -> None:
    assert parse_duration(duration_text(value)) == value
