"""A transport that answers each method from a script of its own, and processors over it."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from lockstep import NEXT_AVAILABLE_SESSION, ProcessingFailure, aio
from lockstep import QueueProcessor as BlockingProcessor
from lockstep.client.processing import Handlers, ProcessorOptions, processor_options
from lockstep.client.transport import Method, RequestT, ResponseT
from lockstep.errors import NoSessionAvailable
from lockstep.runtime.clock import ManualClock
from tests.unit.client.scripted import (
    START_MS,
    Answer,
    Never,
    ScriptedTransport,
    connect,
    options,
    received,
    released,
    settled,
    undone,
)

_ALWAYS: dict[str, Callable[[], Answer]] = {
    "SettleMessages": settled,
    "ReleaseSession": released,
    "CancelRequest": undone,
}

_IDLE: dict[str, Callable[[], Answer]] = {
    "AcceptSession": lambda: NoSessionAvailable("idle"),
    "ReceiveMessages": received,
}


class AnsweringTransport(ScriptedTransport):
    """Gives the next answer for its method to each call; without one, a waiting call waits on."""

    def __init__(self, **answers: list[Answer]) -> None:
        super().__init__()
        self.clock = ManualClock(START_MS)
        self.answers_to: dict[str, deque[Answer]] = defaultdict(deque)
        for name, given in answers.items():
            self.answers_to[name].extend(given)

    async def call(
        self, method: Method[RequestT, ResponseT], request: RequestT, *, timeout_ms: int
    ) -> ResponseT:
        name = method.path.rpartition("/")[2]
        given = self.answers_to[name]
        self.answers.append(given.popleft() if given else _ALWAYS.get(name, Never)())
        return await super().call(method, request, timeout_ms=timeout_ms)

    async def sleep(self, delay_ms: int) -> None:
        await self.clock.sleep(delay_ms)

    def now_ms(self) -> int:
        return self.clock.now_ms()

    def monotonic_ms(self) -> int:
        return self.clock.monotonic_ms()

    def outcomes(self) -> list[tuple[str, int]]:
        """Return what became of which message, in the order of the calls."""
        return [
            (settlement.WhichOneof("outcome"), number)
            for call in self.calls
            if call.name == "SettleMessages"
            for settlement in call.request.settlements
            for number in [
                *settlement.sequence_numbers,
                *(int.from_bytes(token[8:], "big") for token in settlement.lock_tokens),
            ]
        ]


class IdleTransport(AnsweringTransport):
    """The same for threads: a waiting call without an answer brings nothing, soon."""

    def __init__(self, **answers: list[Answer]) -> None:
        super().__init__(**answers)
        self.turn = threading.Lock()
        self.idle = threading.Event()

    async def call(
        self, method: Method[RequestT, ResponseT], request: RequestT, *, timeout_ms: int
    ) -> ResponseT:
        name = method.path.rpartition("/")[2]
        if name in _IDLE and not self.answers_to[name]:
            self.idle.wait(0.01)
            self.answers_to[name].append(_IDLE[name]())
        with self.turn:
            return await super().call(method, request, timeout_ms=timeout_ms)

    async def sleep(self, delay_ms: int) -> None:
        self.clock.advance(delay_ms)


class Failures(list[ProcessingFailure]):
    """An on_error that keeps what it is told."""

    def __call__(self, failure: ProcessingFailure) -> None:
        self.append(failure)

    def kinds(self) -> list[tuple[str, type[Exception]]]:
        return [(failure.source.value, type(failure.error)) for failure in self]


def told(**asked: Any) -> ProcessorOptions:
    defaults = {
        "workers": 1,
        "auto_complete": False,
        "max_auto_lock_renewal_duration": 300,
        "stop_timeout": 5,
        "session_idle_timeout": 60,
    }
    return processor_options(**(defaults | asked))


def aio_processor(
    transport: ScriptedTransport,
    on_message: Callable[..., Any],
    on_error: Callable[..., Any] | None = None,
    *,
    sessions: bool = False,
    on_session_opening: Callable[..., Any] | None = None,
    on_session_closing: Callable[..., Any] | None = None,
    **asked: Any,
) -> aio.QueueProcessor:
    receiver = options(session_id=NEXT_AVAILABLE_SESSION if sessions else None)
    handlers = Handlers(on_message, on_error, on_session_opening, on_session_closing)
    return aio.QueueProcessor(connect(transport), receiver, told(**asked), handlers)


def blocking_processor(
    transport: ScriptedTransport,
    on_message: Callable[..., Any],
    on_error: Callable[..., Any] | None = None,
    *,
    sessions: bool = False,
    **asked: Any,
) -> BlockingProcessor:
    receiver = options(session_id=NEXT_AVAILABLE_SESSION if sessions else None)
    handlers = Handlers(on_message, on_error)
    return BlockingProcessor(connect(transport), receiver, told(**asked), handlers)
