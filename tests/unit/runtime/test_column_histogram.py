"""Histograms that take batches: the same numbers as one observation after the other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.registry import Collector

from lockstep.runtime.column_histogram import ColumnHistogram

BOUNDS = (0.01, 0.05, 0.5, 5)
NOW_MS = 1_700_000_000_000


def shown(registry: Collector) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("le", "")): round(sample.value, 6)
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.sampled_from([0, 1, 10, 11, 50, 499, 500, 501, 5_000, 5_001, 90_000])))
def test_ages_count_as_if_each_were_observed(ages_ms: list[int]) -> None:
    one_by_one, at_once = CollectorRegistry(), CollectorRegistry()
    expected = Histogram("h", "Help.", registry=one_by_one, buckets=BOUNDS)
    histogram = ColumnHistogram("h", "Help.", (), bounds=BOUNDS)
    at_once.register(histogram)

    for age_ms in ages_ms:
        expected.observe(age_ms / 1000)
    histogram.labels().add_ages(NOW_MS, sorted(NOW_MS - age_ms for age_ms in ages_ms))

    assert shown(at_once) == shown(one_by_one)


def test_value_is_counted_as_often_as_it_was_measured() -> None:
    histogram = ColumnHistogram("h", "Help.", ("kind",), bounds=(0, 1))

    histogram.labels("a").add(0, 3)
    histogram.labels("a").add(1, 2)
    histogram.labels("a").add(7)

    assert histogram.labels("a").samples() == ([("0.0", 3), ("1.0", 5), ("+Inf", 6)], 9)


def test_histogram_with_labels_shows_nothing_before_it_is_filled() -> None:
    registry = CollectorRegistry()
    registry.register(ColumnHistogram("h", "Help.", ("kind",), bounds=BOUNDS))

    assert shown(registry) == {}
