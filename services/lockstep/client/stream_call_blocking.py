"""One stream of the blocking client: a call of grpc.

Here belongs what that library needs for a stream. Never here: what passes on it (`streams`). The law: no await here
ever suspends, and no thread outlives `finish`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any, Generic

import grpc

from lockstep.client.transport import RequestT, ResponseT
from lockstep.core.errors import ClientClosed, LockstepError
from lockstep.wire.status import from_rpc_error


class BlockingStreamCall(Generic[RequestT, ResponseT]):
    """A stream, with the thread that reads it; see `StreamCall`."""

    def __init__(
        self, stub: Any, metadata: tuple[tuple[str, str], ...], closed: threading.Event
    ) -> None:
        """Begin.

        Args:
            stub: The method, of an open channel.
            metadata: Told to the server with the call.
            closed: Set before the channel is closed.

        Raises:
            ValueError: The channel was closed just now.
        """
        # None = no more come. What is read never exceeds the credit that was given, so neither queue needs a limit.
        self._requests: queue.SimpleQueue[RequestT | None] = queue.SimpleQueue()
        self._responses: queue.SimpleQueue[ResponseT | LockstepError] = queue.SimpleQueue()
        self._closed = closed
        self._call: Any = stub(self._sent(), metadata=metadata)
        self._thread = threading.Thread(
            target=self._read_all, name="lockstep-stream-reader", daemon=True
        )
        self._thread.start()

    def write(self, request: RequestT) -> None:
        """See `StreamCall`."""
        self._requests.put(request)

    def end_writing(self) -> None:
        """See `StreamCall`."""
        self._requests.put(None)

    async def read(self, *, within_ms: int | None) -> ResponseT | None:
        """See `StreamCall`."""
        try:
            response = self._responses.get(
                timeout=None if within_ms is None else max(0, within_ms) / 1000
            )
        except queue.Empty:
            return None
        if isinstance(response, LockstepError):
            self._responses.put(response)
            raise response
        return response

    async def finish(self) -> None:
        """See `StreamCall`."""
        self.end_writing()
        self._call.cancel()
        self._thread.join()

    def _sent(self) -> Iterator[RequestT]:
        while (request := self._requests.get()) is not None:
            yield request

    def _read_all(self) -> None:
        end: LockstepError = ClientClosed("This stream was closed.")
        try:
            for response in self._call:
                self._responses.put(response)
        except grpc.RpcError as error:
            # A server that stops cancels what it had not begun, and then nobody closed anything here.
            if not (self._call.cancelled() or self._closed.is_set()):
                end = from_rpc_error(error)
        finally:
            self._responses.put(end)
            self._requests.put(None)  # gRPC waits for the next request even on a call that is over
