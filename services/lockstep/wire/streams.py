"""Streams of messages, between protobuf and the core.

Here belong the conversions of what passes on a stream. Never here: its life (`frontend.streaming`).
"""

from __future__ import annotations

from dataclasses import dataclass

from lockstep.core.commands import Accept, Settlement
from lockstep.core.entity import parse_entity_path
from lockstep.core.errors import InvalidRequest
from lockstep.core.ids import EntityKey, SessionLock
from lockstep.core.limits import ID_CHARS_MAX, check_at_most
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.wire import convert


@dataclass(frozen=True, slots=True)
class Opening:
    """What a caller opens a stream with.

    Attributes:
        entity: The queue.
        dead_letter: Whether its dead-letter store is meant.
        accept: How to take a session; None = no session.
        wait_ms: How long to wait for the next available one.
        receiver: How the caller names itself.
    """

    entity: EntityKey
    dead_letter: bool
    accept: Accept | None
    wait_ms: int
    receiver: str


def opening_of(request: messaging.StreamMessagesRequest, address: str) -> Opening:
    """Return what the first request of a stream says; `address` is where it came from.

    Raises:
        InvalidRequest: It does not open the stream.
    """
    if request.WhichOneof("request") != "open":
        raise InvalidRequest("The first request of a stream must open it: say where from.")
    given = request.open
    check_at_most(
        len(given.receiver_client_id),
        ID_CHARS_MAX,
        "receiver client id characters",
        "Use a shorter id.",
    )
    entity, dead_letter = parse_entity_path(given.namespace, given.entity)
    accept, wait_ms = None, 0
    if given.HasField("session"):
        asked = messaging.AcceptSessionRequest(
            namespace=given.namespace,
            entity=given.entity,
            holder_client_id=given.receiver_client_id,
        )
        if given.session.HasField("session_id"):
            asked.session_id = given.session.session_id
        if given.HasField("request_id"):
            asked.request_id.CopyFrom(given.request_id)
        if given.HasField("max_wait"):
            asked.max_wait.CopyFrom(given.max_wait)
        accept = convert.accept_command(asked, address)
        wait_ms = convert.wait_ms(asked) if accept.session_id is None else 0
    return Opening(entity, dead_letter, accept, wait_ms, given.receiver_client_id)


def stream_settlements(
    request: messaging.StreamSettle, lock: SessionLock | None
) -> tuple[Settlement, ...]:
    """Return what a settlement on a stream decides.

    Raises:
        InvalidRequest and its kinds: It names nothing, or something wrong.
    """
    return convert.settlements_of(request.settlements, lock)
