"""One queue, or those that were chosen."""

from __future__ import annotations

from typing import Final

from helm.monitoring.dashboards.queries import OF_ENTITY, rate, total
from helm.monitoring.panels import Dashboard, Panel, Variable

VARIABLES: Final = (
    Variable("entity_namespace", "Broker namespace", "lockstep_entity_receivers", all_too=True),
    Variable(
        "entity",
        "Queue",
        'lockstep_entity_receivers{entity_namespace=~"$entity_namespace"}',
        all_too=True,
    ),
)
_DELIVERED: Final = "lockstep_messages_delivered_total"
_AGAIN: Final = f'{OF_ENTITY},attempt="redelivery"'
_IN_QUEUE: Final = "lockstep_entity_time_in_queue_seconds"

ENTITY_PAGE: Final = Dashboard(
    "lockstep-entity",
    "Lockstep / Queue",
    (
        (
            "Flow",
            (
                Panel(
                    "In and out",
                    (
                        (total("lockstep:entity_in:rate5m", OF_ENTITY), "in"),
                        (total("lockstep:entity_out:rate5m", OF_ENTITY), "completed"),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Growth",
                    ((total("lockstep:entity_net:rate15m", OF_ENTITY), "messages"),),
                    unit="ops",
                    text="In minus completed; below 0 the queue gets shorter.",
                ),
                Panel(
                    "Time to empty",
                    ((f"max (lockstep:entity_drain_seconds{{{OF_ENTITY}}})", "at this rate"),),
                    unit="s",
                ),
                Panel(
                    "Messages",
                    ((total("lockstep_entity_messages", OF_ENTITY, by="state"), "{{state}}"),),
                    stacked=True,
                ),
                Panel(
                    "Oldest message",
                    (
                        (
                            f"max by (sub_queue) (lockstep_entity_oldest_message_age_seconds{{{OF_ENTITY}}})",
                            "{{sub_queue}}",
                        ),
                    ),
                    unit="s",
                ),
                Panel("Receivers", ((total("lockstep_entity_receivers", OF_ENTITY), "receivers"),)),
            ),
        ),
        (
            "What becomes of messages",
            (
                Panel(
                    "Settled",
                    (
                        (
                            rate("lockstep_messages_settled_total", OF_ENTITY, by="outcome"),
                            "{{outcome}}",
                        ),
                    ),
                    unit="ops",
                    stacked=True,
                ),
                Panel(
                    "Dead letters, by reason",
                    (
                        (
                            rate("lockstep_messages_dead_lettered_total", OF_ENTITY, by="reason"),
                            "{{reason}}",
                        ),
                    ),
                    unit="ops",
                    stacked=True,
                ),
                Panel(
                    "Dead letters taken by jobs",
                    (
                        (
                            rate("lockstep_dead_letters_taken_total", OF_ENTITY, by="outcome"),
                            "{{outcome}}",
                        ),
                        (total("lockstep_resubmissions_running", OF_ENTITY), "jobs that run"),
                    ),
                ),
                Panel(
                    "Redeliveries",
                    (
                        (
                            f"{rate(_DELIVERED, _AGAIN)} / {rate(_DELIVERED, OF_ENTITY)}",
                            "share of deliveries",
                        ),
                    ),
                    unit="percentunit",
                ),
                Panel(
                    "Delivery counts raised",
                    (
                        (
                            rate("lockstep_delivery_count_increments_total", OF_ENTITY, by="cause"),
                            "{{cause}}",
                        ),
                    ),
                    unit="ops",
                    stacked=True,
                ),
                Panel(
                    "Dropped or taken back",
                    (
                        (rate("lockstep_messages_expired_total", OF_ENTITY), "expired"),
                        (
                            rate("lockstep_schedules_cancelled_total", OF_ENTITY),
                            "schedules cancelled",
                        ),
                        (
                            rate("lockstep_deliveries_recalled_total", OF_ENTITY),
                            "deliveries recalled",
                        ),
                    ),
                    unit="ops",
                ),
            ),
        ),
        (
            "Senders and locks",
            (
                Panel(
                    "Sends",
                    (
                        (
                            rate("lockstep_sends_total", OF_ENTITY, by="outcome, reason"),
                            "{{outcome}} {{reason}}",
                        ),
                    ),
                    unit="ops",
                    stacked=True,
                ),
                Panel(
                    "Where messages come from",
                    (
                        (
                            rate("lockstep_messages_enqueued_total", OF_ENTITY, by="origin"),
                            "{{origin}}",
                        ),
                    ),
                    unit="ops",
                    stacked=True,
                ),
                Panel(
                    "Bytes",
                    (
                        (
                            rate("lockstep_message_bytes_total", OF_ENTITY, by="direction"),
                            "{{direction}}",
                        ),
                    ),
                    unit="Bps",
                ),
                Panel(
                    "Locks granted",
                    ((rate("lockstep_locks_granted_total", OF_ENTITY, by="kind"), "{{kind}}"),),
                    unit="ops",
                ),
                Panel(
                    "Locks that ended",
                    (
                        (
                            rate("lockstep_locks_released_total", OF_ENTITY, by="kind, cause"),
                            "{{kind}} {{cause}}",
                        ),
                    ),
                    unit="ops",
                    stacked=True,
                ),
                Panel(
                    "Locks that ran out",
                    ((rate("lockstep_lock_expirations_total", OF_ENTITY, by="kind"), "{{kind}}"),),
                    unit="ops",
                ),
                Panel(
                    "Size",
                    (
                        (total("lockstep_entity_size_bytes", OF_ENTITY), "size"),
                        (total("lockstep_entity_size_limit_bytes", OF_ENTITY), "limit"),
                    ),
                    unit="bytes",
                ),
                Panel(
                    "Time in queue, on average",
                    (
                        (
                            f"{rate(f'{_IN_QUEUE}_sum', OF_ENTITY)} / {rate(f'{_IN_QUEUE}_count', OF_ENTITY)}",
                            "seconds",
                        ),
                    ),
                    unit="s",
                ),
                Panel(
                    "Renewals",
                    (
                        (
                            rate("lockstep_lock_renewals_total", OF_ENTITY, by="kind, result"),
                            "{{kind}} {{result}}",
                        ),
                    ),
                    unit="ops",
                ),
            ),
        ),
    ),
    VARIABLES,
    "lockstep_entity_receivers",
)
