"""What a partition does about accepts and receives whose answer did not arrive.

Here belong cancellation, and the note that a call found nothing (ADD-3, BAT-9, SES-15). Never here: the calls
themselves (`receiving`). The laws: undoing counts no delivery; what a client cancelled has no effect later; a call
whose connection was lost may come again, and counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lockstep.core.commands import Cancel, Disconnect, FindRequest, GiveUp
from lockstep.core.decision import Wake
from lockstep.core.ids import GrantNumber, SessionId
from lockstep.core.locks import DISCONNECTED, find_held
from lockstep.core.message import of_ranges
from lockstep.core.receiving import close_session
from lockstep.core.replies import Cancelled, Released, RequestFound
from lockstep.core.requests import CANCELLED, NOTHING

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step


def on_find_request(partition: Partition, command: FindRequest, _step: Step) -> RequestFound:
    """Say whether a copy of a call would be answered here with what the call did."""
    return RequestFound(partition.requests.peek(command.request) is not None)


def on_cancel(partition: Partition, command: Cancel, step: Step) -> Cancelled:
    """Undo an accept or a receive, or keep one that has not arrived from having an effect (BAT-9, SES-15)."""
    queue = partition.queue(command.entity)
    found = partition.requests.peek(command.request)
    if partition.requests.is_forgotten(command.request):
        return Cancelled(undone=False)
    if found is None and command.is_by_client:
        partition.remember(command.request, 0, (CANCELLED,), step)
    if found is None or (
        not command.is_by_client and partition.requests.is_repeated(command.request)
    ):
        return Cancelled(undone=False)
    kind, *facts = found.result
    undone = False
    if kind == "accept":
        undone = _undo_accept(partition, queue, SessionId(facts[0]), facts[1], step)
    elif kind in ("receive", "receive_deferred"):
        undone = _undo_receive(queue, facts[0], facts[1], facts[2], step)
    if undone and command.is_by_client:
        partition.remember(command.request, found.fingerprint, (CANCELLED,), step)
    elif undone:
        step.changes.extend(partition.requests.drop(command.request))
    return Cancelled(undone=undone)


def on_give_up(partition: Partition, command: GiveUp, step: Step) -> Cancelled:
    """Keep a late copy of a call that is answered with nothing from having an effect (ADD-3)."""
    requests = partition.requests
    if requests.peek(command.request) is None and not requests.is_forgotten(command.request):
        partition.remember(command.request, command.fingerprint, (NOTHING, command.kind), step)
    return Cancelled(undone=False)


def on_disconnect(partition: Partition, command: Disconnect, step: Step) -> Released:
    """Release what a receiver had whose stream broke, if the queue says so; else it may be at work still (RACE-19)."""
    queue = partition.queue(command.entity)
    if not queue.definition.settings.release_on_disconnect:
        return Released(0)
    if command.session is not None:
        session = find_held(partition, queue, command.session)
        return Released(close_session(partition, queue, session, step, cause=DISCONNECTED))
    by_grant: dict[GrantNumber, list[int]] = {}
    store = queue.plain(dead_letter=command.dead_letter)
    for grant, sequence in command.tokens:
        if store.is_locked(grant, sequence):
            by_grant.setdefault(grant, []).append(sequence)
    released = 0
    for grant, sequences in by_grant.items():
        released += give_back_plain(
            queue, grant, sequences, step, dead_letter=command.dead_letter, cause=DISCONNECTED
        )
    return Released(released)


def _undo_accept(
    partition: Partition, queue: Queue, session_id: SessionId, grant: int, step: Step
) -> bool:
    session = queue.sessions.get(session_id)
    if session is None or not session.is_held or session.grant != grant:
        return False
    close_session(partition, queue, session, step, cause=CANCELLED)
    return True


def _undo_receive(
    queue: Queue,
    session_id: str | None,
    grant: int,
    ranges: tuple[tuple[int, int], ...],
    step: Step,
) -> bool:
    if session_id is not None:
        return _undo_session_receive(queue, SessionId(session_id), grant, ranges, step)
    dead_letter = grant in queue.dead.grants
    mine = list(queue.plain(dead_letter=dead_letter).grants.get(grant, ()))
    return bool(give_back_plain(queue, grant, mine, step, dead_letter=dead_letter, cause=CANCELLED))


def give_back_plain(
    queue: Queue,
    grant: int,
    mine: Sequence[int],
    step: Step,
    *,
    dead_letter: bool,
    cause: str,
) -> int:
    """Let messages under a grant be free again, without counting, and return how many."""
    store = queue.plain(dead_letter=dead_letter)
    for sequence in mine:
        store.unlock(grant, sequence)
        if sequence in queue.deferred:
            queue.defer_again(sequence, step)
        else:
            store.give_back(sequence)
    if mine:
        queue.store_lock(grant, step, dead_letter=dead_letter)
        step.count(queue, "locks_released", f"message:{cause}", len(mine))
        step.wake[Wake(queue.number, dead_letter=dead_letter)] = None
    return len(mine)


def _undo_session_receive(
    queue: Queue, session_id: SessionId, grant: int, ranges: tuple[tuple[int, int], ...], step: Step
) -> bool:
    session = queue.sessions.get(session_id)
    if session is None or not session.is_held or session.grant != grant:
        return False
    mine = [sequence for sequence in of_ranges(ranges) if session.is_in_hand(sequence)]
    aside = [sequence for sequence in of_ranges(ranges) if sequence in session.deferred_hand]
    for sequence in aside:
        queue.defer_again(sequence, step)
    for sequence in mine:
        session.give_back(sequence)
    if mine:
        queue.store_session(session, step)
        step.wake[Wake(queue.number, session_id)] = None
    return bool(mine or aside)
