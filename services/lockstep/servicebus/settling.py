"""What can be said about settling a message before any call.

Here belong the checks that both receivers share. Never here: calls. The law: the errors are those of azure-servicebus.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lockstep.core.errors import LockstepError
from lockstep.servicebus.exceptions import (
    AutoLockRenewFailed,
    MessageAlreadySettled,
    ServiceBusError,
)
from lockstep.servicebus.message import ServiceBusReceivedMessage
from lockstep.servicebus.options import ReceiverPlan


def check_alive(message: ServiceBusReceivedMessage, plan: ReceiverPlan, action: str) -> None:
    """Refuse to settle or renew what cannot be.

    Raises:
        ValueError: The message was only looked at, or was gone when it was received.
        MessageAlreadySettled: The program settled it before.
    """
    if not isinstance(message, ServiceBusReceivedMessage):
        raise TypeError(f"Only a received message can be settled, not {type(message).__name__}.")
    if message._is_peeked:
        raise ValueError(f"The operation {action} is not supported for peeked messages.")
    if not plan.is_peek_lock:
        raise ValueError(
            f"The operation {action} is not supported in 'RECEIVE_AND_DELETE' receive mode."
        )
    if message._is_settled:
        raise MessageAlreadySettled(
            f"Unable to {action} message; The message has either been deleted or already settled."
        )


def check_count(max_message_count: int) -> None:
    """Refuse a number of messages that is not positive.

    Raises:
        ValueError: It is not.
    """
    if max_message_count <= 0:
        raise ValueError("The max_message_count must be greater than 0")


def check_lockable(renewable: object, *, is_session: bool) -> None:
    """Refuse to renew what is no lock.

    Raises:
        TypeError: It is neither a session nor a received message.
        ValueError: It is a message that is not locked, or one of a session, whose lock governs.
    """
    if is_session:
        return
    if not isinstance(renewable, ServiceBusReceivedMessage):
        raise TypeError(
            "AutoLockRenewer takes a ServiceBusReceivedMessage or a ServiceBusSession, not"
            f" {type(renewable).__name__}."
        )
    if renewable.locked_until_utc is None:
        raise ValueError(
            "Only a message that is locked by itself can be renewed; register receiver.session."
        )


def renew_failure(
    renewable: Any, callback: Callable[[Any, Exception | None], Any] | None
) -> Callable[[object, LockstepError], Any]:
    """Return what notes a lost lock on `renewable` and tells the program; it returns what the program's returned."""

    def note(_: object, error: LockstepError) -> Any:
        failure = AutoLockRenewFailed(f"Failed to auto-renew lock: {error.message}", error=error)
        renewable.auto_renew_error = failure
        return None if callback is None else callback(renewable, failure)

    return note


def closed_renewer() -> ServiceBusError:
    """Return the error of a renewer that was closed."""
    return ServiceBusError(
        "The AutoLockRenewer has already been shutdown. Please create a new instance for auto lock renewing."
    )
