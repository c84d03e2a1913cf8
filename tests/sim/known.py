"""Bugs that the simulation has found and that are not repaired yet: what it forgives until they are.

Each line goes when its bug goes. `python -m tests.sim --strict` forgives nothing.
"""

from __future__ import annotations

LOUD_END = "a process that fails while it starts ends with RuntimeError instead of the reason"

FORGIVEN: set[str] = {LOUD_END}
