"""A transport that answers from a script, and clients over it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from google.protobuf.message import Message as Wire

from lockstep import QueueReceiver, aio
from lockstep.client.calls import Caller, RetryPolicy
from lockstep.client.connection import Connection
from lockstep.client.receiving import ReceiverOptions, receiver_options
from lockstep.client.transport import Method, RequestT, ResponseT
from lockstep.client.values import NextAvailableSession, ReceiveMode, SubQueue
from lockstep.core.errors import LockstepError
from lockstep.v1 import messaging_service_pb2 as messaging

START_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Call:
    """One call that was made."""

    name: str
    request: Any
    timeout_ms: int


@dataclass(frozen=True)
class After:
    """Answer only when some time has passed."""

    delay_ms: int
    answer: Wire | BaseException


class Never:
    """No answer: the call waits until its task is cancelled."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()


Answer = Wire | BaseException | After | Never | Callable[[Any], Wire]


class ScriptedTransport:
    """Gives the next answer of its script to each call; time passes only in sleeps and slow answers."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = deque(answers)
        self.calls: list[Call] = []
        self.sleeps_ms: list[int] = []
        self.chance = 1.0
        self.passed_ms = 0
        self.is_closed = False
        self.was_started = True  # whether the server is there when its client begins
        self.away_ms = 10**9  # after so much of a pause the server is back

    async def call(
        self, method: Method[RequestT, ResponseT], request: RequestT, *, timeout_ms: int
    ) -> ResponseT:
        kept = method.request()
        kept.CopyFrom(request)
        self.calls.append(Call(method.path.rpartition("/")[2], kept, timeout_ms))
        assert self.answers, f"the script has no answer for {method.path}"
        answer = self.answers.popleft()
        if isinstance(answer, After):
            self.passed_ms += answer.delay_ms
            answer = answer.answer
        if isinstance(answer, Never):
            answer.has_begun.set()
            await asyncio.Event().wait()
        if isinstance(answer, BaseException):
            raise answer
        if not isinstance(answer, Wire):
            answer = cast("Callable[[Any], Wire]", answer)(request)
        assert isinstance(answer, method.response), f"{method.path} got {type(answer).__name__}"
        return answer

    async def sleep(self, delay_ms: int) -> None:
        self.sleeps_ms.append(delay_ms)
        self.passed_ms += delay_ms

    async def is_serving(self, *, within_ms: int) -> bool:
        if not self.calls:
            return self.was_started
        self.sleeps_ms.append(min(within_ms, self.away_ms))
        self.passed_ms += self.sleeps_ms[-1]
        return self.away_ms < within_ms

    def now_ms(self) -> int:
        return START_MS + self.passed_ms

    def monotonic_ms(self) -> int:
        return self.passed_ms

    def random(self) -> float:
        return self.chance

    async def close(self) -> None:
        self.is_closed = True

    def names(self) -> list[str]:
        return [call.name for call in self.calls]

    def counters(self) -> list[int]:
        return [call.request.request_id.counter for call in self.calls]


def connect(transport: ScriptedTransport, policy: RetryPolicy | None = None) -> Connection:
    calls = Caller(
        transport, policy or RetryPolicy(), client_id="client-1", server="broker.example:7700"
    )
    return Connection(transport, calls, namespace="shop", holder_name="me")


def options(
    queue: str = "orders",
    *,
    session_id: str | NextAvailableSession | None = None,
    max_wait_time: float | None = None,
    receive_mode: ReceiveMode | str = ReceiveMode.PEEK_LOCK,
    sub_queue: SubQueue | None = None,
) -> ReceiverOptions:
    return receiver_options(
        queue,
        session_id=session_id,
        max_wait_time=max_wait_time,
        receive_mode=receive_mode,
        sub_queue=sub_queue,
        client_identifier=None,
        prefetch_count=0,
    )


def deleting() -> ReceiverOptions:
    """Return the options of a receiver whose messages have no locks, which `options` refuses so far."""
    return replace(options(), mode=ReceiveMode.RECEIVE_AND_DELETE)


def open_receiver(*answers: Answer, **kind: Any) -> tuple[QueueReceiver, ScriptedTransport]:
    transport = ScriptedTransport(*answers)
    return QueueReceiver(connect(transport), options(**kind), None), transport


def open_aio_receiver(*answers: Answer, **kind: Any) -> tuple[aio.QueueReceiver, ScriptedTransport]:
    transport = ScriptedTransport(*answers)
    return aio.QueueReceiver(connect(transport), options(**kind), None), transport


def accepted(
    session_id: str = "A", *, state: bytes | None = None, lock_ms: int = 60_000
) -> messaging.AcceptSessionResponse:
    response = messaging.AcceptSessionResponse(grant=7)
    response.session.session_id = session_id
    response.session.lock_token = (7).to_bytes(8, "big") + bytes(8)
    response.locked_until.FromMilliseconds(START_MS + lock_ms)
    if state is not None:
        response.state.value = state
    return response


def received(*sequence_numbers: int, lock_ms: int = 60_000) -> messaging.ReceiveMessagesResponse:
    response = messaging.ReceiveMessagesResponse(
        sequence_numbers=sequence_numbers,
        enqueued_times_unix_ms=[START_MS] * len(sequence_numbers),
        lock_token_prefix=(9).to_bytes(8, "big") if sequence_numbers else b"",
    )
    for number in sequence_numbers:
        response.messages.add(body=b"body %d" % number)
    if sequence_numbers:
        response.locked_until.FromMilliseconds(START_MS + lock_ms)
    return response


def settled(**failed: str) -> messaging.SettleMessagesResponse:
    """Return an answer to a settlement: `settled(n3="MESSAGE_LOCK_LOST")` fails message 3."""
    response = messaging.SettleMessagesResponse()
    for name, reason in failed.items():
        response.failures.add(sequence_number=int(name[1:]), reason=reason, description="gone")
    return response


def sent(*sequence_numbers: int) -> messaging.SendMessagesResponse:
    return messaging.SendMessagesResponse(sequence_numbers=sequence_numbers)


def released() -> messaging.ReleaseSessionResponse:
    return messaging.ReleaseSessionResponse()


def undone() -> messaging.CancelRequestResponse:
    return messaging.CancelRequestResponse(undone=True)


def advised(error: LockstepError, retry_after_ms: int) -> LockstepError:
    error.retry_after_ms = retry_after_ms
    return error
