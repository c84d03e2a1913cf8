"""Calls of every kind that wait at a server, to see how it sends them away."""

from __future__ import annotations

import queue as queues
from types import TracebackType
from typing import Any, Self

import grpc

from lockstep.v1 import messaging_service_pb2 as messaging
from tests.server import calls
from tests.server.server_process import CALL_S, Stubs

_WAIT = calls.seconds(60)


class OpenStream:
    """One stream of a queue, whose responses are read as they are asked for."""

    def __init__(self, stubs: Stubs, entity: str, **open_fields: Any) -> None:
        self._requests: queues.Queue[messaging.StreamMessagesRequest | None] = queues.Queue()
        self._call = stubs.messaging.StreamMessages(iter(self._requests.get, None), timeout=CALL_S)
        self.put(open=messaging.StreamOpen(entity=entity, **open_fields))
        assert next(self._call).HasField("opened")

    def put(self, **request: Any) -> None:
        """Send a request."""
        self._requests.put(messaging.StreamMessagesRequest(**request))

    def next_messages(self) -> messaging.ReceiveMessagesResponse:
        """Return what is delivered next."""
        response: messaging.StreamMessagesResponse = next(self._call)
        return response.messages

    def refusal(self) -> calls.Refusal:
        """Read until the stream fails, and return how it did."""
        try:
            for _ in self._call:
                pass
        except grpc.RpcError as error:
            return calls.refusal_of(error)
        raise AssertionError("the stream ended without an error")

    def close(self) -> None:
        """Let the thread go that sends the requests."""
        self._requests.put(None)
        self._call.cancel()


class WaitingCalls:
    """An accept, receives and streams that wait at one server; its queues have nothing for them."""

    def __init__(self, stubs: Stubs, *, sessions: str, plain: str) -> None:
        """Begin to wait.

        Args:
            stubs: The server.
            sessions: A queue with sessions.
            plain: A queue without.
        """
        held = calls.accept(stubs, sessions, "held by a receive").session
        receives = [(sessions, held), (plain, None), (f"{plain}/$DeadLetterQueue", None)]
        accept = messaging.AcceptSessionRequest(entity=sessions, max_wait=_WAIT)
        self._calls: list[Any] = [stubs.messaging.AcceptSession.future(accept, timeout=CALL_S)]
        self._calls += [
            stubs.messaging.ReceiveMessages.future(
                calls.receive_request(entity, session, wait=_WAIT), timeout=CALL_S
            )
            for entity, session in receives
        ]
        named = messaging.SessionChoice(session_id="held by a stream")
        self._streams = [
            OpenStream(stubs, plain),
            OpenStream(stubs, plain),
            OpenStream(stubs, sessions, session=named),
        ]
        self._streams[1].put(add_credit=5)
        calls.runtime(stubs, plain)  # came after the others, over the same connection

    def refusals(self) -> list[calls.Refusal]:
        """Return how each of them ended."""
        return [calls.refusal_of(call.exception(timeout=CALL_S)) for call in self._calls] + [
            stream.refusal() for stream in self._streams
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for call in self._calls:
            call.cancel()
        for stream in self._streams:
            stream.close()
