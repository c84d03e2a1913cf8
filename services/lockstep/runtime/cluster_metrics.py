"""The metrics that only the processes of a cluster have something to say about.

Here belong their names, labels and meanings. Never here: where they are counted. The law: no label has more values than
a person can list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_HANDOFF_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0)
_ETCD_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
PLACED: Final = ("owned", "unowned", "moving")
_HANDOFF_REASONS: Final = ("drain", "rebalance", "lease_lost")
_RENEWALS: Final = ("renewed", "failed")


class ClusterMetrics:
    """What a front end or an owner of a cluster counts.

    Attributes:
        partitions: Partitions by how they stand in the directory; state = owned, unowned, moving.
        directory_age_seconds: How long ago etcd told this process who owns what, or that nothing has changed.
        routing_retries: Calls that a front end made again; reason = the reason of the error before.
        handoff_duration_seconds: From the wish to give a partition back to its release; reason = drain, rebalance,
            lease_lost.
        lease_renewals: Renewals of the lease; result = renewed, failed.
        etcd_request_duration_seconds: Time of calls to etcd; op = list, create, replace, delete, grant, keep_alive,
            revoke.
        etcd_errors: Calls to etcd that failed, and watches that broke; op = one of those, or watch.
    """

    def __init__(
        self,
        counter: Callable[..., Counter],
        gauge: Callable[..., Gauge],
        histogram: Callable[..., Histogram],
    ) -> None:
        """Declare every metric by the functions of `Metrics`, but for that of a lease."""
        self._gauge = gauge
        self.partitions = gauge(
            "partitions", "Partitions by how they stand in the directory.", "state"
        )
        self.directory_age_seconds = gauge(
            "directory_age_seconds",
            "How long ago etcd told who owns what, or that nothing has changed.",
        )
        self.routing_retries = counter(
            "frontend_routing_retries", "Calls that a front end made again.", "reason"
        )
        self.handoff_duration_seconds = histogram(
            "partition_handoff_duration_seconds",
            "From the wish to give a partition back to its release.",
            "reason",
            buckets=_HANDOFF_BUCKETS,
        )
        self.lease_renewals = counter("lease_renewals", "Renewals of the lease.", "result")
        # Series that are there before the first event: of one that begins at 1, Prometheus sees no increase.
        for reason in _HANDOFF_REASONS:
            self.handoff_duration_seconds.labels(reason)
        for result in _RENEWALS:
            self.lease_renewals.labels(result)
        self.etcd_request_duration_seconds = histogram(
            "etcd_request_duration_seconds", "Time of calls to etcd.", "op", buckets=_ETCD_BUCKETS
        )
        self.etcd_errors = counter(
            "etcd_errors", "Calls to etcd that failed, and watches of it that broke.", "op"
        )

    def watch_lease(self, left_s: Callable[[], float]) -> None:
        """Show how long this process may own what it owns if etcd says nothing more; only owners have a lease."""
        self._gauge(
            "lease_remaining_seconds",
            "How long this owner may own what it owns if etcd says nothing more.",
        ).set_function(left_s)
