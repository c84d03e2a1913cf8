"""What a user does with the chart, on a real cluster: in this order, on one release."""

from __future__ import annotations

from typing import Any

import pytest

from lockstep.runtime.clock import SystemClock
from tests.kubernetes.conftest import Tell
from tests.kubernetes.lab import RELEASE, CommandFailed, Lab, queue
from tests.server.server_process import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

MANY = 100
_clock = SystemClock()


def condition(lab: Lab, name: str, kind: str) -> dict[str, Any]:
    found = lab.get(f"lkq/{name}")["status"]["conditions"]
    return next((one for one in found if one["type"] == kind), {})


def verdict_is_good(verdict: dict[str, Any]) -> None:
    assert verdict["violations"] == []


def test_the_programs_of_helm_test_pass(lab: Lab) -> None:
    lab.helm("test", RELEASE, "--timeout", "200s")


def test_declared_queues_are_made_and_carry_messages(lab: Lab) -> None:
    lab.apply(queue("invoices", requiresSession=True, maxDeliveryCount=7, lockDuration="PT30S"))
    lab.wait_for("lkq/invoices", "condition=Ready")

    lab.lockstep("send", "invoices", "--session", "ada", "--count", "5", "number {n}")
    received = lab.in_client("lockstep", "receive", "invoices", "--max", "5")

    assert [f"number {n}" in received for n in range(1, 6)] == [True] * 5
    assert lab.lockstep("queue", "show", "invoices")["max_delivery_count"] == 7
    broker = lab.get("lkb/default")
    assert broker["spec"]["endpoint"] == lab.server


def test_many_queues_at_once_get_ready(lab: Lab, tell: Tell) -> None:
    began_ms = _clock.monotonic_ms()
    lab.apply(*(queue(f"many-{number}") for number in range(MANY)))
    applied_ms = _clock.monotonic_ms()

    def all_ready() -> bool:
        path = '{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
        return lab.kubectl("get", "lkq", "-o", f"jsonpath={path}").split().count("True") > MANY

    wait_until(all_ready, f"{MANY} queues are ready", within_ms=90_000)
    ready_ms = _clock.monotonic_ms()
    tell(
        f"{MANY} queues: applied in {applied_ms - began_ms} ms, ready {ready_ms - applied_ms} ms later"
    )


def test_nothing_is_lost_while_owners_come_go_and_die(lab: Lab, tell: Tell) -> None:
    load = lab.start_load("owners", "--locks-survive")
    owners = f"deployment/{RELEASE}-owner"

    lab.kubectl("scale", owners, "--replicas=3")
    lab.settle()
    lab.kill("owner")
    lab.settle()
    lab.kubectl("scale", owners, "--replicas=2")
    lab.settle()

    verdict = load.end()
    tell(f"owners scaled and killed: {verdict}")
    verdict_is_good(verdict)


def test_nothing_is_lost_while_a_front_end_dies_and_the_release_is_upgraded(
    lab: Lab, tell: Tell
) -> None:
    load = lab.start_load("upgrade")

    lab.kill("frontend")
    before = {*lab.pods("frontend"), *lab.pods("owner")}
    began_ms = _clock.monotonic_ms()
    lab.upgrade("--set", "log.level=warning")
    tell(f"upgraded in {_clock.monotonic_ms() - began_ms} ms")
    after = {*lab.pods("frontend"), *lab.pods("owner")}
    lab.settle()

    assert not before & after, "everything has rolled"
    verdict = load.end()
    tell(f"a front end killed, everything rolled: {verdict}")
    verdict_is_good(verdict)


def test_what_may_not_change_is_refused_before_anything_rolls(lab: Lab) -> None:
    with pytest.raises(CommandFailed, match=r"owner\.partitions cannot change: this release has 8"):
        lab.upgrade("--set", "owner.partitions=16")


def test_an_edit_reaches_the_broker_and_a_fixed_field_is_refused(lab: Lab) -> None:
    lab.apply(queue("invoices", requiresSession=True, maxDeliveryCount=9, lockDuration="PT20S"))
    lab.wait_for("lkq/invoices", "jsonpath={.status.effective.maxDeliveryCount}=9")
    assert lab.lockstep("queue", "show", "invoices")["max_delivery_count"] == 9

    with pytest.raises(CommandFailed, match="requiresSession is fixed"):
        lab.apply(queue("invoices", requiresSession=False))


def test_a_queue_with_messages_is_not_deleted_until_they_are_gone(lab: Lab) -> None:
    lab.lockstep("send", "invoices", "--session", "ada", "precious")
    lab.kubectl("delete", "lkq/invoices", "--wait=false")

    lab.wait_for("lkq/invoices", "condition=DeletionBlocked")
    assert condition(lab, "invoices", "DeletionBlocked")["reason"] == "NotEmpty"

    assert "precious" in lab.in_client("lockstep", "receive", "invoices", "--max", "1")
    lab.kubectl("annotate", "lkq/invoices", "lockstep.dev/reconcile-at=now")
    lab.wait_for("lkq/invoices", "delete", limit_s=120)
    with pytest.raises(CommandFailed, match="ENTITY_NOT_FOUND"):
        lab.lockstep("queue", "show", "invoices")


def test_dead_letters_are_resubmitted_by_an_object(lab: Lab) -> None:
    lab.apply(queue("claims", requiresSession=True))
    lab.wait_for("lkq/claims", "condition=Ready")
    lab.lockstep("send", "claims", "--session", "bob", "--count", "3", "claim {n}")
    lab.in_client(
        "lockstep", "receive", "claims", "--max", "3", "--dead-letter", "--reason", "Test"
    )

    lab.apply({
        "apiVersion": "lockstep.dev/v1alpha1",
        "kind": "DeadLetterResubmission",
        "metadata": {"name": "claims-again"},
        "spec": {"source": {"kind": "Queue", "name": "claims"}},
    })  # fmt: skip
    lab.wait_for("deadletterresubmission/claims-again", "jsonpath={.status.phase}=Complete")

    assert lab.get("deadletterresubmission/claims-again")["status"]["moved"] == 3
    received = lab.in_client("lockstep", "receive", "claims", "--max", "3")
    assert received.index("claim 1") < received.index("claim 2") < received.index("claim 3")


def test_an_uninstall_leaves_no_object_that_cannot_be_deleted(lab: Lab) -> None:
    lab.helm("uninstall", RELEASE, "--wait", "--timeout", "120s")

    left = lab.kubectl(
        "get", "deployments,statefulsets,jobs,services,configmaps,roles", "-o", "name"
    )
    assert not [one for one in left.split() if RELEASE in one]
    if not lab.definitions_are_ours:
        assert lab.get("lkq/claims")["metadata"].get("finalizers", []) == []
        lab.kubectl("delete", "lkq", "--all", "--timeout=20s")
    run_namespace_is_gone(lab)


def run_namespace_is_gone(lab: Lab) -> None:
    """A namespace with our objects in it goes away although nobody works for them any more."""
    lab.kubectl("delete", "namespace", lab.namespace, "--timeout=100s", limit_s=110)
