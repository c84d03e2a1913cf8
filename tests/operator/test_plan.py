"""What is done about a Queue object: from every state to rest, and never more than its policies allow."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_operator.conditions import Kind, Reason
from lockstep_operator.declared import FINALIZER, DeletionPolicy, read_queue
from lockstep_operator.plan import Action, Entity, Plan, Seen, plan
from tests.operator.objects import DEFAULTS, World, body

POLICY = DeletionPolicy.DELETE_IF_EMPTY
GOING = "2026-02-01T00:00:00Z"


def told(decided: Plan, kind: Kind) -> tuple[str, Reason] | None:
    found = [(c.status, c.reason) for c in decided.conditions if c.kind is kind]
    return found[0] if found else None


def unowned(**settings: Any) -> Entity:
    return Entity("entity-0", 1, {**DEFAULTS, **settings})


def delete(world: World) -> None:
    """Ask for the object's deletion, as Kubernetes notes it."""
    world.stored["metadata"]["deletionTimestamp"] = GOING


# --- making and keeping --------------------------------------------------------------------------------


def test_the_finalizer_comes_before_the_first_write() -> None:
    world = World(body(maxDeliveryCount=5))
    rest = world.settle()
    assert world.actions == [Action.ADD_FINALIZER, Action.CREATE]
    assert told(rest, Kind.READY) == ("True", Reason.RECONCILED)
    assert world.entity is not None
    assert world.entity.settings["max_delivery_count"] == 5


@pytest.mark.parametrize("spec", [{"deletionPolicy": "Retain"}, {"managementPolicy": "Observe"}])
def test_there_is_no_finalizer_where_nothing_is_to_be_cleaned_up(spec: dict[str, str]) -> None:
    world = World(body(**spec), unowned())
    world.settle()
    assert Action.ADD_FINALIZER not in world.actions


def test_a_queue_that_another_program_keeps_is_taken_by_force_only() -> None:
    kept = replace(unowned(), manager_uid="x", manager_name="terraform", manager_source="shop.tf")
    world = World(body(), kept)
    rest = world.settle()
    assert told(rest, Kind.STALLED) == ("True", Reason.NAME_CONFLICT)
    assert "terraform (shop.tf)" in rest.conditions[0].message
    assert Action.UPDATE not in world.actions

    forced = World(body(adoptionPolicy="Force"), kept)
    forced.settle()
    assert forced.done[-1].takes_over


def test_at_rest_nothing_is_done() -> None:
    world = World(body())
    world.settle()
    done = len(world.done)
    world.settle()
    assert len(world.done) == done


def test_a_change_of_the_spec_is_applied_once() -> None:
    world = World(body())
    world.settle()
    world.stored["spec"]["lockDuration"] = "PT30S"
    world.stored["metadata"]["generation"] = 2
    world.settle()
    assert world.actions[-1] is Action.UPDATE
    assert world.entity is not None
    assert world.entity.settings["lock_duration"] == timedelta(seconds=30)
    assert world.entity.manager_generation == 2


def test_what_somebody_else_changed_is_set_back_and_told() -> None:
    world = World(body())
    world.settle()
    was = world.entity
    assert was is not None
    world.entity = Entity(was.uid, was.revision + 1, was.settings, was.manager_uid, "", 1)
    world.settle()
    assert world.actions[-1] is Action.UPDATE
    assert [event.reason for event in world.done[-1].events] == ["DriftCorrected"]


def test_a_queue_that_was_deleted_behind_the_object_is_made_again_with_a_warning() -> None:
    world = World(body())
    world.settle()
    world.entity = None
    world.settle()
    assert world.actions[-1] is Action.CREATE
    assert [(e.kind, e.reason) for e in world.done[-1].events] == [("Warning", "EntityRecreated")]


# --- what was there before -----------------------------------------------------------------------------


def test_a_queue_that_nobody_keeps_is_adopted() -> None:
    world = World(body(), unowned())
    rest = world.settle()
    assert world.actions == [Action.ADD_FINALIZER, Action.UPDATE]
    assert not world.done[-1].takes_over
    assert told(rest, Kind.READY) == ("True", Reason.RECONCILED)


def test_adoption_may_be_forbidden() -> None:
    rest = World(body(adoptionPolicy="Never"), unowned()).settle()
    assert told(rest, Kind.STALLED) == ("True", Reason.ADOPTION_REFUSED)


@pytest.mark.parametrize(
    ("spec", "has"),
    [
        ({"requiresSession": True}, {}),
        ({}, {"requires_session": True}),
        ({"requiresDuplicateDetection": True}, {}),
        ({"placement": "Spread"}, {}),
    ],
)
def test_what_is_fixed_and_differs_is_told_with_both_values(
    spec: dict[str, Any], has: dict[str, Any]
) -> None:
    world = World(body(**spec), unowned(**has))
    rest = world.settle()
    assert told(rest, Kind.STALLED) == ("True", Reason.IMMUTABLE_MISMATCH)
    assert Action.UPDATE not in world.actions


def test_of_two_objects_the_older_one_has_the_queue() -> None:
    rival = read_queue(body("first", uid="uid-b", created="2025-01-01T00:00:00Z"))
    kept = Entity("entity-0", 1, DEFAULTS, "uid-b", "shop/first", 1)
    younger = World(body(), kept, rival=rival)
    rest = younger.settle()
    assert told(rest, Kind.STALLED) == ("True", Reason.NAME_CONFLICT)
    assert "shop/first" in rest.conditions[0].message

    younger.rival = None  # it has gone
    assert told(younger.settle(), Kind.READY) == ("True", Reason.RECONCILED)
    assert younger.done[-1].takes_over


def test_the_older_object_takes_the_queue_from_the_younger_one() -> None:
    rival = read_queue(body("late", uid="uid-b", created="2027-01-01T00:00:00Z"))
    world = World(body(), Entity("entity-0", 1, DEFAULTS, "uid-b", "shop/late", 1), rival=rival)
    world.settle()
    assert world.done[-1].action is Action.UPDATE
    assert world.done[-1].takes_over


def test_who_forces_it_has_it() -> None:
    rival = read_queue(body("first", uid="uid-b", created="2025-01-01T00:00:00Z"))
    kept = Entity("entity-0", 1, DEFAULTS, "uid-b", "shop/first", 1)
    world = World(body(adoptionPolicy="Force"), kept, rival=rival)
    world.settle()
    assert world.done[-1].takes_over


# --- going ---------------------------------------------------------------------------------------------


def test_an_empty_queue_goes_with_its_object() -> None:
    world = World(body())
    world.settle()
    delete(world)
    world.settle()
    assert world.actions[-2:] == [Action.DELETE, Action.DROP_FINALIZER]
    assert world.done[-2].if_empty
    assert world.entity is None


def test_a_queue_that_is_not_empty_holds_its_object() -> None:
    world = World(body(), is_empty=False)
    world.settle()
    delete(world)
    last = world.settle()
    assert (last.action, last.if_empty) == (Action.DELETE, True)
    assert not world.is_gone
    assert world.entity is not None


def test_a_queue_goes_with_its_messages_only_if_its_policy_says_so() -> None:
    world = World(body(deletionPolicy="Delete"), is_empty=False)
    world.settle()
    delete(world)
    world.settle()
    assert not world.done[-2].if_empty
    assert (world.is_gone, world.entity) == (True, None)


def test_a_namespace_that_is_deleted_waits_for_no_queue() -> None:
    world = World(body(), is_empty=False)
    world.settle()
    delete(world)
    world.settle(namespace_going=True)
    assert world.is_gone
    assert world.entity is not None
    assert [event.reason for event in world.done[-1].events] == ["Orphaned"]


def test_an_object_whose_broker_was_deleted_goes() -> None:
    world = World(body())
    world.settle()
    delete(world)
    world.settle(broker=False)
    assert world.is_gone


def test_an_object_may_be_let_go_by_force() -> None:
    world = World(body(), is_empty=False)
    world.settle()
    world.stored["metadata"]["annotations"] = {
        "lockstep.dev/force-finalize": "true",
        "lockstep.dev/paused": "true",
    }
    delete(world)
    world.settle()
    assert world.is_gone


def test_an_object_of_a_queue_that_another_one_has_taken_deletes_nothing() -> None:
    world = World(body())
    world.settle()
    was = world.entity
    assert was is not None
    world.entity = Entity(was.uid, was.revision, was.settings, "uid-b", "shop/other", 1)
    delete(world)
    world.settle()
    assert world.is_gone
    assert world.entity is not None


@pytest.mark.parametrize(
    ("spec", "has"), [({"adoptionPolicy": "Never"}, {}), ({}, {"requires_session": True})]
)
def test_an_object_that_never_had_the_queue_deletes_nothing(
    spec: dict[str, Any], has: dict[str, Any]
) -> None:
    """The queue was there before and was not adopted; it is somebody else's, with its messages."""
    world = World(body(deletionPolicy="Delete", **spec), unowned(**has))
    world.settle()
    delete(world)
    world.settle()
    assert world.is_gone
    assert world.entity is not None


@pytest.mark.parametrize("manager", ["", "uid-b", None])
def test_before_an_object_goes_without_its_queue_the_queue_is_read(manager: str | None) -> None:
    """What is known of the broker may be older than the queue; nobody would delete it afterwards."""
    world = World(body())
    world.settle()
    was = world.entity
    assert was is not None
    world.entity = (
        None
        if manager is None
        else Entity(was.uid, was.revision, was.settings, manager, "shop/other", 1)
    )
    delete(world)
    world.settle()
    assert world.actions[-1] is Action.DROP_FINALIZER
    assert world.done[-1].is_presumed


def test_while_the_broker_is_away_an_object_waits_for_its_deletion() -> None:
    world = World(body())
    world.settle()
    delete(world)
    rest = world.settle(is_reachable=False)
    assert told(rest, Kind.DELETION_BLOCKED) == ("True", Reason.BROKER_UNAVAILABLE)
    assert rest.is_retried


# --- waiting -------------------------------------------------------------------------------------------


def test_an_outage_says_nothing_of_objects_that_wait_for_nothing() -> None:
    world = World(body())
    world.settle()
    assert told(world.settle(is_reachable=False), Kind.READY) == ("True", Reason.RECONCILED)

    world.stored["metadata"]["generation"] = 2
    rest = world.settle(is_reachable=False)
    assert told(rest, Kind.READY) == ("Unknown", Reason.BROKER_UNAVAILABLE)


def test_an_outage_changes_nothing_that_was_told_of_what_is_only_observed() -> None:
    world = World(body(managementPolicy="Observe"), unowned())
    conditions = [
        {"type": "Ready", "status": "True", "reason": "Observed", "message": "x"},
        {"type": "DriftDetected", "status": "True", "reason": "Reported", "message": "y"},
    ]
    world.stored["status"] = {"observedGeneration": 1, "conditions": conditions}
    rest = world.settle(is_reachable=False)
    assert told(rest, Kind.READY) == ("True", Reason.OBSERVED)
    assert told(rest, Kind.DRIFT_DETECTED) == ("True", Reason.REPORTED)


def test_a_paused_object_keeps_what_was_told_of_it() -> None:
    world = World(body())
    world.settle()
    world.stored["metadata"]["annotations"] = {"lockstep.dev/paused": "true"}
    world.entity = None
    rest = world.settle()
    assert told(rest, Kind.READY) == ("True", Reason.RECONCILED)
    assert told(rest, Kind.RECONCILING) == ("True", Reason.PAUSED)
    assert world.entity is None


def test_a_namespace_that_the_broker_does_not_take_is_told() -> None:
    rest = World(body()).settle(namespace_allowed=False)
    assert told(rest, Kind.STALLED) == ("True", Reason.NOT_ALLOWED_NAMESPACE)


def test_an_object_waits_for_its_broker() -> None:
    rest = World(body(brokerName="other")).settle(broker=False)
    assert told(rest, Kind.READY) == ("False", Reason.DEPENDENCY_NOT_READY)
    assert told(rest, Kind.STALLED) is None


def test_what_is_only_observed_is_reported_and_left() -> None:
    world = World(body(managementPolicy="Observe", maxDeliveryCount=3), unowned())
    rest = world.settle()
    assert told(rest, Kind.READY) == ("True", Reason.OBSERVED)
    assert told(rest, Kind.DRIFT_DETECTED) == ("True", Reason.REPORTED)
    assert world.actions == []
    world.entity = None
    assert told(world.settle(), Kind.READY) == ("False", Reason.ENTITY_MISSING)


# --- always --------------------------------------------------------------------------------------------

_SPECS = st.fixed_dictionaries(
    {},
    optional={
        "deletionPolicy": st.sampled_from(["Delete", "DeleteIfEmpty", "Retain"]),
        "adoptionPolicy": st.sampled_from(["IfUnowned", "Never", "Force"]),
        "managementPolicy": st.just("Full"),
        "requiresSession": st.booleans(),
        "maxDeliveryCount": st.integers(1, 5),
    },
)
_ENTITIES = st.none() | st.builds(
    lambda has, uid: Entity("entity-0", 1, {**DEFAULTS, "requires_session": has}, uid, "x/y", 1),
    st.booleans(),
    st.sampled_from(["", "uid-a", "uid-b"]),
)


@given(
    spec=_SPECS,
    entity=_ENTITIES,
    has_finalizer=st.booleans(),
    is_going=st.booleans(),
    is_empty=st.booleans(),
    default=st.sampled_from(DeletionPolicy),
    namespace_going=st.booleans(),
)
def test_from_every_state_it_comes_to_rest_and_keeps_to_its_policy(
    spec: dict[str, Any],
    entity: Entity | None,
    has_finalizer: bool,
    is_going: bool,
    is_empty: bool,
    default: DeletionPolicy,
    namespace_going: bool,
) -> None:
    stored = body(**spec)
    stored["metadata"]["finalizers"] = [FINALIZER] if has_finalizer else []
    if is_going:
        stored["metadata"]["deletionTimestamp"] = GOING
    world = World(stored, entity, is_empty=is_empty)
    policy = DeletionPolicy(spec.get("deletionPolicy", default))

    world.settle(default, namespace_going=namespace_going)

    if Action.DELETE in world.actions:
        assert is_going
        assert entity is not None
        assert entity.manager_uid == "uid-a"
        assert policy is not DeletionPolicy.RETAIN
        assert all(
            one.if_empty == (policy is DeletionPolicy.DELETE_IF_EMPTY)
            for one in world.done
            if one.action is Action.DELETE
        )
    writes = [a for a in world.actions if a in (Action.CREATE, Action.UPDATE)]
    assert not (writes and is_going)
    if writes and policy is not DeletionPolicy.RETAIN:
        assert FINALIZER in world.stored["metadata"]["finalizers"]
    if is_going and (is_empty or policy is not DeletionPolicy.DELETE_IF_EMPTY or namespace_going):
        assert world.is_gone or not has_finalizer


def test_an_unknown_world_changes_nothing() -> None:
    decided = plan(read_queue(body()), Seen(is_reachable=False), POLICY)
    assert decided.action is Action.NOTHING
