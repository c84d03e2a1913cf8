"""What Prometheus makes of the rules: they are well formed, fire when they must, and are silent otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from helm.monitoring.alerts import ALERTS
from helm.monitoring.files import DASHBOARDS
from tests.monitoring.alert_cases import CASES, Case, histogram, of, of_queue
from tests.monitoring.chart import NAMESPACE, RUNBOOKS, rules_file
from tests.monitoring.promtool import Asked, Fired, ask, check

RULES = rules_file()
_QUEUE = f'entity="orders",entity_namespace="shop",entity_type="queue",namespace="{NAMESPACE}"'


def firing(alert: str = "") -> str:
    """Return an expression that counts what fires: an alert, or any one."""
    which = f'alertname="{alert}",' if alert else ""
    return f'count(ALERTS{{{which}alertstate="firing"}})'


def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    assert check(tmp_path, RULES) == ""


def test_prometheus_takes_every_expression_of_a_dashboard(tmp_path: Path) -> None:
    expressions = {one for dashboard in DASHBOARDS for one in dashboard.expressions()}
    rules = [
        {"record": f"lockstep:test:number{number}", "expr": one.replace("$__rate_interval", "5m")}
        for number, one in enumerate(sorted(expressions))
    ]

    assert len(rules) > 80
    assert check(tmp_path, yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]})) == ""


def test_what_is_not_promql_is_noticed(tmp_path: Path) -> None:
    rules = [{"record": "lockstep:test:number", "expr": "sum by (lockstep_entities"}]

    assert check(tmp_path, yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]})) != ""


@pytest.mark.parametrize("case", CASES, ids=lambda one: f"{one.alert}: {one.why}")
def test_an_alert_fires_when_it_must_and_not_otherwise(tmp_path: Path, case: Case) -> None:
    expected = {"{}": 1.0} if case.fires else {}
    asked = Asked(firing(case.alert), case.at, expected)

    assert ask(tmp_path, RULES, case.series, [asked]) == ""


def test_every_alert_is_tried_both_ways() -> None:
    both = {(one.name, fires) for one in ALERTS for fires in (True, False)}

    assert {(case.alert, case.fires) for case in CASES} == both


def test_a_release_in_good_health_fires_nothing(tmp_path: Path) -> None:
    series = {
        of("lockstep_partitions", state="owned"): "16x400",
        of("lockstep_partitions", state="unowned"): "0x400",
        of("lockstep_partitions", state="moving"): "0x400",
        of("lockstep_frontend_requests_total", method="MessagingService/SendMessages", code="OK"): (
            "0+900x400"
        ),
        of("lockstep_frontend_throttled_total", reason="quota"): "0x400",
        of("lockstep_lease_remaining_seconds"): "8x400",
        of("lockstep_fenced_writes_total"): "0x400",
        of("lockstep_session_order_violations_total"): "0x400",
        of("lockstep_entities_folded"): "0x400",
        of_queue("lockstep_messages_enqueued_total", origin="client"): "0+900x400",
        of_queue("lockstep_messages_settled_total", outcome="completed"): "0+900x400",
        of_queue("lockstep_entity_messages", state="ready"): "20x400",
        of_queue("lockstep_entity_messages", state="dead_letter"): "3x400",
        of_queue("lockstep_entity_receivers"): "4x400",
        of_queue("lockstep_entity_sessions", state="ready"): "2x400",
        of_queue("lockstep_entity_size_bytes"): "900x400",
        of_queue("lockstep_entity_size_limit_bytes"): "100000x400",
        of_queue("lockstep_entity_oldest_message_age_seconds", sub_queue="main"): "2x400",
        **histogram("lockstep_session_wait_seconds", "0+9x400", above="0.05", upto="0.1"),
        of("lockstep_operator_leader"): "1x400",
        of("lockstep_operator_workqueue_oldest_age_seconds"): "0x400",
        of("lockstep_operator_resources", kind="Queue", ready="True", reason="Reconciled"): "9x400",
        of("lockstep_operator_drift_corrections_total", kind="Queue"): "0x400",
        of("lockstep_operator_watch_last_event_timestamp_seconds", kind="Queue"): "0x400",
    }
    assert ask(tmp_path, RULES, series, [Asked(firing(), "390m", {})]) == ""


def test_recordings_are_the_figures_that_they_say(tmp_path: Path) -> None:
    series = {
        of_queue("lockstep_messages_enqueued_total", origin="client"): "0+180x60",
        of_queue("lockstep_messages_enqueued_total", origin="schedule"): "0+600x60",
        of_queue("lockstep_messages_settled_total", outcome="completed"): "0+60x60",
        of_queue("lockstep_messages_settled_total", outcome="received_and_deleted"): "0+60x60",
        of_queue("lockstep_messages_settled_total", outcome="abandoned"): "0+600x60",
        of_queue("lockstep_entity_messages", state="ready"): "70x60",
        of_queue("lockstep_entity_messages", pod="b", state="locked"): "20x60",
        of_queue("lockstep_entity_messages", state="delayed"): "10x60",
        of_queue("lockstep_entity_messages", state="scheduled"): "500x60",
        of("lockstep_partitions", state="owned"): "16x60",
        of("lockstep_partitions", state="unowned"): "0x60",
        of("lockstep_partitions", pod="b", state="owned"): "12x60",
        of("lockstep_partitions", pod="b", state="unowned"): "4x60",
        of("lockstep_frontend_requests_total", method="AdminService/GetQueue", code="OK"): (
            "0+90x60"
        ),
        of("lockstep_frontend_requests_total", method="AdminService/GetQueue", code="UNKNOWN"): (
            "0+10x60"
        ),
    }
    figures = {
        "lockstep:entity_in:rate5m": (_QUEUE, 3.0),
        "lockstep:entity_out:rate5m": (_QUEUE, 2.0),
        "lockstep:entity_net:rate15m": (_QUEUE, 1.0),
        "lockstep:entity_backlog:sum": (_QUEUE, 100.0),
        "lockstep:entity_drain_seconds": (_QUEUE, 50.0),
        "lockstep:partition_available:ratio": (f'namespace="{NAMESPACE}"', 0.75),
        "lockstep:frontend_errors:ratio5m": (f'namespace="{NAMESPACE}"', 0.1),
    }
    asked = [
        Asked(f"round({name}, 0.001)", "50m", {f"{{{labels}}}": value})  # sums of fractions
        for name, (labels, value) in figures.items()
    ]

    assert ask(tmp_path, RULES, series, asked) == ""


def test_calls_without_an_error_are_a_ratio_of_zero_and_no_calls_are_none(tmp_path: Path) -> None:
    name = "lockstep:frontend_errors:ratio5m"
    calls = of("lockstep_frontend_requests_total", method="AdminService/GetQueue", code="OK")
    some = Asked(name, "20m", {f'{name}{{namespace="{NAMESPACE}"}}': 0.0})
    none = Asked(name, "50m", {})

    assert ask(tmp_path, RULES, {calls: "0+90x30 2700x60"}, [some, none]) == ""


def test_an_alert_says_which_queue_how_much_and_where_to_read_on(tmp_path: Path) -> None:
    name = "LockstepQueueAlmostFull"
    series = {
        of_queue("lockstep_entity_size_bytes"): "90x60",
        of_queue("lockstep_entity_size_limit_bytes"): "100x60",
    }
    labels = {
        "severity": "warning",
        "namespace": NAMESPACE,
        "entity_namespace": "shop",
        "entity": "orders",
        "entity_type": "queue",
    }
    annotations = {
        "summary": "shop/orders is 90% full; sends are refused at 100 %.",
        "runbook_url": f"{RUNBOOKS}/{name}.md",
    }

    expected = Fired(name, "15m", labels, annotations)

    assert ask(tmp_path, RULES, series, [], [expected]) == ""


def test_the_summary_of_a_late_lease_names_its_owner(tmp_path: Path) -> None:
    name = "LockstepEtcdSlow"
    labels = {"severity": "warning", "namespace": NAMESPACE, "pod": "a"}
    annotations = {
        "summary": "etcd is slow, or a lease is renewed late at a: 1.5s.",
        "runbook_url": f"{RUNBOOKS}/{name}.md",
    }

    expected = Fired(name, "12m", labels, annotations)

    series = {of("lockstep_lease_remaining_seconds"): "1.5x30"}
    assert ask(tmp_path, RULES, series, [], [expected]) == ""
