"""Measurements that are taken now and then, not when something happens.

Here belong gauges. Never here: what happens. The law: a sample reads memory only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from lockstep_operator.conditions import Kind, Reason
from lockstep_operator.kube import QUEUES, RESUBMISSIONS
from lockstep_operator.looks import Parts
from lockstep_operator.metrics import OperatorMetrics
from lockstep_operator.objects import Body, Key
from lockstep_operator.work_queue import Priority, WorkQueue

_INTERVAL_MS = 5_000
_REASONS = frozenset(Reason)


class Sampling:
    """Takes measurements every 5 seconds."""

    def __init__(
        self,
        parts: Parts,
        work: WorkQueue[Key],
        metrics: OperatorMetrics,
        is_working: Callable[[], bool],
    ) -> None:
        """Measure `parts` and `work`, on which nobody is expected to work unless `is_working`."""
        self._is_working = is_working
        self._parts = parts
        self._work = work
        self._metrics = metrics
        self._adds = 0

    async def run(self) -> None:
        """Measure until cancelled."""
        clock = self._parts.clock
        while True:
            self.take()
            began_ms = clock.monotonic_ms()
            await clock.sleep(_INTERVAL_MS)
            late_ms = clock.monotonic_ms() - began_ms - _INTERVAL_MS
            self._metrics.loop_lag.set(max(late_ms, 0) / 1000)

    def take(self) -> None:
        """Measure once."""
        metrics, work = self._metrics, self._work
        for priority in Priority:
            metrics.depth.labels(priority.name.lower()).set(work.depth(priority))
        # Who waits for the lease lets objects wait, too; the operator that holds it works on them.
        metrics.oldest.set(work.oldest_ms() / 1000 if self._is_working() else 0)
        metrics.adds.inc(work.adds - self._adds)
        self._adds = work.adds
        metrics.circuit_open.set(self._parts.breaker.is_open)
        metrics.resources.clear()
        metrics.blocked.clear()
        for kind in (QUEUES.kind, RESUBMISSIONS.kind):
            self._count(kind)

    def _count(self, kind: str) -> None:
        ready: Counter[tuple[str, str]] = Counter()
        blocked: Counter[str] = Counter()
        for _, body in self._parts.objects.all(kind):
            ready[_told(body, "Ready")] += 1
            status, reason = _told(body, Kind.DELETION_BLOCKED)
            if status == "True":
                blocked[reason] += 1
        for (status, reason), number in ready.items():
            self._metrics.resources.labels(kind, status, reason).set(number)
        for reason, number in blocked.items():
            self._metrics.blocked.labels(kind, reason).set(number)


def _told(body: Body, kind: str) -> tuple[str, str]:
    """Return status and reason of a condition, from closed lists."""
    for one in (body.get("status") or {}).get("conditions") or ():
        if one.get("type") == kind:
            reason = one.get("reason", "")
            status = one.get("status")
            known = status if status in ("True", "False", "Unknown") else "Unknown"
            return known, reason if reason in _REASONS else "Other"
    return "Unknown", "Pending"
