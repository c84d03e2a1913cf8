"""Metrics: what may be a label, what counts, what vanishes, what is folded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from dataclasses import fields

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from lockstep.core.errors import Unavailable
from lockstep.runtime.clock import SystemClock
from lockstep.runtime.metrics import (
    ENTITY_COUNTERS,
    ENTITY_GAUGES,
    ENTITY_SUMMARIES,
    EntityCounters,
    EntityGauges,
    EntityKey,
    Metrics,
    on_event_loop,
)
from tests.monitoring.allowed import ALLOWED

UNITS = {"seconds", "bytes", "info"}
# What a metric without a unit counts.
COUNTED = {"requests", "throttled", "messages", "errors", "partitions", "writes", "count"}
COUNTED |= {"enqueued", "delivered", "settled", "lettered", "expirations", "granted", "renewals"}
COUNTED |= {"released", "increments", "sends", "accepts", "sessions", "receivers", "entities"}
COUNTED |= {"folded", "draining", "taken", "expired", "retries", "cancelled", "recalled", "cleared"}
COUNTED |= {"violations", "running", "streams"}
ORDERS = EntityKey("default", "orders", "queue")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), version="1.2.3", commit="abc")


def with_labels(key: EntityKey, **labels: str) -> dict[str, str]:
    return {**key._asdict(), **labels}


def register(metrics: Metrics, key: EntityKey) -> EntityCounters:
    return metrics.register_entity(**key._asdict())


def samples(registry: Collector, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name
    }


def all_families(metrics: Metrics) -> Iterable[Metric]:
    yield from metrics.registry.collect()
    yield from metrics.entity_registry.collect()


def test_no_metric_has_a_label_outside_the_allow_list(metrics: Metrics) -> None:
    register(metrics, ORDERS)
    metrics.watch_entities(lambda: [EntityGauges(key=ORDERS, has_sessions=True)])

    declared = {label for labels in metrics.declared_labels().values() for label in labels}
    seen = {
        label for family in all_families(metrics) for one in family.samples for label in one.labels
    }

    assert declared | seen <= ALLOWED


def test_every_metric_in_a_registry_is_declared(metrics: Metrics) -> None:
    foreign = ("process_", "python_")

    names = {one.name for one in all_families(metrics) if not one.name.startswith(foreign)}

    assert names == metrics.declared_labels().keys()


def test_names_carry_the_prefix_and_only_base_units(metrics: Metrics) -> None:
    names = metrics.declared_labels().keys()

    assert all(name.startswith("lockstep_") for name in names)
    assert not [name for name in names if name.endswith(("_total", "_ms", "_kib", "_mib"))]


def test_what_alerts_take_the_increase_of_is_there_before_the_first_event(
    metrics: Metrics,
) -> None:
    registry = metrics.registry

    for reason in ("drain", "rebalance", "lease_lost"):
        name = "lockstep_partition_handoff_duration_seconds_count"
        assert registry.get_sample_value(name, {"reason": reason}) == 0
    for reason in ("quota", "backpressure", "partition_moving", "store"):
        name = "lockstep_frontend_throttled_total"
        assert registry.get_sample_value(name, {"reason": reason}) == 0
    for name in ("lockstep_fenced_writes_total", "lockstep_session_order_violations_total"):
        assert registry.get_sample_value(name) == 0


def test_every_metric_says_what_it_is(metrics: Metrics) -> None:
    helps = {one.name: one.documentation for one in all_families(metrics)}

    assert [name for name, text in helps.items() if len(text) < len("What runs.")] == []


def test_every_name_ends_with_its_unit_or_with_what_it_counts(metrics: Metrics) -> None:
    names = metrics.declared_labels().keys()

    assert [name for name in names if name.rpartition("_")[2] not in UNITS | COUNTED] == []
    timed = {"duration", "wait", "hold", "age", "lag", "time"}
    durations = [name for name in names if timed & set(name.split("_"))]
    assert durations
    assert [name for name in durations if not name.endswith("_seconds")] == []


def test_every_counter_of_an_entity_is_shown_exactly_once() -> None:
    shown = [name for one in ENTITY_COUNTERS for name in (*one.samples, *one.rare)]
    shown += [name for one in ENTITY_SUMMARIES for name in (one.milliseconds, one.count)]

    assert sorted(shown) == sorted(one.name for one in fields(EntityCounters) if one.name != "key")


def test_every_gauge_of_an_entity_is_shown_exactly_once() -> None:
    not_shown = {"key", "has_sessions"}

    shown = [name for one in ENTITY_GAUGES for name in (*one.samples, *one.rare)]

    assert set(shown) == {one.name for one in fields(EntityGauges)} - not_shown
    assert len(shown) == len(set(shown))


@pytest.mark.parametrize("family", [*ENTITY_COUNTERS, *ENTITY_GAUGES], ids=lambda one: one.name)
def test_label_values_fit_the_labels_and_never_repeat(family: object) -> None:
    assert family in ENTITY_COUNTERS + ENTITY_GAUGES
    declared = next(one for one in ENTITY_COUNTERS + ENTITY_GAUGES if one == family)

    values = [*declared.samples.values(), *declared.rare.values()]

    assert {len(one) for one in values} == {len(declared.labels)}
    assert len(values) == len(set(values))


def test_an_idle_queue_stays_near_the_budget_of_25_series(metrics: Metrics) -> None:
    register(metrics, ORDERS)
    metrics.watch_entities(lambda: [EntityGauges(key=ORDERS, has_sessions=True)])

    series = [
        sample
        for family in metrics.entity_registry.collect()
        for sample in family.samples
        if sample.labels.get("entity") == "orders"
    ]

    assert len(series) <= 28


def test_build_info_says_what_runs(metrics: Metrics) -> None:
    (labels,) = samples(metrics.registry, "lockstep_build_info")

    assert labels[:2] == ("1.2.3", "abc")


def test_increments_appear_at_the_next_scrape(metrics: Metrics) -> None:
    counters = register(metrics, ORDERS)

    counters.enqueued_client += 3
    counters.session_locks_released_broken += 1

    entities = metrics.entity_registry
    assert (
        entities.get_sample_value(
            "lockstep_messages_enqueued_total", with_labels(ORDERS, origin="client")
        )
        == 3
    )
    assert (
        entities.get_sample_value(
            "lockstep_locks_released_total", with_labels(ORDERS, kind="session", cause="broken")
        )
        == 1
    )


def test_series_of_a_removed_entity_vanish(metrics: Metrics) -> None:
    counters = register(metrics, ORDERS)
    counters.enqueued_client += 3

    metrics.remove_entity(counters)

    assert samples(metrics.entity_registry, "lockstep_messages_enqueued_total") == {}


def test_sums_of_the_process_keep_what_a_removed_entity_counted(metrics: Metrics) -> None:
    counters = register(metrics, ORDERS)
    counters.enqueued_client += 3
    register(metrics, ORDERS._replace(entity="bills")).enqueued_client += 4

    metrics.remove_entity(counters)

    total = metrics.registry.get_sample_value(
        "lockstep_owner_messages_enqueued_total", {"origin": "client"}
    )
    assert total == 7


def test_removing_an_entity_twice_counts_it_once(metrics: Metrics) -> None:
    counters = register(metrics, ORDERS)
    counters.enqueued_client += 3

    metrics.remove_entity(counters)
    metrics.remove_entity(counters)

    total = metrics.registry.get_sample_value(
        "lockstep_owner_messages_enqueued_total", {"origin": "client"}
    )
    assert total == 3


def test_partition_that_leaves_does_not_lower_the_series_of_an_entity_that_stays(
    metrics: Metrics,
) -> None:
    leaving, staying = register(metrics, ORDERS), register(metrics, ORDERS)
    leaving.enqueued_client += 3
    staying.enqueued_client += 4

    metrics.remove_entity(leaving)

    enqueued = samples(metrics.entity_registry, "lockstep_messages_enqueued_total")
    assert enqueued == {(*ORDERS, "client"): 7}


def test_entity_that_is_made_again_starts_at_zero(metrics: Metrics) -> None:
    counters = register(metrics, ORDERS)
    counters.enqueued_client += 3
    metrics.remove_entity(counters)

    register(metrics, ORDERS)

    enqueued = samples(metrics.entity_registry, "lockstep_messages_enqueued_total")
    assert enqueued == {(*ORDERS, "client"): 0}


def test_gauges_of_partitions_of_one_entity_are_added_up(metrics: Metrics) -> None:
    metrics.watch_entities(
        lambda: [
            EntityGauges(key=ORDERS, ready=2, size_limit_bytes=10),
            EntityGauges(key=ORDERS, ready=3, size_limit_bytes=10),
        ]
    )

    ready = metrics.entity_registry.get_sample_value(
        "lockstep_entity_messages", with_labels(ORDERS, state="ready")
    )

    assert ready == 5
    assert samples(metrics.entity_registry, "lockstep_entity_size_limit_bytes") == {ORDERS: 20}
    assert samples(metrics.entity_registry, "lockstep_entities") == {("default", "queue"): 1}


def test_age_of_an_entity_is_the_highest_of_its_partitions(metrics: Metrics) -> None:
    metrics.watch_entities(
        lambda: [
            EntityGauges(key=ORDERS, oldest_age_seconds=2.5),
            EntityGauges(key=ORDERS, oldest_age_seconds=1),
        ]
    )

    ages = samples(metrics.entity_registry, "lockstep_entity_oldest_message_age_seconds")

    assert ages == {(*ORDERS, "main"): 2.5, (*ORDERS, "dead_letter"): 0}


def test_gauges_of_an_entity_that_the_source_forgets_vanish(metrics: Metrics) -> None:
    held = [EntityGauges(key=ORDERS, ready=2)]
    metrics.watch_entities(lambda: held)
    before = samples(metrics.entity_registry, "lockstep_entity_size_bytes")

    held.clear()

    assert before == {ORDERS: 0}
    assert samples(metrics.entity_registry, "lockstep_entity_size_bytes") == {}


def test_only_entities_with_sessions_have_series_of_sessions(metrics: Metrics) -> None:
    plain = ORDERS._replace(entity="plain")
    metrics.watch_entities(
        lambda: [EntityGauges(key=ORDERS, has_sessions=True), EntityGauges(key=plain)]
    )

    sessions = samples(metrics.entity_registry, "lockstep_entity_sessions")

    assert {labels[1] for labels in sessions} == {"orders"}
    assert len(sessions) == 4


class TestFold:
    """Two entities may have own series; the smallest backlogs share one."""

    @pytest.fixture
    def backlogs(self) -> dict[str, int]:
        return {"large": 30, "middle": 20, "small": 10}

    @pytest.fixture
    def metrics(self, backlogs: dict[str, int]) -> Metrics:
        metrics = Metrics(CollectorRegistry(), entities_max=2)
        metrics.watch_entities(
            lambda: [
                EntityGauges(key=ORDERS._replace(entity=name), ready=ready)
                for name, ready in backlogs.items()
            ]
        )
        return metrics

    def ready(self, metrics: Metrics) -> dict[str, float]:
        all_states = samples(metrics.entity_registry, "lockstep_entity_messages")
        return {labels[1]: value for labels, value in all_states.items() if labels[3] == "ready"}

    def enqueued(self, metrics: Metrics) -> dict[str, float]:
        counted = samples(metrics.entity_registry, "lockstep_messages_enqueued_total")
        return {labels[1]: value for labels, value in counted.items()}

    def test_smallest_backlog_is_folded(self, metrics: Metrics) -> None:
        assert self.ready(metrics) == {"large": 30, "middle": 20, "__other__": 10}
        assert samples(metrics.entity_registry, "lockstep_entities_folded") == {(): 1}

    def test_folded_entities_still_count_as_existing(self, metrics: Metrics) -> None:
        assert samples(metrics.entity_registry, "lockstep_entities") == {("default", "queue"): 3}

    def test_counter_of_the_rest_has_what_the_folded_count(self, metrics: Metrics) -> None:
        small = register(metrics, ORDERS._replace(entity="small"))
        small.enqueued_client += 5

        first = self.enqueued(metrics)
        small.enqueued_client += 1

        assert first == {"__other__": 5}
        assert self.enqueued(metrics) == {"__other__": 6}

    def test_counter_of_the_rest_never_falls_when_an_entity_grows_out_of_it(
        self, metrics: Metrics, backlogs: dict[str, int]
    ) -> None:
        small = register(metrics, ORDERS._replace(entity="small"))
        small.enqueued_client += 5
        self.enqueued(metrics)

        backlogs["small"] = 100

        assert self.enqueued(metrics) == {"small": 5, "__other__": 5}

    def test_entity_that_shrinks_into_the_rest_brings_no_old_counts(
        self, metrics: Metrics, backlogs: dict[str, int]
    ) -> None:
        middle = register(metrics, ORDERS._replace(entity="middle"))
        middle.enqueued_client += 5
        self.enqueued(metrics)

        backlogs["small"] = 100
        after_the_change = self.enqueued(metrics)
        middle.enqueued_client += 2

        assert after_the_change == {"__other__": 0}
        assert self.enqueued(metrics) == {"__other__": 2}

    def test_folded_entity_that_is_made_again_does_not_lower_the_rest(
        self, metrics: Metrics
    ) -> None:
        small = register(metrics, ORDERS._replace(entity="small"))
        small.enqueued_client += 5
        self.enqueued(metrics)

        metrics.remove_entity(small)
        register(metrics, small.key).enqueued_client += 1

        assert self.enqueued(metrics) == {"__other__": 6}


async def test_source_on_an_event_loop_runs_there() -> None:
    threads: list[int] = []

    def source() -> list[EntityGauges]:
        threads.append(threading.get_ident())
        return [EntityGauges(key=ORDERS, ready=2)]

    read = on_event_loop(asyncio.get_running_loop(), source)
    gauges = await asyncio.to_thread(read)

    assert threads == [threading.get_ident()]
    assert list(gauges) == [EntityGauges(key=ORDERS, ready=2)]


async def test_error_of_a_source_on_an_event_loop_reaches_the_scrape() -> None:
    def source() -> list[EntityGauges]:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await asyncio.to_thread(on_event_loop(asyncio.get_running_loop(), source))


async def test_busy_event_loop_fails_the_scrape_in_time() -> None:
    read = on_event_loop(asyncio.get_running_loop(), lambda: [], timeout_ms=0)

    with pytest.raises(Unavailable, match="did not answer"):
        read()  # on the loop itself, which therefore cannot answer

    await SystemClock().sleep(0)


def test_ended_event_loop_fails_the_scrape() -> None:
    loop = asyncio.new_event_loop()
    loop.close()

    with pytest.raises(Unavailable, match="has ended"):
        on_event_loop(loop, lambda: [])()


def test_text_has_no_created_series(metrics: Metrics) -> None:
    metrics.fenced_writes.inc()

    text, content_type = metrics.render()

    assert b"lockstep_fenced_writes_total 1.0" in text
    assert b"_created" not in text
    assert content_type.startswith("text/plain")


def test_scraper_that_asks_for_open_metrics_gets_it(metrics: Metrics) -> None:
    register(metrics, ORDERS)

    text, content_type = metrics.render_entities("application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
