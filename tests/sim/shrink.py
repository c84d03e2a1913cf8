"""How a failing run is made smaller, so that a person can read it.

Here belongs the search for fewer clients, fewer commands, a shorter storm and fewer faults with which the same
promise is still broken. Never here: how a run is judged. Since each part of a run draws from a stream of its own,
what is left mostly happens as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tests.sim.scenario import Scenario
from tests.sim.simulation import Verdict, simulate

RUNS_MAX = 400
_SHARES = (2, 4, 8)  # of the storm, which is tried without its last half, quarter, eighth


class Shrinker:
    """Makes one failing run smaller.

    Attributes:
        best: The smallest run so far that breaks the same promise.
        runs: How many runs were tried.
    """

    def __init__(
        self,
        failing: Verdict,
        run: Callable[[Scenario], Verdict] = simulate,
        runs_max: int = RUNS_MAX,
    ) -> None:
        self._run = run
        self._runs_max = runs_max
        self.best = failing
        self.runs = 0

    def shrink(self) -> Verdict:
        """Return the smallest run that was found."""
        self._fix_what_was_drawn()
        size = None
        while size != _size(self.best) and self.runs < self._runs_max:
            size = _size(self.best)
            self._leave_out_people()
            self._shorten()
            self._leave_out_commands()
            self._leave_out_strikes()
        return self.best

    def _fix_what_was_drawn(self) -> None:
        """Name what the seed drew; a run that differs when it is named is shrunk as it was drawn."""
        verdict = self.best
        named = replace(
            verdict.scenario,
            people=verdict.people,
            storm_ms=verdict.storm_ms,
            strikes=verdict.struck,
        )
        self._try(named)

    def _try(self, scenario: Scenario) -> bool:
        """Take a smaller scenario if it breaks the same promise."""
        if self.runs >= self._runs_max:
            return False
        self.runs += 1
        verdict = self._run(scenario)
        if verdict.broken != self.best.broken or verdict.failure is None:
            return False
        self.best = verdict
        return True

    def _leave_out_people(self) -> None:
        for name in self.best.people:
            left = tuple(person for person in self.best.people if person != name)
            self._try(replace(self.best.scenario, people=left))

    def _shorten(self) -> None:
        """Let the calm begin earlier; a storm that fails before its end is cut at the failure."""
        end_ms = min(self.best.storm_ms, self.best.ended_ms)
        self._try(replace(self.best.scenario, storm_ms=end_ms))
        for share in _SHARES:
            while end_ms > share and self._try(
                replace(self.best.scenario, storm_ms=end_ms - end_ms // share)
            ):
                end_ms = self.best.storm_ms

    def _leave_out_commands(self) -> None:
        names = sorted({command for command, _ in self.best.met} - {"NoneType", "CreateQueue"})
        without = set(self.best.scenario.without)
        for name in names:
            if name not in without and self._try(
                replace(self.best.scenario, without=(*self.best.scenario.without, name))
            ):
                without = set(self.best.scenario.without)

    def _leave_out_strikes(self) -> None:
        """Delta debugging: leave out ever smaller parts of the list of faults that happened."""
        if self.best.scenario.strikes is None:
            return
        kept = self.best.struck  # of those that were named, some did not come to happen
        if not self._try(replace(self.best.scenario, strikes=kept)):
            kept = self.best.scenario.strikes or ()
        parts = 2
        while kept and self.runs < self._runs_max:
            for left in _without_a_part(kept, parts):
                if self._try(replace(self.best.scenario, strikes=left)):
                    kept, parts = left, max(2, parts - 1)
                    break
            else:
                if parts >= len(kept):
                    return
                parts = min(len(kept), parts * 2)


def _without_a_part(items: Sequence[str], parts: int) -> Iterator[tuple[str, ...]]:
    count = len(items)
    parts = min(parts, count)
    for part in range(parts):
        first, last = count * part // parts, count * (part + 1) // parts
        yield (*items[:first], *items[last:])


def _size(verdict: Verdict) -> tuple[int, ...]:
    scenario = verdict.scenario
    strikes = len(verdict.struck if scenario.strikes is None else scenario.strikes)
    return (len(verdict.people), verdict.storm_ms, strikes, -len(scenario.without))


def describe(smallest: Verdict, runs: int) -> str:
    """Return the smallest run in words."""
    scenario = smallest.scenario
    return (
        f"smallest of {runs} runs: {', '.join(smallest.people) or 'nobody'}; a storm of {smallest.storm_ms} ms;"
        f" {smallest.steps} steps; without {', '.join(scenario.without) or 'nothing'}\n"
        f"faults: {', '.join(smallest.struck) or 'none'}"
    )
