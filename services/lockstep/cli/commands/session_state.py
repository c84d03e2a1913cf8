"""`lockstep sessions state`: read, write and clear what the holders of a session leave to each other.

Here belongs the state of one session. Never here: its messages. The law: the state is read and written under the lock
of its session only (SES-40), which is given back at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from lockstep import QueueReceiver
from lockstep.cli.context import CommandLine, command_line
from lockstep.cli.exits import CommandFailed, ExitCode, Failure
from lockstep.cli.help import Command, Group
from lockstep.cli.options import QueueName, wrong_usage
from lockstep.cli.values import body_to_json, body_to_text, format_size

app = typer.Typer(
    cls=Group,
    help="Read, write and clear the state of a session. Each takes the lock of the session for a moment.",
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
_HOLDER_NAME = "lockstep sessions state"

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
    with _holding(line, queue, session) as (receiver, version):
        state = receiver.session.get_state()
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


def _store(
    line: CommandLine, queue: str, session: str, state: bytes | None, if_version: int | None
) -> None:
    """Write a state, or none, and say which version it is."""
    with _holding(line, queue, session) as (receiver, _):
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
def _holding(line: CommandLine, queue: str, session: str) -> Iterator[tuple[QueueReceiver, int]]:
    """Hold a session for the time of the block, and tell the version of its state."""
    with (
        line.connect() as client,
        client.get_queue_receiver(
            queue, session_id=session, client_identifier=_HOLDER_NAME
        ) as receiver,
        client.get_administration_client() as administration,
    ):
        yield receiver, administration.get_session(queue, session).state_version


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
