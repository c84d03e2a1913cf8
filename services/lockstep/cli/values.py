"""Values as people type and read them: durations, properties, sizes, text from elsewhere.

Here belong the pure functions between text and values. Never here: input, output, or a call to the
server. The law: what `format_duration` writes, `parse_duration` reads back.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from lockstep.core.limits import duration_text

if TYPE_CHECKING:
    from lockstep import PropertyValue


_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PARTS = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = re.compile(r"\d+(?:\.\d+)?")
_RANGE = re.compile(r"(?P<first>\d+)(?:-(?P<last>\d+))?", re.ASCII)
_NUMBERS_MAX = 65_536  # what an installation may allow at most in one call
_ISO_8601 = re.compile(
    r"P(?=.)(?:(?P<days>\d+)D)?"
    r"(?:T(?=.)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?"
)


def parse_duration(text: str) -> timedelta:
    """Read a duration: `60s`, `5m`, `1h30m`, `500ms`, `2d`, ISO 8601 as `PT1M30S`, or plain seconds.

    Raises:
        ValueError: The text is none of these; the message says what would be.
    """
    text = text.strip()
    try:
        if _SECONDS.fullmatch(text):
            return timedelta(seconds=float(text))
        if _PARTS.fullmatch(text.lower()):
            parts = _PART.findall(text.lower())
            return timedelta(milliseconds=sum(float(n) * _UNIT_MS[unit] for n, unit in parts))
        if iso := _ISO_8601.fullmatch(text.upper()):
            return timedelta(**{unit: float(n) for unit, n in iso.groupdict().items() if n})
    except OverflowError:
        raise ValueError(f"{text!r} is too long for a duration.") from None
    raise ValueError(
        f"{text!r} is not a duration; write 60s, 5m, 1h30m, 500ms, or ISO 8601 as PT1M30S."
    )


def format_duration(duration: timedelta) -> str:
    """Write a duration in the largest units that fit: `1m30s`, `5s`, `250ms`; rounded to milliseconds."""
    return duration_text(round(duration / timedelta(milliseconds=1)))


def format_size(size_bytes: int) -> str:
    """Write a number of bytes for people: `512 B`, `1.5 KiB`, `20.0 MiB`."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def messages_fact(active: int, unsettled: int) -> str:
    """Write how many messages there are, and how many of them somebody works on."""
    return f"{active:,}, {unsettled:,} of them received and not settled" if active else "0"


def described(properties: Any) -> dict[str, Any]:
    """Return properties of the client for programs: its names, durations in seconds, times in UTC.

    Args:
        properties: An instance of one of the client's dataclasses.
    """
    return {one.name: _for_programs(getattr(properties, one.name)) for one in fields(properties)}


def _for_programs(value: object) -> object:
    match value:
        case timedelta():
            return value.total_seconds()
        case datetime():
            return format_time(value)
        case Enum():
            return value.value
        case _:
            return described(value) if is_dataclass(value) else value


def parse_time(text: str) -> datetime:
    """Read a moment in ISO 8601 with its zone: `2026-01-31T12:00:00Z`, `2026-01-31T13:00+01:00`.

    Raises:
        ValueError: It is none, or it has no zone.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is not a time; write 2026-01-31T12:00:00Z.") from None
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no zone; write 2026-01-31T12:00:00Z.")
    return moment


def parse_numbers(texts: Iterable[str]) -> list[int]:
    """Read sequence numbers: `5`, `5-7`, `5,8-9`, in any number of texts.

    Raises:
        ValueError: A text is none of these, or there are too many.
    """
    numbers: list[int] = []
    for text in texts:
        for part in text.split(","):
            match = _RANGE.fullmatch(part.strip())
            if match is None:
                raise ValueError(f"{part!r} is not a sequence number; write 5, 5-7 or 5,8-9.")
            first = int(match["first"])
            last = int(match["last"] or first)
            if not 1 <= first <= last:
                raise ValueError(f"{part!r} is not a range of sequence numbers, lowest first.")
            if last - first + len(numbers) >= _NUMBERS_MAX:
                raise ValueError(f"{text!r} makes more than {_NUMBERS_MAX:,} sequence numbers.")
            numbers.extend(range(first, last + 1))
    return numbers


def format_numbers(numbers: Iterable[int]) -> str:
    """Write sequence numbers, rising, as `parse_numbers` reads them: `5-7,9`."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def format_time(moment: datetime) -> str:
    """Write a moment in ISO 8601, UTC, to the millisecond: `2026-01-31T12:00:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def json_from_text(text: str | bytes) -> object:
    """Read JSON.

    Raises:
        ValueError: It is none, or lists and objects stand in each other too deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("lists and objects stand in each other too deep") from None


def parse_property(text: str) -> tuple[str, PropertyValue]:
    """Read an application property: `name=text`, or `name:=value` with a value in JSON.

    Raises:
        ValueError: There is no `=`, no name, or the JSON is no value of a property.
    """
    name, separator, value = text.partition("=")
    if not separator or not name.rstrip(":"):
        raise ValueError(f"{text!r} is not a property; write name=text or name:=5.")
    if not name.endswith(":"):
        return name, value
    name = name[:-1]
    try:
        return name, property_from_json(json_from_text(value))
    except ValueError as error:
        raise ValueError(f"The value of the property {name!r} cannot be read: {error}") from None


def property_from_json(value: object) -> PropertyValue:
    """Return the property that a JSON value means; the reverse of `property_to_json`.

    Raises:
        ValueError: The value is null, a list, or an object of another kind.
    """
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((kind, text),) = value.items()
        if isinstance(text, str):
            match kind:
                case "$bytes":
                    return bytes_from_base64(text)
                case "$time":
                    return parse_time(text)
                case "$uuid":
                    return UUID(text)
    raise ValueError(
        "a property is true, false, a number, a text, or an object with one of $bytes, $time, $uuid, "
        f"not {json.dumps(value)}"
    )


def property_to_json(value: object) -> object:
    """Return the JSON value of a property; what JSON lacks becomes `{"$bytes": …}`, `$time` or `$uuid`."""
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, datetime):
        return {"$time": format_time(value)}
    if isinstance(value, UUID):
        return {"$uuid": str(value)}
    return value


def bytes_from_base64(text: str) -> bytes:
    """Read base64.

    Raises:
        ValueError: The text is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None


def body_to_json(body: bytes | None) -> Mapping[str, str | None]:
    """Return the JSON members of a body: `body` when it is UTF-8 text, else `body_base64`."""
    if body is None:
        return {"body": None}
    try:
        return {"body": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode("ascii")}


def body_to_text(body: bytes | None) -> str:
    """Return a body for people; one that is not UTF-8 text is shown as base64, after that word."""
    members = body_to_json(body)
    if "body_base64" in members:
        return f"base64: {members['body_base64']}"
    return members["body"] if members["body"] is not None else "(no body)"


def printable(text: str) -> str:
    r"""Return text that is safe on a terminal: control characters except tab and newline as `\x1b`.

    What a sender wrote must not move the reader's cursor or change their window.
    """
    return "".join(c if _is_printable(c) else f"\\x{ord(c):02x}" for c in text)


def _is_printable(character: str) -> bool:
    return character in "\t\n" or not (ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0)
