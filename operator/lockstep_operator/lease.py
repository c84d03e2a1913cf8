"""Who works, of several operators: the one that holds a Lease of Kubernetes.

Here belongs the election. Never here: the work. The laws: whoever could not renew the lease in time stops before
another one may take it; a lease that is given back in order is taken at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from lockstep.runtime.clock import Clock
from lockstep_operator.kube import LEASES, KubeError, Resource
from lockstep_operator.settings import LeaseSettings

log = logging.getLogger(__name__)

_LOOK_MS = 1_000
_SEIZED_FOR_S = 30
_SEIZE_TRIES = 5


class Leases(Protocol):
    """Where leases are: `kube.Kube`."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        """Return a lease."""
        ...

    async def create(
        self, resource: Resource, namespace: str | None, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Create a lease and return it."""
        ...

    async def replace(
        self, resource: Resource, namespace: str | None, name: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Replace a lease in the state that its resourceVersion says, and return it."""
        ...


class Lease:
    """One operator's hold of the lease."""

    def __init__(self, kube: Leases, settings: LeaseSettings, holder: str, clock: Clock) -> None:
        """Hold nothing yet.

        Args:
            kube: Where the Lease is.
            settings: Which one, and its times.
            holder: The name of this operator, unique in the cluster.
            clock: Of renewals.
        """
        self._kube = kube
        self._settings = settings
        self._holder = holder
        self._clock = clock
        # What was seen last, and when: another clock's times are never compared with ours.
        self._seen: tuple[str, int, str] = ("", 0, "")
        self._seen_at_ms = 0
        self._renewed_at_ms = 0

    async def acquire(self) -> None:
        """Wait until this operator holds the lease."""
        while not await self._try():
            await self._clock.sleep(_LOOK_MS)
        log.info("lease.acquired", extra={"holder": self._holder})

    @asynccontextmanager
    async def seized(self) -> AsyncIterator[None]:
        """Take the lease from whoever has it; the block runs when that one has noticed.

        Nobody gets it back while the block runs, nor for half a minute afterwards, which is for who takes the operator
        away.

        Raises:
            KubeError: Kubernetes refused, or the lease changed hands again and again.
        """
        if await self._seize():
            log.info("lease.seized", extra={"holder": self._holder})
            await self._clock.sleep(2 * self._settings.renew_s * 1000)
        refused: KubeError | None = None
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(self._keep_seized())
            try:
                yield
            except KubeError as error:  # raised here it would come as one of a group
                refused = error
            finally:
                keeping.cancel()
        if refused is not None:
            raise refused
        await self._seize()

    async def _keep_seized(self) -> None:
        while True:
            await self._clock.sleep(self._settings.renew_s * 1000)
            try:
                await self._seize()
            except KubeError as error:
                log.warning("lease.unknown", extra={"error": str(error)})

    async def _seize(self) -> bool:
        """Take the lease, or renew it, and return whether there is one."""
        settings = self._settings
        for attempt in range(1, _SEIZE_TRIES + 1):
            try:
                lease = await self._kube.get(LEASES, settings.namespace, settings.name)
                before = lease.get("spec") or {}
                is_new = before.get("holderIdentity") != self._holder
                spec = self._spec(before, is_new=is_new)
                lease["spec"] = {**spec, "leaseDurationSeconds": _SEIZED_FOR_S}
                await self._kube.replace(LEASES, settings.namespace, settings.name, lease)
                break
            except KubeError as error:
                if error.is_gone:
                    return False
                if not error.is_conflict or attempt == _SEIZE_TRIES:
                    raise
        return True

    async def hold(self) -> None:
        """Renew the lease; return when it was lost, or could not be renewed in time.

        A renewal that Kubernetes does not answer is not waited for longer than the lease allows.
        """
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(self._renew())
            while not renewing.done():
                late_ms = self._clock.monotonic_ms() - self._renewed_at_ms
                if late_ms >= (self._settings.duration_s - self._settings.renew_s) * 1000:
                    log.warning("lease.not_renewed", extra={"for_ms": late_ms})
                    break
                await self._clock.sleep(_LOOK_MS)
            renewing.cancel()

    async def _renew(self) -> None:
        """Renew the lease until another operator has it; a renewal that failed is tried again at once."""
        pause_ms = self._settings.renew_s * 1000
        while True:
            await self._clock.sleep(pause_ms)
            is_renewed = await self._try()
            pause_ms = self._settings.renew_s * 1000 if is_renewed else _LOOK_MS
            if not is_renewed and self._is_held_by_other():
                log.warning("lease.lost", extra={"holder": self._seen[0]})
                return

    async def release(self) -> None:
        """Give the lease back, so that another operator need not wait for its end."""
        try:
            lease = await self._kube.get(LEASES, self._settings.namespace, self._settings.name)
            spec = lease.get("spec") or {}
            if spec.get("holderIdentity") != self._holder:
                return
            lease["spec"] = {**spec, "holderIdentity": "", "leaseDurationSeconds": 1}
            await self._kube.replace(LEASES, self._settings.namespace, self._settings.name, lease)
            log.info("lease.released", extra={"holder": self._holder})
        except KubeError as error:
            log.warning("lease.not_released", extra={"error": str(error)})

    def _is_held_by_other(self) -> bool:
        return self._seen[0] not in ("", self._holder)

    async def _try(self) -> bool:
        """Take the lease, or renew it; return whether this operator holds it then."""
        began_ms = self._clock.monotonic_ms()
        try:
            took = await self._take()
        except KubeError as error:
            if not error.is_conflict:
                log.warning("lease.unknown", extra={"error": str(error)})
            return False
        if took:
            # From before the request: what Kubernetes stored is at least as young.
            self._renewed_at_ms = began_ms
        return took

    async def _take(self) -> bool:
        settings = self._settings
        try:
            lease = await self._kube.get(LEASES, settings.namespace, settings.name)
        except KubeError as error:
            if not error.is_gone:
                raise
            body = {
                "metadata": {"name": settings.name, "namespace": settings.namespace},
                "spec": self._spec({}, is_new=True),
            }
            await self._kube.create(LEASES, settings.namespace, body)
            return True
        spec = lease.get("spec") or {}
        if not self._may_take(spec):
            return False
        is_new = spec.get("holderIdentity") != self._holder
        lease["spec"] = self._spec(spec, is_new=is_new)
        await self._kube.replace(LEASES, settings.namespace, settings.name, lease)
        self._seen = (self._holder, 0, "")
        return True

    def _may_take(self, spec: dict[str, Any]) -> bool:
        """Whether the lease is ours, free, or was not renewed for its whole duration since it was seen like this."""
        now_ms = self._clock.monotonic_ms()
        holder = spec.get("holderIdentity") or ""
        seen = (holder, int(spec.get("leaseTransitions") or 0), str(spec.get("renewTime") or ""))
        if seen != self._seen:
            self._seen, self._seen_at_ms = seen, now_ms
        if holder in ("", self._holder):
            return True
        duration_s = int(spec.get("leaseDurationSeconds") or self._settings.duration_s)
        return now_ms - self._seen_at_ms >= duration_s * 1000

    def _spec(self, before: dict[str, Any], *, is_new: bool) -> dict[str, Any]:
        at = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        now = at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        transitions = int(before.get("leaseTransitions") or 0)
        return {
            **before,
            "holderIdentity": self._holder,
            "leaseDurationSeconds": self._settings.duration_s,
            "renewTime": now,
            "acquireTime": now if is_new else before.get("acquireTime", now),
            "leaseTransitions": transitions + (1 if is_new and before else 0),
        }
