"""Where the messages of `lockstep send` come from: arguments, lines, JSON lines, a whole file.

Here belong reading and batching. Never here: sending. The law: a source is read as it is sent, so
its size does not matter, and a message that cannot be read names its line.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from lockstep.cli.exits import CommandFailed, ExitCode, Failure
from lockstep.cli.values import (
    bytes_from_base64,
    json_from_text,
    parse_duration,
    parse_time,
    property_from_json,
)

Fields = dict[str, Any]
"""The arguments of one `lockstep.Message`, by name."""

_TEXT_FIELDS = (
    "message_id",
    "session_id",
    "correlation_id",
    "subject",
    "to",
    "reply_to",
    "reply_to_session_id",
    "content_type",
    "partition_key",
)
_TIME_FIELDS = ("time_to_live", "scheduled_enqueue_time_utc")
# What `lockstep receive` and `lockstep peek` print as JSON and the broker sets anew: skipped, so that these lines can
# be sent.
_BROKER_FIELDS = frozenset(
    {
        "sequence_number",
        "delivery_count",
        "enqueued_time_utc",
        "locked_until_utc",
        "expires_at_utc",
        "state",
        "dead_letter_reason",
        "dead_letter_error_description",
    }
)
_BATCH_BYTES_MAX = 1024 * 1024


class BadInput(Exception):
    """The input cannot be read any further. Mend the line that the message names."""


class Layout(StrEnum):
    """How a file or standard input is cut into messages."""

    LINES = "lines"
    JSON_LINES = "jsonl"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Source:
    """Where messages come from.

    Attributes:
        bodies: The bodies on the command line; none means a file or standard input.
        path: The file; None = standard input.
        layout: How the file or standard input is cut into messages.
        count: How often the bodies of the command line are sent; None = once, as they are.
    """

    bodies: tuple[str, ...]
    path: Path | None
    layout: Layout
    count: int | None

    def is_single(self) -> bool:
        """Return whether there can be one message only."""
        if self.bodies:
            return len(self.bodies) * (self.count or 1) == 1
        return self.layout is Layout.WHOLE

    def is_terminal(self) -> bool:
        """Return whether a person will type the messages."""
        return not self.bodies and self.path is None and sys.stdin.isatty()

    def total(self, skip: int) -> int | None:
        """Return how many messages there are after the first `skip`; None = only the end will tell."""
        if self.bodies:
            count = len(self.bodies) * (self.count or 1)
        elif self.layout is Layout.WHOLE:
            count = 1
        elif self.path is not None and self.path.is_file():
            with _open(self.path) as stream:
                count = sum(1 for line in stream if line.strip(b"\r\n"))
        else:
            return None
        return max(count - skip, 0)

    @contextmanager
    def messages(self) -> Iterator[Iterator[Fields]]:
        """Open the source and give its messages, which are read as they are taken.

        Raises:
            CommandFailed: The file cannot be opened.
            BadInput: While they are taken: a line is no message.
        """
        if self.bodies:
            yield from_arguments(self.bodies, count=self.count)
            return
        opened = nullcontext(sys.stdin.buffer) if self.path is None else _open(self.path)
        with opened as stream:
            yield _READERS[self.layout](stream)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        message = f"The file {path} cannot be read: {error.strerror}."
        raise CommandFailed(Failure("BAD_INPUT", message, ExitCode.USAGE)) from error


def from_arguments(bodies: Sequence[str], *, count: int | None) -> Iterator[Fields]:
    """Yield each body once, or all of them `count` times with `{n}` counted from 1."""
    if count is None:
        yield from ({"body": os.fsencode(body)} for body in bodies)
        return
    for number in range(1, count + 1):
        for body in bodies:
            yield {"body": os.fsencode(body.replace("{n}", str(number)))}


def from_lines(stream: BinaryIO) -> Iterator[Fields]:
    """Yield each line, without its end, as a body; empty lines are skipped."""
    for line in stream:
        if body := line.rstrip(b"\r\n"):
            yield {"body": body}


def from_whole(stream: BinaryIO) -> Iterator[Fields]:
    """Yield all of the stream as one body."""
    yield {"body": stream.read()}


def from_json_lines(stream: BinaryIO) -> Iterator[Fields]:
    """Yield the message that each line describes; empty lines are skipped.

    Raises:
        BadInput: A line is no message; the error names its number.
    """
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            yield message_fields(json_from_text(line))
        except ValueError as error:
            raise BadInput(f"Line {number} is not a message: {error}.") from None


_READERS = {
    Layout.LINES: from_lines,
    Layout.JSON_LINES: from_json_lines,
    Layout.WHOLE: from_whole,
}


def message_fields(described: object) -> Fields:
    """Return the message that a JSON object describes.

    Its members are `body` (text, or any other JSON value, which is sent as JSON) or `body_base64`, the
    properties of a message by their names, `application_properties`, `time_to_live` and
    `scheduled_enqueue_time_utc`. What only the broker sets is skipped.

    Raises:
        ValueError: It is not an object, a member is unknown or has a value of the wrong kind.
    """
    if not isinstance(described, dict):
        raise ValueError(  # noqa: TRY004 - the text is wrong, not the program
            'a message is an object like {"body": "text", "session_id": "A"}'
        )
    fields: Fields = {}
    for name, value in described.items():
        if name in _BROKER_FIELDS:
            continue
        if name in ("body", "body_base64"):
            if "body" in fields:
                raise ValueError("body and body_base64 cannot stand together")
            fields.update(_body_fields(name, value, described))
        elif value is not None:
            fields[name] = _field(name, value)
    return fields


def _body_fields(name: str, value: object, described: Mapping[str, object]) -> Fields:
    if value is None:
        return {"body": None}
    if name == "body_base64":
        if not isinstance(value, str):
            raise ValueError("body_base64 must be text")
        return {"body": bytes_from_base64(value)}
    if isinstance(value, str):
        return {"body": value.encode()}
    body: Fields = {"body": json.dumps(value, ensure_ascii=False).encode()}
    if described.get("content_type") is None:
        body["content_type"] = "application/json"
    return body


def _field(name: str, value: object) -> object:
    if name in _TEXT_FIELDS:
        if not isinstance(value, str):
            raise ValueError(f"{name} must be text, not {json.dumps(value)}")
        return value
    if name == "time_to_live":
        return parse_duration(str(value))
    if name == "scheduled_enqueue_time_utc":
        return parse_time(str(value))
    if name == "application_properties":
        if not isinstance(value, dict):
            raise ValueError("application_properties must be an object")
        return {key: property_from_json(one) for key, one in value.items()}
    known = ("body", "body_base64", *_TEXT_FIELDS, *_TIME_FIELDS, "application_properties")
    raise ValueError(f"{name!r} is no member of a message; there are {', '.join(known)}")


def in_batches(messages: Iterable[Fields], *, messages_max: int) -> Iterator[list[Fields]]:
    """Group messages in their order: at most `messages_max`, and about 1 MiB of bodies, in one batch.

    A single larger message travels alone.
    """
    batch: list[Fields] = []
    batch_bytes = 0
    for fields in messages:
        body_bytes = len(fields.get("body") or b"")
        is_full = len(batch) == messages_max or batch_bytes + body_bytes > _BATCH_BYTES_MAX
        if batch and is_full:
            yield batch
            batch, batch_bytes = [], 0
        batch.append(fields)
        batch_bytes += body_bytes
    if batch:
        yield batch
