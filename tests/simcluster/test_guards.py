"""A simulator is worth what it notices: each guard is taken out once, and some seed must notice.

Only these tests may patch our own code (`mutations` says why).
"""

from __future__ import annotations

import pytest

from tests.simcluster.faults import Faults
from tests.simcluster.mutations import MUTATIONS, Mutation
from tests.simcluster.simulation import simulate

_SEEDS_MAX = 60
# Guards that are looked for in storms of what they guard against; other storms notice too, but seldom.
_UNDER = {
    "claims_of_anybody": Faults(
        join=1.0,
        leave=0.6,
        crash=0.4,
        cut_etcd=0.6,
        cut_member=1.0,
        etcd_late=0.06,
        etcd_unknown=0.1,
        lagging=0.3,
    ),
    "channels_close_as_if_cancelled": Faults(crash=1.0, leave=1.0),
    "data_loss_is_not_noticed": Faults(wipe=1.0),
    "definitions_are_not_brought": Faults(),
    "lost_keys_are_kept": Faults(key_deleted=1.0),
    "no_epoch_check_at_open": Faults(wipe=1.0),
    "no_fence_in_commit": Faults(zombie=1.0),
    "no_lease_check": Faults(zombie=1.0),
    "not_listed_after_compaction": Faults(compaction=1.0, crash=1.0, leave=1.0),
    "replies_without_a_lease": Faults(zombie=1.0),
    "unknown_accepts_are_tried_elsewhere": Faults(reply_lost=0.15),
    "validity_from_the_answer": Faults(cut_etcd=1.0, etcd_slow=0.5),
}
# Seeds that noticed when they were tried last. They save time only: with another one the guard counts as well.
_TRIED_FIRST = {
    "claims_of_anybody": 8,
    "not_listed_after_compaction": 1,
    "validity_from_the_answer": 36,
}

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_missing_guard_is_noticed(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch)

    first = _TRIED_FIRST.get(mutation.__name__, 0)
    seeds = (first, *(seed for seed in range(_SEEDS_MAX) if seed != first))
    runs = (simulate(seed, _UNDER.get(mutation.__name__)) for seed in seeds)
    noticed = next((run for run in runs if run.failure), None)

    assert noticed is not None, f"{_SEEDS_MAX} seeds kept every promise without it"
    assert "the simulation itself" not in str(noticed.failure)
    assert "has stopped" not in str(noticed.failure), "the mutation is broken, not the guard"
    print(f"{mutation.__name__}: seed {noticed.scenario.seed}: {noticed.failure:.140}")
