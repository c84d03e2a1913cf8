"""How messages look: rows of a table for people, lines of JSON for programs.

Here belong the columns and the members. Never here: where messages come from. The law: what is printed as JSON,
`lockstep send --jsonl` takes, and makes of it the message that its first sender sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lockstep import MessageState, ReceivedMessage
from lockstep.cli.output import Column, Output
from lockstep.cli.values import body_to_json, body_to_text, format_time, property_to_json

_BROKER_PROPERTIES = ("DeadLetterReason", "DeadLetterErrorDescription", "DeadLetterSource")
_TEXT_PROPERTIES = (
    "session_id",
    "message_id",
    "correlation_id",
    "subject",
    "to",
    "reply_to",
    "reply_to_session_id",
    "content_type",
    "partition_key",
    "dead_letter_reason",
    "dead_letter_error_description",
)
_SEQUENCE = Column("SEQUENCE", is_number=True)
_SESSION = Column("SESSION")
_STATE = Column("STATE")
_ENQUEUED = Column("ENQUEUED")
_TRIES = Column("TRIES", is_number=True)
_REASON = Column("REASON")
_BODY = Column("BODY")


class Printer:
    """Prints messages as they come, and counts them.

    Attributes:
        count: How many were printed.
    """

    def __init__(
        self, output: Output, *, dead_letter: bool = False, has_states: bool = False
    ) -> None:
        """Print to `output`.

        Args:
            output: Where to.
            dead_letter: The messages are dead letters, so that they have reasons.
            has_states: The messages are only looked at, so that some are not active.
        """
        self._output = output
        self._dead_letter = dead_letter
        self._has_states = has_states
        self.count = 0

    def print(self, messages: Sequence[ReceivedMessage]) -> None:
        """Print and flush, so that the messages may be completed."""
        if self._output.is_json:
            for message in messages:
                state = {"state": message.state.value} if self._has_states else {}
                self._output.data(message_json(message) | state)
        else:
            self._output.table(
                self._columns(),
                map(self._row, messages),
                has_headings=self.count == 0,
            )
        self.count += len(messages)

    def _columns(self) -> list[Column]:
        state = [_STATE] if self._has_states else []
        reason = [_REASON] if self._dead_letter else []
        return [_SEQUENCE, _SESSION, *state, _ENQUEUED, _TRIES, *reason, _BODY]

    def _row(self, message: ReceivedMessage) -> list[str]:
        return [
            str(message.sequence_number),
            message.session_id if message.session_id is not None else "",
            *([_shown_state(message)] if self._has_states else []),
            format_time(message.enqueued_time_utc),
            str(message.delivery_count),
            *([message.dead_letter_reason or ""] if self._dead_letter else []),
            body_to_text(message.body),
        ]


def _shown_state(message: ReceivedMessage) -> str:
    due = message.scheduled_enqueue_time_utc
    if message.state is MessageState.SCHEDULED and due is not None:
        return f"scheduled for {format_time(due)}"
    return message.state.value


def message_json(message: ReceivedMessage) -> dict[str, Any]:
    """Return a message as `lockstep send --jsonl` reads it; what it does not have is left out."""
    described: dict[str, Any] = {
        "sequence_number": message.sequence_number,
        "enqueued_time_utc": format_time(message.enqueued_time_utc),
        "delivery_count": message.delivery_count,
    }
    if message.expires_at_utc is not None:
        described["expires_at_utc"] = format_time(message.expires_at_utc)
    for name in _TEXT_PROPERTIES:
        value = getattr(message, name)
        if value is not None:
            described[name] = value
    if message.time_to_live is not None:
        described["time_to_live"] = message.time_to_live.total_seconds()
    if message.scheduled_enqueue_time_utc is not None:
        described["scheduled_enqueue_time_utc"] = format_time(message.scheduled_enqueue_time_utc)
    properties = {
        name: property_to_json(value)
        for name, value in message.application_properties.items()
        if name not in _BROKER_PROPERTIES
    }
    if properties:
        described["application_properties"] = properties
    described |= body_to_json(message.body)
    return described
