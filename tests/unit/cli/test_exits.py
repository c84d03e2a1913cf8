"""How a command ends."""

from __future__ import annotations

import pytest

from lockstep.cli.exits import EXIT_CODES_HELP, ExitCode, failure_of, nothing_there
from lockstep.core import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.EntityNotFound("x"), 3),
        (errors.EntityAlreadyExists("x"), 4),
        (errors.SessionCannotBeLocked("x"), 4),
        (errors.SessionLockLost("x"), 4),
        (errors.ConnectionFailed("x"), 5),
        (errors.NoSessionAvailable("x"), 6),
        (errors.LimitExceeded("x"), 2),
        (errors.InvalidOperation("x"), 2),
        (errors.QuotaExceeded("x"), 1),
        (errors.ServerBusy("x"), 1),
        (errors.OperationTimeout("x"), 1),
        (errors.InternalError("x"), 1),
    ],
)
def test_the_family_of_an_error_decides_the_exit_code(
    error: errors.LockstepError, code: int
) -> None:
    assert failure_of(error).code == code


def test_a_failure_keeps_reason_message_and_details() -> None:
    error = errors.EntityNotFound("There is no queue.", details={"entity": "orders"})

    failure = failure_of(error)

    assert failure.reason == "ENTITY_NOT_FOUND"
    assert failure.message == "There is no queue."
    assert failure.details == {"entity": "orders"}


def test_an_unreachable_server_is_told_with_the_option_that_names_another() -> None:
    failure = failure_of(errors.ConnectionFailed("No way to broker.example: check the address."))

    assert failure.message.startswith("No way to broker.example: check the address")
    assert "--server" in failure.message
    assert "LOCKSTEP_SERVER" in failure.message


def test_nothing_there_is_an_end_of_its_own() -> None:
    assert nothing_there("No messages.").failure.code is ExitCode.NOTHING_THERE


def test_every_exit_code_is_explained() -> None:
    assert [code for code, _ in EXIT_CODES_HELP] == list(ExitCode)
