"""The calls that wait at a front end, and their end when it stops.

Here belongs how a wait is cut short. Never here: what is waited for. The laws: who is sent away is told to go elsewhere
at once, and a call that is cut has no effect that a retry with its request id would not find, or that its owner does
not undo (ADD-3, BAT-9); what does not wait is never cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from lockstep.core.errors import ShuttingDown

_Result = TypeVar("_Result")


class Waits:
    """All and only the waits of one front end; for one event loop."""

    def __init__(self) -> None:
        """Let everybody wait, until `send_away`."""
        self._is_over = False
        self._waiting: set[asyncio.Timeout] = set()

    def send_away(self) -> None:
        """End all waits, and every one that begins from now on."""
        self._is_over = True
        while self._waiting:
            self._waiting.pop().reschedule(0)  # a moment that has passed

    async def wait(self, call: Callable[[], Awaitable[_Result]]) -> _Result:
        """Return what a call returns; it is cancelled when the front end stops first, or not made at all.

        Raises:
            ShuttingDown: The front end stops. Whether the call had an effect is not known.
        """
        if self._is_over:
            raise _told()
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._waiting.add(scope)
                return await call()
        except TimeoutError:
            if scope.expired():
                raise _told() from None
            raise
        finally:
            self._waiting.discard(scope)


def _told() -> ShuttingDown:
    return ShuttingDown("This process is stopping. Try again.")
