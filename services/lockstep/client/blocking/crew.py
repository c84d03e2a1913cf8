"""The threads of a processor of the blocking client.

Here belong starting, stopping and waiting. Never here: what a worker does (`processing`). The law: a
thread begins nothing after `stop`; one whose call is not over in time ends with that call.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

from lockstep.client.blocking.renewer import AutoLockRenewer, JumpingTime
from lockstep.client.processing import OnLoss, ResultT
from lockstep.client.renewal import Renewal
from lockstep.client.transport import Transport, run_to_completion
from lockstep.core.errors import InvalidOperation, LockstepError

_WAIT_MS_MAX: Final = 1_000


class BlockingCrew:
    """Threads that work until they are stopped; see `Crew`."""

    # A call that blocks cannot be cancelled by another thread, so `stop` sits it out.
    wait_ms_max = _WAIT_MS_MAX

    def __init__(self, transport: Transport) -> None:
        """Measure time on the clock of `transport`."""
        self._transport = transport
        self.stopping = threading.Event()
        self._renewer = AutoLockRenewer()
        self._workers: list[threading.Thread] = []

    def is_stopping(self) -> bool:
        """See `Crew`."""
        return self.stopping.is_set()

    def start(self, work: Callable[[], Coroutine[Any, Any, None]], count: int) -> None:
        """Let `count` workers begin."""
        self._workers = [
            threading.Thread(
                target=lambda: run_to_completion(work()), name="lockstep-processor", daemon=True
            )
            for _ in range(count)
        ]
        for worker in self._workers:
            worker.start()

    def stop(self, within_ms: int) -> None:
        """Begin nothing more and wait for what runs.

        Nobody can end a thread: one that is not over in time goes on with its call. Its lock is not renewed any
        more, nor given back while it still works, and so runs out by itself.

        Raises:
            InvalidOperation: It was called by a worker, which would wait for itself.
        """
        if threading.current_thread() in self._workers:
            raise InvalidOperation(
                "A processor cannot be stopped by a function that it calls: the stop would wait for that function."
                " Set an event there, and stop where the processor was started."
            )
        self.stopping.set()
        if isinstance(self._transport, JumpingTime):
            self._transport.let_pass(_WAIT_MS_MAX)
        ends_ms = self._transport.monotonic_ms() + _WAIT_MS_MAX + within_ms
        for worker in self._workers:
            worker.join(max(0, ends_ms - self._transport.monotonic_ms()) / 1000)
        self._renewer.close()

    async def until_stop(self, work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
        """See `Crew`; what has begun goes on to its end."""
        if self.is_stopping():
            work.close()
            return None
        return await work

    async def pause(self, delay_ms: int) -> None:
        """See `Crew`."""
        self.stopping.wait(delay_ms / 1000)

    async def call(self, function: Callable[..., Any], *arguments: object) -> None:
        """See `Crew`.

        Raises:
            TypeError: The function is async; its body would never run.
            RuntimeError: The function asked for the end of the program, which a thread cannot bring about.
        """
        try:
            result = function(*arguments)
        except SystemExit as error:
            raise RuntimeError("A function of the program called sys.exit in a thread.") from error
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise TypeError(
                "The blocking client calls plain functions; for an async one use lockstep.aio."
            )

    async def briefly(self, work: Coroutine[Any, Any, object]) -> None:
        """See `Crew`: as long as the retries of the client last."""
        await work

    def keep(self, renewal: Renewal, on_loss: OnLoss) -> Callable[[], None]:
        """See `Crew`; losses are told in a thread of the renewer."""

        def tell(_: object, error: LockstepError) -> None:
            run_to_completion(on_loss(error))

        self._renewer._sleep(renewal, tell)
        return renewal.stop
