"""Which objects are to be looked at: one entry for each, two priorities, retries that come later and later.

Here belongs the order of work. Never here: the work (`reconciler`). The laws: an object is worked on by one worker at
a time; what is put in while it is worked on is worked on once more; who changes an object never waits behind a
comparison of all of them.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import OrderedDict
from collections.abc import Hashable
from enum import IntEnum
from typing import Generic, TypeVar

from lockstep.runtime.clock import Clock

_BACKOFF_FIRST_MS = 1_000
_BACKOFF_MAX_MS = 300_000
# How soon a delay that is shorter than those before it is noticed.
_LOOK_MS = 200

Key = TypeVar("Key", bound=Hashable)


class Priority(IntEnum):
    """Who waits for whom."""

    USER = 0
    """Somebody changed or deleted the object."""
    RESYNC = 1
    """The operator compares everything."""


class WorkQueue(Generic[Key]):
    """Objects to be looked at, by their keys."""

    def __init__(self, clock: Clock) -> None:
        """Make an empty queue.

        Args:
            clock: Of delays.
        """
        self._clock = clock
        self._waiting: tuple[OrderedDict[Key, int], ...] = (OrderedDict(), OrderedDict())
        self._working: set[Key] = set()
        self._again: dict[Key, Priority] = {}
        self._delayed: list[tuple[int, int, Key, Priority]] = []
        self._due: dict[Key, int] = {}
        self._failures: dict[Key, int] = {}
        self._order = itertools.count()
        self._changed = asyncio.Event()
        self._adds = 0

    # --- in ----------------------------------------------------------------------------------------

    def put(self, key: Key, priority: Priority = Priority.USER) -> None:
        """Have an object looked at as soon as a worker is free."""
        self._adds += 1
        if key in self._working:
            self._again[key] = min(priority, self._again.get(key, priority))
            return
        if key in self._waiting[Priority.USER]:
            return
        if priority is Priority.USER:
            self._waiting[Priority.RESYNC].pop(key, None)
        elif key in self._waiting[Priority.RESYNC]:
            return
        self._waiting[priority][key] = self._clock.monotonic_ms()
        self._changed.set()

    def put_after(self, key: Key, delay_ms: int, priority: Priority = Priority.RESYNC) -> None:
        """Have an object looked at after a while; of several delays the shortest counts."""
        at = self._clock.monotonic_ms() + delay_ms
        if self._due.get(key, at + 1) <= at:
            return
        self._due[key] = at
        heapq.heappush(self._delayed, (at, next(self._order), key, priority))

    def retry(self, key: Key, *, least_ms: int = 0, priority: Priority = Priority.RESYNC) -> int:
        """Have an object looked at again after a failure, and return after how many milliseconds.

        Each failure in a row doubles the longest delay, from 1 s to 5 min; the delay itself is drawn up to that.

        Args:
            key: The object.
            least_ms: The shortest delay.
            priority: Of the next look.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        most = min(_BACKOFF_FIRST_MS << min(failures, 20), _BACKOFF_MAX_MS)
        delay_ms = max(random.randrange(most // 2, most), least_ms)
        self.put_after(key, delay_ms, priority)
        return delay_ms

    def succeeded(self, key: Key) -> None:
        """Let the next failure of an object be its first, and forget its delays."""
        self._failures.pop(key, None)
        self._due.pop(key, None)

    def forget(self, key: Key) -> None:
        """Do not look at an object again until it is put in."""
        self.succeeded(key)
        for waiting in self._waiting:
            waiting.pop(key, None)
        self._again.pop(key, None)

    # --- out ---------------------------------------------------------------------------------------

    async def get(self) -> tuple[Key, Priority]:
        """Wait for an object to look at. Call `done` with it afterwards."""
        while True:
            for priority in Priority:
                if self._waiting[priority]:
                    key, _ = self._waiting[priority].popitem(last=False)
                    self._working.add(key)
                    return key, priority
            self._changed.clear()
            await self._changed.wait()

    def done(self, key: Key) -> None:
        """End the work on an object; if it was put in meanwhile, it comes again."""
        self._working.discard(key)
        if key in self._again:
            self.put(key, self._again.pop(key))

    async def keep_time(self) -> None:
        """Put in what was delayed when its time comes; runs until it is cancelled."""
        while True:
            now = self._clock.monotonic_ms()
            while self._delayed and self._delayed[0][0] <= now:
                at, _, key, priority = heapq.heappop(self._delayed)
                if self._due.get(key) == at:
                    del self._due[key]
                    self.put(key, priority)
            left_ms = self._delayed[0][0] - now if self._delayed else _LOOK_MS
            await self._clock.sleep(min(left_ms, _LOOK_MS))

    # --- how it is ---------------------------------------------------------------------------------

    def depth(self, priority: Priority) -> int:
        """Return how many objects wait."""
        return len(self._waiting[priority])

    def oldest_ms(self) -> int:
        """Return for how many milliseconds the object has waited that waits longest; 0 = none waits."""
        now = self._clock.monotonic_ms()
        first = [next(iter(waiting.values())) for waiting in self._waiting if waiting]
        return now - min(first) if first else 0

    @property
    def adds(self) -> int:
        """How often an object was put in."""
        return self._adds
