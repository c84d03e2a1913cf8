"""Which error of Azure stands for which of ours."""

from __future__ import annotations

import pytest

from lockstep import errors
from lockstep.servicebus import exceptions


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (errors.SessionCannotBeLocked, exceptions.SessionCannotBeLockedError),
        (errors.SessionLockLost, exceptions.SessionLockLostError),
        (errors.MessageLockLost, exceptions.MessageLockLostError),
        (errors.NoSessionAvailable, exceptions.OperationTimeoutError),
        (errors.OperationTimeout, exceptions.OperationTimeoutError),
        (errors.EntityNotFound, exceptions.MessagingEntityNotFoundError),
        (errors.EntityAlreadyExists, exceptions.MessagingEntityAlreadyExistsError),
        (errors.EntityDisabled, exceptions.MessagingEntityDisabledError),
        (errors.MessageNotFound, exceptions.MessageNotFoundError),
        (errors.MessageSizeExceeded, exceptions.MessageSizeExceededError),
        (errors.MessageAlreadySettled, exceptions.MessageAlreadySettled),
        (errors.QuotaExceeded, exceptions.ServiceBusQuotaExceededError),
        (errors.ServerBusy, exceptions.ServiceBusServerBusyError),
        (errors.ConnectionFailed, exceptions.ServiceBusConnectionError),
        (errors.ShuttingDown, exceptions.ServiceBusCommunicationError),
        (errors.RevisionConflict, exceptions.ServiceBusError),
        (errors.ClientClosed, ValueError),
        (errors.LimitExceeded, ValueError),
        (errors.SettingNotAvailable, NotImplementedError),
    ],
)
def test_an_error_has_its_name_in_azure(
    ours: type[errors.LockstepError], theirs: type[Exception]
) -> None:
    with pytest.raises(theirs, match="what happened") as caught, exceptions.translating():
        raise ours("what happened")

    assert isinstance(caught.value.__cause__, ours)


@pytest.mark.parametrize("name", errors.__all__)
def test_no_error_of_ours_comes_through(name: str) -> None:
    translated = exceptions.translated(getattr(errors, name)("what happened"))

    assert not isinstance(translated, errors.LockstepError)


def test_the_error_of_ours_is_kept() -> None:
    ours = errors.QuotaExceeded("full", details={"limit": "max_size_in_megabytes"})

    theirs = exceptions.translated(ours)

    assert isinstance(theirs, exceptions.AzureError)
    assert theirs.inner_exception is ours
    assert theirs.message == "full"
