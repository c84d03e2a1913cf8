"""Settling and renewing messages, whether it blocks or not.

Here belong the two calls about messages in hand. Never here: receiving them. The law: what can be
refused here is refused before any call, and what the server refused is told message by message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from lockstep.client.connection import Connection
from lockstep.client.received import Delivery, ReceivedMessage, SettlementFailure
from lockstep.client.transport import RENEW_MESSAGE_LOCKS, SETTLE_MESSAGES
from lockstep.client.values import (
    PropertyValue,
    property_values,
    timedelta_to_duration,
    timestamp_to_ms,
)
from lockstep.core.errors import (
    InvalidOperation,
    InvalidRequest,
    LimitExceeded,
    MessageAlreadySettled,
)
from lockstep.core.limits import REASON_CHARS_MAX
from lockstep.v1 import messaging_service_pb2 as messaging

Properties = Mapping[str, PropertyValue]
"""Application properties to set on messages; of one name the last value counts (MSG-8)."""
COMPLETE: Final = messaging.Settlement(complete=messaging.Complete())
ABANDON: Final = messaging.Settlement(abandon=messaging.Abandon())
RELEASE: Final = messaging.Settlement(release=messaging.Release())


def abandon(properties: Properties | None, delay: timedelta | None) -> messaging.Settlement:
    """Return the outcome "abandon".

    Raises:
        InvalidRequest: `delay` is negative.
    """
    outcome = messaging.Abandon(properties=property_values(properties))
    if delay is not None:
        if delay < timedelta(0):
            raise InvalidRequest(f"delay must not be negative; {delay} was given.")
        outcome.delay.CopyFrom(timedelta_to_duration(delay))
    return messaging.Settlement(abandon=outcome)


def defer(properties: Properties | None) -> messaging.Settlement:
    """Return the outcome "defer"."""
    return messaging.Settlement(defer=messaging.Defer(properties=property_values(properties)))


def dead_letter(
    reason: str | None, error_description: str | None, properties: Properties | None = None
) -> messaging.Settlement:
    """Return the outcome "dead-letter".

    Raises:
        LimitExceeded: A text is longer than 4096 characters.
    """
    for what, text in (("reason", reason), ("error_description", error_description)):
        if text is not None and len(text) > REASON_CHARS_MAX:
            raise LimitExceeded(
                f"{what} is limited to {REASON_CHARS_MAX} characters; this one has {len(text)}. Shorten it.",
                details={
                    "limit": what,
                    "configured": str(REASON_CHARS_MAX),
                    "observed": str(len(text)),
                },
            )
    outcome = messaging.DeadLetter(
        reason=reason or "",
        description=error_description or "",
        properties=property_values(properties),
    )
    return messaging.Settlement(dead_letter=outcome)


async def settle(
    connection: Connection,
    entity: str,
    messages: Sequence[ReceivedMessage],
    outcome: messaging.Settlement,
) -> list[SettlementFailure]:
    """Settle messages in one request and return those that were not settled.

    Args:
        connection: The client's.
        entity: The queue, or dead-letter store, that they came from.
        messages: All of one session, or all of none; with none, no call is made.
        outcome: What to do with them.

    Raises:
        MessageAlreadySettled: One was settled before; no call was made (LCK-3).
        InvalidOperation: One has no lock, or is of another queue or session; no call was made.
        SessionLockLost: The session's lock is gone; they come again.
    """
    if not messages:
        return []
    delivery = check_settleable(entity, messages)
    request = messaging.SettleMessagesRequest(
        namespace=connection.namespace,
        entity=entity,
        request_id=connection.calls.new_request_id(),
        session=delivery.session,
        settlements=[outcome],
    )
    settlement = request.settlements[0]
    if delivery.session is None:
        settlement.lock_tokens.extend(map(_token_of, messages))
    else:
        # The request shows the token of the grant that the messages came under, so a message of an
        # earlier grant is refused even when its session was accepted again (SES-37).
        settlement.sequence_numbers.extend([message._sequence_number for message in messages])
    # Marked before the call, so that neither a second settlement nor a renewal crosses it on the way.
    mark(messages, is_settled=True)
    try:
        response = await connection.calls.call(SETTLE_MESSAGES, request)
    except BaseException:
        mark(messages, is_settled=False)
        raise
    failures = _failures_of(messages, response.failures)
    mark([failure.message for failure in failures], is_settled=False)
    return failures


def check_settleable(entity: str, messages: Sequence[ReceivedMessage]) -> Delivery:
    """Return what messages have in common that can be settled together; there is at least one.

    Raises:
        MessageAlreadySettled: One was settled before (LCK-3).
        InvalidOperation: One has no lock, or is of another queue or session.
    """
    delivery = _common_delivery(entity, messages)
    for message in messages:
        if message._is_settled:
            raise MessageAlreadySettled(
                f"Message {message.sequence_number} of '{entity}' was settled before."
            )
    return delivery


async def renew(
    connection: Connection,
    entity: str,
    messages: Sequence[ReceivedMessage],
    *,
    budget_ms: int | None,
) -> list[SettlementFailure]:
    """Renew the locks of single messages in one request and return those whose lock was gone.

    Args:
        connection: The client's.
        entity: The plain queue, or dead-letter store, that they came from.
        messages: At least one.
        budget_ms: How long all tries together may take; None = as long as the retries last.

    Raises:
        TypeError: In a session the session's lock governs; renew that (C19).
        InvalidOperation: One has no lock, or is of another queue; no call was made.
    """
    if _common_delivery(entity, messages).session is not None:
        raise TypeError(
            "A message of a session has no lock of its own; use receiver.session.renew_lock()."
        )
    request = messaging.RenewMessageLocksRequest(
        namespace=connection.namespace, entity=entity, lock_tokens=map(_token_of, messages)
    )
    response = await connection.calls.call(RENEW_MESSAGE_LOCKS, request, budget_ms=budget_ms)
    failures = _failures_of(messages, response.failures)
    failed = {failure.message for failure in failures}
    until_ms = timestamp_to_ms(response.locked_until)
    for message in messages:
        if message not in failed:
            message._renewed_until_ms = until_ms
    return failures


def raise_first(failures: Sequence[SettlementFailure]) -> None:
    """Raise what a call for a single message met.

    Raises:
        LockstepError: Why the message was not settled, or its lock not renewed.
    """
    if failures:
        raise failures[0].error


def _common_delivery(entity: str, messages: Sequence[ReceivedMessage]) -> Delivery:
    """Return the delivery whose session, if any, all messages share.

    Raises:
        InvalidOperation: One has no lock, or is of another queue or session.
    """
    first: Delivery | None = None
    for message in messages:
        if not isinstance(message, ReceivedMessage):
            raise TypeError(
                f"Only a received message can be settled, not {type(message).__name__}."
            )
        delivery = message._delivery
        if delivery is first:
            continue
        if not delivery.lock_token_prefix:
            raise InvalidOperation(
                f"Message {message.sequence_number} has no lock: it was received with receive-and-delete, or only"
                " looked at."
            )
        if delivery.entity.lower() != entity.lower():
            raise InvalidOperation(
                f"Message {message.sequence_number} came from '{delivery.entity}'; this receiver is of '{entity}'."
            )
        if first is not None and delivery.session is not first.session:
            raise InvalidOperation(
                "The messages are of several sessions; settle each session's alone."
            )
        first = first or delivery
    if first is None:
        raise InvalidRequest("There must be at least one message.")
    return first


def mark(messages: Sequence[ReceivedMessage], *, is_settled: bool) -> None:
    """Note of messages whether they are settled."""
    for message in messages:
        message._is_settled = is_settled


def _token_of(message: ReceivedMessage) -> bytes:
    return message._delivery.lock_token_prefix + message._sequence_number.to_bytes(8, "big")


def _failures_of(
    messages: Sequence[ReceivedMessage], failures: Sequence[messaging.SettlementFailure]
) -> list[SettlementFailure]:
    if not failures:
        return []
    by_number = {message.sequence_number: message for message in messages}
    return [
        SettlementFailure(by_number[f.sequence_number], f.reason, f.description) for f in failures
    ]
