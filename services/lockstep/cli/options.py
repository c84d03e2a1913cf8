"""Options and arguments that several commands share.

Here belong their names, help texts and the reading of their values. Never here: what is done with
them. The law: the same thing has the same name in every command.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from lockstep.cli.exits import CommandFailed, ExitCode, Failure
from lockstep.cli.values import parse_duration


def wrong_usage(ctx: typer.Context, message: str) -> CommandFailed:
    """Return the end of a command whose options do not go together."""
    return CommandFailed(
        Failure("USAGE", f"{message} See `{ctx.command_path} --help`.", ExitCode.USAGE)
    )


def duration(value: str | timedelta) -> timedelta:
    """Read the value of an option that is a duration; Typer gives a default as it is."""
    if isinstance(value, timedelta):
        return value
    try:
        return parse_duration(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


QueueName = Annotated[
    str, typer.Argument(metavar="QUEUE", help="The name of the queue.", show_default=False)
]
