"""How fast queues are deleted: at once, unless somebody deletes most of them.

Here belongs when a queue may be deleted. Never here: whether it may. The law: when more than a fifth of at least 50
objects goes within a minute, deletions are 10 in a second, so that a mistake can be stopped; who waits is decided on
anew when its time comes, and keeps no worker meanwhile.
"""

from __future__ import annotations

import logging

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
        # When each object's queue may be deleted, or was, of the last minute.
        self._times: dict[str, int] = {}
        self._objects = 0
        self._next_ms = 0

    @property
    def is_slow(self) -> bool:
        """Whether most queues are being deleted."""
        oldest_ms = self._clock.monotonic_ms() - _WINDOW_MS
        recent = sum(1 for at in self._times.values() if at > oldest_ms)
        total = self._objects + recent
        return total >= _LEAST and recent > total * _SHARE

    def left_ms(self, uid: str, objects: int) -> int:
        """Return for how many milliseconds the queue of an object may not be deleted yet; 0 = it may.

        Args:
            uid: Of the object; asked again, it keeps its turn.
            objects: How many objects there are, with those that are on their way out.
        """
        now = self._clock.monotonic_ms()
        self._times = {one: at for one, at in self._times.items() if at > now - _WINDOW_MS}
        self._objects = objects
        if uid not in self._times:
            was_slow = self.is_slow
            self._times[uid] = now
            if self.is_slow:
                self._times[uid] = max(self._next_ms, now)
                self._next_ms = self._times[uid] + _PAUSE_MS
                if not was_slow:
                    recent = len(self._times)
                    log.warning("deletions.slowed", extra={"recent": recent, "objects": objects})
        return max(self._times[uid] - now, 0)
