"""The errors of azure-servicebus, and which of ours becomes which.

Here belong the classes under Azure's names and the table. Never here: what a program should do about one; that is in
`lockstep.core.errors`. The law: every error of ours has a class here, so no `LockstepError` leaves this package. The
error of ours is kept as `inner_exception`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Never

from lockstep import errors

__all__ = [
    "AutoLockRenewFailed",
    "AutoLockRenewTimeout",
    "AzureError",
    "HttpResponseError",
    "InvalidRequestError",
    "MessageAlreadySettled",
    "MessageLockLostError",
    "MessageNotFoundError",
    "MessageSizeExceededError",
    "MessagingEntityAlreadyExistsError",
    "MessagingEntityDisabledError",
    "MessagingEntityNotFoundError",
    "OperationTimeoutError",
    "ResourceExistsError",
    "ResourceNotFoundError",
    "ServiceBusAuthenticationError",
    "ServiceBusAuthorizationError",
    "ServiceBusCommunicationError",
    "ServiceBusConnectionError",
    "ServiceBusError",
    "ServiceBusQuotaExceededError",
    "ServiceBusServerBusyError",
    "SessionCannotBeLockedError",
    "SessionLockLostError",
]


class AzureError(Exception):
    """The root of these errors, as `azure.core.exceptions.AzureError` is.

    Attributes:
        message: What happened and what to do about it.
        inner_exception: The error of Lockstep that this one stands for; None = there is none.
    """

    def __init__(self, message: str | None = None, *, error: BaseException | None = None) -> None:
        """Say what happened; `error` is what caused it."""
        self.message = message or "Service Bus has encountered an error."
        self.inner_exception = error
        super().__init__(self.message)


class ServiceBusError(AzureError):
    """Any error of a call."""


class InvalidRequestError(ServiceBusError, ValueError):
    """The call itself is wrong; azure-servicebus raises a ValueError or a ServiceBusError, and this is both."""


class ServiceBusConnectionError(ServiceBusError):
    """The server could not be reached."""


class ServiceBusAuthenticationError(ServiceBusError):
    """Never raised: this release knows no credentials."""


class ServiceBusAuthorizationError(ServiceBusError):
    """Never raised: this release knows no credentials."""


class OperationTimeoutError(ServiceBusError):
    """No answer in time, or no session became available in time."""


class MessageSizeExceededError(ServiceBusError, ValueError):
    """A message, a batch or a session state is too large."""


class MessageAlreadySettled(ValueError):
    """The program settled the message before. By Azure's design no ServiceBusError.

    Attributes:
        message: What happened.
    """

    def __init__(self, message: str | None = None, *, error: BaseException | None = None) -> None:
        """Say what happened."""
        self.message = message or "The message was settled before."
        self.inner_exception = error
        super().__init__(self.message)


class MessageLockLostError(ServiceBusError):
    """The lock of a message is gone; it comes again."""


class SessionLockLostError(ServiceBusError):
    """The lock of the session is gone; get another receiver."""


class MessageNotFoundError(ServiceBusError):
    """A scheduled message is not there (any more)."""


class MessagingEntityNotFoundError(ServiceBusError):
    """There is no such queue."""


class MessagingEntityDisabledError(ServiceBusError):
    """The status of the queue forbids the call."""


class MessagingEntityAlreadyExistsError(ServiceBusError):
    """There is such a queue."""


class ServiceBusQuotaExceededError(ServiceBusError):
    """The queue is full."""


class ServiceBusServerBusyError(ServiceBusError):
    """Too much is waiting at the server; try again later."""


class ServiceBusCommunicationError(ServiceBusError):
    """The server answers that it cannot serve just now."""


class SessionCannotBeLockedError(ServiceBusError):
    """Another receiver holds the session."""


class AutoLockRenewFailed(ServiceBusError):
    """A lock that an AutoLockRenewer kept is lost."""


class AutoLockRenewTimeout(ServiceBusError):
    """Never raised: when renewal ends as configured, nothing is reported until the lock is lost."""


# The administration client of Azure raises errors of azure.core.
ResourceNotFoundError = MessagingEntityNotFoundError
ResourceExistsError = MessagingEntityAlreadyExistsError
HttpResponseError = ServiceBusError

_Translated = type[AzureError] | type[MessageAlreadySettled]

# The first class of an error's line of descent that is named here decides.
_TABLE: Final[dict[type[errors.LockstepError], _Translated]] = {
    errors.LockstepError: ServiceBusError,
    errors.InvalidRequest: InvalidRequestError,
    errors.MessageSizeExceeded: MessageSizeExceededError,
    errors.MessageAlreadySettled: MessageAlreadySettled,
    errors.EntityNotFound: MessagingEntityNotFoundError,
    errors.MessageNotFound: MessageNotFoundError,
    errors.EntityAlreadyExists: MessagingEntityAlreadyExistsError,
    errors.EntityDisabled: MessagingEntityDisabledError,
    errors.SessionCannotBeLocked: SessionCannotBeLockedError,
    errors.SessionLockLost: SessionLockLostError,
    errors.MessageLockLost: MessageLockLostError,
    errors.NoSessionAvailable: OperationTimeoutError,
    errors.OperationTimeout: OperationTimeoutError,
    errors.Exhausted: ServiceBusQuotaExceededError,
    errors.Unavailable: ServiceBusCommunicationError,
    errors.Moved: ServiceBusCommunicationError,
    errors.ServerBusy: ServiceBusServerBusyError,
    errors.ConnectionFailed: ServiceBusConnectionError,
}


def translated(error: errors.LockstepError) -> Exception:
    """Return the error of this module that stands for one of ours; what a release lacks is a NotImplementedError."""
    if isinstance(error, errors.SettingNotAvailable):
        return NotImplementedError(error.message)
    kind = next(kind for kind in type(error).__mro__ if kind in _TABLE)
    return _TABLE[kind](error.message, error=error)


@contextmanager
def translating() -> Iterator[None]:
    """Raise what this module has instead of what Lockstep raises."""
    try:
        yield
    except errors.LockstepError as error:
        raise translated(error) from error


def refuse(name: str, advice: str) -> Never:
    """Refuse a part of azure-servicebus that Lockstep lacks.

    Raises:
        NotImplementedError: Always; it names the part and says what to do.
    """
    raise NotImplementedError(f"Lockstep has no {name}. {advice}")
