"""What is asked of one run: a seed, and (of a run that is being made smaller) what is left of it.

Here belongs how a scenario is written down and read again. Never here: how it is made smaller (`shrink`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run. None = as the seed draws it.

    Attributes:
        seed: Decides everything that is not said here.
        people: Only these clients take part.
        storm_ms: How long the storm lasts.
        strikes: Only these faults happen, each named by its kind, by whom it hits and by the draw that it was.
        without: Nobody issues these commands.
    """

    seed: int
    people: tuple[str, ...] | None = None
    storm_ms: int | None = None
    strikes: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()

    def to_text(self) -> str:
        """Return the scenario as JSON, for `python -m tests.sim --scenario`."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps(values, separators=(",", ":"))

    @staticmethod
    def from_text(text: str) -> Scenario:
        """Return the scenario that `to_text` wrote."""
        known = {field.name for field in fields(Scenario)}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in json.loads(text).items()
            if name in known
        }
        return Scenario(**values)
