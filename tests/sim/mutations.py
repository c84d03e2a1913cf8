"""The broker with one guard taken out at a time: ownership, commits, locks, calls and their memory.

The guards of messages that wait, expire or are set aside are in `mutations_of_messages`.

Patching our own code is forbidden in every other test. Here it is the point: a simulator that does not
notice a missing guard would prove nothing about the guards that are there. Each mutation is undone by
pytest's `monkeypatch` when its test ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from lockstep.core import deferral, idling, receiving, sending, settling, snapshot, state
from lockstep.core.changes import Change, ChunkRow
from lockstep.core.commands import SetState, Settle
from lockstep.core.deadlines import Subject
from lockstep.core.entity import RECEIVING_FORBIDDEN
from lockstep.core.errors import LockstepError, RequestIdExpired, StoreUnavailable
from lockstep.core.ids import PartitionEpoch, PartitionId, RequestId, SessionId, SessionLock
from lockstep.core.locks import BROKEN, CLOSED, refuse_disabled, session_lock_lost
from lockstep.core.partition import _HANDLERS, Partition
from lockstep.core.plain import PlainStore
from lockstep.core.queue import Queue, Step
from lockstep.core.replies import StateSet
from lockstep.core.requests import Remembered, RequestWindow
from lockstep.core.session import Session
from lockstep.core.snapshot import Snapshot
from lockstep.owner.actor import PartitionActor
from lockstep.storage.memory import MemoryStore
from tests.sim.cluster import SimLease

Patch = pytest.MonkeyPatch
Mutation = Callable[[Patch], None]


def no_fence_in_commit(patch: Patch) -> None:
    """The store takes commits under any epoch."""
    apply = MemoryStore.apply

    def unfenced(
        self: MemoryStore, partition: PartitionId, _epoch: PartitionEpoch, changes: Sequence[Change]
    ) -> None:
        apply(self, partition, self._partitions[partition].epoch, changes)

    patch.setattr(MemoryStore, "apply", unfenced)


def no_epoch_check_at_open(patch: Patch) -> None:
    """The store lets an older owner open again."""
    opened = MemoryStore.open

    async def unchecked(
        self: MemoryStore, partition: PartitionId, epoch: PartitionEpoch
    ) -> Snapshot:
        tables = self._partitions.get(partition)
        if tables is not None:
            tables.epoch = epoch
        return await opened(self, partition, epoch)

    patch.setattr(MemoryStore, "open", unchecked)


def no_lease_check(patch: Patch) -> None:
    """An owner answers although its lease has ended."""
    patch.setattr(SimLease, "is_valid", lambda _self: True)


def reply_before_commit(patch: Patch) -> None:
    """An owner answers first and commits afterwards."""

    async def replied_first(self: PartitionActor, round_: Any) -> None:
        real_reply(self, round_)
        await real_commit(self, round_)

    real_reply, real_commit = PartitionActor._reply, PartitionActor._commit
    patch.setattr(PartitionActor, "_commit", replied_first)
    patch.setattr(PartitionActor, "_reply", lambda _self, _round: None)


def unknown_commit_taken_as_done(patch: Patch) -> None:
    """An owner goes on, and answers, after a commit whose outcome it does not know."""
    real_commit = PartitionActor._commit

    async def hopeful(self: PartitionActor, round_: Any) -> None:
        try:
            await real_commit(self, round_)
        except StoreUnavailable:
            return

    patch.setattr(PartitionActor, "_commit", hopeful)


def no_grant_check(patch: Patch) -> None:
    """Whoever names a held session may act on it, under whatever grant."""

    def any_holder(partition: Partition, queue: Queue, lock: SessionLock) -> Session:
        session = queue.sessions.get(lock.session_id)
        if session is None or not session.is_held:
            raise session_lock_lost(partition, queue, lock)
        session.grace = False
        return session

    patch.setattr(receiving, "find_held", any_holder)
    patch.setattr(settling, "find_held", any_holder)


def no_memory_of_sends(patch: Patch) -> None:
    """A repeated send is carried out again."""
    repeated = Partition.repeated

    def forgetful(
        self: Partition, request: RequestId | None, fingerprint: int, kind: str
    ) -> tuple[Any, ...] | None:
        return None if kind == "send" else repeated(self, request, fingerprint, kind)

    patch.setattr(Partition, "repeated", forgetful)


def no_grace(patch: Patch) -> None:
    """An outage is no reason to keep a lock, nor not to count its end."""
    hold = snapshot._hold_locks

    def held_as_stored(partition: Partition, now_ms: int) -> None:
        stored = {
            id(session): session.locked_until_ms
            for queue in partition.queues.values()
            for session in queue.sessions.values()
        }
        hold(partition, now_ms)
        for queue in partition.queues.values():
            queue.graced.clear()
            for session in queue.sessions.values():
                session.grace = False
                session.locked_until_ms = stored[id(session)]
                subject = Subject("session", queue.number, session.session_id, session.grant)
                partition.deadlines.add(session.locked_until_ms, subject)

    patch.setattr(snapshot, "_hold_locks", held_as_stored)


def no_count_on_expiry(patch: Patch) -> None:
    """A lock that ran out counts no failed delivery."""
    count = Queue.count_failure

    def lenient(self: Queue, sequence: int, cause: str, step: Step) -> bool:
        return True if cause == "lock_expired" else count(self, sequence, cause, step)

    patch.setattr(Queue, "count_failure", lenient)


def returned_messages_in_order_of_return(patch: Patch) -> None:
    """What came back is delivered in the order in which it came back."""
    patch.setattr(Session, "give_back", lambda self, sequence: self.returned.append(sequence))


def returned_messages_behind_the_others(patch: Patch) -> None:
    """What came back to a plain queue is delivered last."""
    patch.setattr(PlainStore, "give_back", lambda self, sequence: self.add((sequence,)))


def refusals_of_a_lost_round(patch: Patch) -> None:
    """A round whose commit failed still answers the calls that its steps refused."""
    fail = PartitionActor._fail

    def leaky(self: PartitionActor, round_: Any, error: LockstepError) -> None:
        for call, refused in round_.finished:
            if refused is not None and call.answer is not None and not call.answer.done():
                call.answer.set_exception(refused)
        fail(self, round_, error)

    patch.setattr(PartitionActor, "_fail", leaky)


def no_fence_for_reads_of_bodies(patch: Patch) -> None:
    """The store gives bodies to any owner."""

    async def unfenced(
        self: MemoryStore, partition: PartitionId, _epoch: PartitionEpoch, chunks: Sequence[int]
    ) -> dict[int, tuple[bytes, ...]]:
        rows = self._partitions[partition].of(ChunkRow)
        return {chunk: rows[(chunk,)].messages for chunk in chunks if (chunk,) in rows}

    patch.setattr(MemoryStore, "load_chunks", unfenced)


def no_floor_of_request_ids(patch: Patch) -> None:
    """A call that is older than what is remembered counts as new."""
    find = RequestWindow.find

    def new(self: RequestWindow, request: RequestId, fingerprint: int) -> Remembered | None:
        try:
            return find(self, request, fingerprint)
        except RequestIdExpired:
            return None

    patch.setattr(RequestWindow, "find", new)


def no_comparison_of_fingerprints(patch: Patch) -> None:
    """An id that comes again with another payload is answered with what the first one did."""
    find = RequestWindow.find

    def same(self: RequestWindow, request: RequestId, fingerprint: int) -> Remembered | None:
        known = self.peek(request)
        return find(self, request, known.fingerprint if known is not None else fingerprint)

    patch.setattr(RequestWindow, "find", same)


def no_undo_for_who_has_gone(patch: Patch) -> None:
    """What a call gave stays with a caller that has gone."""
    patch.setattr(PartitionActor, "_undo", lambda _self, _call: None)


def no_cursor_check(patch: Patch) -> None:
    """A message that was not delivered yet is in its holder's hand."""
    is_in_hand = Session.is_in_hand

    def ahead(self: Session, sequence: int) -> bool:
        cursor, self.cursor = self.cursor, max(self.cursor, sequence)
        try:
            return is_in_hand(self, sequence)
        finally:
            self.cursor = cursor

    patch.setattr(Session, "is_in_hand", ahead)


def no_comparison_of_state_versions(patch: Patch) -> None:
    """A state is written whatever its version is (ADD-7)."""
    set_state = state.on_set_state

    def careless(partition: Partition, command: SetState, step: Step) -> StateSet:
        return set_state(partition, replace(command, if_version=None), step)

    patch.setitem(_HANDLERS, SetState, careless)


def broken_locks_count(patch: Patch) -> None:
    """Breaking a lock counts as its expiry (ADD-5)."""
    close = receiving.close_session

    def counted(
        partition: Partition, queue: Queue, session: Session, step: Step, **how: Any
    ) -> int:
        if how["cause"] == BROKEN:
            for sequence in session.in_hand():
                queue.count_failure(sequence, "broken", step)
        return close(partition, queue, session, step, **how)

    patch.setattr(receiving, "close_session", counted)


def no_reason_for_broken_locks(patch: Patch) -> None:
    """Who lost a lock to an administrator is told that it closed it (ADD-5)."""
    patch.setattr(receiving, "BROKEN", CLOSED)


def status_means_nothing(patch: Patch) -> None:
    """A queue that is disabled takes and gives messages (section 16.1)."""
    patch.setattr(receiving, "refuse_disabled", lambda *_: None)
    patch.setattr(sending, "refuse_disabled", lambda *_: None)
    patch.setattr(deferral, "refuse_disabled", lambda *_: None)


def status_stops_settlement(patch: Patch) -> None:
    """Who holds messages of a disabled queue cannot settle them (RACE-16)."""
    settle = settling.on_settle

    def refused(partition: Partition, command: Settle, step: Step) -> Any:
        refuse_disabled(partition.queue(command.entity), RECEIVING_FORBIDDEN, "settling")
        return settle(partition, command, step)

    patch.setitem(_HANDLERS, Settle, refused)


def states_of_held_sessions_are_cleared(patch: Patch) -> None:
    """Clearing a session's state does not ask whether somebody holds it (SES-44)."""

    def found(queue: Queue, session_id: SessionId) -> list[Session]:
        session = queue.sessions.get(session_id)
        return [session] if session is not None and session.state_bytes is not None else []

    patch.setattr(idling, "_one", found)


def no_memory_of_deleting_receives(patch: Patch) -> None:
    """A repeated receive takes more messages (RCV-1, ADD-3)."""
    remember = Partition.remember

    def forgetful(
        self: Partition, request: RequestId, fingerprint: int, result: tuple[Any, ...], step: Step
    ) -> None:
        if result != ("receive", None, 0, ()):
            remember(self, request, fingerprint, result, step)

    patch.setattr(Partition, "remember", forgetful)


MUTATIONS: tuple[Mutation, ...] = (
    no_fence_in_commit,
    no_epoch_check_at_open,
    no_lease_check,
    reply_before_commit,
    unknown_commit_taken_as_done,
    no_grant_check,
    no_memory_of_sends,
    no_grace,
    no_count_on_expiry,
    returned_messages_in_order_of_return,
    returned_messages_behind_the_others,
    refusals_of_a_lost_round,
    no_fence_for_reads_of_bodies,
    no_floor_of_request_ids,
    no_comparison_of_fingerprints,
    no_undo_for_who_has_gone,
    no_cursor_check,
    no_comparison_of_state_versions,
    broken_locks_count,
    no_reason_for_broken_locks,
    status_means_nothing,
    status_stops_settlement,
    states_of_held_sessions_are_cleared,
    no_memory_of_deleting_receives,
)
