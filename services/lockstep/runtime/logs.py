"""Structured logs: one event, one line.

Here belongs how a record of the standard library's logging becomes a line for machines or for a
person. Never here: which events there are; each is logged where it happens, as
`log.info("session.granted", extra={"queue": …})`. The law: an event never takes more than one line
of JSON, and bytes are never shown, because they could be a message's body.
"""

from __future__ import annotations

import json
import logging
import math
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Final, Literal

LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

# Who did what on dead letters; its lines are written whatever the level of the others is (ADD-11).
AUDIT: Final = "lockstep.audit"

_TEXT_CHARS_MAX = 2_000
_EXCEPTION_CHARS_MAX = 20_000
_DEPTH_MAX = 4
_OURS = frozenset({"time", "level", "event", "logger", "exception"})
# What every record has; whatever else it has came with `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def configure_logging(format: LogFormat, level: LogLevel, stream: IO[str]) -> None:
    """Send every log of the process to `stream`, in place of what was configured before.

    Args:
        format: `json` for machines, `console` for a person.
        level: The least severe events that are logged; those of `AUDIT` are, always.
        stream: Where the lines go, by custom standard error.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if format == "json" else ConsoleFormatter())
    root = logging.getLogger()
    for previous in root.handlers[:]:
        root.removeHandler(previous)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.getLogger(AUDIT).setLevel(logging.INFO)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, event, logger, then the keys of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, object] = {
            "time": _time_text(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        for key, value in _extra(record).items():
            line[f"{key}_" if key in _OURS else key] = _plain(value)
        if exception := _exception_text(record):
            line["exception"] = exception
        return json.dumps(line, ensure_ascii=False)


class ConsoleFormatter(logging.Formatter):
    """Time, level, event and `key=value` on one line for a person; a traceback follows on its own lines.

    A line of `AUDIT` says so before its event.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line or lines, without the last end."""
        time = _time_text(record.created)[11:]
        words = [time, f"{record.levelname:7}", _one_line(record.getMessage())]
        if record.name == AUDIT:
            words.insert(2, AUDIT)
        words += [f"{key}={_word(value)}" for key, value in _extra(record).items()]
        line = " ".join(words)
        exception = _exception_text(record)
        return f"{line}\n{exception}" if exception else line


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _time_text(created_s: float) -> str:
    """Return UTC with milliseconds, as `2024-05-01T12:00:00.123Z`."""
    text = datetime.fromtimestamp(created_s, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _exception_text(record: logging.LogRecord) -> str:
    """Return the traceback of a record, cut in the middle if it is very long; "" = it has none."""
    if record.exc_info and record.exc_info[1] is not None:
        text = "".join(traceback.format_exception(record.exc_info[1])).rstrip()
    else:
        text = record.exc_text or ""
    if len(text) > _EXCEPTION_CHARS_MAX:
        half = _EXCEPTION_CHARS_MAX // 2
        text = f"{text[:half]}\n…\n{text[-half:]}"
    return text


def _plain(value: object, depth: int = 0) -> object:
    """Return what JSON can say: numbers and short texts as they are, bytes by their number alone."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping) and depth < _DEPTH_MAX:
        return {str(key): _plain(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth < _DEPTH_MAX:
        return [_plain(one, depth + 1) for one in value]
    text = str(value)
    return text if len(text) <= _TEXT_CHARS_MAX else f"{text[:_TEXT_CHARS_MAX]}…"


def _word(value: object) -> str:
    """Return a value as one word: quoted if it has blanks, quotes, or anything that is not printable."""
    plain = _plain(value)
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    is_word = text.isprintable() and not any(one in text for one in ' "=')
    return text if is_word or not isinstance(plain, str) else json.dumps(text)


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]
