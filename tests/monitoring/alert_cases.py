"""For each alert, series with which it must fire, and such with which it must not.

Here belong series and times, one value a minute. Never here: how they are tried (`test_alerts`). The law: each alert
has at least one case of each kind, and what must not fire differs from what must in the one thing that matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.monitoring.chart import NAMESPACE

_QUEUE = {"entity_namespace": "shop", "entity": "orders", "entity_type": "queue"}


@dataclass(frozen=True, slots=True)
class Case:
    """Series, and whether an alert fires.

    Attributes:
        alert: Which.
        why: What the case shows.
        at: When it is looked at.
        fires: Whether it fires then.
        series: The values of each series.
    """

    alert: str
    why: str
    at: str
    fires: bool
    series: Mapping[str, str] = field(default_factory=dict)


def of(name: str, namespace: str = NAMESPACE, pod: str = "a", **labels: str) -> str:
    """Return a series as Prometheus has it after a scrape."""
    given = {"namespace": namespace, "pod": pod, **labels}
    inside = ",".join(f'{label}="{value}"' for label, value in given.items())
    return f"{name}{{{inside}}}"


def of_queue(name: str, pod: str = "a", **labels: str) -> str:
    """Return a series of a queue."""
    return of(name, pod=pod, **_QUEUE, **labels)


def histogram(name: str, values: str, *, above: str, upto: str, **labels: str) -> dict[str, str]:
    """Return buckets of which all observations are above one bound and not above another."""
    never = "0x400"
    return {
        of(f"{name}_bucket", le=above, **labels): never,
        of(f"{name}_bucket", le=upto, **labels): values,
        of(f"{name}_bucket", le="+Inf", **labels): values,
    }


def _calls(code: str, values: str, method: str = "MessagingService/SendMessages") -> dict[str, str]:
    return {of("lockstep_frontend_requests_total", method=method, code=code): values}


_SEND = {"method": "MessagingService/SendMessages"}
_STORE = "lockstep_storage_operation_duration_seconds"
_ETCD = "lockstep_etcd_request_duration_seconds"
_HANDOFF = "lockstep_partition_handoff_duration_seconds"
_THROTTLED = "lockstep_frontend_throttled_total"
_MESSAGES = "lockstep_entity_messages"
_FAST_WAIT = histogram("lockstep_session_wait_seconds", "0+10x60", above="0.05", upto="0.1")
_SLOW_WAIT = histogram("lockstep_session_wait_seconds", "0+10x60", above="60", upto="300")
_READY_SESSIONS = {of_queue("lockstep_entity_sessions", state="ready"): "3x60"}
_DEAD = of_queue(_MESSAGES, state="dead_letter")
_READY = {of_queue(_MESSAGES, state="ready"): "5x60"}
_NO_RECEIVER = {of_queue("lockstep_entity_receivers"): "0x60"}
_SIZE = {of_queue("lockstep_entity_size_bytes"): "90x60"}
_STILL = {of("lockstep_operator_watch_last_event_timestamp_seconds", kind="Queue"): "0x60"}
_WRITES = {
    of("lockstep_operator_kube_requests_total", verb="patch", target="status", code="200"): "0+5x60"
}

BROKER: Sequence[Case] = (
    Case(
        "LockstepPartitionsUnowned", "for over a minute", "7m", True,
        {of("lockstep_partitions", state="unowned"): "0x4 2x10"},
    ),
    Case(
        "LockstepPartitionsUnowned", "shorter than a lease", "5m", False,
        {of("lockstep_partitions", state="unowned"): "0x4 2 0x10"},
    ),
    Case("LockstepNoDirectory", "nothing is scraped", "3m", True),
    Case(
        "LockstepNoDirectory", "another release is scraped", "3m", True,
        {of("lockstep_partitions", namespace="other", state="owned"): "16x10"},
    ),
    Case(
        "LockstepNoDirectory", "one process is there", "3m", False,
        {of("lockstep_partitions", state="owned"): "16x10"},
    ),
    Case(
        "LockstepErrorBudgetFast", "2 % fail", "65m", True,
        _calls("OK", "0+980x70") | _calls("UNAVAILABLE", "0+20x70"),
    ),
    Case(
        "LockstepErrorBudgetFast", "2 % fail for some minutes only", "65m", False,
        _calls("OK", "0+980x70") | _calls("UNAVAILABLE", "0x60 20+20x10"),
    ),
    Case(
        "LockstepErrorBudgetFast", "what callers did wrong", "65m", False,
        _calls("OK", "0+980x70") | _calls("NOT_FOUND", "0+200x70"),
    ),
    Case(
        "LockstepErrorBudgetFast", "calls between front ends and owners", "65m", False,
        _calls("OK", "0+980x70") | _calls("UNAVAILABLE", "0+200x70", "OwnerService/Call"),
    ),
    Case(
        "LockstepErrorBudgetSlow", "0.5 % fail for hours", "390m", True,
        _calls("OK", "0+995x400") | _calls("INTERNAL", "0+5x400"),
    ),
    Case(
        "LockstepErrorBudgetSlow", "0.2 % fail for hours", "390m", False,
        _calls("OK", "0+998x400") | _calls("INTERNAL", "0+2x400"),
    ),
    Case(
        "LockstepSendLatencyHigh", "between 0.5 and 1 s", "20m", True,
        histogram("lockstep_frontend_request_duration_seconds", "0+100x30", above="0.5", upto="1", **_SEND),
    ),
    Case(
        "LockstepSendLatencyHigh", "between 0.1 and 0.25 s", "20m", False,
        histogram("lockstep_frontend_request_duration_seconds", "0+100x30", above="0.1", upto="0.25", **_SEND),
    ),
    Case(
        "LockstepSendLatencyHigh", "a receive that waits", "20m", False,
        histogram(
            "lockstep_frontend_request_duration_seconds", "0+100x30", above="5", upto="10",
            method="MessagingService/ReceiveMessages",
        ),
    ),
    Case("LockstepThrottling", "two in a second", "20m", True, {of(_THROTTLED, reason="quota"): "0+120x30"}),
    Case("LockstepThrottling", "one in two seconds", "20m", False, {of(_THROTTLED, reason="quota"): "0+30x30"}),
    Case(
        "LockstepThrottling", "partitions that move", "20m", False,
        {of(_THROTTLED, reason="partition_moving"): "0+1200x30"},
    ),
)  # fmt: skip

STORES: Sequence[Case] = (
    Case(
        "LockstepStorageErrors", "one in a second", "12m", True,
        {of("lockstep_storage_errors_total", op="commit", error_class="StoreUnavailable"): "0+60x30"},
    ),
    Case(
        "LockstepStorageErrors", "fences that work", "12m", False,
        {of("lockstep_storage_errors_total", op="commit", error_class="Fenced"): "0+60x30"},
    ),
    Case(
        "LockstepStorageSlow", "commits of a second", "20m", True,
        histogram(_STORE, "0+100x30", above="0.5", upto="1", op="commit"),
    ),
    Case(
        "LockstepStorageSlow", "openings of a second", "20m", False,
        histogram(_STORE, "0+100x30", above="0.5", upto="1", op="open"),
    ),
    Case(
        "LockstepEtcdSlow", "calls of a second", "12m", True,
        histogram(_ETCD, "0+100x30", above="0.5", upto="1", op="list"),
    ),
    Case(
        "LockstepEtcdSlow", "a lease that is nearly over", "12m", True,
        {of("lockstep_lease_remaining_seconds"): "1.5x30"},
    ),
    Case(
        "LockstepEtcdSlow", "fast calls and a fresh lease", "12m", False,
        histogram(_ETCD, "0+100x30", above="0.005", upto="0.01", op="list")
        | {of("lockstep_lease_remaining_seconds"): "8x30"},
    ),
    Case("LockstepLeaseLost", "once", "8m", True, {of(f"{_HANDOFF}_count", reason="lease_lost"): "0x4 1x30"}),
    Case("LockstepLeaseLost", "long ago", "30m", False, {of(f"{_HANDOFF}_count", reason="lease_lost"): "0x4 1x30"}),
    Case(
        "LockstepLeaseLost", "a planned hand-over", "8m", False,
        {of(f"{_HANDOFF}_count", reason="drain"): "0x4 1x30"},
    ),
    Case("LockstepFencedWrites", "once", "8m", True, {of("lockstep_fenced_writes_total"): "0x4 1x30"}),
    Case("LockstepFencedWrites", "some before, none since", "25m", False, {of("lockstep_fenced_writes_total"): "3x30"}),
    Case(
        "LockstepHandoffSlow", "between 5 and 10 s", "8m", True,
        histogram(_HANDOFF, "0x4 3x30", above="5", upto="10", reason="drain"),
    ),
    Case(
        "LockstepHandoffSlow", "under a second", "8m", False,
        histogram(_HANDOFF, "0x4 3x30", above="0.5", upto="1", reason="drain"),
    ),
    Case(
        "LockstepHandoffSlow", "a lost lease", "8m", False,
        histogram(_HANDOFF, "0x4 3x30", above="5", upto="10", reason="lease_lost"),
    ),
)  # fmt: skip

QUEUES: Sequence[Case] = (
    Case(
        "LockstepSessionOrderViolation", "one", "10m", True,
        {of("lockstep_session_order_violations_total"): "0x4 1x90"},
    ),
    Case(
        "LockstepSessionOrderViolation", "none", "10m", False,
        {of("lockstep_session_order_violations_total"): "0x90"},
    ),
    Case("LockstepDeadLettersGrowing", "one a minute", "40m", True, {_DEAD: "0+1x60"}),
    Case("LockstepDeadLettersGrowing", "as many as before", "40m", False, {_DEAD: "50x60"}),
    Case("LockstepDeadLettersGrowing", "fewer and fewer", "40m", False, {_DEAD: "90-1x60"}),
    Case(
        "LockstepDeadLettersGrowing", "a job is at work", "40m", False,
        {_DEAD: "0+1x60", of_queue("lockstep_resubmissions_running"): "1x60"},
    ),
    Case(
        "LockstepDeadLettersGrowing", "the partition moves to another owner", "40m", False,
        {_DEAD: "50x20 stale", of_queue(_MESSAGES, pod="b", state="dead_letter"): "_x21 50x40"},
    ),
    Case("LockstepDeadLetterBacklog", "150", "40m", True, {_DEAD: "150x60"}),
    Case(
        "LockstepDeadLetterBacklog", "60 at each of two owners", "40m", True,
        {_DEAD: "60x60", of_queue(_MESSAGES, pod="b", state="dead_letter"): "60x60"},
    ),
    Case("LockstepDeadLetterBacklog", "90", "40m", False, {_DEAD: "90x60"}),
    Case("LockstepBacklogNoReceivers", "nobody is there", "20m", True, _READY | _NO_RECEIVER),
    Case(
        "LockstepBacklogNoReceivers", "one is there", "20m", False,
        _READY | {of_queue("lockstep_entity_receivers"): "1x60"},
    ),
    Case(
        "LockstepBacklogNoReceivers", "one asks now and then", "20m", False,
        _READY | _NO_RECEIVER | {of_queue("lockstep_messages_delivered_total", attempt="first"): "0+3x60"},
    ),
    Case(
        "LockstepBacklogNoReceivers", "an empty queue", "20m", False,
        {of_queue(_MESSAGES, state="ready"): "0x60"} | _NO_RECEIVER,
    ),
    Case(
        "LockstepOldestMessageTooOld", "over 15 minutes", "15m", True,
        {of_queue("lockstep_entity_oldest_message_age_seconds", sub_queue="main"): "1000x60"},
    ),
    Case(
        "LockstepOldestMessageTooOld", "an old dead letter", "15m", False,
        {of_queue("lockstep_entity_oldest_message_age_seconds", sub_queue="dead_letter"): "90000x60"},
    ),
    Case("LockstepSessionsStarved", "sessions wait long", "20m", True, _READY_SESSIONS | _SLOW_WAIT),
    Case("LockstepSessionsStarved", "sessions are taken soon", "20m", False, _READY_SESSIONS | _FAST_WAIT),
    Case(
        "LockstepSessionLockChurn", "one in five seconds", "25m", True,
        {of_queue("lockstep_lock_expirations_total", kind="session"): "0+12x60"},
    ),
    Case(
        "LockstepSessionLockChurn", "locks of messages", "25m", False,
        {of_queue("lockstep_lock_expirations_total", kind="message"): "0+12x60"},
    ),
    Case(
        "LockstepQueueAlmostFull", "90 %", "15m", True,
        _SIZE | {of_queue("lockstep_entity_size_limit_bytes"): "100x60"},
    ),
    Case(
        "LockstepQueueAlmostFull", "45 %", "15m", False,
        _SIZE | {of_queue("lockstep_entity_size_limit_bytes"): "200x60"},
    ),
    Case("LockstepQueueAlmostFull", "no limit", "15m", False, _SIZE),
    Case("LockstepEntityMetricsFolded", "some are", "40m", True, {of("lockstep_entities_folded"): "12x60"}),
    Case("LockstepEntityMetricsFolded", "none is", "40m", False, {of("lockstep_entities_folded"): "0x60"}),
)  # fmt: skip

OPERATOR: Sequence[Case] = (
    Case("LockstepOperatorDown", "one waits, none leads", "5m", True, {of("lockstep_operator_leader"): "0x10"}),
    Case("LockstepOperatorDown", "none is there", "5m", True),
    Case(
        "LockstepOperatorDown", "one leads, one waits", "5m", False,
        {of("lockstep_operator_leader"): "0x10", of("lockstep_operator_leader", pod="b"): "1x10"},
    ),
    Case(
        "LockstepOperatorNotConverging", "over 5 minutes", "12m", True,
        {of("lockstep_operator_workqueue_oldest_age_seconds"): "400x30"},
    ),
    Case(
        "LockstepOperatorNotConverging", "some seconds", "12m", False,
        {of("lockstep_operator_workqueue_oldest_age_seconds"): "10x30"},
    ),
    Case(
        "LockstepResourceStalled", "one is not ready", "20m", True,
        {of("lockstep_operator_resources", kind="Queue", ready="False", reason="NameConflict"): "1x30"},
    ),
    Case(
        "LockstepResourceStalled", "all are ready", "20m", False,
        {of("lockstep_operator_resources", kind="Queue", ready="True", reason="Reconciled"): "9x30"},
    ),
    Case(
        "LockstepDeletionBlocked", "for over an hour", "65m", True,
        {of("lockstep_operator_deletions_blocked", kind="Queue", reason="NotEmpty"): "1x90"},
    ),
    Case(
        "LockstepDeletionBlocked", "until it was empty", "65m", False,
        {of("lockstep_operator_deletions_blocked", kind="Queue", reason="NotEmpty"): "1x30 stale"},
    ),
    Case(
        "LockstepDriftRepeated", "every two minutes", "65m", True,
        {of("lockstep_operator_drift_corrections_total", kind="Queue"): "0+0.5x90"},
    ),
    Case(
        "LockstepDriftRepeated", "once", "65m", False,
        {of("lockstep_operator_drift_corrections_total", kind="Queue"): "0x20 1x60"},
    ),
    Case("LockstepWatchStale", "it writes and hears nothing", "15m", True, _STILL | _WRITES),
    Case("LockstepWatchStale", "nothing changes", "15m", False, _STILL),
    Case(
        "LockstepWatchStale", "it hears of what it writes", "15m", False,
        {of("lockstep_operator_watch_last_event_timestamp_seconds", kind="Queue"): "0+60x60"} | _WRITES,
    ),
    Case(
        "LockstepDefinitionsOutdated", "one is", "20m", True,
        {of("lockstep_operator_definitions_outdated", kind="Queue"): "1x30"},
    ),
    Case(
        "LockstepDefinitionsOutdated", "until the upgrade was through", "20m", False,
        {of("lockstep_operator_definitions_outdated", kind="Queue"): "1x10 0x20"},
    ),
)  # fmt: skip

CASES = (*BROKER, *STORES, *QUEUES, *OPERATOR)
