"""A simulator is worth what it notices: each guard is taken out once, and some seed must notice.

Only these tests may patch our own code (`mutations` says why).
"""

from __future__ import annotations

import pytest

from tests.sim.mutations import MUTATIONS, Mutation
from tests.sim.simulation import simulate

_SEEDS_MAX = 250


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_missing_guard_is_noticed(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch)

    noticed = next((v for v in map(simulate, range(_SEEDS_MAX)) if v.failure), None)

    assert noticed is not None, f"{_SEEDS_MAX} seeds kept every promise without it"
    assert "the simulation itself" not in str(noticed.failure)
    print(f"{mutation.__name__}: seed {noticed.seed}: {noticed.failure:.140}")
