"""What one simulated run is judged by: its random numbers, its trace and its first failure.

Each part of a run draws from a stream of its own, named after it, so that leaving one part out changes the
others little; all write to one trace, so equal scenarios give equal traces.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from random import Random
from typing import Any

from tests.sim.scenario import Scenario

_LAST_EVENTS = 80


class Trial:
    """The shared notebook of one run.

    Attributes:
        scenario: What decides everything.
        loop: The virtual event loop.
        seen: How often each kind of fault and command occurred.
        met: How often each command met each fault.
        struck: The faults that happened, in their order.
        last: The last events, for people.
        failure: What went wrong first; None = nothing yet.
        broken: The promise that it broke, without the facts of this run.
    """

    def __init__(self, scenario: Scenario, loop: asyncio.AbstractEventLoop) -> None:
        self.scenario = scenario
        self.loop = loop
        self.seen: Counter[str] = Counter()
        self.met: Counter[tuple[str, str]] = Counter()
        self.struck: list[str] = []
        self.last: deque[str] = deque(maxlen=_LAST_EVENTS)
        self.failure: str | None = None
        self.broken = ""
        self.failed: asyncio.Future[None] = loop.create_future()
        self._hash = hashlib.sha256()
        self._streams: dict[str, Random] = {}
        self._draws: Counter[str] = Counter()
        self._allowed = None if scenario.strikes is None else frozenset(scenario.strikes)

    @property
    def trace_hash(self) -> str:
        """The fingerprint of everything that happened."""
        return self._hash.hexdigest()[:16]

    def stream(self, name: str) -> Random:
        """Return the random numbers of one part of the run."""
        if name not in self._streams:
            self._streams[name] = Random(f"{self.scenario.seed}/{name}")
        return self._streams[name]

    def strike(self, who: str, kind: str, probability: float) -> Random | None:
        """Draw whether a fault happens now.

        Args:
            who: Whom it would hit.
            kind: The fault.
            probability: How likely it is, unless the scenario lists what happens.

        Returns:
            Random numbers that belong to this one fault; None = it does not happen.
        """
        place = f"{kind}@{who}"
        self._draws[place] += 1
        happens = self.stream(place).random() < probability
        name = f"{place}#{self._draws[place]}"
        if self._allowed is not None:
            happens = name in self._allowed
        if not happens:
            return None
        self.struck.append(name)
        self.count(f"fault {kind.replace('_', ' ')}")
        return Random(f"{self.scenario.seed}/{name}")

    def note(self, who: str, what: str, *facts: Any) -> None:
        """Write one event to the trace."""
        line = f"{self.loop.time():>9.0f} {who:<10} {what} {' '.join(map(str, facts))}"
        self.last.append(line)
        self._hash.update(line.encode())

    def count(self, kind: str) -> None:
        """Count an occurrence of a fault or a command."""
        self.seen[kind] += 1

    def meet(self, command: object, fault: str) -> None:
        """Count that a command, or a kind of them, met a fault."""
        name = command.__name__ if isinstance(command, type) else type(command).__name__
        self.met[name, fault] += 1

    def check(self, holds: object, what: str, *facts: Any) -> None:
        """Note the first broken promise and end the run; later ones may only follow from it."""
        if not holds and self.failure is None:
            self.broken = what
            self.failure = f"{what} {' '.join(map(str, facts))}".rstrip()
            self.note("referee", "FAILED", self.failure)
            if not self.failed.done():
                self.failed.set_result(None)
