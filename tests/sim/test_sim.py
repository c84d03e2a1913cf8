"""The broker keeps its promises under simulated failures, and a seed always tells the same story."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.sim.faults import Faults
from tests.sim.simulation import simulate

_SEEDS = 300
_BLOCK = 20


@pytest.mark.parametrize("first", range(0, _SEEDS, _BLOCK))
def test_every_promise_is_kept_in_every_storm(first: int) -> None:
    for seed in range(first, first + _BLOCK):
        verdict = simulate(seed)

        assert verdict.failure is None, verdict.explain()


def test_a_seed_gives_the_same_trace_in_another_process() -> None:
    program = "from tests.sim.simulation import simulate; print(simulate(7).trace_hash)"
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}

    other = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )

    assert other.stdout.strip() == simulate(7).trace_hash


def test_the_seeds_meet_every_kind_of_fault() -> None:
    seen: Counter[str] = Counter()

    for seed in range(40):
        seen += simulate(seed).seen

    kinds = {kind for kind in Faults.__slots__ if kind not in ("orphaned", "stale_route")}
    met = {kind.removeprefix("fault ").replace(" ", "_") for kind in seen}
    assert kinds <= met
