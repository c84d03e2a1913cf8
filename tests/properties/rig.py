"""A partition with its store, driven without an event loop: step, commit, crash, reopen."""

from __future__ import annotations

import re
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import pytest

from lockstep.core import commands as c
from lockstep.core import replies
from lockstep.core.amendments import UNCHANGED, Amendment
from lockstep.core.changes import Change, ChunkRow, PartitionRow, StateRow
from lockstep.core.decision import Decision
from lockstep.core.entity import QueueDefinition, QueueSettings
from lockstep.core.errors import Fenced
from lockstep.core.ids import EntityKey, EntityNumber, PartitionEpoch, PartitionId
from lockstep.core.limits import Limits
from lockstep.core.partition import Partition
from lockstep.core.queue import Queue
from lockstep.core.snapshot import Snapshot, restore_partition
from lockstep.storage.memory import MemoryStore
from tests.properties.calls import assert_same, shown
from tests.properties.dump import durable, litter, sequences
from tests.properties.ledger import Ledger
from tests.properties.message import EXPIRED, MAX_DELIVERY

PARTITION = PartitionId(3)
START_MS = 1_000_000
BYSTANDER = EntityNumber(5)
BYSTANDERS = 2  # messages of another queue, which nothing may touch
_Result = TypeVar("_Result")


def finished(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Return the result of a coroutine that never waits, as those of the memory store."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def define(number: int, revision: int, *, name: str = "Orders", **settings: Any) -> QueueDefinition:
    """Return a definition; without a name, of the queue that a rig is about."""
    return QueueDefinition(
        namespace="default",
        name=name,
        number=EntityNumber(number),
        uid="u",
        revision=revision,
        settings=QueueSettings(**settings),
        created_ms=START_MS,
        updated_ms=START_MS,
    )


class Rig:
    """One partition, one store, one queue.

    Attributes:
        partition: The partition, as it is now.
        pending: What steps changed and no commit has stored yet.
    """

    def __init__(self, definition: QueueDefinition, limits: Limits) -> None:
        self.limits = limits
        self.store = MemoryStore()
        self.epoch = PartitionEpoch(1, 1, 0)
        self.pending: list[Change] = []
        self.ledger: Ledger | None = None
        self.partition = self._restored(START_MS)
        self._add_bystander()
        self.step(c.ApplyDefinition(definition), START_MS)
        self.commit()
        self.untouched = durable(self.partition, reopened_ms=None)["queues"][BYSTANDER]

    def _add_bystander(self) -> None:
        definition = define(BYSTANDER, BYSTANDER, name="bystander")
        key = definition.key
        self.step(c.ApplyDefinition(definition), START_MS)
        first = self.step(c.Send(key, (b"1", b"2", b"3"), (None,)), START_MS).reply.first_sequence
        grant = self.step(c.Receive(key, False, None, 3), START_MS).reply.grant
        outcomes = (c.Outcome.COMPLETE, c.Outcome.ABANDON, c.Outcome.DEAD_LETTER)
        settlements = [c.Settlement(o, grant, [s]) for s, o in enumerate(outcomes, first)]
        self.step(c.Settle(key, False, None, tuple(settlements)), START_MS)

    def close(self) -> None:
        """Let go of the store."""

    def _restored(self, now_ms: int) -> Partition:
        return restore_partition(PARTITION, self.limits, self.snapshot(), now_ms)

    @property
    def queue(self) -> Queue:
        """The queue."""
        return self.partition.queues[EntityKey("default", "orders")]

    def step(self, command: c.Command, now_ms: int) -> Decision:
        """Let the partition carry out a command; its changes wait for the commit."""
        decision = self.partition.step(command, now_ms)
        self.pending.extend(decision.changes)
        if self.ledger is not None:
            self.ledger.note(decision.events)
        return decision

    def check_counts(self) -> None:
        """Check that what was counted adds up; the first look at a queue only notes what it holds."""
        if self.ledger is None or not self.ledger.is_of(self.queue):
            self.ledger = Ledger(self.queue)
        self.ledger.check()

    def commit(self) -> None:
        """Store what waits, in one commit."""
        self.store.apply(PARTITION, self.epoch, self.pending)
        self.pending = []

    def snapshot(self) -> Snapshot:
        """Return what is stored."""
        return finished(self.store.open(PARTITION, self.epoch))

    def reopen(self, now_ms: int) -> None:
        """Lose the partition and what was not committed; open it again under a higher epoch."""
        deposed = self.epoch
        self.epoch = deposed._replace(reopened=deposed.reopened + 1)
        self.pending = []
        self.ledger = None
        self.partition = self._restored(now_ms)
        late = PartitionRow(now_ms, 10**6, 10**6)
        with pytest.raises(Fenced):
            self.store.apply(PARTITION, deposed, [late])
        with pytest.raises(Fenced):
            finished(self.store.load_chunks(PARTITION, deposed, []))
        with pytest.raises(Fenced):
            finished(self.store.open(PARTITION, deposed))

    def check_store(self, now_ms: int) -> None:
        """Check that the store holds what must be durable, and nothing else. All must be committed."""
        snapshot = self.snapshot()
        restored = restore_partition(PARTITION, self.limits, snapshot, now_ms)
        kept = durable(restored, reopened_ms=None)
        assert_same(kept, durable(self.partition, reopened_ms=now_ms))
        assert kept["queues"][BYSTANDER] == self.untouched
        left = litter(self.partition, snapshot)
        assert not left, f"stored for nothing: {left}"
        assert snapshot.partition.last_time_ms <= self.partition.last_time_ms

    def messages(self, sequences: Sequence[int]) -> list[tuple[int, bytes]]:
        """Return when messages were enqueued, and their bytes, from where the log says that they lie."""
        described = self.queue.log.describe(sequences)
        return [
            (enqueued_ms, self._body(chunk, place))
            for chunk, place, enqueued_ms in zip(
                described.chunks, described.places, described.enqueued_ms, strict=True
            )
        ]

    def _body(self, chunk: int, place: int) -> bytes:
        for change in self.pending:
            if isinstance(change, ChunkRow) and change.chunk == chunk:
                return change.messages[place]
        return finished(self.store.load_chunks(PARTITION, self.epoch, [chunk]))[chunk][place]

    def state(self, session_id: str) -> bytes | None:
        """Return the bytes of a session's state."""
        key = (self.queue.number, session_id)
        for change in reversed(self.pending):
            if isinstance(change, StateRow) and change.key == key:
                return change.value
        return finished(self.store.load_states(PARTITION, self.epoch, [key])).get(key)

    # --- looking -------------------------------------------------------------------------------------

    def view(self, now_ms: int) -> dict[str, Any]:
        """Everything that can be seen of the queue, in the shape of `QueueModel.view`."""
        queue = self.queue
        listed: tuple[replies.SessionView, ...] = ()
        if queue.definition.settings.requires_session:
            reply = self.partition.step(c.ListSessions(queue.definition.key, 1000), now_ms).reply
            assert isinstance(reply, replies.SessionViews)
            listed = reply.sessions
        assert [v.session_id for v in listed] == sorted(queue.sessions)
        stored = sorted(sequences(queue))
        assert len(stored) == len(set(stored)), "I-1: a message is in two places"
        seen = dict(self._messages(stored))
        arrived = sorted(queue.dead_order, key=queue.dead_order.__getitem__)
        return {
            "messages": {s: seen[s] for s in stored if s not in queue.dead_order},
            "dead letters": [(s, why(queue.dead_info[s]), seen[s]) for s in arrived],
            "ready": list(queue.main.ready()),
            "ready dead letters": list(queue.dead.ready()),
            "sessions": {v.session_id: self._session(v) for v in listed},
            "next": self._runnable(),
            "last": (queue.log.last_sequence, self.partition.last_grant),
            "known ids": dict(queue.history._sequences),
        }

    def _messages(self, stored: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield every message as `QueueModel.view` shows it, by its number."""
        queue = self.queue
        hands = _hands(queue)
        sessions = {s: i for i, session in queue.sessions.items() for s in session.active()}
        sessions |= {s: d.session_id for s, d in queue.deferred.items()}
        sessions |= {s: d.session_id for s, d in queue.scheduled.items()}
        sessions |= queue.dead_sessions
        bodies = zip(stored, self.messages(stored), strict=True)
        for sequence, (enqueued_ms, payload) in bodies:
            state = "deferred" if sequence in queue.deferred else "active"
            later = queue.scheduled.get(sequence)
            is_dead = sequence in queue.dead_order
            seen = {
                "state": "scheduled" if later else state,
                "session": sessions.get(sequence),
                "hand": hands.get(sequence, (0, 0)),
                "count": queue.counts.get(sequence, 0),
                "enqueued": enqueued_ms,
                "expires": 0 if is_dead else queue.log.expires_ms(sequence),
                "due": later.due_ms if later else 0,
                "delayed": queue.delays[sequence].until_ms if sequence in queue.delays else 0,
                "payload": shown(payload),
                "properties": _properties(queue.amendments.get(sequence, UNCHANGED)),
            }
            yield sequence, seen

    def _runnable(self) -> list[str]:
        """Return in which order accept-next would hand sessions out."""
        return list(self.queue.runnable.in_order())

    def _session(self, view: replies.SessionView) -> dict[str, Any]:
        session = self.queue.sessions[view.session_id]
        hand = len(session.in_hand())
        assert (view.active, view.locked) == (
            session.active_count,
            hand + len(session.deferred_hand),
        )
        assert (view.scheduled, view.deferred) == (session.scheduled, session.deferred)
        assert session.in_hand_count == hand
        assert session.deliverable_count == len(session.peek_deliverable(1000))
        assert bool(view.holder) <= bool(view.locked_until_ms)
        holder = (view.holder, view.locked_until_ms, session.granted_ms)
        return {
            "active": list(session.active()),
            "deliverable": list(session.peek_deliverable(1000)),
            "holder": holder if view.locked_until_ms else None,
            "grant": view.grant,
            "state": view.state_bytes,
            "version": view.state_version,
        }

    def runtime(self, now_ms: int) -> dict[str, int]:
        """The counters of the queue."""
        shown = self.partition.step(c.GetRuntime(self.queue.definition.key), now_ms).reply
        assert isinstance(shown, replies.Runtime)
        stored = shown.active + shown.scheduled + shown.dead_letters
        assert stored == len(sequences(self.queue)), "I-9: the counters and what is stored"
        figures = asdict(shown)
        # The model does not know who looked, and the oldest message is told to those who ask for it.
        assert figures.pop("oldest_ms") == 0
        return {k: v for k, v in figures.items() if k != "used_ms"}

    # --- replies -------------------------------------------------------------------------------------

    def facts(self, reply: replies.Reply) -> tuple[Any, ...]:
        """Return a reply in the words of the model."""
        match reply:
            case replies.Delivered():
                return self._delivered(reply)
            case replies.StateIs(_, session_id, has_state, version):
                state = self.state(session_id) if has_state else None
                return ("state", session_id, state, version)
            case replies.Accepted(lock, until_ms, has_state, version):
                return ("accepted", *lock, until_ms, has_state, version)
            case replies.Renewed(until_ms, failures):
                return ("renewed", until_ms, _failures(failures))
            case replies.Settled(failures):
                return ("settled", _failures(failures))
            case replies.StatesCleared(count, has_more):
                return ("states cleared", count, has_more)
            case replies.Browsed():
                return self._browsed(reply)
        return _short_facts(reply)

    def _delivered(self, reply: replies.Delivered) -> tuple[Any, ...]:
        return (
            "delivered",
            reply.grant,
            self._described(reply),
            reply.locked_until_ms,
            reply.short.name,
            reply.is_final,
        )

    def _browsed(self, reply: replies.Browsed) -> tuple[Any, ...]:
        numbers = reply.delivered.sequences
        later, aside = ([numbers[p] for p in ps] for ps in (reply.scheduled, reply.deferred))
        return ("browsed", self._described(reply.delivered), later, aside, reply.has_more)

    def _described(self, reply: replies.Delivered) -> list[tuple[Any, ...]]:
        count = len(reply.sequences)
        reasons: Sequence[replies.DeadLetterInfo | None] = reply.dead_letters or (None,) * count
        bodies = [
            self._body(chunk, place)
            for chunk, place in zip(reply.chunks, reply.places, strict=True)
        ]
        assert reply.size_bytes == sum(map(len, bodies))
        changes = dict(reply.amendments)
        return list(
            zip(
                reply.sequences,
                reply.counts or (0,) * count,
                reply.enqueued_ms,
                map(shown, bodies),
                [info and why(info) for info in reasons],
                reply.expires_ms or (0,) * count,
                [_properties(changes.get(place, UNCHANGED)) for place in range(count)],
                strict=True,
            )
        )


def _short_facts(reply: replies.Reply) -> tuple[Any, ...]:
    match reply:
        case replies.Sent():
            return ("sent", list(reply.numbers), list(reply.duplicates))
        case replies.ScheduleCancelled(count):
            return ("schedule cancelled", count)
        case replies.DeferredExpired(gone):
            return ("expired", list(gone))
        case replies.LockBroken(was_held, holder, returned):
            return ("broken", was_held, holder, returned)
        case replies.NoneAvailable(_, is_final):
            return ("none available", "final" if is_final else "for now")
        case replies.Released(returned):
            return ("released", returned)
        case replies.StateSet(version):
            return ("state set", version)
        case replies.TurnTaken(sent, version):
            return ("turn", sent and _short_facts(sent), version)
        case replies.Cancelled(undone):
            return ("cancelled", undone)
    raise AssertionError(f"no facts of {reply}")


def why(info: replies.DeadLetterInfo) -> tuple[str, str]:
    """Return why a message is a dead letter; the broker's own words are not compared."""
    if info.reason == MAX_DELIVERY[0]:
        assert info.description
        return MAX_DELIVERY
    if info.reason == EXPIRED:  # TTL-7: named is the message that made it expire
        named = re.search(r"message (\d+) of the session expired", info.description)
        return (EXPIRED, named[1] if named else "itself")
    return (info.reason, info.description)


def _properties(amendment: Amendment) -> dict[str, bytes | int]:
    """Return the properties that were set on a message; nothing else about it may have changed."""
    assert amendment == Amendment(amendment.properties)
    return {name: shown(value) for name, value in amendment.properties.items()}


def _hands(queue: Queue) -> dict[int, tuple[int, int]]:
    """Return the grant that has each locked message in hand, and the end of the lock if it is its own."""
    hands = {s: (d.grant, 0) for s, d in queue.deferred.items()}
    for session in queue.sessions.values():
        hands |= dict.fromkeys(session.in_hand(), (session.grant, 0))
    for store in (queue.main, queue.dead):
        for grant, held in store.grants.items():
            hands |= {s: (grant, until_ms) for s, until_ms in held.items()}
    return hands


def _failures(failures: Sequence[replies.NotSettled]) -> list[tuple[int, int, str]]:
    return [(f.grant, f.sequence, f.error.reason) for f in failures]
