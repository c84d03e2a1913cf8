"""The metrics of entities: which fields are which series.

Here belong names, helps, labels and label values of what is counted and measured of each queue. Never here: how the
series are made (`runtime.entity_collector`), and metrics of the process (`runtime.metrics`). The law: all values of
labels beside those of the entity are listed here.
"""

from __future__ import annotations

from lockstep.runtime.entity_collector import EntityFamily, EntitySummary

ENTITY_COUNTERS = (
    EntityFamily(
        "messages_enqueued",
        "Messages stored, by where they came from.",
        ("origin",),
        samples={"enqueued_client": ("client",)},
        rare={
            "enqueued_resubmit": ("resubmit",),
            "enqueued_schedule": ("schedule",),
        },
    ),
    EntityFamily(
        "messages_delivered",
        "Messages handed to receivers; redelivery = after a failed delivery, or again under one session lock.",
        ("attempt",),
        samples={"delivered_first": ("first",), "delivered_redelivery": ("redelivery",)},
    ),
    EntityFamily(
        "messages_settled",
        "Messages settled by receivers, by outcome.",
        ("outcome",),
        samples={
            "settled_completed": ("completed",),
            "settled_abandoned": ("abandoned",),
            "settled_deferred": ("deferred",),
            "settled_dead_lettered": ("dead_lettered",),
        },
        rare={
            "settled_released": ("released",),
            "settled_received_and_deleted": ("received_and_deleted",),
        },
    ),
    EntityFamily(
        "messages_dead_lettered",
        "Messages moved to the dead-letter sub-queue, by reason.",
        ("reason",),
        samples={
            "dead_lettered_max_delivery": ("max_delivery",),
            "dead_lettered_ttl": ("ttl",),
            "dead_lettered_application": ("application",),
        },
        rare={
            "dead_lettered_administrator": ("administrator",),
        },
    ),
    EntityFamily(
        "dead_letters_taken",
        "Dead letters that jobs took from their sub-queue, by what became of them (ADD-11).",
        ("outcome",),
        rare={
            "dead_letters_resubmitted": ("resubmitted",),
            "dead_letters_moved": ("moved",),
            "dead_letters_purged": ("purged",),
        },
    ),
    EntityFamily(
        "messages_expired",
        "Messages dropped at the end of their time to live; those that became dead letters instead are counted there.",
        rare={"expired_dropped": ()},
    ),
    EntityFamily(
        "schedules_cancelled",
        "Scheduled messages that senders cancelled.",
        rare={"schedules_cancelled": ()},
    ),
    EntityFamily(
        "deliveries_recalled",
        "Messages taken back from a holder because it abandoned an older one of the session (SES-29).",
        rare={"deliveries_recalled": ()},
    ),
    EntityFamily(
        "session_states_cleared",
        "States of sessions that were cleared, but not by their holders.",
        ("cause",),
        rare={
            "states_cleared_idle": ("idle",),
            "states_cleared_administrator": ("administrator",),
        },
    ),
    EntityFamily(
        "message_bytes",
        "Bytes of messages stored (in) and handed to receivers (out).",
        ("direction",),
        samples={"bytes_in": ("in",), "bytes_out": ("out",)},
    ),
    EntityFamily(
        "lock_expirations",
        "Locks that ran out before their holder settled, renewed or closed.",
        ("kind",),
        samples={"message_locks_expired": ("message",), "session_locks_expired": ("session",)},
    ),
    EntityFamily(
        "locks_granted",
        "Locks granted to receivers.",
        ("kind",),
        rare={"message_locks_granted": ("message",), "session_locks_granted": ("session",)},
    ),
    EntityFamily(
        "lock_renewals",
        "Renewals asked for, by whether the caller still held the lock.",
        ("kind", "result"),
        rare={
            "message_locks_renewed": ("message", "renewed"),
            "message_renewals_refused": ("message", "lost"),
            "session_locks_renewed": ("session", "renewed"),
            "session_renewals_refused": ("session", "lost"),
        },
    ),
    EntityFamily(
        "locks_released",
        "Locks that ended, by cause.",
        ("kind", "cause"),
        rare={
            "message_locks_released_settled": ("message", "settled"),
            "message_locks_released_closed": ("message", "closed"),
            "message_locks_released_expired": ("message", "expired"),
            "message_locks_released_disconnected": ("message", "disconnected"),
            "session_locks_released_closed": ("session", "closed"),
            "session_locks_released_expired": ("session", "expired"),
            "session_locks_released_disconnected": ("session", "disconnected"),
            "session_locks_released_broken": ("session", "broken"),
        },
    ),
    EntityFamily(
        "delivery_count_increments",
        "Delivery counts raised, by cause.",
        ("cause",),
        rare={
            "delivery_count_abandoned": ("abandoned",),
            "delivery_count_lock_expired": ("lock_expired",),
            "delivery_count_deferred": ("deferred",),
        },
    ),
    EntityFamily(
        "sends",
        "Messages that senders sent, by what became of them (SND-2).",
        ("outcome", "reason"),
        samples={"sends_accepted": ("accepted", "")},
        rare={
            "sends_duplicate": ("duplicate", ""),
            "sends_rejected_quota": ("rejected", "quota"),
            "sends_rejected_size": ("rejected", "size"),
            "sends_rejected_session": ("rejected", "session"),
            "sends_rejected_disabled": ("rejected", "disabled"),
            "sends_rejected_backpressure": ("rejected", "backpressure"),
            "sends_rejected_invalid": ("rejected", "invalid"),
        },
    ),
    EntityFamily(
        "session_accepts",
        "Sessions that receivers asked for, by what they got.",
        ("result",),
        rare={
            "accepts_granted": ("granted",),
            "accepts_timeout": ("timeout",),
            "accepts_held": ("held",),
        },
    ),
)

ENTITY_SUMMARIES = (
    EntitySummary(
        "entity_time_in_queue_seconds",
        "How long messages were stored until a receiver completed them.",
        milliseconds="time_in_queue_ms",
        count="time_in_queue_messages",
    ),
)

ENTITY_GAUGES = (
    EntityFamily(
        "entity_messages",
        "Messages held, by state.",
        ("state",),
        samples={
            "ready": ("ready",),
            "locked": ("locked",),
            "deferred": ("deferred",),
            "scheduled": ("scheduled",),
            "dead_letter": ("dead_letter",),
        },
        rare={"delayed": ("delayed",)},
    ),
    EntityFamily(
        "entity_size_bytes",
        "What the messages held occupy, of what counts towards the limit.",
        samples={"size_bytes": ()},
    ),
    EntityFamily(
        "entity_size_limit_bytes",
        "The size of the whole queue at which sends are refused; told by one of its partitions.",
        rare={"size_limit_bytes": ()},
    ),
    EntityFamily(
        "entity_sessions",
        "Sessions, by state; only of entities that require sessions.",
        ("state",),
        samples={
            "sessions_ready": ("ready",),
            "sessions_locked": ("locked",),
            "sessions_waiting_retry": ("waiting_retry",),
            "sessions_idle_with_state": ("idle_with_state",),
        },
    ),
    EntityFamily(
        "entity_receivers",
        "Receivers that are open, or wait for a session.",
        samples={"receivers": ()},
    ),
    EntityFamily(
        "resubmissions_running",
        "Jobs on the dead letters that run.",
        rare={"resubmissions": ()},
    ),
    EntityFamily(
        "entity_oldest_message_age_seconds",
        "How long ago the oldest message was stored that a receiver could get now; 0 = there is none.",
        ("sub_queue",),
        samples={
            "oldest_age_seconds": ("main",),
            "oldest_dead_letter_age_seconds": ("dead_letter",),
        },
    ),
)
