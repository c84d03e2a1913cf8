"""How counters and gauges of entities become Prometheus series at the moment of a scrape.

Here belong the book of registered counters, the fold of what is over the cap, and the two
collectors. Never here: names of metrics, which are declared in `runtime.metrics`. The law: a series
of a counter never goes down while it exists, and the series of a deleted entity is gone at the next
scrape.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import add, attrgetter, sub

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from lockstep.core.errors import Unavailable
from lockstep.runtime.entity_counters import EntityCounters, EntityGauges, EntityKey

ENTITY_LABELS = EntityKey._fields
OTHER = "__other__"

GaugesSource = Callable[[], Iterable[EntityGauges]]

_COUNTER_NAMES = tuple(one.name for one in fields(EntityCounters) if one.name != "key")
_GAUGE_NAMES = tuple(
    one.name for one in fields(EntityGauges) if one.name not in ("key", "has_sessions")
)
_counter_values: Callable[[EntityCounters], tuple[int, ...]] = attrgetter(*_COUNTER_NAMES)
_gauge_values: Callable[[EntityGauges], tuple[float, ...]] = attrgetter(*_GAUGE_NAMES)
_GAUGE_SUMS = tuple(max if "_age_" in name else add for name in _GAUGE_NAMES)
_NO_COUNTS = (0,) * len(_COUNTER_NAMES)
_NO_GAUGES = (0,) * len(_GAUGE_NAMES)


@dataclass(frozen=True, slots=True)
class EntityFamily:
    """One metric whose samples are fields of `EntityCounters` or `EntityGauges`.

    Attributes:
        name: The metric's name after `lockstep_`; of a counter without `_total`.
        help: What it counts or measures, for `# HELP`.
        labels: Label names beyond those of the entity.
        samples: Field name to label values, exported from the start.
        rare: The same, exported only while not zero, so that the rest stays within the budget.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    samples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rare: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EntitySummary:
    """A metric that is the sum of durations and how many there were, exported once there is one.

    Attributes:
        name: The metric's name after `lockstep_`, without `_sum` and `_count`.
        help: What was measured, for `# HELP`.
        milliseconds: The field of `EntityCounters` with the sum.
        count: The field with the number.
    """

    name: str
    help: str
    milliseconds: str
    count: str


@dataclass(slots=True)
class _Entry:
    """What is known of one entity: its live counters and the sum of those that left before it."""

    live: list[EntityCounters]
    left: tuple[int, ...] = _NO_COUNTS

    def values(self) -> tuple[int, ...]:
        return _total(map(_counter_values, self.live), self.left)


class CounterBook:
    """All registered counters; safe to change on one thread and to read on another.

    An entity may have several counters here, one a partition. While one of them is left, what the
    others had counted stays in the sum: a partition that moves away must not look like a reset.
    """

    def __init__(self) -> None:
        """Start without entities."""
        self._lock = threading.Lock()
        self._entries: dict[EntityKey, _Entry] = {}
        self._gone = _NO_COUNTS

    def register(self, key: EntityKey) -> EntityCounters:
        """Return new counters, at zero, that are exported from now on."""
        counters = EntityCounters(key)
        with self._lock:
            entry = self._entries.setdefault(key, _Entry([]))
            entry.live.append(counters)
        return counters

    def remove(self, counters: EntityCounters) -> None:
        """Export these counters no more; the process totals keep them. A second time is no error."""
        with self._lock:
            entry = self._entries.get(counters.key)
            if entry is None or counters not in entry.live:
                return
            entry.live.remove(counters)
            entry.left = _added(entry.left, _counter_values(counters))
            if not entry.live:
                del self._entries[counters.key]
                self._gone = _added(self._gone, entry.left)

    def by_entity(self) -> dict[EntityKey, tuple[int, ...]]:
        """Return the sums of each entity that is here now."""
        with self._lock:
            return {key: entry.values() for key, entry in self._entries.items()}

    def totals(self) -> tuple[int, ...]:
        """Return the sums over all entities, those that are gone too; they never go down."""
        with self._lock:
            return _total((entry.values() for entry in self._entries.values()), self._gone)


class TotalsCollector:
    """The sums over all entities of this process, under `lockstep_owner_…`.

    The name differs from that of the entities' series so that a sum over both endpoints is not twice
    the truth.
    """

    def __init__(self, book: CounterBook, families: Sequence[EntityFamily]) -> None:
        """Bind the counters to the families that show them."""
        self._book = book
        self._families = families

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples."""
        return [_counter_family(f"owner_{one.name}", one, ()) for one in self._families]

    def collect(self) -> Iterable[Metric]:
        """Return every sample of every family, zeros too."""
        numbers = dict(zip(_COUNTER_NAMES, self._book.totals(), strict=True))
        for declared in self._families:
            family = _counter_family(f"owner_{declared.name}", declared, ())
            for name, labels in {**declared.samples, **declared.rare}.items():
                family.add_metric(labels, numbers[name])
            yield family


class EntityCollector:
    """The series of each entity, at most `entities_max` of them, the largest backlog first."""

    def __init__(
        self,
        book: CounterBook,
        *,
        counters: Sequence[EntityFamily],
        summaries: Sequence[EntitySummary],
        gauges: Sequence[EntityFamily],
        entities_max: int,
    ) -> None:
        """Bind the counters to the families that show them; gauges come from `source` once it is set."""
        self.source: GaugesSource = tuple
        self._book = book
        self._counters = counters
        self._summaries = summaries
        self._gauges = gauges
        self._fold = _Fold(entities_max)
        self._scrape = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples."""
        yield from (_counter_family(one.name, one, ENTITY_LABELS) for one in self._counters)
        yield from (_summary_family(one, {}) for one in self._summaries)
        yield from (_gauge_family(one) for one in self._gauges)
        yield _entities_family()
        yield _folded_family(0)

    def collect(self) -> Iterator[Metric]:
        """Return the series of the entities that exist now."""
        with self._scrape:  # the fold keeps a state, and two scrapes may come at once
            gauges, sessions = _sum_gauges(self.source())
            existing = Counter((key.entity_namespace, key.entity_type) for key in gauges)
            counts, gauges = self._fold.apply(self._book.by_entity(), gauges)
        for declared in self._counters:
            family = _counter_family(declared.name, declared, ENTITY_LABELS)
            _add_samples(family, declared, _COUNTER_NAMES, counts)
            yield family
        yield from (_summary_family(one, counts) for one in self._summaries)
        for declared in self._gauges:
            of_sessions = any(name.startswith("sessions_") for name in declared.samples)
            shown = {key: gauges[key] for key in gauges if not of_sessions or key in sessions}
            gauge = _gauge_family(declared)
            _add_samples(gauge, declared, _GAUGE_NAMES, shown)
            yield gauge
        yield _entities_family(existing)
        yield _folded_family(self._fold.folded)


class _Fold:
    """Keeps the number of entities with own series bounded; the rest is one entity per type.

    The counters of the rest are the increments seen while folded, not a sum of what is folded now:
    that sum would fall when an entity leaves, which Prometheus takes for a reset and counts again.
    """

    def __init__(self, entities_max: int) -> None:
        self.folded = 0
        self._entities_max = entities_max
        self._shown: set[EntityKey] = set()
        self._seen: dict[EntityKey, tuple[int, ...]] = {}
        self._other: dict[EntityKey, tuple[int, ...]] = {}

    def apply(
        self,
        counts: dict[EntityKey, tuple[int, ...]],
        gauges: dict[EntityKey, tuple[float, ...]],
    ) -> tuple[dict[EntityKey, tuple[int, ...]], dict[EntityKey, tuple[float, ...]]]:
        """Return counts and gauges of the entities that have series, and of the rest."""
        keys = counts.keys() | gauges.keys()
        self.folded = max(len(keys) - self._entities_max, 0)
        ranked = sorted(keys, key=lambda key: (-_backlog(gauges.get(key)), key))
        shown, rest = set(ranked[: self._entities_max]), ranked[self._entities_max :]
        seen = {}
        other_gauges: dict[EntityKey, tuple[float, ...]] = {}
        for key in rest:
            now = counts.get(key, _NO_COUNTS)
            before = self._seen.get(key, now if key in self._shown else _NO_COUNTS)
            if any(map(int.__lt__, now, before)):  # deleted and made again between two scrapes
                before = _NO_COUNTS
            seen[key] = now
            other = EntityKey(OTHER, OTHER, key.entity_type)
            grown = tuple(map(sub, now, before))
            self._other[other] = _added(self._other.get(other, _NO_COUNTS), grown)
            gauge = gauges.get(key, _NO_GAUGES)
            other_gauges[other] = _merged(other_gauges.get(other, _NO_GAUGES), gauge)
        self._shown, self._seen = shown, seen
        own_counts = {key: value for key, value in counts.items() if key in shown}
        own_gauges = {key: value for key, value in gauges.items() if key in shown}
        return own_counts | self._other, own_gauges | other_gauges


def on_event_loop(
    loop: asyncio.AbstractEventLoop, source: GaugesSource, *, timeout_ms: int = 1000
) -> GaugesSource:
    """Return a source that runs `source` on `loop`, for an owner whose state only its loop may read.

    The source that is returned must not be called on the loop itself.

    Raises:
        Unavailable: From the returned source: the loop has ended, or did not answer in `timeout_ms`.
            The scrape fails; the next one tries again.
    """

    def read() -> Iterable[EntityGauges]:
        answer: concurrent.futures.Future[list[EntityGauges]] = concurrent.futures.Future()

        def run() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(list(source()))
            except Exception as error:  # noqa: BLE001 - handed to the thread that waits
                answer.set_exception(error)

        try:
            loop.call_soon_threadsafe(run)
        except RuntimeError as error:
            raise Unavailable(
                "The owner's event loop has ended; there is nothing to measure."
            ) from error
        try:
            return answer.result(timeout_ms / 1000)
        except TimeoutError as error:
            answer.cancel()
            raise Unavailable(
                f"The owner's event loop did not answer within {timeout_ms} ms."
            ) from error

    return read


def _added(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """Return the sums, field by field."""
    return tuple(map(add, left, right))


def _merged(left: tuple[float, ...], right: tuple[float, ...]) -> tuple[float, ...]:
    """Return the gauges of two parts as one: the sums, field by field, but of ages the highest."""
    pairs = zip(_GAUGE_SUMS, left, right, strict=True)
    return tuple(merge(one, other) for merge, one, other in pairs)


def _total(values: Iterable[tuple[int, ...]], start: tuple[int, ...]) -> tuple[int, ...]:
    """Return `start` plus all of `values`, field by field."""
    for one in values:
        start = _added(start, one)
    return start


def _sum_gauges(
    source: Iterable[EntityGauges],
) -> tuple[dict[EntityKey, tuple[float, ...]], set[EntityKey]]:
    """Add up what partitions say of each entity; return the sums and which entities have sessions."""
    sums: dict[EntityKey, tuple[float, ...]] = {}
    sessions = {EntityKey(OTHER, OTHER, one) for one in ("queue", "subscription")}
    for one in source:
        sums[one.key] = _merged(sums.get(one.key, _NO_GAUGES), _gauge_values(one))
        if one.has_sessions:
            sessions.add(one.key)
    return sums, sessions


def _backlog(gauges: tuple[float, ...] | None) -> float:
    """Return how many messages an entity holds, in any state."""
    if gauges is None:
        return 0
    return sum(gauges[: _GAUGE_NAMES.index("size_bytes")])


def _counter_family(
    name: str, declared: EntityFamily, entity_labels: tuple[str, ...]
) -> CounterMetricFamily:
    labels = (*entity_labels, *declared.labels)
    return CounterMetricFamily(f"lockstep_{name}", declared.help, labels=labels)


def _summary_family(
    declared: EntitySummary, entities: Mapping[EntityKey, tuple[int, ...]]
) -> SummaryMetricFamily:
    family = SummaryMetricFamily(f"lockstep_{declared.name}", declared.help, labels=ENTITY_LABELS)
    total, count = map(_COUNTER_NAMES.index, (declared.milliseconds, declared.count))
    for key, values in entities.items():
        if values[count]:
            family.add_metric(key, count_value=values[count], sum_value=values[total] / 1000)
    return family


def _gauge_family(declared: EntityFamily) -> GaugeMetricFamily:
    labels = (*ENTITY_LABELS, *declared.labels)
    return GaugeMetricFamily(f"lockstep_{declared.name}", declared.help, labels=labels)


def _add_samples(
    family: CounterMetricFamily | GaugeMetricFamily,
    declared: EntityFamily,
    names: tuple[str, ...],
    entities: Mapping[EntityKey, tuple[float, ...]],
) -> None:
    """Add one sample for each entity and field; those of rare fields only when not zero."""
    columns = [(names.index(name), labels, False) for name, labels in declared.samples.items()]
    columns += [(names.index(name), labels, True) for name, labels in declared.rare.items()]
    for key, values in entities.items():
        for column, labels, rare in columns:
            if values[column] or not rare:
                family.add_metric((*key, *labels), values[column])


def _entities_family(counted: Mapping[tuple[str, str], int] | None = None) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "lockstep_entities",
        "Entities that exist, folded ones too.",
        labels=("entity_namespace", "entity_type"),
    )
    for labels, count in (counted or {}).items():
        family.add_metric(labels, count)
    return family


def _folded_family(folded: int) -> GaugeMetricFamily:
    name = "lockstep_entities_folded"
    return GaugeMetricFamily(name, f"Entities whose series are folded into {OTHER}.", value=folded)
