"""Bugs that the simulation has found and that are not repaired yet: what it forgives until they are.

Each line goes when its bug goes. `python -m tests.sim --strict` forgives nothing.
"""

from __future__ import annotations

DROPPED_GOES_ON = "without a lease, an owner runs the partition again that it has dropped"
CONTENT_GONE = (
    "an answer's body or state that a later step of its round removed stops the partition"
)

FORGIVEN: set[str] = set()
