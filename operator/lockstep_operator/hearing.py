"""What follows from what is heard of Kubernetes: which objects are looked at.

Here belongs the way from an event to the work queue. Never here: what a look does. The laws: what the operator wrote
itself causes no look; an object that others wait for wakes them when it changes or goes, without a timer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lockstep.runtime.clock import Clock
from lockstep_operator.conditions import Kind, Reason
from lockstep_operator.kube import BROKERS, QUEUES, RESUBMISSIONS, Resource
from lockstep_operator.metrics import OperatorMetrics
from lockstep_operator.objects import Body, Key, Objects, key_of
from lockstep_operator.settings import OperatorSettings
from lockstep_operator.surroundings import Surroundings
from lockstep_operator.work_queue import Priority, WorkQueue
from lockstep_operator.workers import Workers

_LISTED = ""
_MODIFIED = "MODIFIED"
_DELETED = "DELETED"


class Hearing:
    """Takes events of all kinds of objects."""

    def __init__(
        self,
        settings: OperatorSettings,
        objects: Objects,
        around: Surroundings,
        work: WorkQueue[Key],
        metrics: OperatorMetrics,
        clock: Clock,
        workers: Workers,
    ) -> None:
        """Remember in `objects`, and put into `work`."""
        self._objects = objects
        self._around = around
        self._work = work
        self._metrics = metrics
        self._clock = clock
        self._workers = workers
        broker = settings.broker
        self._our_broker = Key(BROKERS.kind, broker.namespace, broker.name)
        objects.tell(learned=self._learned, dropped=self._dropped)

    def heard(self, resource: Resource, what: str, body: Mapping[str, Any]) -> None:
        """Take an event.

        Args:
            resource: The kind of object.
            what: ADDED, MODIFIED, DELETED; "" = it was listed.
            body: The object.
        """
        key = key_of(resource.kind, body)
        self._metrics.last_event.labels(resource.kind).set(self._clock.now_ms() / 1000)
        if what == _DELETED:
            self._objects.drop(key, body["metadata"].get("uid", ""))
            return
        before = self._objects.get(key)
        if self._objects.put(key, body):
            self._follow(key, before, body, what)

    def look_at_all(self, kind: str, priority: Priority = Priority.RESYNC) -> None:
        """Have all objects of a kind looked at."""
        for key in self._objects.keys(kind):
            self._work.put(key, priority)

    def look_at_pending(self) -> None:
        """Have the objects looked at that wait for something, as those whom somebody changed."""
        for kind in (QUEUES.kind, RESUBMISSIONS.kind):
            for key, body in self._objects.all(kind):
                if _is_pending(body):
                    self._work.put(key)

    # --- by kind -----------------------------------------------------------------------------------

    def _learned(self, key: Key, before: Body | None, body: Body) -> None:
        self._follow(key, before, body, _MODIFIED)

    def _follow(self, key: Key, before: Body | None, body: Body, what: str) -> None:
        """Have looked at what a newer state concerns."""
        if key.kind == QUEUES.kind:
            self._queue(key, before, body, what)
        elif key.kind == RESUBMISSIONS.kind:
            self._resubmission(key, before, body, what)
        elif key.kind == BROKERS.kind:
            self._broker(key, before, body)
        else:
            self._namespace(key, before, body)

    def _dropped(self, key: Key, body: Body) -> None:
        """Wake who waited for an object that is gone, whoever found that out."""
        self._workers.forget(key)
        if key.kind == QUEUES.kind:
            self._work.forget(key)
            for other in self._around.unclaim(key, body):
                self._work.put(other)
            self._wake_those_beyond_quota()
        elif key.kind == RESUBMISSIONS.kind:
            # Its job may run still.
            self._work.put(key)
        elif key.kind == BROKERS.kind:
            self._wake_those_of(key.name)

    def _wake_those_of(self, broker: str) -> None:
        for kind in (QUEUES.kind, RESUBMISSIONS.kind):
            for key, body in self._objects.all(kind):
                if (body.get("spec") or {}).get("brokerName", "default") == broker:
                    self._work.put(key, Priority.RESYNC)

    def _wake_those_beyond_quota(self) -> None:
        if self._around.quota() == (None, None):
            return
        for key, body in self._objects.all(QUEUES.kind):
            conditions = (body.get("status") or {}).get("conditions") or ()
            if any(one.get("reason") == Reason.QUOTA_EXCEEDED for one in conditions):
                self._work.put(key)

    def _queue(self, key: Key, before: Body | None, body: Body, what: str) -> None:
        if before is not None and before["metadata"]["uid"] != body["metadata"]["uid"]:
            for other in self._around.unclaim(key, before):
                self._work.put(other)
        self._around.claim(key, body)
        lost_status = _is_new(body) and before is not None and not _is_new(before)
        if before is not None and _concerns(before) == _concerns(body) and not lost_status:
            return
        if what != _LISTED:
            self._workers.heard(key, body["metadata"].get("generation", 0))
            self._work.put(key)
        elif before is not None or _is_new(body):
            self._work.put(key)

    def _resubmission(self, key: Key, before: Body | None, body: Body, what: str) -> None:
        if before is None or _concerns(before) != _concerns(body):
            self._work.put(key, Priority.RESYNC if what == _LISTED else Priority.USER)

    def _broker(self, key: Key, before: Body | None, body: Body) -> None:
        was = (before or {}).get("spec")
        if before is None or was != body.get("spec"):
            self._wake_those_of(key.name)

    def _namespace(self, key: Key, before: Body | None, body: Body) -> None:
        if before is not None and _place(before) == _place(body):
            return
        for kind in (QUEUES.kind, RESUBMISSIONS.kind):
            for one in self._objects.keys(kind):
                if one.namespace == key.name:
                    self._work.put(one, Priority.RESYNC if before is None else Priority.USER)


def _concerns(body: Body) -> tuple[Any, ...]:
    """Return what of an object a person may change; its status is ours."""
    metadata = body["metadata"]
    return (
        metadata.get("uid"),
        metadata.get("generation"),
        metadata.get("deletionTimestamp"),
        metadata.get("annotations"),
        metadata.get("finalizers"),
    )


def _place(body: Body) -> tuple[Any, ...]:
    metadata = body["metadata"]
    return (metadata.get("labels"), metadata.get("deletionTimestamp"))


def _is_new(body: Body) -> bool:
    """Whether nobody has told anything of this generation yet."""
    status = body.get("status") or {}
    return bool(status.get("observedGeneration") != body["metadata"].get("generation"))


def _is_pending(body: Body) -> bool:
    if body["metadata"].get("deletionTimestamp") or _is_new(body):
        return True
    conditions = (body.get("status") or {}).get("conditions") or ()
    return any(
        one.get("type") == Kind.RECONCILING
        or (one.get("type"), one.get("status")) == ("Running", "True")
        for one in conditions
    )
