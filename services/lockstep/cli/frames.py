"""What `lockstep top` shows: one look at some queues, and what two looks say together.

Here belong the values, the rates and the tables. Never here: looking, waiting, a terminal. The law: a rate is shown
only where the figures of both looks allow it; what is not known is a dash, never a zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from lockstep import QueueRuntimeProperties, SessionProperties
from lockstep.cli import session_looks
from lockstep.cli.output import Column, Part
from lockstep.cli.values import described, format_time
from lockstep.core.wording import counted

_NOT_KNOWN: Final = "-"


@dataclass(frozen=True, slots=True)
class QueueLook:
    """What was seen of one queue.

    Attributes:
        runtime: What it holds.
        has_sessions: Whether it is a session queue.
        waiting: How many receivers wait for something to come; None = not told.
        sessions: The oldest sessions, the oldest first.
        is_cut: Whether the queue has more sessions than were looked at.
        stored: How many messages it ever stored; None = not known.
    """

    runtime: QueueRuntimeProperties
    has_sessions: bool
    waiting: int | None = None
    sessions: Sequence[SessionProperties] = ()
    is_cut: bool = False
    stored: int | None = None

    @property
    def ready(self) -> int:
        """Messages that a receiver could get, now or behind others of their session."""
        seen = self.runtime
        return max(
            0,
            seen.active_message_count
            - seen.locked_message_count
            - seen.delayed_message_count
            - seen.deferred_message_count,
        )

    @property
    def receivers(self) -> int | None:
        """Receivers that hold a session of it, or wait; None = not told."""
        return None if self.waiting is None else self.waiting + self.runtime.locked_session_count

    @property
    def kept(self) -> int:
        """Messages that have not left: all but dead letters."""
        return self.runtime.total_message_count - self.runtime.dead_letter_message_count


@dataclass(frozen=True, slots=True)
class Look:
    """One look at some queues.

    Attributes:
        at: When, by the time of day.
        at_ms: When, by a clock that never goes back.
        queues: What was seen, by the names of the queues.
        is_counted: Whether the numbers of stored messages were looked at.
        left_out: Queues that were not looked at, because there are too many.
    """

    at: datetime
    at_ms: int
    queues: Mapping[str, QueueLook] = field(default_factory=dict)
    is_counted: bool = False
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Rates:
    """Messages per second between two looks; None = not known.

    Attributes:
        stored: Sent, forwarded or resubmitted into the queue.
        left: Completed, received for good, expired or dead-lettered: whatever is in the queue no more.
        change: What the first is more than the second.
    """

    stored: float | None = None
    left: float | None = None
    change: float | None = None


def rates(name: str, look: Look, before: Look | None) -> Rates:
    """Return how fast messages came to a queue and left it between two looks."""
    seen = look.queues[name]
    earlier = before.queues.get(name) if before is not None else None
    if before is None or earlier is None or look.at_ms <= before.at_ms:
        return Rates()
    seconds = (look.at_ms - before.at_ms) / 1000
    grown = seen.kept - earlier.kept
    change = grown / seconds
    if seen.stored is None or earlier.stored is None or seen.stored < earlier.stored:
        return Rates(change=change)  # a restarted server counts from 0
    came = seen.stored - earlier.stored
    # The counter and the counts are read one after the other, so a little may seem to have left before it came.
    return Rates(came / seconds, max(0, came - grown) / seconds, change)


def frame_json(look: Look, before: Look | None) -> dict[str, Any]:
    """Return a frame for programs: the names of the client, and what follows from them."""
    queues = []
    for name, seen in look.queues.items():
        found = rates(name, look, before)
        queues.append(
            {
                **described(seen.runtime),
                "ready_message_count": seen.ready,
                "waiting_receiver_count": seen.waiting,
                "receiver_count": seen.receivers,
                "in_per_second": _rounded(found.stored),
                "out_per_second": _rounded(found.left),
                "change_per_second": _rounded(found.change),
                "oldest_sessions": [described(session) for session in seen.sessions],
            }
        )
    return {"time": format_time(look.at), "queues": queues, "queues_left_out": look.left_out}


def frame_parts(look: Look, before: Look | None, *, server: str, notice: str = "") -> list[Part]:
    """Return a frame for people: a headline, the queues, and the oldest sessions of each."""
    headline = f"{server}  {format_time(look.at)}  {counted(len(look.queues), 'queue')}"
    if look.left_out:
        headline += f", {look.left_out:,} more not shown: name those that matter"
    parts = [Part(headline)]
    if notice:
        parts.append(Part(notice))
    if look.queues:
        rows = [_queue_row(name, look, before) for name in look.queues]
        parts.append(Part("", _queue_columns(is_counted=look.is_counted), rows))
    parts += _session_parts(look)
    return parts


def _session_parts(look: Look) -> Iterator[Part]:
    for name, seen in look.queues.items():
        if seen.sessions:
            of_which = " of those that were looked at" if seen.is_cut else ""
            yield Part(
                f"Oldest sessions of {name}{of_which}", *session_looks.table(seen.sessions, look.at)
            )


def _queue_columns(*, is_counted: bool) -> tuple[Column, ...]:
    numbers = ["READY", "LOCKED", "DELAYED", "SCHEDULED", "DEFERRED", "DEAD LETTERS"]
    numbers += ["IN/S", "OUT/S"] if is_counted else ["CHANGE/S"]
    numbers += ["RECEIVERS", "SESSIONS", "HELD"]
    return (Column("QUEUE"), *(Column(name, is_number=True) for name in numbers))


def _queue_row(name: str, look: Look, before: Look | None) -> tuple[str, ...]:
    seen = look.queues[name]
    runtime, found = seen.runtime, rates(name, look, before)
    counts = (
        seen.ready,
        runtime.locked_message_count,
        runtime.delayed_message_count,
        runtime.scheduled_message_count,
        runtime.deferred_message_count,
        runtime.dead_letter_message_count,
    )
    if look.is_counted:
        speeds = [_rate_text(found.stored), _rate_text(found.left)]
    else:
        speeds = [_NOT_KNOWN if found.change is None else f"{found.change:+,.1f}"]
    sessions = (runtime.session_count, runtime.locked_session_count) if seen.has_sessions else ()
    return (
        runtime.name,
        *(f"{count:,}" for count in counts),
        *speeds,
        _NOT_KNOWN if seen.receivers is None else f"{seen.receivers:,}",
        *((f"{count:,}" for count in sessions) if sessions else (_NOT_KNOWN, _NOT_KNOWN)),
    )


def _rate_text(rate: float | None) -> str:
    return _NOT_KNOWN if rate is None else f"{rate:,.1f}"


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 3)
