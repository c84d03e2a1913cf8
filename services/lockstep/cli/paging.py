"""The way through the messages of a queue, for the commands that only look.

Here belong the options of where a look begins, and the calls from there on. Never here: how a message looks
(`messages`). The law: the receiver's own cursor goes on, so that messages of several partitions are neither skipped nor
shown twice (ADD-1).
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import typer

from lockstep import QueueReceiver
from lockstep.cli.messages import Printer
from lockstep.cli.options import wrong_usage
from lockstep.core.wording import counted

_CALL_MESSAGES_MAX = 250

From = Annotated[
    int | None,
    typer.Option("--from", min=1, metavar="NUMBER", help="Only from this sequence number on."),
]
Cursor = Annotated[
    str | None,
    typer.Option("--cursor", metavar="CURSOR", help="Go on where an earlier look ended."),
]


class Look(NamedTuple):
    """What to look at, from where on, and how far."""

    messages_max: int
    first: int | None = None
    cursor: str | None = None
    session_id: str | None = None
    reason: str | None = None


def check_begin(ctx: typer.Context, first: int | None, cursor: str | None) -> None:
    """Refuse two places to begin at."""
    if first is not None and cursor is not None:
        raise wrong_usage(ctx, "Give --from or --cursor; a look begins at one place.")


def print_all(receiver: QueueReceiver, printer: Printer, look: Look) -> None:
    """Print up to so many messages."""
    first, cursor = look.first, look.cursor
    while printer.count < look.messages_max:
        messages = receiver.peek_messages(
            min(look.messages_max - printer.count, _CALL_MESSAGES_MAX),
            sequence_number=first,
            cursor=cursor,
            session_id=look.session_id,
            dead_letter_reason=look.reason,
        )
        if not messages:
            break
        printer.print(messages)
        first = cursor = None  # from where the look ended


def rest_of(receiver: QueueReceiver, count: int, what: str, look: Look) -> str:
    """Return a sentence that says how many were shown, and how to see the rest."""
    shown, cursor = f"{counted(count, what)} shown", receiver.peek_cursor
    if receiver.peek_messages(1, session_id=look.session_id, dead_letter_reason=look.reason):
        return f"{shown}. There are more: --cursor {cursor} goes on."
    return f"{shown}. There are no more."
