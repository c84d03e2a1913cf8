"""What the operator measures of itself.

Here belong the metrics and their labels. Never here: what they are told. The law: labels come from closed lists; no
name, uid or message is one.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_CONVERGENCE_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class OperatorMetrics:
    """The operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        """Make them, all at zero."""
        self.registry = CollectorRegistry()
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self.reconciles = counter(
            "reconciles_total", "Looks at objects, by how they ended.", "kind", "result"
        )
        self.duration = histogram(
            "reconcile_duration_seconds", "How long a look takes.", _CALL_BUCKETS, "kind"
        )
        self.convergence = histogram(
            "convergence_seconds",
            "From hearing of a change to Ready at that generation.",
            _CONVERGENCE_BUCKETS,
            "kind",
        )
        self.depth = gauge("workqueue_depth", "Objects that wait to be looked at.", "priority")
        self.oldest = gauge(
            "workqueue_oldest_age_seconds", "How long the object has waited that waits longest."
        )
        self.adds = counter("workqueue_adds_total", "How often an object was put in.")
        self.retries = counter("retries_total", "Looks that are tried again.", "kind")
        self.resources = gauge(
            "resources", "Objects by what their Ready condition says.", "kind", "ready", "reason"
        )
        self.drift = counter(
            "drift_corrections_total", "Queues that were set back to what is declared.", "kind"
        )
        self.blocked = gauge(
            "deletions_blocked", "Objects that wait before they can go.", "kind", "reason"
        )
        self.orphans = counter(
            "orphans_total",
            "Queues left in the broker because their namespace was deleted.",
            "kind",
        )
        self.broker_requests = counter(
            "broker_requests_total", "Calls to the broker.", "rpc", "code"
        )
        self.broker_duration = histogram(
            "broker_request_duration_seconds", "How long they take.", _CALL_BUCKETS, "rpc"
        )
        self.circuit_open = gauge(
            "broker_circuit_open", "1 while the broker does not answer and only a probe calls it."
        )
        self.kube_requests = counter(
            "kube_requests_total",
            "Requests to Kubernetes, but for watches; code 0 = no answer.",
            "verb",
            "target",
            "code",
        )
        self.last_event = gauge(
            "watch_last_event_timestamp_seconds", "When a watch told of an object last.", "kind"
        )
        self.outdated = gauge(
            "definitions_outdated",
            "1 where the installed definition of a kind lacks what this operator knows.",
            "kind",
        )
        self.leader = gauge("leader", "1 while this operator is the one that works.")
        self.transitions = counter(
            "leader_transitions_total", "How often this operator began to work, or stopped."
        )
        self.loop_lag = gauge(
            "loop_lag_seconds", "How late the event loop was at its last measurement."
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"lockstep_operator_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"lockstep_operator_{name}", text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            f"lockstep_operator_{name}", text, labels, registry=self.registry, buckets=buckets
        )

    # --- for those that only tell ------------------------------------------------------------------

    def kube_request(self, verb: str, target: str, code: int) -> None:
        """Count a request to Kubernetes."""
        self.kube_requests.labels(verb, target, str(code)).inc()

    def broker_call(self, rpc: str, code: str, seconds: float) -> None:
        """Count a call to the broker."""
        self.broker_requests.labels(rpc, code).inc()
        self.broker_duration.labels(rpc).observe(seconds)
