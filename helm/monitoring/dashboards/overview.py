"""How a release is: the first page to open."""

from __future__ import annotations

from typing import Final

from helm.monitoring.dashboards.queries import RATE, quantile, rate, total
from helm.monitoring.panels import Dashboard, Panel
from helm.monitoring.recordings import PUBLIC

_REQUESTS: Final = "lockstep_frontend_requests_total"
_SEND: Final = 'method="MessagingService/SendMessages"'
_AGE: Final = "lockstep_entity_oldest_message_age_seconds"
_BY_QUEUE: Final = "entity_namespace, entity"

OVERVIEW: Final = Dashboard(
    "lockstep-overview",
    "Lockstep / Overview",
    (
        (
            "Now",
            (
                Panel(
                    "Messages in",
                    ((rate("lockstep_owner_messages_enqueued_total", 'origin!="schedule"'), "in"),),
                    "stat",
                    "ops",
                    3,
                ),
                Panel(
                    "Messages completed",
                    (
                        (
                            rate(
                                "lockstep_owner_messages_settled_total",
                                'outcome=~"completed|received_and_deleted"',
                            ),
                            "out",
                        ),
                    ),
                    "stat",
                    "ops",
                    3,
                ),
                Panel(
                    "Calls that fail",
                    (("lockstep:frontend_errors:ratio5m", "failed"),),
                    "stat",
                    "percentunit",
                    3,
                    red_above=0.001,
                ),
                Panel(
                    "Send, 99th percentile",
                    ((quantile(0.99, "lockstep_frontend_request_duration_seconds", _SEND), "p99"),),
                    "stat",
                    "s",
                    3,
                    red_above=0.5,
                ),
                Panel(
                    "Partitions without owner",
                    (('max(lockstep_partitions{state="unowned"})', "unowned"),),
                    "stat",
                    width=3,
                    red_above=1,
                ),
                Panel("Processes", (("count(lockstep_build_info)", "processes"),), "stat", width=3),
                Panel(
                    "Backlog", (("sum(lockstep:entity_backlog:sum)", "messages"),), "stat", width=3
                ),
                Panel(
                    "Dead letters",
                    (("sum(lockstep:entity_dead_letters:sum)", "messages"),),
                    "stat",
                    width=3,
                    red_above=1,
                ),
            ),
        ),
        (
            "Traffic",
            (
                Panel(
                    "Messages",
                    (
                        (
                            rate("lockstep_owner_messages_enqueued_total", 'origin!="schedule"'),
                            "in",
                        ),
                        (rate("lockstep_owner_messages_delivered_total"), "delivered"),
                        (
                            rate(
                                "lockstep_owner_messages_settled_total",
                                'outcome=~"completed|received_and_deleted"',
                            ),
                            "completed",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Calls, by status",
                    ((rate(_REQUESTS, PUBLIC, by="code"), "{{code}}"),),
                    unit="ops",
                    stacked=True,
                ),
                Panel(
                    "Refused for load or space",
                    ((rate("lockstep_frontend_throttled_total", by="reason"), "{{reason}}"),),
                    unit="ops",
                    stacked=True,
                ),
                Panel(
                    "Send",
                    (
                        (quantile(0.5, "lockstep_frontend_request_duration_seconds", _SEND), "p50"),
                        (
                            quantile(0.99, "lockstep_frontend_request_duration_seconds", _SEND),
                            "p99",
                        ),
                    ),
                    unit="s",
                ),
                Panel(
                    "Time in queue",
                    (
                        (quantile(0.5, "lockstep_time_in_queue_seconds"), "p50"),
                        (quantile(0.95, "lockstep_time_in_queue_seconds"), "p95"),
                    ),
                    unit="s",
                    text="From the store of a message to its completion.",
                ),
                Panel(
                    "Bytes",
                    (
                        (
                            rate("lockstep_owner_message_bytes_total", by="direction"),
                            "{{direction}}",
                        ),
                    ),
                    unit="Bps",
                ),
            ),
        ),
        (
            "Queues",
            (
                Panel(
                    "Largest backlogs",
                    (
                        (
                            f"topk(10, {total('lockstep:entity_backlog:sum', by=_BY_QUEUE)})",
                            "{{entity_namespace}}/{{entity}}",
                        ),
                    ),
                    "table",
                ),
                Panel(
                    "Oldest messages",
                    (
                        (
                            f'topk(10, max by ({_BY_QUEUE}) ({_AGE}{{sub_queue="main"}}))',
                            "{{entity_namespace}}/{{entity}}",
                        ),
                    ),
                    "table",
                    "s",
                ),
                Panel(
                    "Most new dead letters in an hour",
                    (
                        (
                            f"topk(10, sum by ({_BY_QUEUE}) (increase(lockstep_messages_dead_lettered_total[1h])) > 0)",
                            "{{entity_namespace}}/{{entity}}",
                        ),
                    ),
                    "table",
                ),
                Panel(
                    "Sessions",
                    ((total("lockstep_entity_sessions", by="state"), "{{state}}"),),
                    stacked=True,
                ),
                Panel(
                    "Messages, by state",
                    ((total("lockstep_entity_messages", by="state"), "{{state}}"),),
                    stacked=True,
                ),
                Panel(
                    "Queues",
                    (
                        (total("lockstep_entities", by="entity_type"), "{{entity_type}}"),
                        ("sum(lockstep_entities_folded)", "without series of their own"),
                    ),
                ),
            ),
        ),
        (
            "Processes",
            (
                Panel(
                    "Versions",
                    (("count by (version, commit, python) (lockstep_build_info)", "{{version}}"),),
                    "table",
                ),
                Panel(
                    "Streams", ((total("lockstep_frontend_streams", by="method"), "{{method}}"),)
                ),
                Panel(
                    "Processor",
                    ((f"sum by (pod) (rate(process_cpu_seconds_total[{RATE}]))", "{{pod}}"),),
                    unit="percentunit",
                ),
            ),
        ),
    ),
)
