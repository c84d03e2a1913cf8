"""`lockstep sessions state`: read, write, clear and purge what the holders of a session leave to each other.

Here belong states. Never here: messages. The laws: the state of one session is read and written under its lock only
(SES-40), which is given back at once; a purge takes states of sessions only that nobody holds and that have nothing
else (SES-44).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from lockstep import AdministrationClient, QueueReceiver, SessionFilter, SessionProperties
from lockstep.cli.context import CommandLine, command_line
from lockstep.cli.exits import CommandFailed, ExitCode, Failure
from lockstep.cli.help import Command, Group
from lockstep.cli.options import QueueName, duration, wrong_usage
from lockstep.cli.session_looks import now
from lockstep.cli.values import body_to_json, body_to_text, format_size
from lockstep.core.wording import counted

app = typer.Typer(
    cls=Group,
    help="Read, write and clear the state of a session, under its lock; purge those that nobody uses.",
)

_GET = """
Examples:
  lockstep sessions state get orders A
  lockstep sessions state get orders A --raw > state.bin
  lockstep sessions state get orders A --json | jq .version
"""
_SET = """
Examples:
  lockstep sessions state set orders A 'step 3 is done'
  lockstep sessions state set orders A --file state.bin
  lockstep sessions state set orders A --if-version 0 'begun'
"""
_CLEAR = """
Examples:
  lockstep sessions state clear orders A
  lockstep sessions state clear orders A --if-version 7
"""
_PURGE = """
Examples:
  lockstep sessions state purge orders --idle-for 7d
  lockstep sessions state purge orders --yes
  lockstep sessions state purge orders --session A
"""
_HOLDER_NAME = "lockstep sessions state"
_COUNTED_MAX = 1000

SessionId = Annotated[
    str, typer.Argument(metavar="SESSION", help="The id of the session.", show_default=False)
]
IfVersion = Annotated[
    int | None,
    typer.Option(
        "--if-version",
        min=0,
        metavar="N",
        help="Only if this is the version of the state; 0 = it was never set.",
    ),
]


@app.command("get", cls=Command, epilog=_GET)
def get(
    ctx: typer.Context,
    queue: QueueName,
    session: SessionId,
    *,
    is_raw: Annotated[
        bool, typer.Option("--raw", help="Print the bytes as they are, without a newline.")
    ] = False,
) -> None:
    """Print the state of a session; one that is not UTF-8 text as base64, after that word.

    A session without a state prints nothing. The command holds the session while it reads, and so
    fails with exit code 4 while somebody else does; `lockstep sessions show` tells the size and the
    version of a state at any time.
    """
    line = command_line(ctx)
    if is_raw and line.output.is_json:
        raise wrong_usage(ctx, "Choose one of --raw and --json.")
    with _holding(line, queue, session) as receiver:
        state, version = receiver.session.state, receiver.session.state_version
    if line.output.is_json:
        found = {f"state{name.removeprefix('body')}": v for name, v in body_to_json(state).items()}
        line.output.data({"session_id": session, **found, "version": version})
    elif state is None:
        line.output.note(f"Session {session!r} of {queue} has no state.")
    elif is_raw:
        line.output.raw(state)
    else:
        line.output.say(body_to_text(state))
        line.output.note(f"Version {version}.")


@app.command("set", cls=Command, epilog=_SET)
def set_(
    ctx: typer.Context,
    queue: QueueName,
    session: SessionId,
    value: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT]", help="The state; or give --file.", show_default=False),
    ] = None,
    *,
    file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Read the state from this file; - is standard input."),
    ] = None,
    if_version: IfVersion = None,
) -> None:
    """Store a state for the next holder of a session, and print its version.

    The session needs no messages. With --if-version a state that somebody wrote in the meantime is
    left as it is, and exit code 4 says so. An empty text is a state; to have none, use clear.
    """
    if (value is None) == (file is None):
        raise wrong_usage(ctx, "Give the state as TEXT or with --file.")
    state = _read(file) if file is not None else os.fsencode(value or "")
    _store(command_line(ctx), queue, session, state, if_version)


@app.command("clear", cls=Command, epilog=_CLEAR)
def clear(
    ctx: typer.Context, queue: QueueName, session: SessionId, *, if_version: IfVersion = None
) -> None:
    """Remove the state of a session; it no longer counts toward the size of the queue.

    That nobody has set it since is sure with --if-version. Clearing counts as a version.
    """
    _store(command_line(ctx), queue, session, None, if_version)


@app.command("purge", cls=Command, epilog=_PURGE)
def purge(
    ctx: typer.Context,
    queue: QueueName,
    *,
    idle_for: Annotated[
        timedelta | None,
        typer.Option(
            "--idle-for",
            parser=duration,
            metavar="DURATION",
            help="Only where nothing happened for so long: 12h, 7d.",
        ),
    ] = None,
    session_id: Annotated[
        str | None,
        typer.Option("--session", metavar="ID", help="This session, whatever messages it has."),
    ] = None,
    is_sure: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask; needed where nobody can be asked.")
    ] = False,
) -> None:
    """Clear the states of all sessions that have a state and nothing else.

    Such states count toward the size of the queue for ever, unless it forgets them by itself
    (`lockstep queue update --state-idle-ttl`). Sessions with messages, also scheduled or deferred ones,
    and sessions that somebody holds keep theirs. One that is named with --session loses its state
    whatever messages it has, unless somebody holds it. No lock is taken.
    """
    if session_id is not None and idle_for is not None:
        raise wrong_usage(ctx, "--idle-for is for all sessions; leave it out with --session.")
    line = command_line(ctx)
    with line.connect() as client, client.get_administration_client() as administration:
        if not is_sure and session_id is None:
            _ask(line, queue, _states_text(administration, queue, idle_for))
        cleared = administration.clear_session_states(queue, session_id, idle_for=idle_for)
    if line.output.is_json:
        line.output.data({"queue": queue, "cleared_states": cleared})
        return
    line.output.say(f"Cleared {counted(cleared, 'state')} of {queue}.")


def _states_text(
    administration: AdministrationClient, queue: str, idle_for: timedelta | None
) -> str:
    """Say how many states a purge would take now, as far as they are counted."""
    before = None if idle_for is None else now() - idle_for
    listing = administration.list_sessions(queue, filter=SessionFilter.STATE_ONLY)
    found = sum(
        1 for session in islice(listing, _COUNTED_MAX + 1) if _was_idle_since(session, before)
    )
    if found > _COUNTED_MAX:
        return f"more than {_COUNTED_MAX:,} states"
    return counted(found, "state")


def _was_idle_since(session: SessionProperties, before: datetime | None) -> bool:
    used = [t for t in (session.state_updated_at_utc, session.released_at_utc) if t is not None]
    return before is None or all(moment <= before for moment in used)


def _ask(line: CommandLine, queue: str, states: str) -> None:
    """Ask a person whether the states should go.

    Raises:
        CommandFailed: There is nobody to ask, or the answer was no.
    """
    if line.output.is_json or not sys.stdin.isatty():
        message = (
            f"This clears {states} of {queue} for good; nothing was cleared. Confirm with --yes."
        )
        raise CommandFailed(Failure("NOT_CONFIRMED", message, ExitCode.USAGE))
    if not typer.confirm(f"Clear {states} of {queue} for good?", err=True):
        raise CommandFailed(Failure("NOT_CONFIRMED", "Nothing was cleared.", ExitCode.FAILED))


def _store(
    line: CommandLine, queue: str, session: str, state: bytes | None, if_version: int | None
) -> None:
    """Write a state, or none, and say which version it is."""
    with _holding(line, queue, session) as receiver:
        version = receiver.session.set_state(state, if_version=if_version)
    if line.output.is_json:
        size = None if state is None else len(state)
        line.output.data({"session_id": session, "state_size_in_bytes": size, "version": version})
        return
    what = (
        "Cleared the state" if state is None else f"Stored {format_size(len(state))} as the state"
    )
    line.output.say(f"{what} of session {session!r} of {queue}: version {version}.")


@contextmanager
def _holding(line: CommandLine, queue: str, session: str) -> Iterator[QueueReceiver]:
    """Hold a session for the time of the block."""
    with (
        line.connect() as client,
        client.get_queue_receiver(
            queue, session_id=session, client_identifier=_HOLDER_NAME
        ) as receiver,
    ):
        yield receiver


def _read(file: str) -> bytes:
    """Return what a file holds.

    Raises:
        CommandFailed: It cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        message = f"The file {file} cannot be read: {error.strerror}."
        raise CommandFailed(Failure("BAD_INPUT", message, ExitCode.USAGE)) from error
