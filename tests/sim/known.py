"""Bugs that the simulation has found and that are not repaired yet: what it forgives until they are.

Each line goes when its bug goes. `python -m tests.sim --strict` forgives nothing.
"""

from __future__ import annotations

UNTRUE_REFUSAL = "a round whose commit failed answers some calls with what it had decided"
SMALL_CACHE = "a chunk is evicted between the look into the cache and the answer"
LOUD_END = "a process that fails while it starts ends with RuntimeError instead of the reason"

FORGIVEN: set[str] = {UNTRUE_REFUSAL, SMALL_CACHE, LOUD_END}
