"""A simulator is worth what it notices: each guard is taken out once, and some seed must notice.

Only these tests may patch our own code (`mutations` says why).
"""

from __future__ import annotations

import pytest

from tests.sim import (
    mutations,
    mutations_of_jobs,
    mutations_of_messages,
    mutations_of_streams,
    mutations_of_transfers,
    mutations_of_turns,
)
from tests.sim.mutations import Mutation
from tests.sim.shrink import Shrinker
from tests.sim.simulation import simulate

_SEEDS_MAX = 250
# Seeds that noticed when they were tried last. They save time only: with another one the guard counts as well.
_TRIED_FIRST = {
    "broken_streams_count": 24,
    "cancelled_jobs_go_on": 31,
    "deferred_messages_are_delivered_to_all": 40,
    "deferred_messages_fail_for_ever": 7,
    "deferred_messages_of_any_session": 30,
    "delays_end_at_a_restart": 34,
    "dry_runs_are_real": 12,
    "expired_deferred_messages_are_delivered": 4,
    "expired_messages_come_back": 4,
    "expired_messages_wait_for_their_delays": 12,
    "expiry_leaves_deferred_messages_in_hand": 5,
    "jobs_end_before_what_they_sent_off": 12,
    "jobs_take_any_reason": 6,
    "jobs_take_more_than_was_asked_for": 1,
    "jobs_take_what_comes_later": 7,
    "jobs_take_what_was_resubmitted_too_often": 47,
    "no_comparison_of_state_versions": 11,
    "no_cursor_check": 7,
    "no_grant_check": 22,
    "no_lease_check": 25,
    "no_undo_for_who_has_gone": 38,
    "nothing_is_recalled": 28,
    "properties_of_any_message": 3,
    "purges_take_what_somebody_has": 90,
    "recalled_messages_count": 28,
    "refusals_are_not_remembered": 14,
    "refusals_of_a_lost_round": 15,
    "resubmitted_ids_are_not_known_anew": 113,
    "resubmitted_messages_keep_their_counts": 7,
    "returned_messages_in_order_of_return": 28,
    "sessions_do_not_wait_for_delays": 10,
    "states_of_held_sessions_are_cleared": 7,
    "status_stops_settlement": 47,
    "turns_go_on_without_their_state": 9,
    "turns_of_anybody": 40,
    "what_was_refused_goes_too": 14,
}
_MUTATIONS = (
    *mutations.MUTATIONS,
    *mutations_of_messages.MUTATIONS,
    *mutations_of_turns.MUTATIONS,
    *mutations_of_jobs.MUTATIONS,
    *mutations_of_streams.MUTATIONS,
    *mutations_of_transfers.MUTATIONS,
)
# The invariant whose check must notice, where others could notice too.
_NOTICED_BY = {
    "deferred_messages_are_in_no_figure": "I-9",
    "numbers_come_again_after_a_restart": "I-7",
    "sessions_are_told_youngest_first": "I-2",
}

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


@pytest.mark.parametrize("mutation", _MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_missing_guard_is_noticed(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch)

    first = _TRIED_FIRST.get(mutation.__name__, 0)
    seeds = (first, *(seed for seed in range(_SEEDS_MAX) if seed != first))
    noticed = next((v for v in map(simulate, seeds) if v.failure), None)

    assert noticed is not None, f"{_SEEDS_MAX} seeds kept every promise without it"
    assert "the simulation itself" not in str(noticed.failure)
    assert "has stopped" not in str(noticed.failure), "the mutation is broken, not the guard"
    assert noticed.broken.startswith(_NOTICED_BY.get(mutation.__name__, ""))
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
