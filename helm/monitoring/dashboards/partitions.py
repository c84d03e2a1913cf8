"""Partitions, leases and stores: what a cluster stands on."""

from __future__ import annotations

from typing import Final

from helm.monitoring.dashboards.queries import RATE, buckets, quantile, rate, total
from helm.monitoring.panels import Dashboard, Panel

_HANDOFF: Final = "lockstep_partition_handoff_duration_seconds"
_STORE: Final = "lockstep_storage_operation_duration_seconds"
_ETCD: Final = "lockstep_etcd_request_duration_seconds"

PARTITIONS: Final = Dashboard(
    "lockstep-partitions",
    "Lockstep / Partitions and stores",
    (
        (
            "Partitions",
            (
                Panel(
                    "Partitions open, by owner",
                    (("sum by (pod) (lockstep_owner_partitions)", "{{pod}}"),),
                    "state-timeline",
                    width=12,
                ),
                Panel(
                    "Partitions in the directory",
                    (("max by (state) (lockstep_partitions)", "{{state}}"),),
                    stacked=True,
                    width=12,
                ),
                Panel(
                    "Available",
                    (("lockstep:partition_available:ratio", "owned"),),
                    "stat",
                    "percentunit",
                    6,
                ),
                Panel(
                    "Away",
                    (
                        (
                            rate("lockstep_partition_unavailable_seconds_total"),
                            "seconds in a second",
                        ),
                    ),
                    "stat",
                    "s",
                    6,
                ),
                Panel(
                    "Owners that drain",
                    (("sum(lockstep_owner_draining)", "owners"),),
                    "stat",
                    width=6,
                ),
                Panel(
                    "Fenced writes in an hour",
                    (("sum(increase(lockstep_fenced_writes_total[1h]))", "commits"),),
                    "stat",
                    width=6,
                    red_above=1,
                ),
                Panel(
                    "Hand-overs",
                    ((f"sum by (reason) (increase({_HANDOFF}_count[{RATE}]))", "{{reason}}"),),
                ),
                Panel(
                    "Time of hand-overs, 95th percentile",
                    ((quantile(0.95, _HANDOFF, by="reason"), "{{reason}}"),),
                    unit="s",
                ),
                Panel(
                    "Calls made again",
                    ((rate("lockstep_frontend_routing_retries_total", by="reason"), "{{reason}}"),),
                    unit="ops",
                    stacked=True,
                ),
            ),
        ),
        (
            "etcd",
            (
                Panel(
                    "Rest of the lease",
                    (("min by (pod) (lockstep_lease_remaining_seconds)", "{{pod}}"),),
                    unit="s",
                ),
                Panel(
                    "Renewals",
                    ((rate("lockstep_lease_renewals_total", by="result"), "{{result}}"),),
                    unit="ops",
                ),
                Panel(
                    "Age of the directory",
                    (("max by (pod) (lockstep_directory_age_seconds)", "{{pod}}"),),
                    unit="s",
                ),
                Panel("Time of calls", ((buckets(_ETCD), "{{le}}"),), "heatmap", "s", 12),
                Panel(
                    "Calls that fail",
                    ((rate("lockstep_etcd_errors_total", by="op"), "{{op}}"),),
                    unit="ops",
                    width=12,
                ),
            ),
        ),
        (
            "Store",
            (
                Panel(
                    "Time of commits",
                    ((buckets(_STORE, 'op="commit"'), "{{le}}"),),
                    "heatmap",
                    "s",
                    12,
                ),
                Panel(
                    "Time of calls, 99th percentile",
                    ((quantile(0.99, _STORE, by="op"), "{{op}}"),),
                    unit="s",
                    width=12,
                ),
                Panel(
                    "Calls that fail",
                    (
                        (
                            rate("lockstep_storage_errors_total", by="op, error_class"),
                            "{{op}} {{error_class}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Messages in a commit",
                    tuple(
                        (
                            quantile(share, "lockstep_storage_commit_batch_messages"),
                            f"p{share * 100:g}",
                        )
                        for share in (0.5, 0.95)
                    ),
                ),
                Panel(
                    "Commits", ((rate(f"{_STORE}_count", 'op="commit"'), "commits"),), unit="ops"
                ),
            ),
        ),
        (
            "Processes",
            (
                Panel(
                    "Event loop is late, 99th percentile",
                    ((quantile(0.99, "lockstep_event_loop_lag_seconds", by="pod"), "{{pod}}"),),
                    unit="s",
                ),
                Panel(
                    "Processor",
                    ((f"sum by (pod) (rate(process_cpu_seconds_total[{RATE}]))", "{{pod}}"),),
                    unit="percentunit",
                ),
                Panel(
                    "Memory",
                    ((total("process_resident_memory_bytes", by="pod"), "{{pod}}"),),
                    unit="bytes",
                ),
            ),
        ),
    ),
)
