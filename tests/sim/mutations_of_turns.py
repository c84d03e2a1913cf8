"""The broker with one guard taken out at a time: turns of a session, changed properties, recalled messages.

`mutations` says why our own code may be patched here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lockstep.core import settling, snapshot, turning
from lockstep.core.commands import Settlement, TakeTurn
from lockstep.core.errors import StateConflict
from lockstep.core.ids import RequestId, SessionLock
from lockstep.core.locks import session_lock_lost
from lockstep.core.partition import _HANDLERS, Partition
from lockstep.core.queue import Queue, Step
from lockstep.core.session import Session
from lockstep.storage import memory
from tests.sim.mutations import Mutation, Patch

# --- turns -------------------------------------------------------------------------------------------


def turns_go_on_without_their_state(patch: Patch) -> None:
    """A turn whose state has another version does the rest of it (ADD-8)."""
    take_turn = _HANDLERS[TakeTurn]

    def what_goes(partition: Partition, command: TakeTurn, step: Step) -> Any:
        try:
            return take_turn(partition, command, step)
        except StateConflict:
            rest = replace(command, sets_state=False, if_version=None)
            return take_turn(partition, rest, step)

    patch.setitem(_HANDLERS, TakeTurn, what_goes)


def turns_of_anybody(patch: Patch) -> None:
    """A turn is taken under whatever grant (ADD-8, I-4)."""

    def any_holder(partition: Partition, queue: Queue, lock: SessionLock) -> Session:
        session = queue.sessions.get(lock.session_id)
        if session is None or not session.is_held:
            raise session_lock_lost(partition, queue, lock)
        return session

    patch.setattr(turning, "find_held", any_holder)


def no_memory_of_turns(patch: Patch) -> None:
    """A repeated turn is carried out again (ADD-3)."""
    repeated = Partition.repeated

    def forgetful(
        self: Partition, request: RequestId | None, fingerprint: int, kind: str
    ) -> tuple[Any, ...] | None:
        return None if kind == "turn" else repeated(self, request, fingerprint, kind)

    patch.setattr(Partition, "repeated", forgetful)


# --- settlements -------------------------------------------------------------------------------------


def properties_of_any_message(patch: Patch) -> None:
    """A settlement sets properties on messages that its sender has not in hand (MSG-8, I-4)."""

    def any_message(_session: Session, _settlement: Settlement) -> Any:
        return lambda _sequence: True

    patch.setattr(settling, "_is_in_hand_of", any_message)


def changes_are_forgotten_at_a_restart(patch: Patch) -> None:
    """After a restart, messages are as they were sent (MSG-8)."""
    rows = memory._snapshot

    def unchanged(tables: Any) -> snapshot.Snapshot:
        return replace(rows(tables), amendments=[])

    patch.setattr(memory, "_snapshot", unchanged)


def nothing_is_recalled(patch: Patch) -> None:
    """What is younger than an abandoned message stays in hand, whatever the queue says (SES-29)."""
    patch.setattr(settling, "_recall", lambda *_: None)


def recalled_messages_count(patch: Patch) -> None:
    """A recalled message counts as a failed delivery (SES-29)."""
    recall = settling._recall

    def counted(queue: Queue, session: Session, oldest: int, step: Step) -> None:
        for sequence in session.in_hand():
            if sequence > oldest:
                queue.count_failure(sequence, "abandoned", step)
        recall(queue, session, oldest, step)

    patch.setattr(settling, "_recall", counted)


MUTATIONS: tuple[Mutation, ...] = (
    turns_go_on_without_their_state,
    turns_of_anybody,
    no_memory_of_turns,
    properties_of_any_message,
    changes_are_forgotten_at_a_restart,
    nothing_is_recalled,
    recalled_messages_count,
)
