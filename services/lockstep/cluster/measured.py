"""etcd, with its calls timed and counted.

Here belongs what a call to etcd costs. Never here: what it means. The law: a measured call does what the call does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from lockstep.cluster.registry import KeyValue, LeaseCalls, Listing, Registry, WatchBatch
from lockstep.core.errors import ClusterUnavailable
from lockstep.runtime.clock import Clock
from lockstep.runtime.cluster_metrics import ClusterMetrics


class _Timer:
    def __init__(self, clock: Clock, metrics: ClusterMetrics) -> None:
        self._clock = clock
        self._metrics = metrics

    @contextmanager
    def time(self, op: str) -> Iterator[None]:
        started_ms = self._clock.monotonic_ms()
        try:
            yield
        except Exception:
            self._metrics.etcd_errors.labels(op).inc()
            raise
        finally:
            took_ms = self._clock.monotonic_ms() - started_ms
            self._metrics.etcd_request_duration_seconds.labels(op).observe(took_ms / 1000)


class MeasuredRegistry:
    """A `Registry` that is timed; of watches, which last, only those are counted that broke."""

    def __init__(self, registry: Registry, clock: Clock, metrics: ClusterMetrics) -> None:
        self._registry = registry
        self._errors = metrics.etcd_errors
        self._timer = _Timer(clock, metrics)

    async def list_prefix(self, prefix: str) -> Listing:
        """As `Registry` says."""
        with self._timer.time("list"):
            return await self._registry.list_prefix(prefix)

    async def create(
        self, key: str, value: bytes, *, lease: int, while_leased: str | None = None
    ) -> KeyValue | None:
        """As `Registry` says."""
        with self._timer.time("create"):
            return await self._registry.create(key, value, lease=lease, while_leased=while_leased)

    async def replace(self, key: str, value: bytes, *, lease: int) -> bool:
        """As `Registry` says."""
        with self._timer.time("replace"):
            return await self._registry.replace(key, value, lease=lease)

    async def delete(self, key: str, *, create_revision: int) -> bool:
        """As `Registry` says."""
        with self._timer.time("delete"):
            return await self._registry.delete(key, create_revision=create_revision)

    async def watch(
        self, prefix: str, *, after_revision: int, for_ms: int
    ) -> AsyncGenerator[WatchBatch]:
        """As `Registry` says."""
        stream = self._registry.watch(prefix, after_revision=after_revision, for_ms=for_ms)
        async with aclosing(stream) as batches:
            try:
                async for batch in batches:
                    yield batch
            except ClusterUnavailable:
                self._errors.labels("watch").inc()
                raise


class MeasuredLeases:
    """`LeaseCalls` that are timed."""

    def __init__(self, leases: LeaseCalls, clock: Clock, metrics: ClusterMetrics) -> None:
        self._leases = leases
        self._metrics = metrics
        self._timer = _Timer(clock, metrics)

    def grant(self, ttl_ms: int, *, timeout_ms: int) -> tuple[int, int]:
        """As `LeaseCalls` says."""
        with self._timer.time("grant"):
            return self._leases.grant(ttl_ms, timeout_ms=timeout_ms)

    def keep_alive(self, lease: int, *, timeout_ms: int) -> int:
        """As `LeaseCalls` says."""
        try:
            with self._timer.time("keep_alive"):
                left_ms = self._leases.keep_alive(lease, timeout_ms=timeout_ms)
        except Exception:
            self._metrics.lease_renewals.labels("failed").inc()
            raise
        self._metrics.lease_renewals.labels("renewed" if left_ms > 0 else "failed").inc()
        return left_ms

    def revoke(self, lease: int, *, timeout_ms: int) -> None:
        """As `LeaseCalls` says."""
        with self._timer.time("revoke"):
            self._leases.revoke(lease, timeout_ms=timeout_ms)
