"""Every metric of Lockstep's processes, declared in one place.

Here belong names, helps, labels and buckets, those of entities beside it (`runtime.entity_families`), those of
clusters too (`runtime.cluster_metrics`). Never here: how series of entities are made
(`runtime.entity_collector`) or served (`runtime.metrics_server`), or what is worth an alert (the
chart). The law: no label can take a value that a client chooses, except the names of entities; so
never a session id, message id, lock token, client, user, address, SQL or error text.

Series of entities have their own registry and address, `/metrics/entities`; `/metrics` stays small.
A process shows the sums over its entities as `lockstep_owner_<name>`, another name than that of the
entities' series, so that a sum over both is never twice the truth.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from lockstep.runtime.cluster_metrics import ClusterMetrics
from lockstep.runtime.column_histogram import ColumnHistogram
from lockstep.runtime.entity_collector import (
    ENTITY_LABELS,
    CounterBook,
    EntityCollector,
    GaugesSource,
    TotalsCollector,
    on_event_loop,
)
from lockstep.runtime.entity_counters import EntityCounters, EntityGauges, EntityKey
from lockstep.runtime.entity_families import ENTITY_COUNTERS, ENTITY_GAUGES, ENTITY_SUMMARIES

__all__ = [
    "ENTITY_COUNTERS",
    "ENTITY_GAUGES",
    "ENTITY_SUMMARIES",
    "EntityCounters",
    "EntityGauges",
    "EntityKey",
    "GaugesSource",
    "Metrics",
    "on_event_loop",
]

RPC_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
STORAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
SESSION_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400)
COMMIT_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_THROTTLED = ("quota", "backpressure", "partition_moving", "store")
DELIVERY_COUNT_BUCKETS = (0, 1, 2, 3, 5, 10, 20)


class Metrics:
    """All metrics of one process, and the two registries that hold them.

    Attributes:
        registry: What `/metrics` shows: the process and its sums.
        entity_registry: What `/metrics/entities` shows.
        build_info: Always 1; the labels say what runs.
        frontend_requests: RPCs that ended; method = the RPC's name, code = the gRPC status name, CANCELLED
            also of those whose deadline passed.
        frontend_request_duration_seconds: Time of unary RPCs, as the server sees it.
        frontend_throttled: Requests refused for want of room or of an owner; reason =
            quota, backpressure, partition_moving, store.
        frontend_received_bytes: Bytes of requests.
        frontend_sent_bytes: Bytes of replies.
        frontend_streams: Streams that are open; method = the RPC's name.
        time_in_queue_seconds: From the store of a message to its completion; sessions = true, false.
        delivery_count: Delivery counts of messages when receivers settled them; 0 = no failure before.
        session_wait_seconds: How long a session that had messages waited for a holder.
        session_lock_hold_seconds: From a session lock to its end; end = closed, expired.
        session_order_violations: Deliveries of a session out of order, found by a check of samples; a bug.
        storage_operation_duration_seconds: Time of calls to the store; op = open, commit, load_chunks, load_states.
        storage_errors: Calls to the store that failed; error_class = the class of the error.
        storage_commit_batch_messages: Messages that a commit stored; commits that stored none are left out.
        owner_partitions: Partitions that this process owns.
        owner_draining: Whether this process is giving its partitions up.
        partition_unavailable_seconds: Time in which partitions were being opened anew.
        fenced_writes: Commits refused because a later owner has opened the partition.
        event_loop_lag_seconds: How late a timer of the event loop fired; component = frontend, owner, …
        cluster: What only the processes of a cluster count.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        version: str = "unknown",
        commit: str = "unknown",
        entities_max: int = 2000,
    ) -> None:
        """Declare every metric.

        Args:
            registry: Where the metrics of the process go; each `Metrics` needs its own.
            version: The release that runs.
            commit: The commit that it was built from.
            entities_max: How many entities get their own series, the largest backlog first.
        """
        self.registry = registry
        self.entity_registry = CollectorRegistry()
        self._labels: dict[str, tuple[str, ...]] = {}
        self._declare_process(version, commit)
        self._declare_frontend()
        self._declare_owner()
        self.cluster = ClusterMetrics(self._counter, self._gauge, self._histogram)
        self._book = CounterBook()
        self._entities = EntityCollector(
            self._book,
            counters=ENTITY_COUNTERS,
            summaries=ENTITY_SUMMARIES,
            gauges=ENTITY_GAUGES,
            entities_max=entities_max,
        )
        registry.register(TotalsCollector(self._book, ENTITY_COUNTERS))
        self.entity_registry.register(self._entities)

    def _declare_process(self, version: str, commit: str) -> None:
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.build_info = self._gauge("build_info", "What runs.", "version", "commit", "python")
        self.build_info.labels(version, commit, platform.python_version()).set(1)
        self.event_loop_lag_seconds = self._histogram(
            "event_loop_lag_seconds",
            "How late a timer of the event loop fired.",
            "component",
            buckets=STORAGE_BUCKETS,
        )

    def _declare_frontend(self) -> None:
        self.frontend_requests = self._counter(
            "frontend_requests", "RPCs that ended.", "method", "code"
        )
        self.frontend_request_duration_seconds = self._histogram(
            "frontend_request_duration_seconds",
            "Time of unary RPCs.",
            "method",
            buckets=RPC_BUCKETS,
        )
        self.frontend_throttled = self._counter(
            "frontend_throttled",
            "Requests refused for load, for want of space, or while a partition or its store was away.",
            "reason",
        )
        for reason in (
            _THROTTLED
        ):  # there before the first refusal: Prometheus sees no increase of a new series
            self.frontend_throttled.labels(reason)
        self.frontend_received_bytes = self._counter(
            "frontend_received_bytes", "Bytes of requests."
        )
        self.frontend_sent_bytes = self._counter("frontend_sent_bytes", "Bytes of replies.")
        self.frontend_streams = self._gauge("frontend_streams", "Streams that are open.", "method")

    def _declare_owner(self) -> None:
        self.time_in_queue_seconds = self._column_histogram(
            "time_in_queue_seconds",
            "How long messages were stored until a receiver completed them.",
            "entity_type",
            "sessions",
            bounds=SESSION_BUCKETS,
        )
        self.delivery_count = self._column_histogram(
            "delivery_count",
            "Delivery counts of messages when receivers settled them; 0 = delivered for the first time.",
            bounds=DELIVERY_COUNT_BUCKETS,
        )
        self.session_wait_seconds = self._histogram(
            "session_wait_seconds",
            "How long a session waited for a holder, since it had a message and nobody held it.",
            buckets=SESSION_BUCKETS,
        )
        self.session_lock_hold_seconds = self._histogram(
            "session_lock_hold_seconds",
            "From a session lock to its end.",
            "end",
            buckets=SESSION_BUCKETS,
        )
        self.session_order_violations = self._counter(
            "session_order_violations",
            "Deliveries of a session out of order, found by checking about one in a hundred; stays 0.",
        )
        self.storage_operation_duration_seconds = self._histogram(
            "storage_operation_duration_seconds",
            "Time of calls to the store.",
            "op",
            buckets=STORAGE_BUCKETS,
        )
        self.storage_errors = self._counter(
            "storage_errors", "Calls to the store that failed.", "op", "error_class"
        )
        self.storage_commit_batch_messages = self._histogram(
            "storage_commit_batch_messages",
            "Messages that a commit stored.",
            buckets=COMMIT_BATCH_BUCKETS,
        )
        self.owner_partitions = self._gauge(
            "owner_partitions", "Partitions that this process owns."
        )
        self.owner_draining = self._gauge(
            "owner_draining", "1 while this process answers what was asked and takes no more calls."
        )
        self.partition_unavailable_seconds = self._counter(
            "partition_unavailable_seconds",
            "Time in which partitions of this process were being opened anew, added up.",
        )
        self.fenced_writes = self._counter(
            "fenced_writes", "Commits refused because a later owner exists."
        )

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        self._labels[f"lockstep_{name}"] = labels
        return Counter(f"lockstep_{name}", help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        self._labels[f"lockstep_{name}"] = labels
        return Gauge(f"lockstep_{name}", help_text, labels, registry=self.registry)

    def _histogram(
        self, name: str, help_text: str, *labels: str, buckets: tuple[float, ...]
    ) -> Histogram:
        self._labels[f"lockstep_{name}"] = labels
        registry = self.registry
        return Histogram(f"lockstep_{name}", help_text, labels, registry=registry, buckets=buckets)

    def _column_histogram(
        self, name: str, help_text: str, *labels: str, bounds: tuple[float, ...]
    ) -> ColumnHistogram:
        self._labels[f"lockstep_{name}"] = labels
        histogram = ColumnHistogram(f"lockstep_{name}", help_text, labels, bounds=bounds)
        self.registry.register(histogram)
        return histogram

    def register_entity(
        self, *, entity_namespace: str, entity: str, entity_type: str
    ) -> EntityCounters:
        """Return counters of an entity on one partition; its series appear at the next scrape.

        Call it once when the partition begins to serve the entity, and increment the fields from the
        owner's thread. Pass the counters to `remove_entity` when the entity is deleted or leaves.
        """
        return self._book.register(EntityKey(entity_namespace, entity, entity_type))

    def remove_entity(self, counters: EntityCounters) -> None:
        """Let the series go at the next scrape; the sums of the process keep what was counted."""
        self._book.remove(counters)

    def watch_entities(self, source: GaugesSource) -> None:
        """Set where the gauges of entities come from, in place of the source before.

        `source` is called at each scrape, on the scrape's thread; wrap it with `on_event_loop` if only
        an event loop may read what it reads. If it raises, that scrape of `/metrics/entities` fails.
        """
        self._entities.source = source

    def declared_labels(self) -> Mapping[str, tuple[str, ...]]:
        """Return the labels of every metric of ours, by its name without `_total`, for checks and docs."""
        labels = dict(self._labels)
        for family in ENTITY_COUNTERS:
            labels[f"lockstep_owner_{family.name}"] = family.labels
        for family in (*ENTITY_COUNTERS, *ENTITY_GAUGES):
            labels[f"lockstep_{family.name}"] = (*ENTITY_LABELS, *family.labels)
        for summary in ENTITY_SUMMARIES:
            labels[f"lockstep_{summary.name}"] = ENTITY_LABELS
        labels["lockstep_entities"] = ("entity_namespace", "entity_type")
        labels["lockstep_entities_folded"] = ()
        return labels

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the text of `/metrics` and its content type, for what the scraper accepts."""
        return _render(self.registry, accept)

    def render_entities(self, accept: str = "") -> tuple[bytes, str]:
        """Return the text of `/metrics/entities` and its content type."""
        return _render(self.entity_registry, accept)


class _WithoutCreated:
    """A registry as it is, but for the `_created` series: a third more series that nobody draws."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [one for one in family.samples if not one.name.endswith("_created")]
            yield family


def _render(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    encode, content_type = choose_encoder(accept)
    return encode(_WithoutCreated(registry)), content_type
