"""What a partition must know when it comes back, beyond `tests.properties.dump`."""

from __future__ import annotations

from typing import Any

from lockstep.core.jobs import Job
from lockstep.core.partition import Partition
from lockstep.core.queue import Queue
from tests.sim.book import Book
from tests.sim.rows import Where


def aside(partition: Partition) -> dict[int, dict[str, Any]]:
    """Return the schedules, deferred messages, expiries, known message ids, changes and jobs of each queue."""
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
        "arrivals": sorted(queue.arrivals.items()),
        "jobs": sorted((n, j.to_text(), n in queue.running) for n, j in queue.jobs.items()),
        "ids": [(*batch, [queue.history.find(key) for key in batch[2]]) for batch in ids],
    }


# --- stores ------------------------------------------------------------------------------------------


def stores(partition: Partition) -> dict[Where, tuple[Any, ...]]:
    """Return every place in which each message is, its delivery count and its changes."""
    found: dict[Where, list[str]] = {}
    for number, queue in partition.queues_by_number.items():
        for sequence, place in _places(queue):
            found.setdefault((number, sequence), []).append(place)
        for sequence in queue.log.numbers(0, 1_000_000, ()):
            found.setdefault((number, sequence), [])
    return {
        where: (places, queue.counts.get(where[1], 0), queue.amendments.get(where[1]))
        for where, places in found.items()
        for queue in (partition.queues_by_number[where[0]],)
    }


def _places(queue: Queue) -> list[tuple[int, str]]:
    """Return each place of a queue: a message, and what it is there."""
    deferred = queue.deferred
    plain = {*queue.main.ready(), *(s for held in queue.main.grants.values() for s in held)}
    plain |= {s for s, delay in queue.delays.items() if delay.session_id is None}
    active = [s for session in queue.sessions.values() for s in session.active()]
    active += sorted(plain - deferred.keys() - queue.dead_order.keys())
    return [
        *((s, "main active") for s in active),
        *((s, "main scheduled") for s in queue.scheduled),
        *((s, "main deferred") for s in deferred if s not in queue.dead_order),
        *((s, f"dead {'deferred' if s in deferred else 'active'}") for s in queue.dead_order),
    ]


def jobs_of(partition: Partition) -> dict[Where, Job]:
    """Return every job; one that runs must be known to run."""
    return {
        (number, job.number): job
        for number, queue in partition.queues_by_number.items()
        for job in queue.jobs.values()
        if job.is_running == (job.number in queue.running)
    }


def stored(book: Book) -> dict[Where, tuple[Any, ...]]:
    """Return the same as `stores`, as the rows have it: each message in one place."""
    return {
        where: (
            [message.status.removesuffix(" in hand")],
            message.deliveries,
            book.amendments.get(where),
        )
        for where, message in book.messages.items()
    }
