"""From facts of the core to metrics.

Here belongs the table that says which fact counts where. Never here: the metrics themselves
(`runtime.metrics`). The law: only committed facts are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from lockstep.core.commands import Accept, Command, RenewSession, Send
from lockstep.core.decision import Event
from lockstep.core.errors import (
    EntityDisabled,
    InvalidOperation,
    LockstepError,
    MessageSizeExceeded,
    QuotaExceeded,
    ServerBusy,
    SessionCannotBeLocked,
    SessionLockLost,
    ShareUsed,
)
from lockstep.core.ids import EntityKey
from lockstep.core.looking import (
    first_ready_dead_letter,
    oldest_ready,
    runtime_of,
    waiting_sessions,
)
from lockstep.core.partition import Partition
from lockstep.core.placement import partition_of_entity
from lockstep.core.queue import Queue
from lockstep.runtime.entity_counters import EntityCounters, EntityGauges
from lockstep.runtime.entity_counters import EntityKey as MetricKey
from lockstep.runtime.metrics import Metrics

_FIELDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("received_and_deleted", ""): ("settled_received_and_deleted",),
    ("schedules_cancelled", ""): ("schedules_cancelled",),
    ("recalled", ""): ("deliveries_recalled",),
    ("states_cleared", "idle"): ("states_cleared_idle",),
    ("states_cleared", "administrator"): ("states_cleared_administrator",),
    ("enqueued", "client"): ("enqueued_client", "sends_accepted"),
    ("enqueued", "scheduled"): ("enqueued_schedule",),
    ("enqueued", "resubmitted"): ("enqueued_resubmit",),
    ("enqueued", "moved"): ("enqueued_resubmit",),
    ("duplicates", ""): ("sends_duplicate",),
    ("bytes_in", ""): ("bytes_in",),
    ("delivered", "first"): ("delivered_first",),
    ("delivered", "redelivery"): ("delivered_redelivery",),
    ("settled", "completed"): ("settled_completed",),
    ("settled", "abandoned"): ("settled_abandoned",),
    ("settled", "released"): ("settled_released",),
    ("settled", "deferred"): ("settled_deferred",),
    ("settled", "dead_lettered"): ("settled_dead_lettered",),
    ("dead_lettered", "max_delivery"): ("dead_lettered_max_delivery",),
    ("dead_lettered", "expired"): ("dead_lettered_ttl",),
    ("dead_lettered", "application"): ("dead_lettered_application",),
    ("dead_lettered", "administrator"): ("dead_lettered_administrator",),
    ("resubmitted", ""): ("dead_letters_resubmitted",),
    ("moved", ""): ("dead_letters_moved",),
    ("purged", ""): ("dead_letters_purged",),
    ("delivery_count", "abandoned"): ("delivery_count_abandoned",),
    ("delivery_count", "deferred"): ("delivery_count_deferred",),
    ("delivery_count", "lock_expired"): ("delivery_count_lock_expired",),
    ("accepts", "granted"): ("accepts_granted",),
    ("locks_granted", "session"): ("session_locks_granted",),
    ("locks_granted", "message"): ("message_locks_granted",),
    ("lock_renewals", "session"): ("session_locks_renewed",),
    ("lock_renewals", "message"): ("message_locks_renewed",),
    ("lock_renewals", "message:lost"): ("message_renewals_refused",),
    ("locks_released", "session:closed"): ("session_locks_released_closed",),
    ("locks_released", "session:broken"): ("session_locks_released_broken",),
    ("locks_released", "session:cancelled"): ("session_locks_released_closed",),
    ("locks_released", "session:grace_ended"): ("session_locks_released_disconnected",),
    ("locks_released", "session:expired"): (
        "session_locks_released_expired",
        "session_locks_expired",
    ),
    ("locks_released", "message:cancelled"): ("message_locks_released_closed",),
    ("locks_released", "message:grace_ended"): ("message_locks_released_disconnected",),
    ("locks_released", "message:expired"): (
        "message_locks_released_expired",
        "message_locks_expired",
    ),
    ("locks_released", "session:disconnected"): ("session_locks_released_disconnected",),
    ("locks_released", "message:disconnected"): ("message_locks_released_disconnected",),
    ("locks_released", "message:settled"): ("message_locks_released_settled",),
}
# What expired was dropped, but for what became dead letters in the same step.
_DROPPED = {("expired", ""): 1, ("dead_lettered", "expired"): -1}
_REFUSALS: tuple[tuple[type[LockstepError], str], ...] = (
    (QuotaExceeded, "sends_rejected_quota"),
    (MessageSizeExceeded, "sends_rejected_size"),
    (EntityDisabled, "sends_rejected_disabled"),
    (InvalidOperation, "sends_rejected_session"),
    (ServerBusy, "sends_rejected_backpressure"),
    (LockstepError, "sends_rejected_invalid"),
)


class Observer:
    """Counts what one partition did."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._counters: dict[int, EntityCounters] = {}

    def count(self, partition: Partition, events: Sequence[Event]) -> None:
        """Count committed facts: those of whole steps."""
        self._count_dropped(partition, events)
        for event in events:
            if event.name == "session_held_ms":
                end = "expired" if event.label == "expired" else "closed"
                self._metrics.session_lock_hold_seconds.labels(end).observe(event.count / 1000)
                continue
            if event.name == "session_waited_ms":
                self._metrics.session_wait_seconds.observe(event.count / 1000)
                continue
            if event.name == "order_violations":
                self._metrics.session_order_violations.inc(event.count)
                continue
            counters = self._of(partition, event.entity)
            if counters is None:
                continue
            for name in _FIELDS.get((event.name, event.label), ()):
                setattr(counters, name, getattr(counters, name) + event.count)
            if event.name == "settled":
                self._measure(partition, event, counters)

    def _count_dropped(self, partition: Partition, events: Sequence[Event]) -> None:
        """Count messages that expired and did not become dead letters."""
        dropped: Counter[int] = Counter()
        for event in events:
            dropped[event.entity] += _DROPPED.get((event.name, event.label), 0) * event.count
        for number, count in dropped.items():
            counters = self._of(partition, number) if count else None
            if counters is not None:
                counters.expired_dropped += count

    def _measure(self, partition: Partition, event: Event, counters: EntityCounters) -> None:
        """Measure settled messages: a batch at a time, never one message after the other."""
        if event.delivery_counts:
            for delivery_count, messages in Counter(event.delivery_counts).items():
                self._metrics.delivery_count.labels().add(delivery_count, messages)
        elif event.delivery_counts is not None:
            self._metrics.delivery_count.labels().add(0, event.count)
        since_ms, now_ms = event.enqueued_ms, partition.last_time_ms
        queue = partition.queues_by_number.get(event.entity)
        if since_ms and queue is not None:
            counters.time_in_queue_messages += len(since_ms)
            counters.time_in_queue_ms += len(since_ms) * now_ms - sum(since_ms)
            sessions = "true" if queue.definition.settings.requires_session else "false"
            histogram = self._metrics.time_in_queue_seconds
            histogram.labels(counters.key.entity_type, sessions).add_ages(now_ms, since_ms)

    def refused(self, partition: Partition, command: Command, error: LockstepError) -> None:
        """Count a refused call, where that is counted at all."""
        match command:
            case Send() if isinstance(error, ShareUsed):
                pass  # it is sent again when the quota is shared out
            case Send(entity=entity, messages=messages):
                self.refused_send(partition, entity, len(messages), error)
            case Accept(entity=entity) if isinstance(error, SessionCannotBeLocked):
                self._add(partition, entity, "accepts_held", 1)
            case RenewSession(entity=entity) if isinstance(error, SessionLockLost):
                self._add(partition, entity, "session_renewals_refused", 1)
            case _:
                pass

    def refused_send(
        self, partition: Partition, entity: EntityKey, messages: int, error: LockstepError
    ) -> None:
        """Count messages that were not stored, by reason (SND-2)."""
        name = next(field for kind, field in _REFUSALS if isinstance(error, kind))
        self._add(partition, entity, name, messages)

    def _add(self, partition: Partition, entity: EntityKey, name: str, count: int) -> None:
        queue = partition.queues.get(entity)
        counters = self._of(partition, queue.number) if queue else None
        if counters is not None:
            setattr(counters, name, getattr(counters, name) + count)

    def sent_bytes(self, partition: Partition, entity: int, count: int) -> None:
        """Count bytes that were delivered."""
        counters = self._of(partition, entity)
        if counters is not None:
            counters.bytes_out += count

    def accept_timed_out(self, partition: Partition, entity: int) -> None:
        """Count an accept that found nothing in its time."""
        counters = self._of(partition, entity)
        if counters is not None:
            counters.accepts_timeout += 1

    def forget_missing(self, partition: Partition) -> None:
        """Stop counting for queues that the partition does not hold any more."""
        for number in [n for n in self._counters if n not in partition.queues_by_number]:
            self._metrics.remove_entity(self._counters.pop(number))

    def close(self) -> None:
        """Stop counting."""
        for counters in self._counters.values():
            self._metrics.remove_entity(counters)
        self._counters.clear()

    def _of(self, partition: Partition, number: int) -> EntityCounters | None:
        counters = self._counters.get(number)
        if counters is None:
            queue = partition.queues_by_number.get(number)
            if queue is None:
                return None
            key = _metric_key(queue)
            counters = self._counters[number] = self._metrics.register_entity(
                entity_namespace=key.entity_namespace,
                entity=key.entity,
                entity_type=key.entity_type,
            )
        return counters


def gauges_of(partition: Partition, waiting: dict[int, int], now_ms: int) -> Iterator[EntityGauges]:
    """Return how each queue of a partition stands.

    Args:
        partition: The partition.
        waiting: How many receivers wait on each queue.
        now_ms: The time of day, from which ages are measured.
    """
    for queue in partition.queues.values():
        runtime = runtime_of(queue)
        aside = sum(
            1 for s, d in queue.deferred.items() if not d.grant and s not in queue.dead_order
        )
        yield EntityGauges(
            key=_metric_key(queue),
            has_sessions=queue.definition.settings.requires_session,
            ready=runtime.active - runtime.locked - aside - runtime.delayed,
            deferred=aside,
            scheduled=runtime.scheduled,
            delayed=runtime.delayed,
            locked=runtime.locked,
            dead_letter=runtime.dead_letters,
            size_bytes=runtime.size_bytes,
            size_limit_bytes=queue.size_bytes_max if _is_at_home(partition, queue) else 0,
            sessions_ready=runtime.runnable_sessions,
            sessions_locked=runtime.locked_sessions,
            sessions_waiting_retry=waiting_sessions(queue),
            sessions_idle_with_state=runtime.idle_sessions_with_state,
            receivers=runtime.locked_sessions + waiting.get(queue.number, 0),
            resubmissions=sum(job.is_running and not job.is_part for job in queue.jobs.values()),
            oldest_age_seconds=_age_seconds(queue, oldest_ready(queue), now_ms),
            oldest_dead_letter_age_seconds=_age_seconds(
                queue, first_ready_dead_letter(queue), now_ms
            ),
        )


def _is_at_home(partition: Partition, queue: Queue) -> bool:
    """Whether this is the one partition that tells what holds for all parts of a queue."""
    return partition.partition == partition_of_entity(queue.definition.key, partition.partitions)


def _age_seconds(queue: Queue, sequence: int | None, now_ms: int) -> float:
    """Return how long ago a message was stored; 0 for none, or if the time of day was set back since."""
    return 0.0 if sequence is None else max(now_ms - queue.log.enqueued_ms(sequence), 0) / 1000


def _metric_key(queue: Queue) -> MetricKey:
    return MetricKey(queue.definition.namespace, queue.definition.name, "queue")
