"""The Broker object: one for each release, kept by the operator, where outages are told once.

Here belong its spec and its status. Never here: the objects that name it. The laws: Helm never renders it, so an
upgrade needs no order; fields that an administrator owns stay theirs; its status is written when it says something
new.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lockstep.core.errors import LockstepError
from lockstep_operator.broker import Cluster
from lockstep_operator.kube import BROKERS, KubeError
from lockstep_operator.looks import Parts
from lockstep_operator.objects import Body, Key
from lockstep_operator.plan import Event
from lockstep_operator.status import time_text

log = logging.getLogger(__name__)

_LOOK_MS = 5_000
_OUTAGE_MS = 30_000
_APPLY_AGAIN_LOOKS = 120
# So often in a row, before people are told.
_REFUSALS = 3


class BrokerObject:
    """Keeps the Broker object."""

    def __init__(self, parts: Parts) -> None:
        """Keep it with `parts`."""
        self._parts = parts
        self._settings = parts.settings.broker
        self._key = Key(BROKERS.kind, self._settings.namespace, self._settings.name)
        self._is_applied = False
        self._refusals = 0
        self._refusal = ""
        self._cluster: Cluster | None = None
        self._outdated = ""
        self._unowned_since_ms: int | None = None

    async def apply(self) -> None:
        """Make the object, or set back the fields that are the operator's; if that is refused, `run` tries again."""
        settings = self._settings
        self._is_applied = False
        body = {
            "apiVersion": BROKERS.api_version,
            "kind": BROKERS.kind,
            "metadata": {"name": settings.name, "namespace": settings.namespace},
            "spec": {name: value for name, value in settings.spec.items() if value is not None},
        }
        try:
            found = await self._parts.kube.apply(BROKERS, settings.namespace, settings.name, body)
        except KubeError as error:
            log.warning("broker.not_applied", extra={"error": str(error)})
            self._refusals, self._refusal = self._refusals + 1, str(error)
            return
        self._is_applied, self._refusals = True, 0
        self._parts.objects.learn(self._key, found)

    async def run(self) -> None:
        """Keep the status, and every ten minutes the spec; what is missing is made soon. Runs until it is cancelled."""
        looks = 0
        while True:
            await self.tell()
            await self._parts.clock.sleep(_LOOK_MS)
            looks += 1
            is_there = self._is_applied and self._parts.objects.get(self._key) is not None
            if not is_there or looks % _APPLY_AGAIN_LOOKS == 0:
                await self.apply()

    async def tell(self) -> None:
        """Write the status if it says something new."""
        key = self._key
        body = self._parts.objects.get(key)
        if body is None:
            return
        await self._ask()
        self._warn(body)
        change = self._status(body)
        if not change:
            return
        try:
            newer = await self._parts.kube.patch(
                BROKERS, key.namespace, key.name, {"status": change}, subresource="status"
            )
        except KubeError as error:
            if error.is_gone:
                self._parts.objects.drop(key)
            log.info("broker.status_refused", extra={"error": str(error)})
            return
        self._parts.objects.learn(key, newer)

    async def _ask(self) -> None:
        """Ask the broker how it is; what it told last stays when it does not say."""
        if self._parts.breaker.is_open:
            return
        try:
            self._cluster = await self._parts.broker.cluster()
        except LockstepError as error:
            log.info("broker.not_described", extra={"error": str(error)})
            return
        if self._cluster.partitions_owned >= self._cluster.partitions_total:
            self._unowned_since_ms = None
        elif self._unowned_since_ms is None:
            self._unowned_since_ms = self._parts.clock.monotonic_ms()

    def _status(self, body: Body) -> dict[str, Any]:
        stored = body.get("status") or {}
        generation = body["metadata"].get("generation", 0)
        wanted: dict[str, Any] = {
            "observedGeneration": generation,
            "conditions": self._conditions(stored, generation),
        }
        if self._parts.mirror.is_loaded:
            wanted["entities"] = len(self._parts.mirror)
            wanted["managedEntities"] = sum(
                1 for one in self._parts.mirror if one.entity.manager_uid
            )
        if self._cluster is not None:
            wanted["version"] = self._cluster.release
            wanted["nodesReady"] = self._cluster.nodes_ready
            wanted["partitionsOwned"] = self._cluster.partitions_owned
            wanted["partitionsTotal"] = self._cluster.partitions_total
        lacks = self._parts.definitions.lacks
        return {
            name: value
            for name, value in wanted.items()
            if stored.get(name) != value and not lacks(BROKERS.kind, f"status.{name}")
        }

    def _warn(self, body: Body) -> None:
        """Tell once of each new finding that definitions are older than the operator."""
        found = self._parts.definitions.text
        if found and found != self._outdated:
            self._parts.events.tell(
                self._key, body, Event("Warning", "CRDOutdated", _outdated_text(found))
            )
        self._outdated = found

    def _conditions(self, stored: Mapping[str, Any], generation: int) -> list[dict[str, Any]]:
        known = {one.get("type"): one for one in stored.get("conditions") or ()}
        found = []
        for kind, (status, reason, message) in self._told(known).items():
            old = known.get(kind) or {}
            stays = old.get("status") == status and old.get("lastTransitionTime")
            found.append(
                {
                    "type": kind,
                    "status": status,
                    "observedGeneration": generation,
                    "lastTransitionTime": stays or time_text(self._parts.clock.now_ms()),
                    "reason": reason,
                    "message": message,
                }
            )
        return found

    def _told(self, known: Mapping[str, Any]) -> dict[str, tuple[str, str, str]]:
        breaker, mirror = self._parts.breaker, self._parts.mirror
        available = ("True", "Answers", "The broker answers.")
        degraded = ("False", "AsExpected", "Nothing is known to be wrong.")
        if breaker.is_open and breaker.open_for_ms() < _OUTAGE_MS and "Available" in known:
            # A short silence is not told; what waits for the broker says so itself.
            old, bad = known["Available"], known.get("Degraded", {})
            available = (old["status"], old["reason"], old["message"])
            degraded = (
                bad.get("status", "False"),
                bad.get("reason", "AsExpected"),
                bad.get("message", ""),
            )
        elif breaker.is_open:
            available = ("False", breaker.reason.value, breaker.message)
            degraded = ("True", breaker.reason.value, breaker.message)
        elif not mirror.is_loaded:
            available = ("Unknown", "Starting", "The broker was not asked yet.")
        elif text := self._unowned():
            degraded = ("True", "PartitionsUnowned", text)
        elif self._refusals >= _REFUSALS:
            text = f"Kubernetes refuses what the release says of this object, which stays as it was: {self._refusal}"
            degraded = ("True", "SpecRefused", text)
        elif mirror.is_in_loss:
            text = "Many queues are gone at once, as if the broker had lost its data; they are made again in minutes."
            degraded = ("True", "BulkLoss", text)
        elif self._parts.pace.is_slow:
            text = "Most queues are being deleted; deletions are slowed down to 10 in a second."
            degraded = ("True", "MassDeletion", text)
        elif found := self._parts.definitions.text:
            degraded = ("True", "CRDOutdated", _outdated_text(found))
        return {"Available": available, "Degraded": degraded}

    def _unowned(self) -> str:
        """Return what to tell of partitions that nobody has owned for a while; empty = nothing."""
        since_ms, cluster = self._unowned_since_ms, self._cluster
        if since_ms is None or cluster is None:
            return ""
        if self._parts.clock.monotonic_ms() - since_ms < _OUTAGE_MS:
            return ""  # they move, or their owner starts again
        missing = cluster.partitions_total - cluster.partitions_owned
        return f"{missing} of {cluster.partitions_total} partitions have no owner; what they hold waits."


def _outdated_text(found: str) -> str:
    what = "Installed definitions are older than the operator"
    return f"{what}: {found}. Apply those of its release; it goes on without."
