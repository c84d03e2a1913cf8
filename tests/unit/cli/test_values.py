"""Values as people type and read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.cli.values import (
    body_to_json,
    body_to_text,
    format_duration,
    format_numbers,
    format_size,
    format_time,
    parse_duration,
    parse_numbers,
    parse_property,
    parse_time,
    printable,
    property_from_json,
    property_to_json,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60),
        ("5m", 300),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("2d", 172_800),
        ("1.5s", 1.5),
        ("90", 90),
        ("0", 0),
        (" 5M ", 300),
        ("PT1M30S", 90),
        ("pt5m", 300),
        ("P1D", 86_400),
        ("P1DT1H", 90_000),
        ("PT0.25S", 0.25),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "fast", "5 m", "-5s", "5x", "P", "PT", "P1Y", "1m-5s", "s", "9" * 30 + "d"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "250ms"), (60, "1m"), (90, "1m30s"), (90_061, "1d1h1m1s"), (-5, "-5s")],
)
def test_a_duration_is_written(seconds: float, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text


@given(st.integers(min_value=0, max_value=10**12))
def test_a_written_duration_is_read_back(duration_ms: int) -> None:
    duration = timedelta(milliseconds=duration_ms)

    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (20 * 1024**2, "20.0 MiB"),
        (3 * 1024**4, "3.0 TiB"),
    ],
)
def test_a_size_is_written(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


def test_a_time_is_written_in_utc() -> None:
    assert format_time(datetime(2026, 1, 31, 12, tzinfo=UTC)) == "2026-01-31T12:00:00.000Z"


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("colour=red", "colour", "red"),
        ("empty=", "empty", ""),
        ("query=a=b", "query", "a=b"),
        ("size:=3", "size", 3),
        ("ratio:=0.5", "ratio", 0.5),
        ("urgent:=true", "urgent", True),
        ('raw:={"$bytes": "AAE="}', "raw", b"\x00\x01"),
    ],
)
def test_a_property_is_read(text: str, name: str, value: object) -> None:
    assert parse_property(text) == (name, value)


@pytest.mark.parametrize(
    "text",
    [
        *("colour", "=red", ":=5", "size:=", "size:=null", "size:=[1]", "size:=five"),
        pytest.param("size:=" + "[" * 100_000, id="too deep"),
    ],
)
def test_what_is_no_property_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="property"):
        parse_property(text)


@pytest.mark.parametrize(
    "value",
    [
        True,
        7,
        0.5,
        "text",
        b"\x00\xff",
        datetime(2026, 1, 31, 12, tzinfo=UTC),
        UUID("12345678-1234-5678-1234-567812345678"),
    ],
)
def test_a_property_survives_json(value: object) -> None:
    assert property_from_json(property_to_json(value)) == value


@pytest.mark.parametrize(
    "value",
    [{"$time": "2026-01-31T12:00:00"}, {"$bytes": "?"}, {"$uuid": "x"}, {"a": "b"}, {}, None],
)
def test_json_that_means_no_property_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        property_from_json(value)


@pytest.mark.parametrize(
    ("body", "members", "text"),
    [
        (b"hello", {"body": "hello"}, "hello"),
        ("grün".encode(), {"body": "grün"}, "grün"),
        (b"", {"body": ""}, ""),
        (b"\xff\x00", {"body_base64": "/wA="}, "base64: /wA="),
        (None, {"body": None}, "(no body)"),
    ],
)
def test_a_body_is_text_or_says_that_it_is_base64(
    body: bytes | None, members: dict[str, str | None], text: str
) -> None:
    assert body_to_json(body) == members
    assert body_to_text(body) == text


def test_text_from_elsewhere_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\x9b\tc\nd") == "a\\x1b[2Jb\\x0d\\x9b\tc\nd"


@pytest.mark.parametrize(
    "text", ["2026-01-31T12:00:00Z", "2026-01-31T13:00+01:00", " 2026-01-31 12:00:00.000+00:00 "]
)
def test_a_time_is_read(text: str) -> None:
    assert parse_time(text) == datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("soon", "not a time"), ("", "not a time"), ("2026-01-31T12:00:00", "no zone")],
)
def test_what_is_no_time_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_time(text)


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        ([], []),
        (["5"], [5]),
        (["5-7"], [5, 6, 7]),
        (["5, 8-9", "2"], [5, 8, 9, 2]),
        (["281474976710657"], [2**48 + 1]),
    ],
)
def test_sequence_numbers_are_read(texts: list[str], numbers: list[int]) -> None:
    assert parse_numbers(texts) == numbers


@pytest.mark.parametrize(
    "text", ["", "x", "5-", "-5", "7-5", "0", "5,,6", "1.5", "1-65537", "1-9223372036854775807"]
)
def test_what_is_no_sequence_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="sequence number"):
        parse_numbers([text])


@given(st.sets(st.integers(1, 2**63 - 1), max_size=50))
def test_what_is_written_of_sequence_numbers_is_read_back(numbers: set[int]) -> None:
    written = format_numbers(numbers)

    assert parse_numbers([written] if written else []) == sorted(numbers)


def test_neighbours_are_written_as_a_range() -> None:
    assert format_numbers([9, 5, 7, 6]) == "5-7,9"
