"""What a partition must still know when it comes back, beyond `tests.properties.dump`: what waits or is set aside."""

from __future__ import annotations

from typing import Any

from lockstep.core.partition import Partition
from lockstep.core.queue import Queue


def aside(partition: Partition) -> dict[int, dict[str, Any]]:
    """Return the schedules, deferred messages, expiries, known message ids and changes of each queue."""
    return {number: _queue(queue) for number, queue in partition.queues_by_number.items()}


def _queue(queue: Queue) -> dict[str, Any]:
    every = queue.log.numbers(0, 1_000_000, ())
    ids = [(at_ms, chunk, keys) for at_ms, chunk, keys in queue.history._batches]
    return {
        "scheduled": sorted(queue.scheduled.items()),
        "delays": sorted(queue.delays.items()),
        "deferred": sorted((s, d.session_id, d.grant) for s, d in queue.deferred.items()),
        "expiries": list(zip(every, queue.log.expiries(every), strict=True)),
        "in hand": {i: sorted(s.deferred_hand) for i, s in queue.sessions.items()},
        "changes": sorted((s, a.to_text()) for s, a in queue.amendments.items()),
        "ids": [(*batch, [queue.history.find(key) for key in batch[2]]) for batch in ids],
    }
