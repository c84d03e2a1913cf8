"""Options and arguments that several commands share.

Here belong their names, help texts and the reading of their values. Never here: what is done with
them. The law: the same thing has the same name in every command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, TypeVar

import typer

from lockstep.cli.exits import CommandFailed, ExitCode, Failure
from lockstep.cli.values import parse_duration, parse_numbers, parse_time

Value = TypeVar("Value")


def wrong_usage(ctx: typer.Context, message: str) -> CommandFailed:
    """Return the end of a command whose options do not go together."""
    return CommandFailed(
        Failure("USAGE", f"{message} See `{ctx.command_path} --help`.", ExitCode.USAGE)
    )


def duration(value: str | timedelta) -> timedelta:
    """Read the value of an option that is a duration; Typer gives a default as it is."""
    return _read(parse_duration, value) if isinstance(value, str) else value


def moment(value: str | datetime) -> datetime:
    """Read the value of an option that is a time."""
    return _read(parse_time, value) if isinstance(value, str) else value


def numbers_of(ctx: typer.Context, texts: Sequence[str], name: str) -> list[int]:
    """Read the sequence numbers of the option or argument `name`."""
    try:
        return parse_numbers(texts)
    except ValueError as error:
        raise typer.BadParameter(str(error), ctx, param_hint=name) from None


def _read(parse: Callable[[str], Value], text: str) -> Value:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


QueueName = Annotated[
    str, typer.Argument(metavar="QUEUE", help="The name of the queue.", show_default=False)
]
