"""How a command ends: its exit code, and what it says when it fails.

Here belong the exit codes, the table from errors to exit codes, and the report of a failure. Never
here: printing (that is `output`). The law: the meaning of an exit code never changes once it was
released, because scripts branch on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from lockstep.core.errors import (
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    LockstepError,
    NoSessionAvailable,
    NotFound,
)


class ExitCode(IntEnum):
    """What the shell sees."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    UNREACHABLE = 5
    NOTHING_THERE = 6
    INTERRUPTED = 130


EXIT_CODES_HELP = (
    (ExitCode.FINE, "fine"),
    (ExitCode.FAILED, "failed; the message says why"),
    (ExitCode.USAGE, "the command line is wrong, or the server refused a value in it"),
    (ExitCode.NOT_FOUND, "not found: no such queue, or no such message"),
    (ExitCode.CONFLICT, "conflict: the session is held, the queue exists, a lock was lost"),
    (ExitCode.UNREACHABLE, "the server cannot be reached"),
    (ExitCode.NOTHING_THERE, "nothing there: no message, or no session, came in time"),
    (ExitCode.INTERRUPTED, "stopped with Ctrl-C or SIGTERM"),
)

# The first family that fits decides; every other error is FAILED.
_CODES_BY_FAMILY: tuple[tuple[type[LockstepError], ExitCode], ...] = (
    (NotFound, ExitCode.NOT_FOUND),
    (Conflict, ExitCode.CONFLICT),
    (ConnectionFailed, ExitCode.UNREACHABLE),
    (NoSessionAvailable, ExitCode.NOTHING_THERE),
    (InvalidRequest, ExitCode.USAGE),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command did not do what it was asked to.

    Attributes:
        reason: The stable name of what went wrong, in UPPER_SNAKE.
        message: What happened and what to do about it, for a person.
        code: What the shell sees.
        details: Facts for programs.
    """

    reason: str
    message: str
    code: ExitCode
    details: Mapping[str, str] = field(default_factory=dict)


class CommandFailed(Exception):
    """A command ends here, with this failure as its last word."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def nothing_there(message: str) -> CommandFailed:
    """Return the end of a command that waited and got nothing."""
    return CommandFailed(Failure("NOTHING_THERE", message, ExitCode.NOTHING_THERE))


def exit_code_of(error: LockstepError) -> ExitCode:
    """Return the exit code of an error, by its family."""
    for family, code in _CODES_BY_FAMILY:
        if isinstance(error, family):
            return code
    return ExitCode.FAILED


def failure_of(error: LockstepError) -> Failure:
    """Describe an error of the client or the server."""
    message = error.message
    if isinstance(error, ConnectionFailed):
        message = f"{_without_full_stop(message)} (--server or LOCKSTEP_SERVER)."
    return Failure(error.reason, message, exit_code_of(error), error.details)


def _without_full_stop(sentence: str) -> str:
    return sentence.strip().rstrip(".")
