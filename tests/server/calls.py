"""Requests as a client of the public API would write them, and what came of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status

from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import entity_pb2, message_pb2, request_pb2, session_pb2
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.server.server_process import CALL_S, Stubs

NO_WAIT = Duration()


def seconds(count: float) -> Duration:
    return Duration(seconds=int(count), nanos=round(count % 1 * 1e9))


class Ids:
    """The request ids of one client object."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self._counter = itertools.count(1)

    def next(self) -> request_pb2.RequestId:
        return request_pb2.RequestId(client_id=self.client_id, counter=next(self._counter))


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a refused call told its caller."""

    code: grpc.StatusCode
    reason: str
    text: str
    facts: dict[str, str]
    retry_after_ms: int | None


def refusal_of(error: grpc.RpcError) -> Refusal:
    """Read an error; one without details, from gRPC itself, has the reason ""."""
    info, retry_after_ms = ErrorInfo(), None
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        if detail.Is(ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
            assert info.domain == "lockstep.dev"
        elif detail.Is(RetryInfo.DESCRIPTOR):
            retry = RetryInfo()
            detail.Unpack(retry)
            retry_after_ms = retry.retry_delay.ToMilliseconds()
    return Refusal(
        error.code(), info.reason, error.details() or "", dict(info.metadata), retry_after_ms
    )


def refused(call: Any, request: Any) -> Refusal:
    """Make a call that must be refused."""
    try:
        answer = call(request, timeout=CALL_S)
    except grpc.RpcError as error:
        return refusal_of(error)
    raise AssertionError(f"not refused, but answered: {str(answer)[:300]}")


# --- queues --------------------------------------------------------------------------------------


def create(stubs: Stubs, name: str, **settings: Any) -> entity_pb2.Queue:
    wanted = entity_pb2.QueueSettings(**settings)
    request = admin.CreateQueueRequest(name=name, settings=wanted)
    return stubs.admin.CreateQueue(request, timeout=CALL_S).queue


def delete(stubs: Stubs, name: str) -> None:
    stubs.admin.DeleteQueue(admin.DeleteQueueRequest(name=name), timeout=CALL_S)


def runtime(stubs: Stubs, name: str) -> entity_pb2.QueueRuntime:
    return stubs.admin.GetQueue(admin.GetQueueRequest(name=name), timeout=CALL_S).runtime


def session_info(stubs: Stubs, queue: str, session_id: str) -> session_pb2.SessionInfo:
    request = admin.GetSessionRequest(queue=queue, session_id=session_id)
    return stubs.admin.GetSession(request, timeout=CALL_S).session


# --- messages ------------------------------------------------------------------------------------


def message(body: bytes = b"body", session_id: str | None = None, **more: Any) -> Any:
    return message_pb2.Message(body=body, session_id=session_id, **more)


def send_request(
    entity: str,
    *bodies: bytes,
    session: str | None = None,
    request_id: request_pb2.RequestId | None = None,
) -> messaging.SendMessagesRequest:
    return messaging.SendMessagesRequest(
        entity=entity,
        messages=[message(body, session) for body in bodies],
        request_id=request_id,
    )


def send(
    stubs: Stubs,
    entity: str,
    *bodies: bytes,
    session: str | None = None,
    request_id: request_pb2.RequestId | None = None,
) -> list[int]:
    request = send_request(entity, *bodies, session=session, request_id=request_id)
    return list(stubs.messaging.SendMessages(request, timeout=CALL_S).sequence_numbers)


# --- sessions and receiving ----------------------------------------------------------------------


def accept(
    stubs: Stubs,
    entity: str,
    session: str | None = None,
    *,
    wait: Duration = NO_WAIT,
    holder: str = "tester",
    request_id: request_pb2.RequestId | None = None,
) -> messaging.AcceptSessionResponse:
    request = messaging.AcceptSessionRequest(
        entity=entity,
        session_id=session,
        max_wait=wait,
        holder_client_id=holder,
        request_id=request_id,
    )
    return stubs.messaging.AcceptSession(request, timeout=CALL_S)


def receive_request(
    entity: str,
    session: session_pb2.SessionLock | None = None,
    *,
    maximum: int = 50,
    wait: Duration = NO_WAIT,
    request_id: request_pb2.RequestId | None = None,
) -> messaging.ReceiveMessagesRequest:
    return messaging.ReceiveMessagesRequest(
        entity=entity,
        session=session,
        max_messages=maximum,
        max_wait=wait,
        request_id=request_id,
    )


def receive(
    stubs: Stubs, entity: str, session: session_pb2.SessionLock | None = None, **more: Any
) -> messaging.ReceiveMessagesResponse:
    request = receive_request(entity, session, **more)
    return stubs.messaging.ReceiveMessages(request, timeout=CALL_S)


def tokens_of(received: messaging.ReceiveMessagesResponse) -> list[bytes]:
    prefix = received.lock_token_prefix
    return [prefix + number.to_bytes(8, "big") for number in received.sequence_numbers]


def bodies_of(received: messaging.ReceiveMessagesResponse) -> list[bytes]:
    return [one.body for one in received.messages]


def counts_of(received: messaging.ReceiveMessagesResponse) -> list[int]:
    return list(received.delivery_counts) or [0] * len(received.messages)


def settlement(
    outcome: str, *, numbers: Iterable[int] = (), tokens: Iterable[bytes] = ()
) -> messaging.Settlement:
    made = messaging.Settlement(sequence_numbers=numbers, lock_tokens=tokens)
    getattr(made, outcome).SetInParent()
    return made


def settle(
    stubs: Stubs,
    entity: str,
    outcome: str,
    *,
    numbers: Sequence[int] = (),
    tokens: Sequence[bytes] = (),
    session: session_pb2.SessionLock | None = None,
    request_id: request_pb2.RequestId | None = None,
) -> list[messaging.SettlementFailure]:
    request = messaging.SettleMessagesRequest(
        entity=entity,
        session=session,
        settlements=[settlement(outcome, numbers=numbers, tokens=tokens)],
        request_id=request_id,
    )
    return list(stubs.messaging.SettleMessages(request, timeout=CALL_S).failures)


def renew(stubs: Stubs, entity: str, session: session_pb2.SessionLock) -> int:
    request = messaging.RenewSessionLockRequest(entity=entity, session=session)
    answer = stubs.messaging.RenewSessionLock(request, timeout=CALL_S)
    return int(answer.locked_until.ToMilliseconds())


def release(stubs: Stubs, entity: str, session: session_pb2.SessionLock) -> int:
    request = messaging.ReleaseSessionRequest(entity=entity, session=session)
    return stubs.messaging.ReleaseSession(request, timeout=CALL_S).returned_messages


def get_state(
    stubs: Stubs, entity: str, session: session_pb2.SessionLock
) -> session_pb2.SessionState:
    request = messaging.GetSessionStateRequest(entity=entity, session=session)
    return stubs.messaging.GetSessionState(request, timeout=CALL_S).state


def set_state(
    stubs: Stubs, entity: str, session: session_pb2.SessionLock, value: bytes | None
) -> int:
    request = messaging.SetSessionStateRequest(entity=entity, session=session, value=value)
    return stubs.messaging.SetSessionState(request, timeout=CALL_S).version


def cancel(
    stubs: Stubs,
    entity: str,
    request_id: request_pb2.RequestId,
    session_id: str | None = None,
) -> bool:
    request = messaging.CancelRequestRequest(
        entity=entity, request_id=request_id, session_id=session_id
    )
    return stubs.messaging.CancelRequest(request, timeout=CALL_S).undone
