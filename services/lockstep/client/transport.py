"""What the client needs of the world: calls, time and chance.

Here belong the port and the table of calls. Never here: gRPC channels (`channel_aio`,
`channel_blocking`), retries (`calls`). The law: all logic of the client is written once, as
coroutines over this port; whether they suspend is the transport's business.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar, runtime_checkable

from google.protobuf.message import Message

from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import messaging_service_pb2 as messaging

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)
ResultT = TypeVar("ResultT")
RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
ResponseT_co = TypeVar("ResponseT_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT, ResponseT]):
    """One call of the public API.

    Attributes:
        path: How gRPC names it.
        request: The class of its request.
        response: The class of its response.
    """

    path: str
    request: type[RequestT]
    response: type[ResponseT]


class Transport(Protocol):
    """The way to the server. One transport belongs to one client."""

    async def call(
        self, method: Method[RequestT, ResponseT], request: RequestT, *, timeout_ms: int
    ) -> ResponseT:
        """Make one call, once, and wait at most `timeout_ms` for its response.

        Raises:
            OperationTimeout: No response in time; whether the call had an effect is not known.
            ConnectionFailed: The server cannot be reached, or the connection broke; the same is not known.
            ClientClosed: The transport was closed.
            LockstepError: What the server answered.
        """
        ...

    async def sleep(self, delay_ms: int) -> None:
        """Wait for `delay_ms` milliseconds."""
        ...

    async def is_serving(self, *, within_ms: int) -> bool:
        """Wait for a connection and ask the server whether it serves; False = it did not say so in time."""
        ...

    def now_ms(self) -> int:
        """Return the time of day in milliseconds since the epoch."""
        ...

    def monotonic_ms(self) -> int:
        """Return milliseconds since some fixed point; it never goes back."""
        ...

    def random(self) -> float:
        """Return a number from 0 to 1, for jitter."""
        ...

    async def close(self) -> None:
        """Close the connection; calls under way end with ClientClosed. A second close does nothing."""
        ...


class StreamCall(Protocol[RequestT_contra, ResponseT_co]):
    """One open stream of requests and responses. Its methods may be called from any thread, or any task."""

    def write(self, request: RequestT_contra) -> None:
        """Have a request sent after all before it; on a stream that is over it goes nowhere."""
        ...

    def end_writing(self) -> None:
        """Tell the server that no more requests come. A second time does nothing."""
        ...

    async def read(self, *, within_ms: int | None) -> ResponseT_co | None:
        """Return the next response; None = none came in time. Cancelling it loses none. None = wait for ever.

        Raises:
            ClientClosed: The stream is over, as it should be: the server ended it, or this side gave it up.
            LockstepError: Why the stream broke. Both come again with each further call.
        """
        ...

    async def finish(self) -> None:
        """Give the stream up, if it is not over, and wait for what reads it to end."""
        ...


@runtime_checkable
class StreamTransport(Protocol):
    """A transport that has streams; that of `lockstep.testing` has none."""

    async def open_stream(
        self, method: Method[RequestT, ResponseT]
    ) -> StreamCall[RequestT, ResponseT]:
        """Begin a stream. Whether the server is there shows with the first response.

        Raises:
            ClientClosed: The transport was closed.
        """
        ...


@runtime_checkable
class StandingTime(Protocol):
    """A transport whose time stands still until it is moved, as in `lockstep.testing`; most time passes by itself."""

    async def settle(self) -> None:
        """Let the broker go on for a moment with what needs no time."""
        ...


def run_to_completion(coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run a coroutine over a blocking transport, whose awaits never suspend, and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        result: ResultT = finished.value
        return result
    coroutine.close()
    raise AssertionError("a coroutine of the blocking client suspended; its transport must block")


_MESSAGING: Final = "/lockstep.v1.MessagingService/"
_ADMIN: Final = "/lockstep.v1.AdminService/"

SEND_MESSAGES: Final = Method(
    _MESSAGING + "SendMessages", messaging.SendMessagesRequest, messaging.SendMessagesResponse
)
ACCEPT_SESSION: Final = Method(
    _MESSAGING + "AcceptSession", messaging.AcceptSessionRequest, messaging.AcceptSessionResponse
)
RECEIVE_MESSAGES: Final = Method(
    _MESSAGING + "ReceiveMessages",
    messaging.ReceiveMessagesRequest,
    messaging.ReceiveMessagesResponse,
)
STREAM_MESSAGES: Final = Method(
    _MESSAGING + "StreamMessages",
    messaging.StreamMessagesRequest,
    messaging.StreamMessagesResponse,
)
CANCEL_SCHEDULED_MESSAGES: Final = Method(
    _MESSAGING + "CancelScheduledMessages",
    messaging.CancelScheduledMessagesRequest,
    messaging.CancelScheduledMessagesResponse,
)
RECEIVE_DEFERRED_MESSAGES: Final = Method(
    _MESSAGING + "ReceiveDeferredMessages",
    messaging.ReceiveDeferredMessagesRequest,
    messaging.ReceiveMessagesResponse,  # the response proper has the same fields
)
PEEK_MESSAGES: Final = Method(
    _MESSAGING + "PeekMessages", messaging.PeekMessagesRequest, messaging.PeekMessagesResponse
)
SETTLE_MESSAGES: Final = Method(
    _MESSAGING + "SettleMessages", messaging.SettleMessagesRequest, messaging.SettleMessagesResponse
)
RENEW_MESSAGE_LOCKS: Final = Method(
    _MESSAGING + "RenewMessageLocks",
    messaging.RenewMessageLocksRequest,
    messaging.RenewMessageLocksResponse,
)
RENEW_SESSION_LOCK: Final = Method(
    _MESSAGING + "RenewSessionLock",
    messaging.RenewSessionLockRequest,
    messaging.RenewSessionLockResponse,
)
RELEASE_SESSION: Final = Method(
    _MESSAGING + "ReleaseSession", messaging.ReleaseSessionRequest, messaging.ReleaseSessionResponse
)
GET_SESSION_STATE: Final = Method(
    _MESSAGING + "GetSessionState",
    messaging.GetSessionStateRequest,
    messaging.GetSessionStateResponse,
)
SET_SESSION_STATE: Final = Method(
    _MESSAGING + "SetSessionState",
    messaging.SetSessionStateRequest,
    messaging.SetSessionStateResponse,
)
COMMIT_TURN: Final = Method(
    _MESSAGING + "CommitTurn", messaging.CommitTurnRequest, messaging.CommitTurnResponse
)
CANCEL_REQUEST: Final = Method(
    _MESSAGING + "CancelRequest", messaging.CancelRequestRequest, messaging.CancelRequestResponse
)

CREATE_QUEUE: Final = Method(
    _ADMIN + "CreateQueue", admin.CreateQueueRequest, admin.CreateQueueResponse
)
GET_QUEUE: Final = Method(_ADMIN + "GetQueue", admin.GetQueueRequest, admin.GetQueueResponse)
LIST_QUEUES: Final = Method(
    _ADMIN + "ListQueues", admin.ListQueuesRequest, admin.ListQueuesResponse
)
UPDATE_QUEUE: Final = Method(
    _ADMIN + "UpdateQueue", admin.UpdateQueueRequest, admin.UpdateQueueResponse
)
DELETE_QUEUE: Final = Method(
    _ADMIN + "DeleteQueue", admin.DeleteQueueRequest, admin.DeleteQueueResponse
)
GET_SESSION: Final = Method(
    _ADMIN + "GetSession", admin.GetSessionRequest, admin.GetSessionResponse
)
BREAK_SESSION_LOCK: Final = Method(
    _ADMIN + "BreakSessionLock", admin.BreakSessionLockRequest, admin.BreakSessionLockResponse
)
LIST_SESSIONS: Final = Method(
    _ADMIN + "ListSessions", admin.ListSessionsRequest, admin.ListSessionsResponse
)
CLEAR_SESSION_STATES: Final = Method(
    _ADMIN + "ClearSessionStates",
    admin.ClearSessionStatesRequest,
    admin.ClearSessionStatesResponse,
)
EXPLAIN_DELIVERY: Final = Method(
    _ADMIN + "ExplainDelivery", admin.ExplainDeliveryRequest, admin.ExplainDeliveryResponse
)
START_DEAD_LETTER_JOB: Final = Method(
    _ADMIN + "StartDeadLetterJob",
    admin.StartDeadLetterJobRequest,
    admin.StartDeadLetterJobResponse,
)
GET_DEAD_LETTER_JOB: Final = Method(
    _ADMIN + "GetDeadLetterJob", admin.GetDeadLetterJobRequest, admin.GetDeadLetterJobResponse
)
LIST_DEAD_LETTER_JOBS: Final = Method(
    _ADMIN + "ListDeadLetterJobs",
    admin.ListDeadLetterJobsRequest,
    admin.ListDeadLetterJobsResponse,
)
CANCEL_DEAD_LETTER_JOB: Final = Method(
    _ADMIN + "CancelDeadLetterJob",
    admin.CancelDeadLetterJobRequest,
    admin.CancelDeadLetterJobResponse,
)
