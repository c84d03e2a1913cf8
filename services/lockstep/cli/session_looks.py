"""How sessions look: rows of a table, facts of one, and what they mean for a person.

Here belong the words for a session. Never here: options, or a call to the server. The law: what is the same for all
sessions of a table, because none has any of it, is left out of the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from lockstep import SessionProperties
from lockstep.cli.output import Column
from lockstep.cli.values import format_duration, format_size, format_time, messages_fact
from lockstep.core.wording import counted
from lockstep.runtime.clock import SystemClock

_NOTHING: Final = "-"
_ALWAYS: Final = ("SESSION", "HOLDER", "LOCKED FOR", "MESSAGES", "UNSETTLED", "STATE")
COLUMNS: Final = (
    Column("SESSION"),
    Column("HOLDER"),
    Column("LOCKED FOR", is_number=True),
    Column("RENEWED", is_number=True),
    Column("MESSAGES", is_number=True),
    Column("UNSETTLED", is_number=True),
    Column("OLDEST", is_number=True),
    Column("SET ASIDE", is_number=True),
    Column("DEAD LETTERS", is_number=True),
    Column("STATE", is_number=True),
    Column("LAST LOSS"),
)


def now() -> datetime:
    """Return the time of day."""
    return datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC)


def table(
    sessions: Sequence[SessionProperties], at: datetime
) -> tuple[tuple[Column, ...], list[tuple[str, ...]]]:
    """Return the columns and rows of a table of sessions, without the columns that say nothing."""
    rows = [row(session, at) for session in sessions]
    kept = [
        place
        for place, column in enumerate(COLUMNS)
        if column.heading in _ALWAYS or any(cells[place] != _NOTHING for cells in rows)
    ]
    columns = tuple(COLUMNS[place] for place in kept)
    return columns, [tuple(cells[place] for place in kept) for cells in rows]


def row(session: SessionProperties, at: datetime) -> tuple[str, ...]:
    """Return a session as a row under `COLUMNS`."""
    has_state = session.state_size_in_bytes is not None
    return (
        shown_id(session.session_id),
        holder(session) if is_held(session) else _NOTHING,
        left(session, at),
        str(session.renewal_count) if is_held(session) else _NOTHING,
        str(session.active_message_count),
        str(session.locked_message_count),
        age(session.oldest_deliverable_at_utc, at),
        _set_aside(session),
        str(session.dead_letter_message_count) if session.dead_letter_message_count else _NOTHING,
        format_size(session.state_size_in_bytes or 0) if has_state else _NOTHING,
        _last_loss(session, at),
    )


def facts(queue: str, session: SessionProperties, at: datetime) -> list[tuple[str, str]]:
    """Return what is known of one session, for people; what it has nothing of is left out where nobody misses it."""
    shown = [("Session", f"{shown_id(session.session_id)} of {queue}")]
    if session.locked_until_utc is not None:
        shown.append(("Holder", holder(session)))
        until = f"{format_time(session.locked_until_utc)} (in {left(session, at)})"
        shown.append(("Locked until", until))
    else:
        shown.append(("Holder", "nobody"))
    shown += [
        ("Last grant", _grant_text(session)),
        ("Messages", messages_fact(session.active_message_count, session.locked_message_count)),
    ]
    if session.oldest_deliverable_at_utc is not None:
        shown.append(("Next to deliver", _since(session.oldest_deliverable_at_utc, at)))
    if session.delayed_until_utc is not None:
        until = format_time(session.delayed_until_utc)
        shown.append(("Delayed until", f"{until}, because of an abandon with a delay"))
    for name, count in (
        ("Scheduled", session.scheduled_message_count),
        ("Deferred", session.deferred_message_count),
        ("Dead letters", session.dead_letter_message_count),
    ):
        if count:
            shown.append((name, f"{count:,}"))
    shown.append(("State", _state_text(session)))
    return shown


def meaning(session: SessionProperties, at: datetime) -> str:
    """Say what a session's facts mean for somebody who waits for its messages."""
    if is_held(session):
        who = session.holder_client_id or "A receiver"
        return (
            f"{who} holds the session: nobody else can receive its messages or accept it. Unless the "
            f"lock is renewed, the session is free in {left(session, at)}; messages that were received "
            "and not settled then come again, counted as one delivery more."
        )
    if session.delayed_until_utc is not None:
        return (
            "Nobody holds the session, and its oldest message was abandoned with a delay: nothing is "
            f"delivered before {format_time(session.delayed_until_utc)}."
        )
    if session.active_message_count:
        return (
            "Nobody holds the session: the next receiver that asks gets it, oldest message first."
        )
    if session.scheduled_message_count or session.deferred_message_count:
        return (
            "Nobody holds the session and no message can be delivered now: scheduled ones wait for "
            "their time, deferred ones for somebody who asks for their numbers."
        )
    if session.state_size_in_bytes is not None:
        return (
            "Nobody holds the session and it has no messages, only a state: it is not offered to "
            "receivers that take any session, and its state counts toward the size of the queue."
        )
    return "The session is empty and nobody holds it: it begins when a message with its id is sent."


def is_held(session: SessionProperties) -> bool:
    """Return whether somebody holds the session."""
    return session.locked_until_utc is not None


def shown_id(session_id: str) -> str:
    """Return a session id for people; an empty one, which is an id like any other, is shown in quotes."""
    return session_id or '""'


def holder(session: SessionProperties) -> str:
    """Return who holds a session, as it named itself, and from where."""
    name = session.holder_client_id or "(unnamed)"
    return f"{name} at {address(session)}" if session.holder_address else name


def address(session: SessionProperties) -> str:
    """Return where the holder calls from, without what gRPC writes before an address."""
    found = session.holder_address or ""
    for scheme in ("ipv4:", "ipv6:"):
        found = found.removeprefix(scheme)
    return found.replace("%5B", "[").replace("%5D", "]")


def left(session: SessionProperties, at: datetime) -> str:
    """Return how long the lock still is held, in whole seconds."""
    if session.locked_until_utc is None:
        return _NOTHING
    return in_seconds(session.locked_until_utc - at)


def age(since: datetime | None, at: datetime) -> str:
    """Return how long ago something was, in whole seconds."""
    return _NOTHING if since is None else in_seconds(at - since)


def in_seconds(span: timedelta) -> str:
    """Write a time span in whole seconds; what is over is 0."""
    return format_duration(timedelta(seconds=round(max(span.total_seconds(), 0))))


def _since(moment: datetime, at: datetime) -> str:
    return f"enqueued {format_time(moment)} ({age(moment, at)} ago)"


def _set_aside(session: SessionProperties) -> str:
    """Say what is not delivered now although it is there."""
    parts = []
    if session.delayed_until_utc is not None:
        parts.append("delayed")
    if session.scheduled_message_count:
        parts.append(f"{session.scheduled_message_count:,} scheduled")
    if session.deferred_message_count:
        parts.append(f"{session.deferred_message_count:,} deferred")
    return ", ".join(parts) or _NOTHING


def _last_loss(session: SessionProperties, at: datetime) -> str:
    if session.last_loss_cause is None:
        return _NOTHING
    cause = session.last_loss_cause.replace("_", " ")
    ended = session.released_at_utc
    return cause if ended is None else f"{cause} {age(ended, at)} ago"


def _grant_text(session: SessionProperties) -> str:
    if not session.grant:
        return "none recorded"
    text = f"number {session.grant}"
    if session.granted_at_utc is not None:
        text += f", began {format_time(session.granted_at_utc)}"
    if session.renewal_count:
        text += f", renewed {counted(session.renewal_count, 'time')}"
    if session.last_loss_cause and session.released_at_utc is not None:
        which = "; the one before ended" if is_held(session) else "; ended"
        cause = session.last_loss_cause.replace("_", " ")
        text += f"{which} {format_time(session.released_at_utc)}: {cause}"
    return text


def _state_text(session: SessionProperties) -> str:
    if session.state_size_in_bytes is None:
        return "none"
    text = f"{format_size(session.state_size_in_bytes)}, version {session.state_version}"
    if session.state_updated_at_utc is not None:
        text += f", written {format_time(session.state_updated_at_utc)}"
    return text
