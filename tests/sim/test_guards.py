"""A simulator is worth what it notices: each guard is taken out once, and some seed must notice.

Only these tests may patch our own code (`mutations` says why).
"""

from __future__ import annotations

import pytest

from tests.sim import mutations, mutations_of_messages, mutations_of_turns
from tests.sim.mutations import Mutation
from tests.sim.shrink import Shrinker
from tests.sim.simulation import simulate

_SEEDS_MAX = 250
_MUTATIONS = (
    *mutations.MUTATIONS,
    *mutations_of_messages.MUTATIONS,
    *mutations_of_turns.MUTATIONS,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


@pytest.mark.parametrize("mutation", _MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_missing_guard_is_noticed(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch)

    noticed = next((v for v in map(simulate, range(_SEEDS_MAX)) if v.failure), None)

    assert noticed is not None, f"{_SEEDS_MAX} seeds kept every promise without it"
    assert "the simulation itself" not in str(noticed.failure)
    assert "has stopped" not in str(noticed.failure), "the mutation is broken, not the guard"
    print(f"{mutation.__name__}: seed {noticed.scenario.seed}: {noticed.failure:.140}")


def test_a_failing_run_is_made_smaller_and_fails_still(monkeypatch: pytest.MonkeyPatch) -> None:
    mutations.no_floor_of_request_ids(monkeypatch)
    failing = next(v for v in map(simulate, range(_SEEDS_MAX)) if v.failure)

    smallest = Shrinker(failing, runs_max=40).shrink()

    again = simulate(smallest.scenario)
    assert (again.failure, again.trace_hash) == (smallest.failure, smallest.trace_hash)
    assert again.broken == failing.broken
    assert len(smallest.people) < len(failing.people)
    assert len(smallest.struck) < len(failing.struck) / 2
