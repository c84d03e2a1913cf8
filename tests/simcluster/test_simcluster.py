"""A cluster of many owners keeps its promises under simulated failures, and a seed always tells the same story."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from functools import cache

import pytest

from tests.simcluster.faults import CHAOS, Faults
from tests.simcluster.simulation import Verdict, simulate

_SEEDS = 60
_BLOCK = 6
_MEETING_MAX = 150  # until each fault was met
_RUN = 11


@cache
def _verdict(seed: int) -> Verdict:
    """Return how a seed ends; the tests of this module look at the same runs."""
    return simulate(seed)


@pytest.mark.parametrize("first", range(0, _SEEDS, _BLOCK))
def test_every_promise_is_kept_in_every_storm(first: int) -> None:
    for seed in range(first, first + _BLOCK):
        verdict = _verdict(seed)

        assert verdict.failure is None, verdict.explain()


def test_a_seed_gives_the_same_trace_in_another_process() -> None:
    program = (
        f"from tests.simcluster.simulation import simulate; print(simulate({_RUN}).trace_hash)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}

    other = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )

    assert other.stdout.strip() == _verdict(_RUN).trace_hash


def test_the_seeds_meet_every_kind_of_fault() -> None:
    seen: Counter[str] = Counter()
    kinds = {field.name for field in fields(Faults)} - {"of_disks"} | {*CHAOS, "commit_unknown"}

    missed = kinds
    for seed in range(_MEETING_MAX):
        seen += _verdict(seed).seen
        missed = {kind for kind in kinds if not seen[f"fault {kind.replace('_', ' ')}"]}
        if not missed:
            break

    assert missed == set()
    assert seen["fault a lease ran out"]
    assert seen["a batch was stored in part (ADD-2)"]
