"""Logs: one event, one line, whatever is in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from lockstep.runtime.logs import AUDIT, LogFormat, configure_logging

log = logging.getLogger("lockstep.test")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, audit = logging.getLogger(), logging.getLogger(AUDIT)
    handlers, level, audit_level = root.handlers[:], root.level, audit.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    audit.setLevel(audit_level)


def logged(stream: io.StringIO) -> dict[str, object]:
    (line,) = stream.getvalue().splitlines()
    parsed = json.loads(line)
    assert isinstance(parsed, dict)
    return parsed


def test_event_is_one_json_object_with_its_keys(stream: io.StringIO) -> None:
    configure_logging("json", "info", stream)

    log.info("session.granted", extra={"queue": "orders", "epoch": 3, "is_new": True})

    line = logged(stream)
    time = line.pop("time")
    assert isinstance(time, str)
    assert time.endswith("Z")
    assert len(time) == len("2024-05-01T12:00:00.123Z")
    assert line == {
        "level": "info",
        "event": "session.granted",
        "logger": "lockstep.test",
        "queue": "orders",
        "epoch": 3,
        "is_new": True,
    }


def test_add_11_an_audit_line_depends_on_no_level(stream: io.StringIO) -> None:
    configure_logging("json", "error", stream)

    log.warning("session.granted")
    logging.getLogger(AUDIT).info("dead_letter_job.ended")

    assert (logged(stream)["event"], logged(stream)["logger"]) == ("dead_letter_job.ended", AUDIT)


def test_an_audit_line_for_a_person_names_its_log(stream: io.StringIO) -> None:
    configure_logging("console", "info", stream)

    logging.getLogger(AUDIT).info("dead_letter_job.ended", extra={"job": 1})

    words = stream.getvalue().split()[1:]
    assert words == ["INFO", "lockstep.audit", "dead_letter_job.ended", "job=1"]


def test_exception_is_one_line_of_json(stream: io.StringIO) -> None:
    configure_logging("json", "info", stream)

    try:
        raise LookupError("two\nlines")
    except LookupError:
        log.exception("step.failed")

    line = logged(stream)
    assert line["level"] == "error"
    assert "LookupError: two\nlines" in str(line["exception"])


def test_endless_exception_is_cut(stream: io.StringIO) -> None:
    configure_logging("json", "info", stream)

    log.info("step.failed", exc_info=LookupError("x" * 100_000))

    assert len(stream.getvalue()) < 25_000


def test_key_of_an_event_never_hides_one_of_every_event(stream: io.StringIO) -> None:
    configure_logging("json", "info", stream)

    log.info("step.done", extra={"event": "mine", "time": 5})

    line = logged(stream)
    assert (line["event"], line["event_"], line["time_"]) == ("step.done", "mine", 5)


def test_bytes_are_shown_by_their_number(stream: io.StringIO) -> None:
    configure_logging("json", "info", stream)

    log.info("step.done", extra={"body": b"secret", "nested": {"body": [bytearray(b"secret")]}})

    line = logged(stream)
    assert line["body"] == "<6 bytes>"
    assert line["nested"] == {"body": ["<6 bytes>"]}


def test_values_that_json_cannot_say_become_text(stream: io.StringIO) -> None:
    configure_logging("json", "info", stream)

    log.info("step.done", extra={"ratio": float("nan"), "kind": int, "share": 0.5, "none": None})

    line = logged(stream)
    assert line["ratio"] == "nan"
    assert line["kind"] == "<class 'int'>"
    assert (line["share"], line["none"]) == (0.5, None)


def test_long_and_deep_values_are_cut(stream: io.StringIO) -> None:
    configure_logging("json", "info", stream)
    deep: list[object] = []
    deep.append(deep)

    log.info("step.done", extra={"text": "x" * 100_000, "deep": deep})

    assert len(stream.getvalue()) < 5_000


@pytest.mark.parametrize("format", ["json", "console"])
def test_line_breaks_in_an_event_do_not_forge_another_one(
    format: LogFormat, stream: io.StringIO
) -> None:
    configure_logging(format, "info", stream)

    log.info("step.done\n00:00 ERROR forged", extra={"text": "a\nb"})

    assert len(stream.getvalue().splitlines()) == 1


def test_less_severe_events_are_left_out(stream: io.StringIO) -> None:
    configure_logging("json", "warning", stream)

    log.info("step.done")

    assert stream.getvalue() == ""


def test_console_line_reads_as_key_and_value(stream: io.StringIO) -> None:
    configure_logging("console", "info", stream)

    log.warning("session.lost", extra={"queue": "orders", "why": "lock expired", "held_ms": 5})

    time, rest = stream.getvalue().rstrip().split(" ", 1)
    assert len(time) == len("12:00:00.123Z")
    assert rest == 'WARNING session.lost queue=orders why="lock expired" held_ms=5'


def test_console_shows_the_traceback_below(stream: io.StringIO) -> None:
    configure_logging("console", "info", stream)

    log.info("step.failed", exc_info=LookupError("gone"))

    assert stream.getvalue().splitlines()[1:] == ["LookupError: gone"]


def test_configuring_again_replaces_what_was_before(stream: io.StringIO) -> None:
    configure_logging("json", "info", io.StringIO())
    configure_logging("json", "info", stream)

    log.info("step.done")

    assert logged(stream)["event"] == "step.done"
