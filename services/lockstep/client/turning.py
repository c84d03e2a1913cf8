"""Committing a turn of a session, whether it blocks or not (ADD-8).

Here belongs the one call that completes messages, sets the state and sends. Never here: these by themselves
(`settling`, `holding`, `sending`). The law: all of it happens, or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from lockstep.client.message import Message
from lockstep.client.received import ReceivedMessage
from lockstep.client.receiving import Receiving
from lockstep.client.settling import check_settleable, mark
from lockstep.client.transport import COMMIT_TURN
from lockstep.core.errors import InvalidOperation
from lockstep.v1 import messaging_service_pb2 as messaging


class KeepState(Enum):
    """The type of `KEEP_STATE`."""

    KEEP = "keep"


KEEP_STATE: Final = KeepState.KEEP
"""Says of a turn that it leaves the state of the session as it is."""


@dataclass(frozen=True, slots=True)
class TurnResult:
    """What a turn did.

    Attributes:
        sequence_numbers: Of the messages that it sent, in their order.
        duplicate_indexes: The places of those that were discarded as duplicates (DUP-2).
        state_version: The version of the state after it.
    """

    sequence_numbers: tuple[int, ...]
    duplicate_indexes: tuple[int, ...]
    state_version: int


async def commit_turn(
    receiving: Receiving,
    complete: Sequence[ReceivedMessage],
    send: Sequence[Message],
    state: bytes | str | KeepState | None,
    if_version: int | None,
) -> TurnResult:
    """Complete messages, send messages and set the state, all or nothing.

    Args:
        receiving: The receiver that holds the session.
        complete: Messages of that session.
        send: Messages for the same queue.
        state: Text is stored as UTF-8; None clears the state; KEEP_STATE leaves it.
        if_version: Only if this is the version of the state; None = whatever it is.

    Raises:
        TypeError: An argument is of a wrong type.
        MessageAlreadySettled, InvalidOperation: Found here; no call was made.
        MessageLockLost, SessionLockLost, StateConflict, MessageSizeExceeded, QuotaExceeded: Nothing was done.
        LockstepError: Any other.
    """
    held, connection, entity = receiving.held, receiving.connection, receiving.entity
    for message in send:
        if not isinstance(message, Message):
            raise TypeError(f"What is sent must be Messages, not {type(message).__name__}.")
    if not isinstance(state, bytes | str | None | KeepState):
        raise TypeError(f"A session state is bytes, str or None, not {type(state).__name__}.")
    if complete:
        delivery = check_settleable(entity, complete)
        if delivery.session is not held.lock:
            raise InvalidOperation(
                "A turn completes messages of the session that this receiver holds."
            )
    request = messaging.CommitTurnRequest(
        namespace=connection.namespace,
        entity=entity,
        request_id=connection.calls.new_request_id(),
        messages=[message._wire for message in send],
        session=held.lock,
        complete_sequence_numbers=[message.sequence_number for message in complete],
    )
    if not isinstance(state, KeepState):
        value = state.encode() if isinstance(state, str) else state
        request.state.CopyFrom(messaging.TurnState(value=value, if_version=if_version))
    elif if_version is not None:
        raise InvalidOperation("if_version says on which state the new one follows; give a state.")
    mark(complete, is_settled=True)
    try:
        response = await connection.calls.call(COMMIT_TURN, request)
    except BaseException:
        mark(complete, is_settled=False)
        raise
    held.state_version = response.state_version
    return TurnResult(
        tuple(response.sequence_numbers),
        tuple(response.duplicate_indexes),
        response.state_version,
    )
