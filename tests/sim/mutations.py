"""The broker with one guard taken out at a time.

Patching our own code is forbidden in every other test. Here it is the point: a simulator that does not
notice a missing guard would prove nothing about the guards that are there. Each mutation is undone by
pytest's `monkeypatch` when its test ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lockstep.core import receiving, settling, snapshot
from lockstep.core.changes import Change
from lockstep.core.deadlines import Subject
from lockstep.core.errors import LockstepError, StoreUnavailable
from lockstep.core.ids import PartitionEpoch, PartitionId, RequestId, SessionLock
from lockstep.core.locks import session_lock_lost
from lockstep.core.partition import Partition
from lockstep.core.plain import PlainStore
from lockstep.core.queue import Queue, Step
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

    async def committed(self: PartitionActor, round_: Any) -> None:
        await real_reply(self, round_)

    async def replied(self: PartitionActor, round_: Any) -> None:
        await real_commit(self, round_)

    real_reply, real_commit = PartitionActor._reply, PartitionActor._commit
    patch.setattr(PartitionActor, "_commit", committed)
    patch.setattr(PartitionActor, "_reply", replied)


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
)
