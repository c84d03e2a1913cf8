"""Why the next message is not being delivered (ADD-10).

Here belongs the answer for a session and for a message: the first cause in a closed list that applies, since when, and
what ends it. Never here: what a queue's figures say (`queue_figures`), or anything that changes something. The law: an
answer names what it saw, so that "my messages do not arrive" (SND-3) ends in a fact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockstep.core.commands import Explain
from lockstep.core.errors import InvalidRequest
from lockstep.core.ids import SessionId
from lockstep.core.limits import duration_text
from lockstep.core.locks import time_text
from lockstep.core.queue_figures import START_A_RECEIVER, disabled, explained, figures_of
from lockstep.core.replies import Cause, Explained

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step
    from lockstep.core.session import Session


def on_explain(partition: Partition, command: Explain, step: Step) -> Explained:
    """Say why the next message of a queue or session, or a certain message, is not delivered."""
    queue = partition.queue(command.entity)
    if command.session_id is not None and command.sequence:
        raise InvalidRequest("Name a session or a message, not both.")
    if command.sequence:
        return _of_message(queue, command, step.now_ms)
    if command.session_id is not None:
        if not queue.definition.settings.requires_session:
            raise InvalidRequest(f"{queue.path} has no sessions; explain the queue, or a message.")
        session = queue.sessions.get(command.session_id)
        return _disabled(queue) or _of_session(
            queue, command.session_id, session, command, step.now_ms
        )
    return explained(figures_of(queue, command.waiting), step.now_ms)


def _disabled(queue: Queue) -> Explained | None:
    definition = queue.definition
    return disabled(queue.path, definition.settings.status, definition.updated_ms)


# --- a session ---------------------------------------------------------------------------------------


def _of_session(
    queue: Queue, session_id: SessionId, session: Session | None, command: Explain, now_ms: int
) -> Explained:
    dead = queue.dead_in_session.get(session_id, 0)
    also = f" {dead} of its messages are dead letters." if dead else ""
    if session is None:
        return Explained(
            Cause.EMPTY,
            f"Session '{session_id}' of {queue.path} has no message and no state.{also}",
            "Send a message with exactly this session id; upper and lower case differ.",
        )
    if session.is_held:
        return _of_holder(queue, session)
    if session.is_runnable:
        ready = session.deliverable_count
        since = max(session.released_ms, queue.log.enqueued_ms(session.oldest_active))
        if command.waiting:
            return Explained(
                Cause.DELIVERABLE,
                f"{ready} messages are ready and {command.waiting} receivers wait on {queue.path}: one gets the session"
                " now, unless they wait for others by name.",
                "Nothing; ask again.",
                since_ms=since,
            )
        return Explained(
            Cause.NO_RECEIVER,
            f"{ready} messages of session '{session_id}' are ready, nobody holds it and no receiver waits.",
            START_A_RECEIVER,
            since_ms=since,
        )
    return _of_free_session(queue, session, now_ms, also)


def _of_holder(queue: Queue, session: Session) -> Explained:
    whom = f"'{session.holder}'" if session.holder else "a receiver without a name"
    where = f" at {session.address}" if session.address else ""
    hand, left = session.in_hand_count + len(session.deferred_hand), session.deliverable_count
    return Explained(
        Cause.HELD,
        f"Session '{session.session_id}' of {queue.path} is held by {whom}{where} since"
        f" {time_text(session.granted_ms)} (grant {session.grant}, renewed {session.renewals} times); {hand} messages"
        f" are in its hand and {left} it can still receive.",
        "The holder settles and receives, gives the session back, or lets the lock run out; or break the lock.",
        since_ms=session.granted_ms,
        until_ms=session.locked_until_ms,
    )


def _of_free_session(queue: Queue, session: Session, now_ms: int, also: str) -> Explained:
    name = f"Session '{session.session_id}' of {queue.path}"
    if session.delayed:
        until = queue.delays[session.delayed[0]].until_ms
        return Explained(
            Cause.DELAYED,
            f"{name} waits: message {session.delayed[0]} was abandoned with a delay of which"
            f" {duration_text(until - now_ms)} are left, and nothing younger goes before it.",
            "The delay ends.",
            until_ms=until,
        )
    if session.scheduled:
        mine = (m for m in queue.scheduled.values() if m.session_id == session.session_id)
        until = min(message.due_ms for message in mine)
        return Explained(
            Cause.SCHEDULED,
            f"{name} has {session.scheduled} scheduled messages; the first is due in {duration_text(until - now_ms)}.",
            "Its time comes.",
            until_ms=until,
        )
    if session.deferred:
        return Explained(
            Cause.DEFERRED,
            f"{name} has only {session.deferred} deferred messages left.",
            "A holder receives them by their sequence numbers.",
        )
    state = (
        f" a state of {session.state_bytes} bytes and" if session.state_bytes is not None else ""
    )
    return Explained(
        Cause.EMPTY,
        f"{name} has{state} no messages.{also}",
        "Send a message with this session id.",
        since_ms=session.released_ms,
    )


# --- a message ---------------------------------------------------------------------------------------


def _of_message(queue: Queue, command: Explain, now_ms: int) -> Explained:
    sequence = command.sequence
    name = f"Message {sequence} of {queue.path}"
    if not queue.log.holds(sequence):
        if sequence > queue.log.last_sequence:
            return Explained(
                Cause.GONE,
                f"{name} was never sent: the last number is {queue.log.last_sequence}.",
                "Check the number, and the path that the sender uses.",
            )
        return Explained(
            Cause.GONE,
            f"{name} is stored no more: it was completed, received for good, cancelled, purged or expired, or has a new"
            " number since it became active or was resubmitted.",
            "Nothing; it is not waiting.",
        )
    aside = _of_message_aside(queue, sequence, name, now_ms)
    if aside is not None:
        return aside
    session = _session_of(queue, sequence)
    if session is not None:
        return _of_message_in_session(queue, session, sequence, name, command, now_ms)
    for held in queue.main.grants.values():
        if sequence in held:
            return Explained(
                Cause.HELD,
                f"{name} is locked by a receiver.",
                "The receiver settles it, or the lock runs out.",
                until_ms=held[sequence],
            )
    return explained(figures_of(queue, command.waiting), now_ms)


def _of_message_aside(queue: Queue, sequence: int, name: str, now_ms: int) -> Explained | None:
    if sequence in queue.scheduled:
        due = queue.scheduled[sequence].due_ms
        return Explained(
            Cause.SCHEDULED,
            f"{name} is scheduled and due in {duration_text(due - now_ms)}.",
            "Its time comes, or somebody cancels it.",
            until_ms=due,
        )
    if sequence in queue.dead_order:
        info = queue.dead_info[sequence]
        return Explained(
            Cause.DEAD_LETTERED,
            f"{name} is a dead letter: {info.reason or 'no reason given'}. {info.description}".strip(),
            "Repair the cause, then resubmit it.",
            since_ms=info.at_ms,
        )
    if sequence in queue.deferred:
        return Explained(
            Cause.HELD if queue.deferred[sequence].grant else Cause.DEFERRED,
            f"{name} is deferred"
            + (" and in the hand of a receiver." if queue.deferred[sequence].grant else "."),
            "A receiver asks for it by its number.",
        )
    if sequence in queue.delays:
        until = queue.delays[sequence].until_ms
        return Explained(
            Cause.DELAYED,
            f"{name} was abandoned with a delay of which {duration_text(until - now_ms)} are left.",
            "The delay ends.",
            until_ms=until,
        )
    return None


def _session_of(queue: Queue, sequence: int) -> Session | None:
    for session in queue.sessions.values():
        if session.has(sequence):
            return session
    return None


def _of_message_in_session(
    queue: Queue, session: Session, sequence: int, name: str, command: Explain, now_ms: int
) -> Explained:
    if session.is_in_hand(sequence):
        return _of_holder(queue, session)
    ahead = session.count_before(sequence)
    of_session = _disabled(queue) or _of_session(
        queue, session.session_id, session, command, now_ms
    )
    if not ahead or of_session.cause is Cause.DELAYED:
        return of_session
    return Explained(
        Cause.BEHIND,
        f"{name} is behind {ahead} older messages of session '{session.session_id}'. {of_session.sentence}",
        of_session.remedy,
        of_session.since_ms,
        of_session.until_ms,
    )
