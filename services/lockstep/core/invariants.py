"""What must be true of a partition after every step.

Here belongs the check of all invariants that can be seen in one partition (I-1, I-3, I-7, I-9 of the
contract, and the books that the core keeps). Never here: repair. The law: a broken invariant stops the
partition and says so (design law 9).
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from lockstep.core.partition import Partition
from lockstep.core.plain import FOR_EVER_MS, PlainStore
from lockstep.core.queue import Queue


def check_partition(partition: Partition) -> None:
    """Check everything. Cost: every stored message is looked at.

    Raises:
        AssertionError: An invariant is broken; the text names it.
    """
    grants: set[int] = set()
    total = 0
    for queue in partition.queues.values():
        _check_messages(queue)
        _check_sessions(queue, grants, partition.last_grant)
        total += queue.log.count
    assert partition.totals.messages == total, "totals: messages of the partition"
    assert set(partition.queues_by_number.values()) == set(partition.queues.values()), (
        "queues by number"
    )


def _check_messages(queue: Queue) -> None:
    active: list[int] = [s for session in queue.sessions.values() for s in session.active()]
    main_locked = [s for held in queue.main.grants.values() for s in held]
    dead = list(queue.dead_order)
    # Of plain queues, what is locked stands under its grant.
    aside = [
        s
        for s, d in queue.deferred.items()
        if s not in queue.dead_order and (d.session_id is not None or not d.grant)
    ]
    aside += [
        s for s, d in queue.delays.items() if d.session_id is None and s not in queue.dead_order
    ]
    everywhere = active + list(queue.main.ready()) + main_locked + dead + list(queue.scheduled)
    everywhere += aside
    assert len(everywhere) == len(set(everywhere)), (
        f"I-1: a message of {queue.path} is in two places"
    )
    assert len(everywhere) == queue.log.count, f"I-1: a message of {queue.path} is in no place"
    assert all(queue.log.holds(s) for s in everywhere), (
        f"I-1: {queue.path} holds a message that is gone"
    )
    sizes = queue.log.describe(sorted(everywhere)).sizes
    assert sum(sizes) == queue.log.size_bytes, f"I-9: size of {queue.path}"
    assert max(everywhere, default=0) <= queue.log.last_sequence, f"I-7: sequence of {queue.path}"
    assert set(queue.counts) <= set(everywhere), f"I-5: {queue.path} counts a message that is gone"
    dead_locked = [s for held in queue.dead.grants.values() for s in held]
    dead_aside = [s for s, d in queue.deferred.items() if s in queue.dead_order and not d.grant]
    dead_aside += [s for s in queue.delays if s in queue.dead_order]
    assert sorted([*dead_locked, *queue.dead.ready(), *dead_aside]) == sorted(dead), (
        f"dead letters of {queue.path}"
    )
    held_by_jobs = {
        grant for grant, held in queue.dead.grants.items() if FOR_EVER_MS in held.values()
    }
    sent_off = {transfer.grant for job in queue.jobs.values() for transfer in job.transfers}
    assert held_by_jobs <= sent_off, f"RSB-2: {queue.path} holds dead letters for no job"
    if queue.definition.settings.requires_session:
        assert set(queue.dead_sessions) == set(dead), f"sessions of dead letters of {queue.path}"
    assert Counter(queue.dead_sessions.values()) == queue.dead_in_session, f"I-9: {queue.path}"
    assert set(queue.dead_info) == set(dead), f"reasons of dead letters of {queue.path}"
    assert set(queue.amendments) <= set(everywhere), f"{queue.path} amends a message that is gone"
    amended = sum(amendment.size_bytes for amendment in queue.amendments.values())
    assert queue.amended_bytes == amended, f"I-9: bytes of amendments of {queue.path}"
    _check_store(queue.main, queue.path)
    _check_store(queue.dead, queue.path)

    scheduled = {(message.due_ms, sequence) for sequence, message in queue.scheduled.items()}
    assert scheduled <= set(queue.schedule), f"SCH-4: a message of {queue.path} is never due"
    later = Counter(message.session_id for message in queue.scheduled.values())
    for session in queue.sessions.values():
        assert session.scheduled == later[session.session_id], (
            f"I-9: scheduled in {session.session_id!r}"
        )
        expiries = [end for s in session.active() if (end := queue.log.expires_ms(s))]
        assert not expiries or 0 < session.expires_ms <= min(expiries), (
            f"I-8: expiry of {session.session_id!r}"
        )


def _check_store(store: PlainStore, path: str) -> None:
    assert store.locked_count == sum(map(len, store.grants.values())), (
        f"I-9: locked messages of {path}"
    )
    assert all(store.grants.values()), f"a grant of {path} holds nothing"


def _check_sessions(queue: Queue, grants: set[int], last_grant: int) -> None:
    deferred = Counter(d.session_id for d in queue.deferred.values())
    for session in queue.sessions.values():
        assert session.deferred == deferred[session.session_id], (
            f"I-9: deferred in {session.session_id!r} of {queue.path}"
        )
        hand = {
            s for s, d in queue.deferred.items() if d.session_id == session.session_id and d.grant
        }
        assert session.deferred_hand == hand, f"deferred in hand of {session.session_id!r}"
        delayed = sorted(s for s, d in queue.delays.items() if d.session_id == session.session_id)
        assert session.delayed == delayed, f"ADD-6: delays of {session.session_id!r}"
        name = f"session {session.session_id!r} of {queue.path}"
        live = session.active()
        assert all(a < b for a, b in pairwise(live)), f"I-7: order of {name}"
        assert session.returned == sorted(set(session.returned)), f"returned messages of {name}"
        assert set(session.returned) <= set(live), f"returned messages of {name} are active"
        assert not session.returned or session.returned[-1] <= session.cursor, f"cursor of {name}"
        assert session.is_held or not session.cursor, f"law 2: {name} is free and has a hand"
        is_offered = session.offered_at is not None
        assert is_offered == session.is_runnable, f"SES-9: {name} is offered"
        assert not session.is_forgettable, f"SES-2: {name} is kept for nothing"
        assert session.grant <= last_grant, f"I-3: grant of {name}"
        assert session.state_version <= last_grant, f"ADD-7: version of the state of {name}"
        if session.is_held:
            assert session.grant not in grants, f"I-3: grant {session.grant} holds two sessions"
            grants.add(session.grant)
    held = sum(session.is_held for session in queue.sessions.values())
    assert queue.held_count == held, f"I-9: held sessions of {queue.path}"
    runnable = sum(session.is_runnable for session in queue.sessions.values())
    assert len(queue.runnable) == runnable, f"I-9: runnable sessions of {queue.path}"
    states = [s.state_bytes for s in queue.sessions.values() if s.state_bytes is not None]
    assert queue.states_bytes == sum(states), f"I-9: state bytes of {queue.path}"
    assert queue.states_count == len(states), f"I-9: states of {queue.path}"
