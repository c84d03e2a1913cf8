"""Which objects are looked at after what was heard, and after what nobody heard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import kopf
import pytest

from lockstep.runtime.clock import ManualClock
from lockstep_operator.hearing import Hearing
from lockstep_operator.kube import BROKERS, QUEUES, RESUBMISSIONS, Kube, Resource
from lockstep_operator.listing import Listing
from lockstep_operator.metrics import OperatorMetrics
from lockstep_operator.objects import Key, Objects
from lockstep_operator.settings import settings_from
from lockstep_operator.surroundings import Surroundings
from lockstep_operator.work_queue import Priority, WorkQueue
from lockstep_operator.workers import Workers
from tests.operator.objects import body

ORDERS = Key(QUEUES.kind, "shop", "orders")
OTHERS = Key(QUEUES.kind, "shop", "others")


@dataclass
class Ears:
    """What an operator hears, knows and has to look at.

    Attributes:
        stored: What a list of Kubernetes has, by kind.
    """

    namespaces: tuple[str, ...] = ()
    stored: Mapping[str, Sequence[dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        clock, metrics = ManualClock(), OperatorMetrics()
        broker = {"namespace": "shop", "spec": {"adminEndpoint": "127.0.0.1:1"}}
        settings = settings_from({"broker": broker, "watchNamespaces": list(self.namespaces)})
        self.objects = Objects()
        self.work: WorkQueue[Key] = WorkQueue(clock)
        nowhere = Kube(lambda: kopf.ConnectionInfo(server="http://127.0.0.1:1"), clock=clock)
        self.around = Surroundings(settings, self.objects, nowhere)
        workers = Workers({}, work=self.work, metrics=metrics, clock=clock)
        self.hearing = Hearing(
            settings, self.objects, self.around, self.work, metrics, clock, workers
        )
        self.listing = Listing(self, self.objects, self.hearing, clock, self.namespaces)

    async def list(
        self, resource: Resource, namespace: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield what is stored."""
        for one in self.stored.get(resource.kind, ()):
            yield one

    def hear(self, what: str, one: dict[str, Any], resource: Resource = QUEUES) -> None:
        """Hear of an object."""
        self.hearing.heard(resource, what, one)

    async def looked_at(self) -> set[Key]:
        """Return what is to be looked at, and look at it."""
        found = set()
        while any(self.work.depth(priority) for priority in Priority):
            key, _ = await self.work.get()
            self.work.done(key)
            found.add(key)
        return found


def changed(one: dict[str, Any], version: int, **metadata: Any) -> dict[str, Any]:
    """Return a later state of an object."""
    return {
        **one,
        "metadata": {**one["metadata"], "resourceVersion": str(version), **metadata},
    }


def told(one: dict[str, Any], version: int) -> dict[str, Any]:
    """Return an object whose status was written."""
    return {**changed(one, version), "status": {"observedGeneration": 1}}


async def test_a_new_object_is_looked_at_and_its_status_is_not() -> None:
    ears = Ears()
    ears.hear("ADDED", body())
    assert await ears.looked_at() == {ORDERS}
    ears.hear("MODIFIED", told(body(), 2))
    assert await ears.looked_at() == set()


@pytest.mark.parametrize(
    "theirs",
    [
        {"generation": 2},
        {"deletionTimestamp": "2026-01-02T00:00:00Z"},
        {"annotations": {"lockstep.dev/reconcile-at": "now"}},
        {"finalizers": []},
    ],
    ids=lambda theirs: next(iter(theirs)),
)
async def test_what_the_answer_to_our_own_write_tells_first_is_looked_at(theirs: Any) -> None:
    """The status is written without a precondition: its answer holds what somebody changed just before."""
    ears = Ears()
    ours = changed(body(), 2, finalizers=["lockstep.dev/entity"])
    ears.hear("ADDED", ours)
    await ears.looked_at()

    ears.objects.learn(ORDERS, changed(told(ours, 4), 4, **theirs))
    ears.hear("MODIFIED", changed(ours, 3, **theirs))
    ears.hear("MODIFIED", changed(told(ours, 4), 4, **theirs))

    assert await ears.looked_at() == {ORDERS}


async def test_an_answer_to_our_own_write_that_tells_nothing_else_is_not_looked_at() -> None:
    ears = Ears()
    ears.hear("ADDED", body())
    await ears.looked_at()

    ears.objects.learn(ORDERS, told(body(), 2))
    ears.hear("MODIFIED", told(body(), 2))

    assert await ears.looked_at() == set()


async def test_an_annotation_that_came_while_nobody_listened_is_noticed_by_a_list() -> None:
    ears = Ears()
    ears.hear("ADDED", body())
    ears.hear("MODIFIED", told(body(), 2))
    await ears.looked_at()

    forced = changed(told(body(), 2), 3, annotations={"lockstep.dev/force-finalize": "true"})
    ears.hear("", forced)

    assert await ears.looked_at() == {ORDERS}


async def test_an_object_that_went_while_nobody_listened_is_forgotten_by_a_list() -> None:
    """A watch that begins anew tells of what there is only (kopf 1.45)."""
    ears = Ears()
    ears.hear("ADDED", body())
    ears.hear("ADDED", body("others", uid="uid-b", entityName="Orders"))
    await ears.looked_at()
    ears.stored = {QUEUES.kind: [body("others", uid="uid-b", entityName="Orders")]}

    await ears.listing.once()

    assert ears.objects.keys(QUEUES.kind) == [OTHERS]
    assert await ears.looked_at() == {OTHERS}


async def test_a_list_of_some_namespaces_forgets_nothing_of_others() -> None:
    ears = Ears(namespaces=("elsewhere",))
    ears.hear("ADDED", body())
    await ears.listing.once()
    assert ears.objects.keys(QUEUES.kind) == [ORDERS]


async def test_who_waited_for_an_object_is_woken_whoever_finds_it_gone() -> None:
    ears = Ears()
    ears.hear("ADDED", body())
    ears.hear("ADDED", body("others", uid="uid-b", entityName="orders"))
    await ears.looked_at()

    # A look got 404 before the watch told of it.
    ears.objects.drop(ORDERS, "uid-a")

    assert await ears.looked_at() == {OTHERS}


async def test_who_waited_for_an_object_is_woken_when_another_one_has_its_place() -> None:
    ears = Ears()
    ears.hear("ADDED", body(entityName="shared"))
    ears.hear("ADDED", body("others", uid="uid-b", entityName="shared"))
    await ears.looked_at()

    again = changed(body(uid="uid-c", created="2026-01-02T00:00:00Z"), 9)
    ears.hear("ADDED", again)
    ears.hear("DELETED", body(entityName="shared"))

    assert await ears.looked_at() == {ORDERS, OTHERS}
    assert ears.objects.get(ORDERS) == again


async def test_an_answer_that_is_older_than_the_end_of_an_object_brings_nothing_back() -> None:
    ears = Ears()
    ears.hear("ADDED", body())
    ears.hear("DELETED", body())
    assert not ears.objects.put(ORDERS, told(body(), 5))
    ears.hear("", body())
    assert ears.objects.count(QUEUES.kind) == 0


async def test_objects_are_looked_at_when_their_broker_goes() -> None:
    ears = Ears()
    broker = body("default", uid="uid-broker", endpoint="x")
    ears.hear("ADDED", broker, BROKERS)
    ears.hear("ADDED", body())
    await ears.looked_at()
    ears.hear("DELETED", broker, BROKERS)
    assert await ears.looked_at() == {ORDERS}


async def test_objects_are_looked_at_when_an_answer_tells_of_their_broker_first() -> None:
    ears = Ears()
    broker = body("default", uid="uid-broker", endpoint="x")
    ears.hear("ADDED", body())
    await ears.looked_at()
    ears.objects.learn(Key(BROKERS.kind, "shop", "default"), broker)
    ears.hear("ADDED", broker, BROKERS)
    assert await ears.looked_at() == {ORDERS}


async def test_a_resubmission_that_is_gone_is_looked_at_once_more() -> None:
    ears = Ears()
    again = body("again", source={"kind": "Queue", "name": "orders"})
    ears.hear("ADDED", again, RESUBMISSIONS)
    await ears.looked_at()
    ears.hear("DELETED", again, RESUBMISSIONS)
    assert await ears.looked_at() == {Key(RESUBMISSIONS.kind, "shop", "again")}


def test_who_sees_some_namespaces_only_answers_for_no_other_broker() -> None:
    """It cannot tell whether another operator keeps that one, whose finalizer it would take away."""
    assert Ears().around.is_ours(body(brokerName="other"))
    assert not Ears(namespaces=("shop",)).around.is_ours(body(brokerName="other"))
    assert Ears(namespaces=("shop",)).around.is_ours(body())
