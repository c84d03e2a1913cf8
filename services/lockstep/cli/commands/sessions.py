"""`lockstep sessions`: who holds which session, until when, and what waits in it.

Here belongs how a session looks, and what that means for a person, and how its lock is broken. Never here: taking a
lock. The law: looking changes nothing (SES-53).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from lockstep import SessionProperties
from lockstep.cli.context import command_line
from lockstep.cli.help import Command, Group
from lockstep.cli.options import QueueName
from lockstep.cli.output import Column
from lockstep.cli.values import (
    counted,
    described,
    format_duration,
    format_size,
    format_time,
    messages_fact,
)
from lockstep.runtime.clock import SystemClock

app = typer.Typer(
    cls=Group,
    help="Show the sessions of a queue: holders, locks, messages, states; break a lock; read and write a state.",
)

_LIST = """
Examples:
  lockstep sessions list orders
  lockstep sessions list orders --held
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
Held = Annotated[
    bool | None,
    typer.Option("--held/--free", help="Only sessions that somebody, or that nobody, holds."),
]


@app.command("list", cls=Command, epilog=_LIST)
def list_(ctx: typer.Context, queue: QueueName, *, held: Held = None) -> None:
    """List the sessions of a queue that have messages or a state, or are held.

    Each line shows who holds the session and for how much longer, how many messages it has, how many
    of them the holder received and has not settled, and how large the stored state is. Listing locks
    nothing and disturbs nobody.
    """
    line = command_line(ctx)
    with line.connect() as client, client.get_administration_client() as administration:
        found = [
            session
            for session in administration.list_sessions(queue)
            if held is None or is_held(session) == held
        ]
    if line.output.is_json:
        line.output.data([described(session) for session in found])
        return
    if not found:
        kind = {
            None: "messages, a state or a holder",
            True: "a holder",
            False: "messages or a state",
        }
        line.output.note(f"{queue} has no sessions with {kind[held]}.")
        return
    now = _now()
    line.output.table(
        (
            Column("SESSION"),
            Column("HOLDER"),
            Column("LOCKED FOR", is_number=True),
            Column("MESSAGES", is_number=True),
            Column("UNSETTLED", is_number=True),
            Column("STATE", is_number=True),
        ),
        (
            (
                shown_id(session.session_id),
                (session.holder_client_id or "(unnamed)") if is_held(session) else "-",
                _left(session, now),
                str(session.active_message_count),
                str(session.locked_message_count),
                "-"
                if session.state_size_in_bytes is None
                else format_size(session.state_size_in_bytes),
            )
            for session in found
        ),
    )
    line.output.note(f"{counted(len(found), 'session')}, {sum(map(is_held, found))} held.")


@app.command("show", cls=Command, epilog=_SHOW)
def show(ctx: typer.Context, queue: QueueName, session: SessionId) -> None:
    """Show one session: its holder, its lock, its messages and its state, and what that means.

    A session needs no creation: one that was never used is shown as empty. A held session is received
    by its holder alone; it is free again when the holder gives it back, or when the lock runs out.
    """
    line = command_line(ctx)
    with line.connect() as client, client.get_administration_client() as administration:
        found = administration.get_session(queue, session)
    if line.output.is_json:
        line.output.data(described(found))
        return
    now = _now()
    facts = [("Session", f"{shown_id(found.session_id)} of {queue}")]
    if found.locked_until_utc is not None:
        facts.append(("Holder", found.holder_client_id or "(it gave no name)"))
        facts.append(
            ("Locked until", f"{format_time(found.locked_until_utc)} (in {_left(found, now)})")
        )
    else:
        facts.append(("Holder", "nobody"))
    facts.append(("Last grant", f"number {found.grant}" if found.grant else "none recorded"))
    facts.append(
        ("Messages", messages_fact(found.active_message_count, found.locked_message_count))
    )
    state = "none"
    if found.state_size_in_bytes is not None:
        state = f"{format_size(found.state_size_in_bytes)}, written {counted(found.state_version, 'time')}"
    facts.append(("State", state))
    line.output.facts(facts)
    line.output.say("")
    line.output.say(meaning(found, now))


def meaning(session: SessionProperties, now: datetime) -> str:
    """Say what a session's facts mean for somebody who waits for its messages."""
    if is_held(session):
        who = session.holder_client_id or "A receiver"
        return (
            f"{who} holds the session: nobody else can receive its messages or accept it. Unless the "
            f"lock is renewed, the session is free in {_left(session, now)}; messages that were received "
            "and not settled then come again, counted as one delivery more."
        )
    if session.active_message_count:
        return (
            "Nobody holds the session: the next receiver that asks gets it, oldest message first."
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


def _left(session: SessionProperties, now: datetime) -> str:
    """Return how long the lock still is held, in whole seconds."""
    if session.locked_until_utc is None:
        return "-"
    left = max(session.locked_until_utc - now, timedelta(0))
    return format_duration(timedelta(seconds=round(left.total_seconds())))


def _now() -> datetime:
    return datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC)


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
