"""A simulator is worth what it notices: each guard is taken out once, and some seed must notice.

Only these tests may patch our own code (`mutations` says why).
"""

from __future__ import annotations

import pytest

from tests.simcluster.mutations import MUTATIONS, Mutation
from tests.simcluster.simulation import simulate

_SEEDS_MAX = 150
# Seeds that noticed when they were tried last. They save time only: with another one the guard counts as well.
_TRIED_FIRST: dict[str, int] = {}

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_missing_guard_is_noticed(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch)

    first = _TRIED_FIRST.get(mutation.__name__, 0)
    seeds = (first, *(seed for seed in range(_SEEDS_MAX) if seed != first))
    noticed = next((v for v in map(simulate, seeds) if v.failure), None)

    assert noticed is not None, f"{_SEEDS_MAX} seeds kept every promise without it"
    assert "the simulation itself" not in str(noticed.failure)
    assert "has stopped" not in str(noticed.failure), "the mutation is broken, not the guard"
    print(f"{mutation.__name__}: seed {noticed.scenario.seed}: {noticed.failure:.140}")
