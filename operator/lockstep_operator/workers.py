"""Those who look at objects, several at a time.

Here belongs the loop around a look: its result, its retry, its measurement. Never here: the look. The law: whatever a
look raises is logged and tried again later; it never ends a worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from lockstep.core.errors import LockstepError
from lockstep.runtime.clock import Clock
from lockstep_operator.kube import KubeError
from lockstep_operator.looks import Result
from lockstep_operator.metrics import OperatorMetrics
from lockstep_operator.objects import Key
from lockstep_operator.work_queue import WorkQueue

log = logging.getLogger(__name__)

_FINISH_MS = 10_000
_FINISH_LOOK_MS = 20

Look = Callable[[Key], Awaitable[Result]]


class Workers:
    """Looks at what the work queue names."""

    def __init__(
        self,
        looks: Mapping[str, Look],
        *,
        work: WorkQueue[Key],
        metrics: OperatorMetrics,
        clock: Clock,
    ) -> None:
        """Look with `looks`, one for each kind."""
        self._looks = looks
        self._work = work
        self._metrics = metrics
        self._clock = clock
        self._busy = 0
        self._ends = False
        self._last_ms = clock.monotonic_ms()
        self._heard: dict[Key, tuple[int, int]] = {}
        self.is_running = False

    # --- how fast ----------------------------------------------------------------------------------

    def heard(self, key: Key, generation: int) -> None:
        """Tell that an object has a new generation; how long it takes to be Ready is measured from now."""
        if self._heard.get(key, (-1, 0))[0] < generation:
            self._heard[key] = (generation, self._clock.monotonic_ms())

    def begin_measuring(self) -> None:
        """Forget what was heard while another operator worked: this one does not answer for how long that took."""
        self._heard.clear()

    def forget(self, key: Key) -> None:
        """Tell that an object is gone."""
        self._heard.pop(key, None)

    def idle_ms(self) -> int:
        """Return for how many milliseconds no look has ended."""
        return self._clock.monotonic_ms() - self._last_ms

    # --- the loop ----------------------------------------------------------------------------------

    async def run(self, workers: int) -> None:
        """Work with so many at a time; runs until it is cancelled."""
        self.is_running = True
        self._last_ms = self._clock.monotonic_ms()
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work_on())

    async def finish(self) -> None:
        """Begin nothing more, and wait up to 10 s for what was begun."""
        self._ends = True
        until_ms = self._clock.monotonic_ms() + _FINISH_MS
        while self._busy and self._clock.monotonic_ms() < until_ms:
            await self._clock.sleep(_FINISH_LOOK_MS)
        self.is_running = False

    async def _work_on(self) -> None:
        while True:
            key, _ = await self._work.get()
            if self._ends:
                self._work.done(key)
                await asyncio.Event().wait()
            self._busy += 1
            try:
                await self._look_at(key)
            finally:
                self._busy -= 1
                self._last_ms = self._clock.monotonic_ms()
                self._work.done(key)

    async def _look_at(self, key: Key) -> None:
        began_ms = self._clock.monotonic_ms()
        try:
            result = await self._looks[key.kind](key)
        except (KubeError, LockstepError) as error:
            log.warning("look.failed", extra={"object": str(key), "error": str(error)})
            result = Result(outcome="retry", is_retried=True)
        except Exception:
            log.exception("look.broken", extra={"object": str(key)})
            result = Result(outcome="retry", is_retried=True)
        self._tell(key, result, self._clock.monotonic_ms() - began_ms)

    def _tell(self, key: Key, result: Result, took_ms: int) -> None:
        self._metrics.reconciles.labels(key.kind, result.outcome).inc()
        self._metrics.duration.labels(key.kind).observe(took_ms / 1000)
        if result.drift:
            self._metrics.drift.labels(key.kind).inc()
        if result.is_retried:
            self._metrics.retries.labels(key.kind).inc()
            self._work.retry(key, least_ms=result.least_ms)
        else:
            self._work.succeeded(key)
            if result.again_ms:
                self._work.put_after(key, result.again_ms)
        if result.is_ready and key in self._heard:
            _, since_ms = self._heard.pop(key)
            taken_ms = self._clock.monotonic_ms() - since_ms
            self._metrics.convergence.labels(key.kind).observe(taken_ms / 1000)
