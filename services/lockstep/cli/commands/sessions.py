"""`lockstep sessions`: who holds which session, until when, and what waits in it.

Here belong the listing, the look at one session, and the breaking of its lock. Never here: how a session looks
(`session_looks`), taking a lock. The law: looking changes nothing (SES-53).
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from lockstep import SessionFilter, SessionProperties
from lockstep.cli.context import command_line
from lockstep.cli.help import Command, Group
from lockstep.cli.options import QueueName, moment, wrong_usage
from lockstep.cli.session_looks import facts, is_held, meaning, now, shown_id, table
from lockstep.cli.values import described, format_time
from lockstep.core.wording import counted

app = typer.Typer(
    cls=Group,
    help="Show the sessions of a queue: holders, locks, messages, states; break a lock; read and write a state.",
)

_LIST = """
Examples:
  lockstep sessions list orders
  lockstep sessions list orders --held
  lockstep sessions list orders --filter waiting
  lockstep sessions list orders --state-since 2026-01-31T12:00:00Z
  lockstep sessions list orders --free --json | jq -r '.[].session_id'
"""
_SHOW = """
Examples:
  lockstep sessions show orders A
  lockstep sessions show orders A --json | jq .locked_until_utc
"""

_BREAK = """
Examples:
  lockstep sessions break-lock orders A --by 'ann, ticket 4711'
"""

SessionId = Annotated[
    str, typer.Argument(metavar="SESSION", help="The id of the session.", show_default=False)
]


class Which(StrEnum):
    """Which sessions to list."""

    HELD = "held"
    RUNNABLE = "runnable"
    WAITING = "waiting"
    DEAD_LETTERS = "dead-letters"
    STATE_ONLY = "state-only"


_FILTERS = {
    None: SessionFilter.ALL,
    Which.HELD: SessionFilter.HELD,
    Which.RUNNABLE: SessionFilter.RUNNABLE,
    Which.WAITING: SessionFilter.WAITING,
    Which.DEAD_LETTERS: SessionFilter.WITH_DEAD_LETTERS,
    Which.STATE_ONLY: SessionFilter.STATE_ONLY,
}
_NONE_WITH = {
    None: "messages, a state or a holder",
    Which.HELD: "a holder",
    Which.RUNNABLE: "messages that the next receiver could get",
    Which.WAITING: "nothing but delayed, scheduled or deferred messages",
    Which.DEAD_LETTERS: "dead letters",
    Which.STATE_ONLY: "nothing but a state",
}

Filter = Annotated[
    Which | None,
    typer.Option(
        "--filter",
        metavar="WHICH",
        help="held; runnable: the next receiver can have them; waiting: for a delay, a time or a number;"
        " dead-letters; state-only.",
    ),
]
Held = Annotated[
    bool | None,
    typer.Option("--held/--free", help="Only sessions that somebody, or that nobody, holds."),
]
StateSince = Annotated[
    datetime | None,
    typer.Option(
        "--state-since",
        parser=moment,
        metavar="TIME",
        help="Only sessions whose state was written then or later: 2026-01-31T12:00:00Z.",
    ),
]


@app.command("list", cls=Command, epilog=_LIST)
def list_(
    ctx: typer.Context,
    queue: QueueName,
    *,
    which: Filter = None,
    held: Held = None,
    state_since: StateSince = None,
) -> None:
    """List the sessions of a queue that have messages or a state, or are held.

    Each line shows who holds the session, from where and for how much longer, how often the lock was
    renewed, how many messages it has, how many of them the holder received and has not settled, how
    old the oldest message is that can be delivered, what is set aside (delayed, scheduled, deferred),
    how many dead letters it has, how large the state is, and how the last lock ended. What no session
    has anything of has no column. Listing locks nothing and disturbs nobody.
    """
    if which is not None and held is not None:
        raise wrong_usage(ctx, "Choose one of --filter, --held and --free.")
    which = Which.HELD if held else which
    line = command_line(ctx)
    with line.connect() as client, client.get_administration_client() as administration:
        listing = administration.list_sessions(
            queue, filter=_FILTERS[which], state_updated_since=state_since
        )
        found = [session for session in listing if held is not False or not is_held(session)]
    if line.output.is_json:
        line.output.data([described(session) for session in found])
        return
    if not found:
        kind = "messages or a state" if held is False else _NONE_WITH[which]
        since = (
            "" if state_since is None else f" and a state written since {format_time(state_since)}"
        )
        line.output.note(f"{queue} has no sessions with {kind}{since}.")
        return
    line.output.table(*table(found, now()))
    line.output.note(_summary(found))


def _summary(found: list[SessionProperties]) -> str:
    return f"{counted(len(found), 'session')}, {sum(map(is_held, found))} held."


@app.command("show", cls=Command, epilog=_SHOW)
def show(ctx: typer.Context, queue: QueueName, session: SessionId) -> None:
    """Show one session: its holder, its lock, its messages and its state, and what that means.

    Also how often the lock was renewed, how the last one ended, how long the oldest message waits that
    could be delivered, and what is delayed, scheduled, deferred or a dead letter.

    A session needs no creation: one that was never used is shown as empty. A held session is received
    by its holder alone; it is free again when the holder gives it back, or when the lock runs out.
    """
    line = command_line(ctx)
    with line.connect() as client, client.get_administration_client() as administration:
        found = administration.get_session(queue, session)
    if line.output.is_json:
        line.output.data(described(found))
        return
    at = now()
    line.output.facts(facts(queue, found, at))
    line.output.say("")
    line.output.say(meaning(found, at))


@app.command("break-lock", cls=Command, epilog=_BREAK)
def break_lock(
    ctx: typer.Context,
    queue: QueueName,
    session: SessionId,
    *,
    by: Annotated[
        str,
        typer.Option("--by", metavar="WHO", help="Who breaks it, and why; the holder reads it."),
    ] = "",
) -> None:
    """Take a session from its holder at once.

    Use it when a holder hangs and keeps renewing. No delivery is counted: what it had received and not settled goes
    back to its place, and the next receiver gets it. The holder's next call fails and says who broke the lock.
    """
    line = command_line(ctx)
    with line.connect() as client, client.get_administration_client() as administration:
        was_held = administration.break_session_lock(queue, session, requested_by=by)
    if line.output.is_json:
        line.output.data({"session_id": session, "was_held": was_held})
        return
    what = "is free now" if was_held else "was not held by anybody; nothing was done"
    line.output.note(f"Session {shown_id(session)} of {queue} {what}.")
