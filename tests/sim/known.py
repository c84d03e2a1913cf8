"""Bugs that the simulation has found and that are not repaired yet: what it forgives until they are.

Each line goes when its bug goes. A run that meets a forgiven failure ends there and counts as kept; the table of
what was seen names it. `python -m tests.sim --strict` forgives nothing.
"""

from __future__ import annotations

import re

DROPPED_GOES_ON = "without a lease, an owner runs the partition again that it has dropped"
FORGIVEN: set[str] = set()

OF_SEVERAL_PARTITIONS = {"ApplyJobPart", "CheckSend", "EndJob", "FindRequest", "ListOpenJobs"} | {
    "ForgetIdle",
    "FreezeShare",
    "GrantShare",
    "ListRuntimes",
    "ListIdle",
    "SealIdle",
    "Unseal",
}
"""Commands that come where there are several partitions; `tests/unit` proves what they do."""
NOT_YET = OF_SEVERAL_PARTITIONS
"""Commands of the core that no client of the simulation issues; `referee` says what covering one takes."""


def forgiven(failure: str) -> str | None:
    """Return which known bug a failure is; None = it is none."""
    return next((bug for bug in sorted(FORGIVEN) if re.match(bug, failure)), None)
