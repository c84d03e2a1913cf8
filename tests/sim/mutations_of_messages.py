"""The broker with one guard taken out at a time: messages that expire, wait, are set aside or come twice.

`mutations` says why our own code may be patched here.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from lockstep.core import (
    deferral,
    duplicates,
    expiring,
    expiry,
    looking,
    receiving,
    restoring,
    sending,
    settling,
    snapshot,
)
from lockstep.core.commands import Browse, CancelScheduled, Receive, ReceiveDeferred
from lockstep.core.deadlines import Subject
from lockstep.core.entity import PER_MESSAGE
from lockstep.core.history import History, Key
from lockstep.core.message import MessageLog
from lockstep.core.partition import _HANDLERS, Partition
from lockstep.core.plain import PlainStore
from lockstep.core.queue import Queue, Step
from lockstep.core.session import Session
from lockstep.storage import memory
from tests.sim.mutations import Mutation, Patch

# --- expiry ------------------------------------------------------------------------------------------


def expired_messages_are_delivered(patch: Patch) -> None:
    """A plain queue delivers what has expired (I-8)."""

    def all_ready(
        _partition: Partition, _queue: Queue, store: PlainStore, most: int, _step: Step
    ) -> Any:
        return store.peek_ready(most)

    patch.setattr(receiving, "ready_messages", all_ready)


def sessions_do_not_expire(patch: Patch) -> None:
    """A session delivers what has expired (I-8, TTL-6)."""
    patch.setattr(receiving, "expire_in_session", lambda *_: None)


def sessions_expire_message_by_message(patch: Patch) -> None:
    """With one expired message of a session only that one goes (TTL-6)."""
    patch.setattr(expiring, "WHOLE_SESSION", PER_MESSAGE)


def expiry_takes_from_the_hand(patch: Patch) -> None:
    """What its holder has in hand expires too (TTL-5)."""
    expire = expiring.expire_in_session

    def grasping(queue: Queue, session: Session, step: Step) -> None:
        cursor, session.cursor = session.cursor, 0
        expire(queue, session, step)
        session.cursor = cursor

    patch.setattr(receiving, "expire_in_session", grasping)


def expired_messages_come_back(patch: Patch) -> None:
    """A message that expired in its receiver's hand is delivered again (TTL-5)."""

    def returned(queue: Queue, store: PlainStore, sequence: int, step: Step) -> None:
        if sequence in queue.deferred:
            queue.defer_again(sequence, step)
        else:
            store.give_back(sequence)

    patch.setattr(settling, "return_or_expire", returned)
    patch.setattr(expiry, "return_or_expire", returned)


def expired_messages_wait_for_their_delays(patch: Patch) -> None:
    """A message that expired in its receiver's hand, and is abandoned with a delay, stays until that ends (TTL-5)."""
    patch.setattr(settling, "is_over", lambda *_: False)


def expired_messages_are_always_dropped(patch: Patch) -> None:
    """The option for dead letters means nothing (TTL-3)."""

    collect = expiring.collect
    off: dict[str, Any] = {"dead_lettering_on_message_expiration": False}

    def dropped(queue: Queue, *what: Any) -> None:
        definition = queue.definition
        queue.definition = replace(definition, settings=replace(definition.settings, **off))
        collect(queue, *what)
        queue.definition = definition

    patch.setattr(expiring, "collect", dropped)


def expired_deferred_messages_are_delivered(patch: Patch) -> None:
    """A deferred message that has expired is delivered to who asks for it (TTL-9)."""
    patch.setattr(deferral, "is_over", lambda *_: False)


# --- schedules ---------------------------------------------------------------------------------------


def schedules_end_at_a_restart(patch: Patch) -> None:
    """After a restart, scheduled messages are active at once (SCH-4)."""
    patch.setattr(
        restoring,
        "_restore_schedule",
        lambda _partition, _queue, _chunk, pairs, *_: pairs,
    )


def cancelled_messages_become_active(patch: Patch) -> None:
    """A cancellation answers, and forgets to take the messages back (SCH-5)."""

    def lazy(partition: Partition, command: CancelScheduled, step: Step) -> Any:
        queue = partition.queue(command.entity)
        kept = dict(queue.scheduled)
        reply = cancel(partition, command, step)
        step.changes[:] = [c for c in step.changes if type(c).__name__ == "RequestRow"]
        queue.scheduled.update(kept)
        return reply

    cancel = _HANDLERS[CancelScheduled]
    patch.setitem(_HANDLERS, CancelScheduled, lazy)


def cancellation_takes_what_it_finds(patch: Patch) -> None:
    """A cancellation of several messages takes those that are scheduled (SCH-5)."""
    cancel = _HANDLERS[CancelScheduled]

    def some(partition: Partition, command: CancelScheduled, step: Step) -> Any:
        queue = partition.queue(command.entity)
        found = [sequence for sequence in command.sequences if sequence in queue.scheduled]
        return cancel(partition, replace(command, sequences=found or command.sequences), step)

    patch.setitem(_HANDLERS, CancelScheduled, some)


def scheduled_messages_count_as_active(patch: Patch) -> None:
    """A scheduled message is in its session, or its queue, at once (SCH-6)."""

    def at_once(
        _partition: Partition,
        _queue: Queue,
        first: int,
        due_ms: array[int],
        _ttls: array[int] | None,
        session_ids: Sequence[str | None],
    ) -> tuple[range, Sequence[str | None]]:
        return range(first, first + len(due_ms)), session_ids

    patch.setattr(sending, "set_aside", at_once)


# --- deferral ----------------------------------------------------------------------------------------


def deferral_counts_nothing(patch: Patch) -> None:
    """To defer a message is no failed delivery (DCN-2, DEF-8)."""
    defer = deferral.defer

    def uncounted(queue: Queue, sequences: Any, session: Any, step: Step, **_how: bool) -> None:
        defer(queue, sequences, session, step, counts=False)

    patch.setattr(settling, "defer", uncounted)


def deferred_messages_are_delivered_to_all(patch: Patch) -> None:
    """Whoever names a deferred message gets it, whoever has it in hand (DEF-2, RACE-13)."""
    is_there = deferral._is_there

    def anyway(
        queue: Queue, sequence: int, session: Session | None, command: ReceiveDeferred
    ) -> bool:
        deferred = queue.deferred.get(sequence)
        if deferred is None:
            return False
        grant, deferred.grant = deferred.grant, 0
        found = is_there(queue, sequence, session, command)
        deferred.grant = grant
        return found

    patch.setattr(deferral, "_is_there", anyway)


def deferred_messages_of_any_session(patch: Patch) -> None:
    """Who holds one session gets the deferred messages of the others (DEF-5)."""

    def any_session(
        queue: Queue, sequence: int, _session: Session | None, command: ReceiveDeferred
    ) -> bool:
        deferred = queue.deferred.get(sequence)
        is_free = deferred is not None and not deferred.grant
        return is_free and (sequence in queue.dead_order) == command.dead_letter

    patch.setattr(deferral, "_is_there", any_session)


def expiry_leaves_deferred_messages_in_hand(patch: Patch) -> None:
    """When a session's lock ends, its deferred messages stay with who held it (DEF-3, I-3)."""
    patch.setattr(receiving, "end_hand", lambda *_, **__: None)
    patch.setattr(expiry, "end_hand", lambda *_, **__: None)


def deferred_messages_fail_for_ever(patch: Patch) -> None:
    """A deferred message is put back however often it failed (DEF-8)."""

    def put_back(queue: Queue, sequence: int, cause: str, _why: str, step: Step) -> None:
        queue.count_failure(sequence, cause, step)
        queue.defer_again(sequence, step)

    patch.setattr(deferral, "fail_or_put_back", put_back)
    patch.setattr(expiry, "fail_or_put_back", put_back)


# --- delays ------------------------------------------------------------------------------------------


def delays_end_at_a_restart(patch: Patch) -> None:
    """After a restart, what was abandoned with a delay is delivered at once (ADD-6)."""
    rows = memory._snapshot

    def hasty(tables: Any) -> snapshot.Snapshot:
        return replace(rows(tables), delays=[])

    patch.setattr(memory, "_snapshot", hasty)


def sessions_do_not_wait_for_delays(patch: Patch) -> None:
    """Younger messages of a session are delivered before a delayed one (ADD-6)."""
    peek = Session.peek_deliverable

    def all_but(self: Session, maximum: int) -> Any:
        delayed, self.delayed = self.delayed, []
        try:
            return peek(self, maximum)
        finally:
            self.delayed = delayed

    patch.setattr(Session, "peek_deliverable", all_but)


# --- duplicates --------------------------------------------------------------------------------------


def ids_are_forgotten_at_a_restart(patch: Patch) -> None:
    """After a restart, no message is a duplicate (DUP-3, DUP-8)."""
    patch.setattr(snapshot, "restore_ids", lambda *_: None)


def ids_are_forgotten_early(patch: Patch) -> None:
    """The window of duplicate detection ends when half of it is over (DUP-3)."""
    forget = History.forget
    patch.setattr(History, "forget", lambda self, before_ms: forget(self, before_ms + 10_000))

    def noted(
        partition: Partition, queue: Queue, chunk: int, known: dict[Key, int], step: Step
    ) -> None:
        note(partition, queue, chunk, known, step)
        partition.deadlines.add(step.now_ms + 10_000, Subject("duplicates", queue.number))

    note = duplicates.note_ids
    patch.setattr(sending, "note_ids", noted)


def duplicates_lengthen_the_window(patch: Patch) -> None:
    """An id is known for the window from its last copy on (DUP-3)."""
    find = History.find

    def seen_again(self: History, key: Key) -> int | None:
        number = find(self, key)
        for at, batch in enumerate(self._batches):
            if number is not None and key in batch.keys:
                self._batches[at] = batch._replace(at_ms=batch.at_ms + 5000)
        return number

    patch.setattr(History, "find", seen_again)


def duplicates_in_one_send_are_stored(patch: Patch) -> None:
    """Two messages of one send with the same id are both stored (DUP-2, DUP-5)."""
    keys_of = duplicates.keys_of

    def distinct(queue: Queue, message_ids: Any, session_ids: Any) -> list[Key | None]:
        known: set[Key | None] = set()
        keys: list[Key | None] = []
        for key in keys_of(queue, message_ids, session_ids):
            keys.append(None if key in known else key)
            known.add(key)
        return keys

    patch.setattr(sending, "keys_of", distinct)


# --- browse ------------------------------------------------------------------------------------------


def browse_leaves_out_what_is_scheduled(patch: Patch) -> None:
    """A browse does not show scheduled messages (PEK-2)."""
    browse = _HANDLERS[Browse]
    numbers = MessageLog.numbers

    def shorter(partition: Partition, command: Browse, step: Step) -> Any:
        waiting = partition.queue(command.entity).scheduled

        def active(self: MessageLog, first: int, most: int, without: Any) -> list[int]:
            return numbers(self, first, most, {*without, *waiting})

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(MessageLog, "numbers", active)
            return browse(partition, command, step)

    patch.setitem(_HANDLERS, Browse, shorter)


# --- order and figures -------------------------------------------------------------------------------


def sessions_are_told_youngest_first(patch: Patch) -> None:
    """A receive of a session answers with its messages in the wrong order (I-2)."""
    receive = _HANDLERS[Receive]
    delivered = Queue.delivered

    def reversed_(self: Queue, sequences: array[int], **how: Any) -> Any:
        return delivered(self, sequences[::-1], **how)

    def wrong_way(partition: Partition, command: Receive, step: Step) -> Any:
        if command.session is None:
            return receive(partition, command, step)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Queue, "delivered", reversed_)
            return receive(partition, command, step)

    patch.setitem(_HANDLERS, Receive, wrong_way)


def numbers_come_again_after_a_restart(patch: Patch) -> None:
    """After a restart, the numbers of messages that are gone are given out again (I-7)."""
    rows = memory._snapshot

    def counted(tables: Any) -> snapshot.Snapshot:
        found = rows(tables)
        last: dict[int, int] = {}
        chunks = {chunk.chunk: chunk for chunk in found.chunks}
        for chunk in chunks.values():
            end = chunk.first_sequence + len(chunk.sizes) // array("I").itemsize - 1
            last[chunk.entity] = max(last.get(chunk.entity, 0), end)
        for moved in found.moved:
            entity, end = (
                chunks[moved.chunk].entity,
                moved.first_sequence + moved.last - moved.first,
            )
            last[entity] = max(last[entity], end)
        counters = [
            row._replace(last_sequence=last.get(row.entity, row.last_sequence >> 48 << 48))
            for row in found.counters
        ]
        return replace(found, counters=counters)

    patch.setattr(memory, "_snapshot", counted)


def deferred_messages_are_in_no_figure(patch: Patch) -> None:
    """Deferred messages do not count as active (I-9)."""
    runtime_of = looking.runtime_of

    def fewer(queue: Queue) -> Any:
        found = runtime_of(queue)
        return replace(found, active=found.active - found.deferred)

    patch.setattr(looking, "runtime_of", fewer)


MUTATIONS: tuple[Mutation, ...] = (
    sessions_are_told_youngest_first,
    numbers_come_again_after_a_restart,
    deferred_messages_are_in_no_figure,
    expired_messages_are_delivered,
    sessions_do_not_expire,
    sessions_expire_message_by_message,
    expiry_takes_from_the_hand,
    expired_messages_come_back,
    expired_messages_wait_for_their_delays,
    expired_messages_are_always_dropped,
    expired_deferred_messages_are_delivered,
    schedules_end_at_a_restart,
    cancelled_messages_become_active,
    cancellation_takes_what_it_finds,
    scheduled_messages_count_as_active,
    deferral_counts_nothing,
    deferred_messages_are_delivered_to_all,
    deferred_messages_of_any_session,
    expiry_leaves_deferred_messages_in_hand,
    deferred_messages_fail_for_ever,
    delays_end_at_a_restart,
    sessions_do_not_wait_for_delays,
    ids_are_forgotten_at_a_restart,
    ids_are_forgotten_early,
    duplicates_lengthen_the_window,
    duplicates_in_one_send_are_stored,
    browse_leaves_out_what_is_scheduled,
)
