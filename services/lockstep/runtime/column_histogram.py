"""Histograms that take a whole batch of measurements at once.

Here belongs what the Prometheus client's own histogram cannot do: count many messages at the price of
one. Never here: names of metrics (`runtime.metrics`). The laws: what a batch costs does not depend on
its size, but for one sum; one thread writes, any thread may read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString


class Buckets:
    """What was measured under one set of label values."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Start with nothing measured; `bounds` are rising."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value that was measured some times."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._total += value * times

    def add_ages(self, now_ms: int, since_ms: Sequence[int]) -> None:
        """Count, in seconds, how long ago each of the rising times was."""
        if not since_ms:
            return
        bounds, counts = self._bounds, self._counts
        youngest = bisect_left(bounds, (now_ms - since_ms[-1]) / 1000)
        oldest = bisect_left(bounds, (now_ms - since_ms[0]) / 1000)
        left = len(since_ms)
        for bucket in range(youngest, oldest):
            start = bisect_left(since_ms, now_ms - bounds[bucket] * 1000, 0, left)
            counts[bucket] += left - start
            left = start
        counts[oldest] += left
        self._total += (len(since_ms) * now_ms - sum(since_ms)) / 1000

    def samples(self) -> tuple[list[tuple[str, float]], float]:
        """Return the cumulated counts by upper bound, and the sum of all values."""
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True)), self._total


class ColumnHistogram:
    """A histogram for a registry, filled through `labels`."""

    def __init__(
        self, name: str, help_text: str, labels: tuple[str, ...], *, bounds: tuple[float, ...]
    ) -> None:
        """Declare it.

        Args:
            name: Its full name.
            help_text: What it measures.
            labels: The names of its labels.
            bounds: The upper bounds of its buckets, rising, without infinity.
        """
        self._name = name
        self._help = help_text
        self._labels = labels
        self._bounds = bounds
        self._children: dict[tuple[str, ...], Buckets] = {}
        if not labels:
            self.labels()

    def labels(self, *values: str) -> Buckets:
        """Return the buckets of these label values; they are shown from now on."""
        child = self._children.get(values)
        if child is None:
            assert len(values) == len(self._labels), "one value for each label"
            child = self._children[values] = Buckets(self._bounds)
        return child

    def describe(self) -> Iterable[Metric]:
        """Return the family without samples."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """Return the family with a sample for each bucket of each child."""
        family = self._family()
        for values, child in list(self._children.items()):
            buckets, total = child.samples()
            family.add_metric(values, buckets, total)
        return [family]

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._help, labels=self._labels)
