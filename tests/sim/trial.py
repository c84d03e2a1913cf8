"""What one simulated run is judged by: its random numbers, its trace and its first failure.

Every part of a run draws from one generator and writes to one trace, so equal seeds give equal traces.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from random import Random
from typing import Any

_LAST_EVENTS = 80


class Trial:
    """The shared notebook of one run.

    Attributes:
        seed: The seed; it alone decides everything.
        random: The only source of chance.
        loop: The virtual event loop.
        seen: How often each kind of fault and command occurred.
        last: The last events, for people.
        failure: What went wrong first; None = nothing yet.
    """

    def __init__(self, seed: int, loop: asyncio.AbstractEventLoop) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.loop = loop
        self.seen: Counter[str] = Counter()
        self.last: deque[str] = deque(maxlen=_LAST_EVENTS)
        self.failure: str | None = None
        self.failed: asyncio.Future[None] = loop.create_future()
        self._hash = hashlib.sha256()

    @property
    def trace_hash(self) -> str:
        """The fingerprint of everything that happened."""
        return self._hash.hexdigest()[:16]

    def note(self, who: str, what: str, *facts: Any) -> None:
        """Write one event to the trace."""
        line = f"{self.loop.time():>9.0f} {who:<10} {what} {' '.join(map(str, facts))}"
        self.last.append(line)
        self._hash.update(line.encode())

    def count(self, kind: str) -> None:
        """Count an occurrence of a fault or a command."""
        self.seen[kind] += 1

    def chance(self, probability: float) -> bool:
        """Draw: whether something of this probability happens."""
        return self.random.random() < probability

    def check(self, holds: object, what: str, *facts: Any) -> None:
        """Note the first broken promise and end the run; later ones may only follow from it."""
        if not holds and self.failure is None:
            self.failure = f"{what} {' '.join(map(str, facts))}".rstrip()
            self.note("referee", "FAILED", self.failure)
            if not self.failed.done():
                self.failed.set_result(None)
