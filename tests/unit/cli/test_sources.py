"""Where the messages of `lockstep send` come from."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lockstep.cli.sources import (
    BadInput,
    Fields,
    Layout,
    Source,
    from_arguments,
    from_json_lines,
    from_lines,
    in_batches,
    message_fields,
)


def test_arguments_are_sent_as_they_are() -> None:
    assert list(from_arguments(["a", "b {n}"], count=None)) == [{"body": b"a"}, {"body": b"b {n}"}]


def test_counted_arguments_are_numbered() -> None:
    bodies = [fields["body"] for fields in from_arguments(["a {n}", "b"], count=2)]

    assert bodies == [b"a 1", b"b", b"a 2", b"b"]


def test_lines_lose_their_ends_and_empty_ones_are_skipped() -> None:
    bodies = [fields["body"] for fields in from_lines(io.BytesIO(b"a\r\n\n \nb\xff"))]

    assert bodies == [b"a", b" ", b"b\xff"]


def test_a_json_line_describes_a_message() -> None:
    line = (
        b'{"body": "hi", "session_id": "", "message_id": "m", "subject": "s", "time_to_live": "5m",'
        b' "scheduled_enqueue_time_utc": "2026-01-31T12:00:00Z",'
        b' "application_properties": {"n": 1, "raw": {"$bytes": "AA=="}}}\n\n'
    )

    assert list(from_json_lines(io.BytesIO(line))) == [
        {
            "body": b"hi",
            "session_id": "",
            "message_id": "m",
            "subject": "s",
            "time_to_live": timedelta(minutes=5),
            "scheduled_enqueue_time_utc": datetime(2026, 1, 31, 12, tzinfo=UTC),
            "application_properties": {"n": 1, "raw": b"\x00"},
        }
    ]


def test_a_json_body_that_is_no_text_is_sent_as_json() -> None:
    assert message_fields({"body": {"a": 1}}) == {
        "body": b'{"a": 1}',
        "content_type": "application/json",
    }


def test_a_json_body_keeps_the_content_type_of_its_line() -> None:
    described = {"content_type": "application/x", "body": [1]}

    assert message_fields(described) == {"body": b"[1]", "content_type": "application/x"}


def test_a_binary_body_travels_as_base64() -> None:
    assert message_fields({"body_base64": "/wA="}) == {"body": b"\xff\x00"}


def test_what_receive_prints_can_be_sent_again() -> None:
    received = {"sequence_number": 7, "delivery_count": 1, "session_id": None, "body": "x"}

    assert message_fields(received) == {"body": b"x"}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{", "Line 2"),
        (b"[]", "an object"),
        (b'{"body": "a", "body_base64": "AA=="}', "together"),
        (b'{"body_base64": 5}', "must be text"),
        (b'{"body_base64": "?"}', "base64"),
        (b'{"sesion_id": "A"}', "sesion_id"),
        (b'{"session_id": 5}', "must be text"),
        (b'{"time_to_live": "soon"}', "duration"),
        (b'{"scheduled_enqueue_time_utc": "2026-01-31T12:00"}', "zone"),
        (b'{"application_properties": 1}', "object"),
        (b'{"application_properties": {"a": null}}', "null"),
        (b"\xff", "Line 2"),
    ],
)
def test_a_line_that_is_no_message_names_itself(line: bytes, complaint: str) -> None:
    found = from_json_lines(io.BytesIO(b'{"body": "fine"}\n' + line + b"\n"))

    assert next(found) == {"body": b"fine"}
    with pytest.raises(BadInput, match=complaint):
        next(found)


def test_batches_are_bounded_by_count() -> None:
    messages: list[Fields] = [{"body": b"x"} for _ in range(5)]

    assert [len(batch) for batch in in_batches(messages, messages_max=2)] == [2, 2, 1]


def test_batches_are_bounded_by_bytes_and_a_large_message_travels_alone() -> None:
    sizes = [10, 2_000_000, 10, 600_000, 600_000]
    messages: list[Fields] = [{"body": bytes(size)} for size in sizes]

    batches = in_batches(messages, messages_max=100)

    assert [[len(fields["body"]) for fields in batch] for batch in batches] == [
        [10],
        [2_000_000],
        [10, 600_000],
        [600_000],
    ]


def test_a_batch_is_given_before_the_rest_is_read() -> None:
    def two_then_trouble() -> Iterator[Fields]:
        yield {"body": b"1"}
        yield {"body": b"2"}
        raise AssertionError("read too far")

    batches = in_batches(two_then_trouble(), messages_max=1)

    assert next(batches) == [{"body": b"1"}]


def test_a_file_is_counted_and_read(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(b"a\n\nb\nc")
    source = Source((), path, Layout.LINES, None)

    with source.messages() as messages:
        bodies = [fields["body"] for fields in messages]

    assert bodies == [b"a", b"b", b"c"]
    assert source.total(0) == 3
    assert source.total(2) == 1
    assert source.total(9) == 0
    assert not source.is_single()


def test_a_whole_file_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(b"\x00\n\xff")
    source = Source((), path, Layout.WHOLE, None)

    with source.messages() as messages:
        assert list(messages) == [{"body": b"\x00\n\xff"}]
    assert source.is_single()
    assert source.total(0) == 1


def test_arguments_are_counted() -> None:
    assert Source(("a", "b"), None, Layout.LINES, 3).total(1) == 5
    assert Source(("a",), None, Layout.LINES, None).is_single()
    assert not Source(("a",), None, Layout.LINES, 2).is_single()
