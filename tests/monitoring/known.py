"""What can be asked for: every series that a process of ours serves, with its labels, and every recording."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from helm.monitoring.recordings import RECORDINGS
from lockstep.runtime.entity_families import ENTITY_COUNTERS, ENTITY_GAUGES
from lockstep.runtime.metrics import EntityGauges, EntityKey, Metrics
from lockstep_operator.metrics import OperatorMetrics
from tests.monitoring.allowed import ALLOWED

# What the scraper gives each series of a pod.
OF_SCRAPER = frozenset({"namespace", "pod", "container", "job", "instance"})
OF_OPERATOR = frozenset(
    {"kind", "result", "priority", "ready", "reason", "rpc", "code", "verb", "target"}
)
LABELS = ALLOWED | OF_SCRAPER | OF_OPERATOR
_SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("_sum", "_count"),
}
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^()]*)\)")
_MATCHERS = re.compile(r"([\w:]+)\{([^{}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def _families() -> Iterator[Metric]:
    metrics = Metrics(CollectorRegistry())
    metrics.cluster.watch_lease(lambda: 0.0)
    metrics.register_entity(entity_namespace="n", entity="e", entity_type="queue")
    metrics.watch_entities(lambda: [EntityGauges(key=EntityKey("n", "e", "queue"))])
    registries: tuple[Collector, ...] = (
        metrics.registry,
        metrics.entity_registry,
        OperatorMetrics().registry,
    )
    for registry in registries:
        yield from registry.collect()


FAMILIES = frozenset(family.name for family in _families())
"""Names under which pages speak of histograms and summaries as a whole."""


@cache
def series() -> frozenset[str]:
    """Return the names of all series, and of all recordings."""
    names = {
        f"{family.name}{suffix}"
        for family in _families()
        for suffix in _SUFFIXES.get(family.type, ("",))
    }
    return frozenset(names | {recording.name for recording in RECORDINGS})


def labels_in(expression: str) -> set[str]:
    """Return the labels that an expression groups by or selects by."""
    found = {name for _, name, _, _ in matchers_in(expression)}
    for group in _GROUPING.findall(expression):
        found |= {name.strip() for name in group.split(",") if name.strip()}
    return found


def matchers_in(expression: str) -> list[tuple[str, str, str, str]]:
    """Return metric, label, operator and value of each matcher."""
    return [
        (metric, label, operator, value)
        for metric, matchers in _MATCHERS.findall(expression)
        for label, operator, value in _MATCHER.findall(matchers)
    ]


@cache
def values_of(series_name: str, label: str) -> frozenset[str] | None:
    """Return the values that a label of an entity's metric can have; None = they are not declared in a list."""
    for family in (*ENTITY_COUNTERS, *ENTITY_GAUGES):
        names = (f"lockstep_{family.name}", f"lockstep_owner_{family.name}")
        if series_name.removesuffix("_total") in names and label in family.labels:
            place = family.labels.index(label)
            values = (*family.samples.values(), *family.rare.values())
            return frozenset(value[place] for value in values)
    return None
