"""What is counted of the calls to etcd, in which process."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from prometheus_client import CollectorRegistry

from lockstep.cluster.measured import MeasuredRegistry
from lockstep.cluster.registry import KeyValue, Listing, WatchBatch
from lockstep.core.errors import ClusterUnavailable
from lockstep.runtime.clock import ManualClock
from lockstep.runtime.metrics import Metrics

FIRST = WatchBatch(1, ())


class BreakingRegistry:
    """A registry whose watches break after the first batch.

    Attributes:
        watches_ended: How many watches were closed.
    """

    def __init__(self) -> None:
        self.watches_ended = 0

    async def list_prefix(self, _prefix: str) -> Listing:
        raise ClusterUnavailable("away for the test")

    async def create(
        self, key: str, value: bytes, *, lease: int, while_leased: str | None = None
    ) -> KeyValue | None:
        raise NotImplementedError

    async def replace(self, key: str, value: bytes, *, lease: int) -> bool:
        raise NotImplementedError

    async def delete(self, key: str, *, create_revision: int) -> bool:
        raise NotImplementedError

    async def watch(
        self, prefix: str, *, after_revision: int, for_ms: int
    ) -> AsyncGenerator[WatchBatch]:
        try:
            yield FIRST
            raise ClusterUnavailable("broken for the test")
        finally:
            self.watches_ended += 1


def errors_of(metrics: Metrics, op: str) -> float | None:
    return metrics.registry.get_sample_value("lockstep_etcd_errors_total", {"op": op})


async def test_a_watch_that_breaks_is_counted_and_one_that_is_left_is_not() -> None:
    metrics, broken = Metrics(CollectorRegistry()), BreakingRegistry()
    registry = MeasuredRegistry(broken, ManualClock(), metrics.cluster)

    async with aclosing(registry.watch("/", after_revision=0, for_ms=1)) as batches:
        assert await anext(batches) == FIRST
    assert errors_of(metrics, "watch") is None
    broken_watch = registry.watch("/", after_revision=0, for_ms=1)
    assert await anext(broken_watch) == FIRST
    with pytest.raises(ClusterUnavailable):
        await anext(broken_watch)

    assert errors_of(metrics, "watch") == 1
    assert broken.watches_ended == 2
