"""One switch for all calls to the broker: while it does not answer, one probe asks, not every object.

Here belongs whether the broker answers. Never here: what waits for it. The laws: the first failure opens the switch,
the first answer closes it; while it is open, only the probe calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from lockstep.core.errors import ClusterUnavailable, LockstepError, ServerBusy
from lockstep.runtime.clock import Clock
from lockstep_operator.broker import is_unreachable
from lockstep_operator.conditions import Reason

log = logging.getLogger(__name__)

_FIRST_PROBE_MS = 2_000
_PROBE_MS_MAX = 30_000
_STEADY_MS = 60_000


class Breaker:
    """Whether the broker answers."""

    def __init__(self, clock: Clock, probe: Callable[[], Awaitable[None]]) -> None:
        """Take it that the broker answers.

        Args:
            clock: Of probes.
            probe: Asks the broker for next to nothing.
        """
        self._clock = clock
        self._probe = probe
        self._opened = asyncio.Event()
        self._open_since_ms = 0
        self.reason = Reason.BROKER_UNAVAILABLE
        self.message = ""

    @property
    def is_open(self) -> bool:
        """Whether nothing but the probe is to call."""
        return self._opened.is_set()

    def open_for_ms(self) -> int:
        """Return for how many milliseconds the broker has not answered."""
        return self._clock.monotonic_ms() - self._open_since_ms if self.is_open else 0

    def failed(self, error: LockstepError) -> None:
        """Tell of a call that the broker did not answer; the errors that it answers with do not count."""
        if not is_unreachable(error) or isinstance(error, ServerBusy) or self.is_open:
            return
        is_store = isinstance(error, ClusterUnavailable)
        self.reason = Reason.METADATA_STORE_UNAVAILABLE if is_store else Reason.BROKER_UNAVAILABLE
        self.message = str(error)
        self._open_since_ms = self._clock.monotonic_ms()
        self._opened.set()
        log.warning("broker.unavailable", extra={"reason": error.reason, "error": str(error)})

    async def watch(self, answered: Callable[[], Awaitable[None]]) -> None:
        """Ask a broker that does not answer until it does; runs until it is cancelled.

        Args:
            answered: Awaited each time that it answers again.
        """
        delay_ms, closed_at_ms = 0, -_STEADY_MS
        while True:
            await self._opened.wait()
            # One that answers the probe and nothing else is not called by everybody every two seconds.
            is_steady = self._open_since_ms - closed_at_ms >= _STEADY_MS
            delay_ms = _FIRST_PROBE_MS if is_steady else min(delay_ms * 2, _PROBE_MS_MAX)
            while True:
                await self._clock.sleep(delay_ms)
                try:
                    await self._probe()
                    break
                except LockstepError as error:
                    self.message = str(error)
                    delay_ms = min(delay_ms * 2, _PROBE_MS_MAX)
            log.info("broker.answers", extra={"after_ms": self.open_for_ms()})
            self._opened.clear()
            closed_at_ms = self._clock.monotonic_ms()
            await answered()
