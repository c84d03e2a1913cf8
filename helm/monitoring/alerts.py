"""What somebody should hear of: alerts, and the thresholds that people tune.

Here belong alerts (design 5.6). Never here: what to do about one; each has a page of its name in docs/runbooks. The
laws: an alert says what is wrong and where, in one sentence; a number in its expression that somebody may want to
change is a threshold; critical is what needs somebody now, whatever the hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from helm.monitoring.expressions import ENTITY

CRITICAL, WARNING, INFO = "critical", "warning", "info"
_QUEUE: Final = "{{ $labels.entity_namespace }}/{{ $labels.entity }}"
_SAME: Final = f"on ({ENTITY})"


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number of an alert: a value of the chart, below `monitoring.alerts`.

    Attributes:
        name: Its name.
        default: What it is if nobody says otherwise.
        meaning: What it means, for the values of the chart; begins with a capital, ends with a full stop.
    """

    name: str
    default: float
    meaning: str


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert.

    Attributes:
        name: Its name, and that of its runbook.
        expression: When it is wrong, with thresholds as [[name]], without the release.
        severity: critical, warning or info.
        summary: What is wrong, with templates of Prometheus.
        lasting: For how long it must be wrong, as Prometheus writes durations; "" = a moment is enough.
    """

    name: str
    expression: str
    severity: str
    summary: str
    lasting: str = ""


THRESHOLDS: Final = (
    Threshold("errorBudget", 0.001, "Share of calls that may fail for reasons of the broker."),
    Threshold("sendSeconds", 0.5, "99th percentile of the time of a send, in seconds."),
    Threshold("throttledPerSecond", 1, "Refusals for load or for want of space, in a second."),
    Threshold("storageErrorsPerSecond", 0.1, "Calls to the store that fail, in a second."),
    Threshold("commitSeconds", 0.5, "99th percentile of the time of a commit, in seconds."),
    Threshold("etcdSeconds", 0.5, "99th percentile of the time of a call to etcd, in seconds."),
    Threshold("leaseRemainingSeconds", 3, "Rest of an owner's lease, in seconds; a third of owner.lease.ttlSeconds."),
    Threshold("handoffSeconds", 5, "95th percentile of the time of a planned hand-over, in seconds."),
    Threshold("deadLetters", 100, "Dead letters that a queue may hold."),
    Threshold("deadLettersGrowth", 0, "Dead letters by which a queue may grow in 15 minutes."),
    Threshold("oldestMessageSeconds", 900, "Age of the oldest message that a receiver could get, in seconds."),
    Threshold("sessionWaitSeconds", 60, "95th percentile of the time that a session waits for a holder, in seconds."),
    Threshold("sessionExpirationsPerSecond", 0.1, "Session locks of a queue that run out, in a second."),
    Threshold("queueFillRatio", 0.85, "Share of its size limit that a queue may fill."),
    Threshold("operatorQueueSeconds", 300, "How long an object may wait for the operator, in seconds."),
    Threshold("driftCorrectionsPerHour", 10, "Corrections of drift in an hour."),
    Threshold("watchSilentSeconds", 300, "How long the operator may write and hear nothing, in seconds."),
)  # fmt: skip

BROKER: Final = (
    Alert(
        "LockstepPartitionsUnowned",
        'max by (namespace) (lockstep_partitions{state="unowned"}) > 0',
        CRITICAL,
        "{{ $value }} partitions have no owner; what is in them cannot be reached.",
        "1m",
    ),
    Alert(
        "LockstepNoDirectory",
        "absent(lockstep_partitions)",
        CRITICAL,
        "No process says who owns the partitions: none runs, or none is scraped.",
        "2m",
    ),
    Alert(
        "LockstepErrorBudgetFast",
        "lockstep:frontend_errors:ratio5m > 14.4 * [[errorBudget]]"
        " and lockstep:frontend_errors:ratio1h > 14.4 * [[errorBudget]]",
        CRITICAL,
        "{{ $value | humanizePercentage }} of calls fail; at this rate the budget of 30 days is used up in 2.",
    ),
    Alert(
        "LockstepErrorBudgetSlow",
        "lockstep:frontend_errors:ratio30m > 3 * [[errorBudget]]"
        " and lockstep:frontend_errors:ratio6h > 3 * [[errorBudget]]",
        WARNING,
        "{{ $value | humanizePercentage }} of calls fail; at this rate the budget of 30 days is used up in 10.",
    ),
    Alert(
        "LockstepSendLatencyHigh",
        'lockstep:frontend_latency_seconds:p99_5m{method="MessagingService/SendMessages"} > [[sendSeconds]]',
        WARNING,
        "One send in a hundred takes {{ $value | humanizeDuration }} or longer.",
        "10m",
    ),
    Alert(
        "LockstepThrottling",
        'sum by (namespace, reason) (rate(lockstep_frontend_throttled_total{reason!="partition_moving"}[5m]))'
        " > [[throttledPerSecond]]",
        WARNING,
        "{{ $value | humanize }} calls in a second are refused: {{ $labels.reason }}.",
        "10m",
    ),
)

STORES: Final = (
    Alert(
        "LockstepStorageErrors",
        'sum by (namespace, op, error_class) (rate(lockstep_storage_errors_total{error_class!="Fenced"}[5m]))'
        " > [[storageErrorsPerSecond]]",
        CRITICAL,
        "{{ $value | humanize }} calls to the store in a second fail: {{ $labels.op }}, {{ $labels.error_class }}.",
        "5m",
    ),
    Alert(
        "LockstepStorageSlow",
        "histogram_quantile(0.99, sum by (namespace, le)"
        ' (rate(lockstep_storage_operation_duration_seconds_bucket{op="commit"}[5m]))) > [[commitSeconds]]',
        WARNING,
        "One commit in a hundred takes {{ $value | humanizeDuration }} or longer.",
        "10m",
    ),
    Alert(
        "LockstepEtcdSlow",
        "histogram_quantile(0.99, sum by (namespace, le) (rate(lockstep_etcd_request_duration_seconds_bucket[5m])))"
        " > [[etcdSeconds]]"
        " or min by (namespace, pod) (lockstep_lease_remaining_seconds) < [[leaseRemainingSeconds]]",
        WARNING,
        "etcd is slow, or a lease is renewed late{{ with $labels.pod }} at {{ . }}{{ end }}:"
        " {{ $value | humanizeDuration }}.",
        "5m",
    ),
    Alert(
        "LockstepLeaseLost",
        "sum by (namespace, pod)"
        ' (increase(lockstep_partition_handoff_duration_seconds_count{reason="lease_lost"}[15m])) > 0',
        WARNING,
        "{{ $labels.pod }} lost its lease and gave its partitions up.",
    ),
    Alert(
        "LockstepFencedWrites",
        "sum by (namespace, pod) (increase(lockstep_fenced_writes_total[15m])) > 0",
        WARNING,
        "{{ $labels.pod }} tried to write to a partition that another owner has; the store refused it.",
    ),
    Alert(
        "LockstepHandoffSlow",
        "histogram_quantile(0.95, sum by (namespace, reason, le)"
        ' (increase(lockstep_partition_handoff_duration_seconds_bucket{reason!="lease_lost"}[15m])))'
        " > [[handoffSeconds]]",
        WARNING,
        "Hand-overs take {{ $value | humanizeDuration }} ({{ $labels.reason }}).",
    ),
)

QUEUES: Final = (
    Alert(
        "LockstepSessionOrderViolation",
        "sum by (namespace, pod) (increase(lockstep_session_order_violations_total[1h])) > 0",
        CRITICAL,
        "{{ $labels.pod }} delivered messages of a session out of order.",
    ),
    Alert(
        "LockstepDeadLettersGrowing",
        "lockstep:entity_dead_letters:sum - lockstep:entity_dead_letters:sum offset 15m > [[deadLettersGrowth]]"
        f" unless {_SAME} sum by ({ENTITY}) (lockstep_resubmissions_running) > 0",
        WARNING,
        f"{_QUEUE} got {{{{ $value }}}} more dead letters in 15 minutes.",
        "15m",
    ),
    Alert(
        "LockstepDeadLetterBacklog",
        "lockstep:entity_dead_letters:sum > [[deadLetters]]",
        WARNING,
        f"{_QUEUE} holds {{{{ $value }}}} dead letters.",
        "30m",
    ),
    Alert(
        "LockstepBacklogNoReceivers",
        f'sum by ({ENTITY}) (lockstep_entity_messages{{state="ready"}}) > 0'
        f" and {_SAME} sum by ({ENTITY}) (lockstep_entity_receivers) == 0"
        f" unless {_SAME} sum by ({ENTITY}) (rate(lockstep_messages_delivered_total[15m])) > 0",
        WARNING,
        f"{_QUEUE} holds {{{{ $value }}}} messages that nobody receives.",
        "15m",
    ),
    Alert(
        "LockstepOldestMessageTooOld",
        f'max by ({ENTITY}) (lockstep_entity_oldest_message_age_seconds{{sub_queue="main"}})'
        " > [[oldestMessageSeconds]]",
        WARNING,
        f"The oldest message of {_QUEUE} has waited {{{{ $value | humanizeDuration }}}}.",
        "10m",
    ),
    Alert(
        "LockstepSessionsStarved",
        f'sum by ({ENTITY}) (lockstep_entity_sessions{{state="ready"}}) > 0'
        " and on (namespace) lockstep:session_wait_seconds:p95_5m > [[sessionWaitSeconds]]",
        WARNING,
        f"{{{{ $value }}}} sessions of {_QUEUE} wait for a receiver while sessions wait long.",
        "10m",
    ),
    Alert(
        "LockstepSessionLockChurn",
        f'sum by ({ENTITY}) (rate(lockstep_lock_expirations_total{{kind="session"}}[5m]))'
        " > [[sessionExpirationsPerSecond]]",
        WARNING,
        f"{{{{ $value | humanize }}}} session locks of {_QUEUE} run out in a second.",
        "15m",
    ),
    Alert(
        "LockstepQueueAlmostFull",
        f"sum by ({ENTITY}) (lockstep_entity_size_bytes) / sum by ({ENTITY}) (lockstep_entity_size_limit_bytes)"
        " > [[queueFillRatio]]",
        WARNING,
        f"{_QUEUE} is {{{{ $value | humanizePercentage }}}} full; sends are refused at 100 %.",
        "10m",
    ),
    Alert(
        "LockstepEntityMetricsFolded",
        "max by (namespace, pod) (lockstep_entities_folded) > 0",
        INFO,
        "{{ $labels.pod }} shows {{ $value }} queues as one, entity=__other__; alerts do not see each of them.",
        "30m",
    ),
)

OPERATOR: Final = (
    Alert(
        "LockstepOperatorDown",
        "absent(lockstep_operator_leader == 1)",
        WARNING,
        "No operator works. Messages flow; changes of queues in Kubernetes wait.",
        "3m",
    ),
    Alert(
        "LockstepOperatorNotConverging",
        "max by (namespace) (lockstep_operator_workqueue_oldest_age_seconds) > [[operatorQueueSeconds]]",
        WARNING,
        "An object has waited {{ $value | humanizeDuration }} for the operator.",
        "5m",
    ),
    Alert(
        "LockstepResourceStalled",
        'sum by (namespace, kind, reason) (lockstep_operator_resources{ready="False"}) > 0',
        WARNING,
        "{{ $value }} objects of kind {{ $labels.kind }} are not ready: {{ $labels.reason }}.",
        "15m",
    ),
    Alert(
        "LockstepDeletionBlocked",
        "sum by (namespace, kind, reason) (lockstep_operator_deletions_blocked) > 0",
        INFO,
        "{{ $value }} objects of kind {{ $labels.kind }} cannot be deleted: {{ $labels.reason }}.",
        "1h",
    ),
    Alert(
        "LockstepDriftRepeated",
        "sum by (namespace, kind) (increase(lockstep_operator_drift_corrections_total[1h]))"
        " > [[driftCorrectionsPerHour]]",
        WARNING,
        "The operator set queues back {{ $value | humanize }} times in an hour: somebody else changes them.",
    ),
    Alert(
        "LockstepWatchStale",
        "time() - max by (namespace) (lockstep_operator_watch_last_event_timestamp_seconds) > [[watchSilentSeconds]]"
        " and on (namespace) sum by (namespace)"
        ' (increase(lockstep_operator_kube_requests_total{target=~"object|status",verb="patch",code=~"2.."}[5m])) > 0',
        WARNING,
        "The operator writes objects and has heard nothing of any for {{ $value | humanizeDuration }}.",
        "5m",
    ),
    Alert(
        "LockstepDefinitionsOutdated",
        "max by (namespace, kind) (lockstep_operator_definitions_outdated) > 0",
        WARNING,
        "The installed definition of kind {{ $labels.kind }} is older than the operator.",
        "15m",
    ),
)

ALERTS: Final = (*BROKER, *STORES, *QUEUES, *OPERATOR)
