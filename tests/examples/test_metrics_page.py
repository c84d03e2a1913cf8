"""docs/metrics.md says of each metric what its declaration says, and names no other."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from lockstep.runtime.metrics import (
    ENTITY_COUNTERS,
    ENTITY_GAUGES,
    EntityGauges,
    EntityKey,
    Metrics,
)
from tests.examples.conftest import ROOT, Server

PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
ENTITY_LABELS = EntityKey._fields
OF_OWNERS_ONLY = {"lockstep_lease_remaining_seconds"}  # a single node has no lease
FOREIGN = ("process_", "python_")
_SERVED = re.compile(r"^# HELP (lockstep_\w+)", re.MULTILINE)
_ROW = re.compile(r"^\| `lockstep_\w+` \| (?:counter|gauge|histogram|summary) \|.*$", re.MULTILINE)
_NAMED = re.compile(r"`(lockstep_\w+)`")


def label_values() -> dict[str, dict[str, list[str]]]:
    """Return the values of each label, where the declaration lists them, by metric."""
    found: dict[str, dict[str, list[str]]] = {}
    for family in (*ENTITY_COUNTERS, *ENTITY_GAUGES):
        values = [*family.samples.values(), *family.rare.values()]
        by_label: dict[str, list[str]] = {}
        for position, label in enumerate(family.labels):
            by_label[label] = list(dict.fromkeys(one[position] for one in values if one[position]))
        found[f"lockstep_{family.name}"] = by_label
    return found


def families(metrics: Metrics) -> Iterator[Metric]:
    """Return every metric of ours once: the sums of the process are described with the entities' series."""
    for registry in (metrics.registry, metrics.entity_registry):
        for family in registry.collect():
            is_sum = family.name.startswith("lockstep_owner_") and family.type == "counter"
            if not family.name.startswith(FOREIGN) and not is_sum:
                yield family


def row(family: Metric, labels: tuple[str, ...]) -> str:
    """Return how the page must describe a metric."""
    values = label_values().get(family.name, {})
    name = f"{family.name}_total" if family.type == "counter" else family.name
    if labels[: len(ENTITY_LABELS)] == ENTITY_LABELS:
        labels = labels[len(ENTITY_LABELS) :]
    shown = []
    for label in labels:
        listed = ", ".join(values.get(label, ()))
        shown.append(f"{label}: {listed}" if listed else label)
    return f"| `{name}` | {family.type} | {'; '.join(shown)} | {family.documentation} |"


def test_the_page_has_the_row_of_every_metric() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.cluster.watch_lease(lambda: 0.0)
    metrics.watch_entities(lambda: [EntityGauges(key=EntityKey("n", "e", "queue"))])
    declared = metrics.declared_labels()

    rows = [row(family, declared[family.name]) for family in families(metrics)]

    assert _ROW.findall(PAGE) == rows, "put these rows into docs/metrics.md:\n" + "\n".join(rows)


def test_the_page_names_nothing_that_a_server_does_not_serve(server: Server) -> None:
    served: set[str] = set()
    for path in ("/metrics", "/metrics/entities"):
        with urllib.request.urlopen(f"http://{server.metrics_address}{path}") as page:
            served.update(_SERVED.findall(page.read().decode()))

    assert set(_NAMED.findall(PAGE)) - served == OF_OWNERS_ONLY
