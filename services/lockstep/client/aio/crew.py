"""The tasks of a processor of the asyncio client.

Here belong starting, stopping and waiting. Never here: what a worker does (`processing`). The law: every
task belongs to the crew and is over when `stop` returns.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from lockstep.client.channel_options import WAIT_MS_MAX
from lockstep.client.processing import OnLoss, ResultT
from lockstep.client.renewal import Renewal
from lockstep.client.transport import Transport
from lockstep.core.errors import InvalidOperation

_BRIEFLY_S: Final = 5


class AioCrew:
    """Tasks that work until they are stopped; see `Crew`."""

    wait_ms_max = WAIT_MS_MAX

    def __init__(self, transport: Transport) -> None:
        """Sleep on the clock of `transport`."""
        self._transport = transport
        self._group = asyncio.TaskGroup()
        self.stopping = asyncio.Event()
        # All and only the waits that `stop` ends.
        self._waits: set[asyncio.Timeout] = set()
        self._workers: list[asyncio.Task[None]] = []
        # All and only what runs besides the workers.
        self._reports: set[asyncio.Task[None]] = set()

    def is_stopping(self) -> bool:
        """See `Crew`."""
        return self.stopping.is_set()

    async def start(self, work: Callable[[], Coroutine[Any, Any, None]], count: int) -> None:
        """Let `count` workers begin."""
        await self._group.__aenter__()
        self._workers = [self._group.create_task(work()) for _ in range(count)]

    async def stop(self, within_ms: int) -> None:
        """Begin nothing more, wait for what runs, and cancel what is not over in time.

        Raises:
            InvalidOperation: It was called by a worker, which would wait for itself.
        """
        if asyncio.current_task() in self._workers:
            raise InvalidOperation(
                "A processor cannot be stopped by a function that it calls: the stop would wait for that function."
                " Set an event there, and stop where the processor was started."
            )
        if not self.is_stopping():
            self.stopping.set()
            for wait in self._waits:
                wait.reschedule(0)
        try:
            await asyncio.wait(self._workers, timeout=within_ms / 1000)
            if self._reports:
                await asyncio.wait(self._reports, timeout=_BRIEFLY_S)
        finally:
            for task in (*self._workers, *self._reports):
                task.cancel()
            await self._group.__aexit__(None, None, None)

    async def until_stop(self, work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
        """See `Crew`; work that takes locks gives them back when it is cancelled (BAT-9)."""
        if self.is_stopping():
            work.close()
            return None
        wait = asyncio.timeout(None)
        try:
            async with wait:
                self._waits.add(wait)
                return await work
        except TimeoutError:
            if not wait.expired():
                raise
            return None
        finally:
            self._waits.discard(wait)

    async def pause(self, delay_ms: int) -> None:
        """See `Crew`."""
        await self.until_stop(_sleep(self._transport, delay_ms))

    async def call(self, function: Callable[..., Any], *arguments: object) -> None:
        """See `Crew`; a function that is not async holds up the whole event loop while it runs.

        Raises:
            RuntimeError: The function was cancelled, and not by the stop: something that it waited for was.
        """
        try:
            result = function(*arguments)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise RuntimeError(
                "What a function of the program waited for was cancelled."
            ) from error

    async def briefly(self, work: Coroutine[Any, Any, object]) -> None:
        """See `Crew`: 5 s."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_BRIEFLY_S):
                await work

    def keep(self, renewal: Renewal, on_loss: OnLoss) -> Callable[[], None]:
        """See `Crew`."""
        task = self._group.create_task(self._renew(renewal, on_loss))

        def end() -> None:
            renewal.stop()
            task.cancel()

        return end

    async def _renew(self, renewal: Renewal, on_loss: OnLoss) -> None:
        while not renewal.is_finished:
            await self._transport.sleep(renewal.delay_ms())
            for loss in await renewal.turn():
                # A task of its own: the end of the renewal must not cut short what the program does about it.
                report = self._group.create_task(on_loss(loss.error))
                self._reports.add(report)
                report.add_done_callback(self._reports.discard)


async def _sleep(transport: Transport, delay_ms: int) -> None:
    await transport.sleep(delay_ms)
