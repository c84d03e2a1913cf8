"""What is counted and measured of one entity, as plain values.

Here belong the numbers that an owner keeps or reports of each entity. Never here: names of metrics
(`runtime.metrics`), or how they become series (`runtime.entity_collector`). The law: one thread
writes a counter, by `+=` and never down; any thread may read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class EntityKey(NamedTuple):
    """Which entity a series is about.

    Attributes:
        entity_namespace: The broker namespace.
        entity: The path of the queue or topic; of a subscription `topic/sub`.
        entity_type: `queue`, `topic` or `subscription`.
    """

    entity_namespace: str
    entity: str
    entity_type: str


@dataclass(slots=True, eq=False)
class EntityCounters:
    """Everything that is counted of one entity on one partition, from its registration on.

    Only `Metrics.register_entity` makes one that is exported. Each field is the number of messages,
    locks or calls that its name says, `bytes_*` of bytes of message bodies and properties, `*_ms` of
    milliseconds.
    """

    key: EntityKey

    enqueued_client: int = 0
    enqueued_resubmit: int = 0
    enqueued_schedule: int = 0

    delivered_first: int = 0
    delivered_redelivery: int = 0

    settled_completed: int = 0
    settled_abandoned: int = 0
    settled_released: int = 0
    settled_deferred: int = 0
    settled_dead_lettered: int = 0
    settled_received_and_deleted: int = 0

    dead_lettered_max_delivery: int = 0
    dead_lettered_ttl: int = 0
    dead_lettered_application: int = 0
    dead_lettered_administrator: int = 0

    dead_letters_resubmitted: int = 0
    dead_letters_moved: int = 0
    dead_letters_purged: int = 0

    expired_dropped: int = 0

    schedules_cancelled: int = 0
    deliveries_recalled: int = 0
    states_cleared_idle: int = 0
    states_cleared_administrator: int = 0

    bytes_in: int = 0
    bytes_out: int = 0

    message_locks_granted: int = 0
    message_locks_expired: int = 0
    message_locks_renewed: int = 0
    message_renewals_refused: int = 0
    message_locks_released_settled: int = 0
    message_locks_released_closed: int = 0
    message_locks_released_expired: int = 0
    message_locks_released_disconnected: int = 0

    session_locks_granted: int = 0
    session_locks_expired: int = 0
    session_locks_renewed: int = 0
    session_renewals_refused: int = 0
    session_locks_released_closed: int = 0
    session_locks_released_expired: int = 0
    session_locks_released_disconnected: int = 0
    session_locks_released_broken: int = 0

    delivery_count_abandoned: int = 0
    delivery_count_lock_expired: int = 0
    delivery_count_deferred: int = 0

    sends_accepted: int = 0
    sends_duplicate: int = 0
    sends_rejected_quota: int = 0
    sends_rejected_size: int = 0
    sends_rejected_session: int = 0
    sends_rejected_disabled: int = 0
    sends_rejected_backpressure: int = 0
    sends_rejected_invalid: int = 0

    accepts_granted: int = 0
    accepts_timeout: int = 0
    accepts_held: int = 0

    time_in_queue_ms: int = 0
    time_in_queue_messages: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityGauges:
    """How one entity stands at the moment of a scrape, on one partition.

    Partitions of one entity are added up, the size limit too: each reports its share of it. Of ages
    the highest counts.

    Attributes:
        key: The entity.
        has_sessions: Whether the entity requires sessions; if not, it has no series of sessions.
        ready: Messages that a receiver could get now.
        locked: Messages that a receiver holds.
        deferred: Messages set aside by a receiver.
        scheduled: Messages whose time has not come.
        dead_letter: Messages of the dead-letter sub-queue.
        delayed: Messages whose delay after an abandon has not passed, and in a session those behind them.
        size_bytes: What the messages occupy, of what counts towards the limit.
        size_limit_bytes: At which size a send is refused; 0 = no limit.
        sessions_ready: Sessions with an eligible message and no holder.
        sessions_locked: Sessions that a receiver holds.
        sessions_waiting_retry: Sessions whose next message waits for its retry delay.
        sessions_idle_with_state: Sessions without messages whose state is kept.
        receivers: Receivers that are open on it, or wait for it.
        resubmissions: Jobs on its dead letters that run.
        oldest_age_seconds: How long ago the oldest of the ready messages was stored; 0 = none is ready.
        oldest_dead_letter_age_seconds: The same of the ready dead letter that came first.
    """

    key: EntityKey
    has_sessions: bool = False
    ready: int = 0
    locked: int = 0
    deferred: int = 0
    scheduled: int = 0
    dead_letter: int = 0
    delayed: int = 0
    size_bytes: int = 0
    size_limit_bytes: int = 0
    sessions_ready: int = 0
    sessions_locked: int = 0
    sessions_waiting_retry: int = 0
    sessions_idle_with_state: int = 0
    receivers: int = 0
    resubmissions: int = 0
    oldest_age_seconds: float = 0
    oldest_dead_letter_age_seconds: float = 0
