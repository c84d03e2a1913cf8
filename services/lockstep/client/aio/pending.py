"""A send that was asked for and must be awaited.

Here belongs the awaitable that `send_messages` returns. Never here: how sending works (`sending`).
The law: messages that nobody waited for never vanish silently (SND-2).
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any

from lockstep.client.sending import SequenceNumbers

log = logging.getLogger("lockstep.client")


class UnawaitedSendWarning(RuntimeWarning):
    """A program called `send_messages` without await, or dropped it midway: messages may be lost."""


class PendingSend(Coroutine[Any, Any, SequenceNumbers]):
    """A send under way, or not yet begun; awaiting it gives the sequence numbers.

    It begins when it is awaited or made a task (`TaskGroup.create_task` takes it). When it is thrown
    away before its outcome is known, an error is logged and an UnawaitedSendWarning names the line
    that asked for it, the queue and the number of messages.
    """

    __slots__ = ("__weakref__", "_asked_at", "_count", "_has_begun", "_inner", "_is_over", "_queue")

    def __init__(self, inner: Coroutine[Any, Any, SequenceNumbers], queue: str, count: int) -> None:
        """Stand for `inner`, which sends `count` messages to `queue`."""
        self._inner = inner
        self._queue = queue
        self._count = count
        self._has_begun = False
        self._is_over = False
        # Two frames up is the line of the program; only its place is kept, not the frame.
        frame = sys._getframe(2)
        self._asked_at = (frame.f_code.co_filename, frame.f_lineno)

    def __await__(self) -> Generator[Any, Any, SequenceNumbers]:
        """Send, and return the sequence numbers."""
        self._has_begun = True
        try:
            numbers = yield from self._inner.__await__()
        except GeneratorExit:
            self._report()
            raise
        except BaseException:
            self._is_over = True
            raise
        self._is_over = True
        return numbers

    def send(self, value: Any) -> Any:
        """Go on; for event loops."""
        self._has_begun = True
        try:
            return self._inner.send(value)
        except BaseException:
            self._is_over = True
            raise

    def throw(
        self,
        kind: Any,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
    ) -> Any:
        """Go on with an exception; for event loops."""
        self._has_begun = True
        try:
            if isinstance(kind, BaseException):
                return self._inner.throw(kind)
            return self._inner.throw(kind, value, traceback)
        except BaseException:
            self._is_over = True
            raise

    def close(self) -> None:
        """Give up; for event loops. A send that was not over is reported."""
        self._report()
        self._is_over = True
        self._inner.close()

    def __del__(self) -> None:
        self._report()
        self._inner.close()

    def _report(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        filename, line = self._asked_at
        what = (
            "was dropped before its outcome was known; whether they were stored is not known."
            if self._has_begun
            else "was never awaited, so they were not sent. Write `await` before send_messages."
        )
        log.error(
            "client.send_dropped",
            extra={
                "queue": self._queue,
                "messages": self._count,
                "has_begun": self._has_begun,
                "asked_at": f"{filename}:{line}",
            },
        )
        warnings.warn_explicit(
            f"The send of {self._count} message(s) to queue '{self._queue}' {what}",
            UnawaitedSendWarning,
            filename,
            line,
            source=self,
        )
