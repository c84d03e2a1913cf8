"""Conditions keep their time while their status stays, and nothing is written that says the same."""

from __future__ import annotations

from lockstep_operator.conditions import Reason, merged, not_ready, ready

FIRST, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def test_the_same_again_is_equal() -> None:
    once = merged([], ready(), generation=1, at=FIRST)
    assert merged(once, ready(), generation=1, at=LATER) == once


def test_a_status_that_changes_has_a_new_time_and_others_keep_theirs() -> None:
    before = merged([], not_ready(Reason.BROKER_UNAVAILABLE, "away"), generation=1, at=FIRST)
    after = merged(before, ready(), generation=2, at=LATER)
    assert [(c["type"], c["status"], c["lastTransitionTime"]) for c in after] == [
        ("Ready", "True", LATER),
        ("Synced", "True", LATER),
    ]
    again = merged(after, ready(message="still"), generation=3, at="2026-01-03T00:00:00Z")
    assert {c["lastTransitionTime"] for c in again} == {LATER}
    assert {c["observedGeneration"] for c in again} == {3}


def test_what_a_person_must_change_is_stalled_and_nothing_else_is() -> None:
    stalled = {c.kind for c in not_ready(Reason.NAME_CONFLICT, "two")}
    retried = {c.kind for c in not_ready(Reason.DEPENDENCY_NOT_READY, "waits")}
    assert ("Stalled" in stalled, "Reconciling" in stalled) == (True, False)
    assert ("Stalled" in retried, "Reconciling" in retried) == (False, True)
