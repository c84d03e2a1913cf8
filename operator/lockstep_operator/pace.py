"""How fast queues are deleted: at once, unless somebody deletes most of them.

Here belongs the pause between deletions. Never here: whether a queue may be deleted. The law: when more than a fifth
of at least 50 objects goes within a minute, deletions are 10 in a second, so that a mistake can be stopped.
"""

from __future__ import annotations

import logging
from collections import deque

from lockstep.runtime.clock import Clock

log = logging.getLogger(__name__)

_WINDOW_MS = 60_000
_LEAST = 50
_SHARE = 0.2
_PAUSE_MS = 100


class Pace:
    """Counts deletions, and slows many of them down."""

    def __init__(self, clock: Clock) -> None:
        """Begin with none."""
        self._clock = clock
        self._recent: deque[int] = deque()
        self._next_ms = 0
        self.is_slow = False

    async def deletion(self, objects: int) -> None:
        """Wait until a queue may be deleted.

        Args:
            objects: How many objects there are, with those that are on their way out.
        """
        now = self._clock.monotonic_ms()
        while self._recent and self._recent[0] <= now - _WINDOW_MS:
            self._recent.popleft()
        self._recent.append(now)
        was_slow = self.is_slow
        total = objects + len(self._recent)
        self.is_slow = total >= _LEAST and len(self._recent) > total * _SHARE
        if not self.is_slow:
            return
        if not was_slow:
            log.warning("deletions.slowed", extra={"recent": len(self._recent), "objects": objects})
        at = max(self._next_ms, now)
        self._next_ms = at + _PAUSE_MS
        await self._clock.sleep(at - now)
