"""Why the next message is not being delivered (ADD-10).

Here belongs the answer for a session and for a message: the first cause in a closed list that applies, since when, and
what ends it. Never here: what a queue's figures say (`queue_figures`), or anything that changes something. The law: an
answer names what it saw, so that "my messages do not arrive" (SND-3) ends in a fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lockstep.core.commands import Explain
from lockstep.core.entity import SENDING_FORBIDDEN
from lockstep.core.errors import InvalidRequest
from lockstep.core.expiring import expired_of_session, is_over
from lockstep.core.ids import SessionId
from lockstep.core.jobs import Job
from lockstep.core.limits import duration_text
from lockstep.core.locks import time_text
from lockstep.core.queue_figures import (
    LIVE_LONGER,
    START_A_RECEIVER,
    closed,
    deliverable_of,
    disabled,
    explained,
    fate,
    figures_of,
)
from lockstep.core.replies import Cause, Explained
from lockstep.core.wording import are, counted, have

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
    return explained(figures_of(queue, command.waiting, step.now_ms), step.now_ms)


def _disabled(queue: Queue) -> Explained | None:
    definition = queue.definition
    return disabled(queue.path, definition.settings.status, definition.updated_ms)


# --- a session ---------------------------------------------------------------------------------------


def _of_session(
    queue: Queue, session_id: SessionId, session: Session | None, command: Explain, now_ms: int
) -> Explained:
    dead = queue.dead_in_session.get(session_id, 0)
    also = f" It has {counted(dead, 'dead letter')}." if dead else ""
    name = f"Session '{session_id}' of {queue.path}"
    if session is None:
        empty = f"{name} has no message and no state.{also}"
        advice = "Send a message with exactly this session id; upper and lower case differ."
        return _closed(queue, empty) or Explained(Cause.EMPTY, empty, advice)
    trigger, going = expired_of_session(queue, session, now_ms)
    if session.is_held:
        waits = None if going else _of_delay_under_a_lock(queue, session, now_ms)
        return waits or _of_holder(queue, session, going)
    ready = deliverable_of(session, going)
    if going and not ready:
        why = f"{name} has no message to deliver: message {trigger} expired at"
        return _of_expired(queue, why, trigger, also)
    if session.is_runnable:
        since = max(session.released_ms, queue.log.enqueued_ms(session.oldest_active))
        if command.waiting:
            return Explained(
                Cause.DELIVERABLE,
                f"{counted(ready, 'message')} {are(ready)} ready, and of {counted(command.waiting, 'receiver')} that"
                f" {'waits' if command.waiting == 1 else 'wait'} on {queue.path} one gets the session now, unless"
                " others are asked for by name.",
                "Nothing; ask again.",
                since_ms=since,
            )
        return Explained(
            Cause.NO_RECEIVER,
            f"{counted(ready, 'message')} of session '{session_id}' {are(ready)} ready, nobody holds it and no"
            " receiver waits.",
            START_A_RECEIVER,
            since_ms=since,
        )
    return _of_free_session(queue, session, name, now_ms, also)


def _closed(queue: Queue, empty: str) -> Explained | None:
    """Say of what is empty that nothing may be sent; None = it may."""
    definition = queue.definition
    status = definition.settings.status
    if status not in SENDING_FORBIDDEN:
        return None
    return closed(queue.path, status, definition.updated_ms, empty)


def _of_expired(queue: Queue, why: str, trigger: int, more: str = "") -> Explained:
    """Explain what waits to be taken away because a message expired (TTL-4)."""
    expired_ms = queue.log.expires_ms(trigger)
    what = fate(keeps_expired=queue.definition.settings.dead_lettering_on_message_expiration)
    return Explained(
        Cause.EXPIRED,
        f"{why} {time_text(expired_ms)}. What has expired is {what}.{more}",
        LIVE_LONGER,
        since_ms=expired_ms,
    )


def _holder_of(session: Session) -> str:
    whom = f"'{session.holder}'" if session.holder else "a receiver without a name"
    return f"{whom} at {session.address}" if session.address else whom


def _of_holder(queue: Queue, session: Session, going: Sequence[int] = ()) -> Explained:
    hand = session.in_hand_count + len(session.deferred_hand)
    left = deliverable_of(session, going)
    expired = f" {counted(len(going), 'message')} {have(len(going))} expired." if going else ""
    return Explained(
        Cause.HELD,
        f"Session '{session.session_id}' of {queue.path} is held by {_holder_of(session)} since"
        f" {time_text(session.granted_ms)} (grant {session.grant}, renewed {counted(session.renewals, 'time')});"
        f" {counted(hand, 'message')} {are(hand)} in its hand and it can still receive {left}.{expired}",
        "The holder settles and receives, gives the session back, or lets the lock run out; or break the lock.",
        since_ms=session.granted_ms,
        until_ms=session.locked_until_ms,
    )


def _of_delay_under_a_lock(queue: Queue, session: Session, now_ms: int) -> Explained | None:
    """Explain a held session whose holder gets nothing before a delay ends; None = it can get something."""
    if not session.delayed or session.oldest_deliverable:
        return None
    until = queue.delays[session.delayed[0]].until_ms
    hand = session.in_hand_count + len(session.deferred_hand)
    return Explained(
        Cause.DELAYED,
        f"Session '{session.session_id}' of {queue.path} is held by {_holder_of(session)}, with"
        f" {counted(hand, 'message')} in its hand, and waits: message {session.delayed[0]} was abandoned with a delay"
        f" of which {duration_text(until - now_ms)} are left, and nothing younger goes before it.",
        "The delay ends; a broken lock would not shorten it.",
        until_ms=until,
    )


def _of_free_session(
    queue: Queue, session: Session, name: str, now_ms: int, also: str
) -> Explained:
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
            f"{name} has {counted(session.scheduled, 'scheduled message')}; the first is due in"
            f" {duration_text(until - now_ms)}.",
            "Its time comes.",
            until_ms=until,
        )
    if session.deferred:
        return Explained(
            Cause.DEFERRED,
            f"{name} has only {counted(session.deferred, 'deferred message')} left.",
            "A holder receives what is deferred by its sequence number.",
        )
    size = session.state_bytes
    state = f" a state of {counted(size, 'byte')} and" if size is not None else ""
    empty = f"{name} has{state} no messages.{also}"
    advice = "Send a message with this session id."
    return _closed(queue, empty) or Explained(
        Cause.EMPTY, empty, advice, since_ms=session.released_ms
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
    session = _session_of(queue, sequence)
    trigger, going = expired_of_session(queue, session, now_ms) if session is not None else (0, ())
    if is_over(queue, sequence, now_ms) and sequence in going:
        return _of_expired(queue, f"{name} expired at", sequence)
    if sequence in going:
        why = f"{name} goes with message {trigger} of its session, which expired at"
        return _of_expired(queue, why, trigger)
    aside = _of_message_aside(queue, sequence, name, now_ms)
    if aside is not None:
        return aside
    if session is not None:
        return _of_message_in_session(queue, session, sequence, name, command, now_ms, going)
    for held in queue.main.grants.values():
        if sequence in held:
            return Explained(
                Cause.HELD,
                f"{name} is locked by a receiver.",
                "The receiver settles it, or the lock runs out.",
                until_ms=held[sequence],
            )
    if is_over(queue, sequence, now_ms):
        return _of_expired(queue, f"{name} expired at", sequence)
    return explained(figures_of(queue, command.waiting, now_ms), now_ms)


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
        job = _job_that_takes(queue, sequence)
        what = f"{name} is a dead letter: {info.reason or 'no reason given'}. {info.description}"
        if job is not None:
            what = f"{what.strip()} Job {job.number} is taking it to another partition."
        return Explained(
            Cause.DEAD_LETTERED,
            what.strip(),
            "Repair the cause, then resubmit it." if job is None else "It arrives there.",
            since_ms=info.at_ms,
        )
    if sequence in queue.deferred:
        is_in_hand = queue.deferred[sequence].grant != 0
        if not is_in_hand and is_over(queue, sequence, now_ms):
            return _of_expired(queue, f"{name} is deferred and expired at", sequence)  # TTL-9
        return Explained(
            Cause.HELD if is_in_hand else Cause.DEFERRED,
            f"{name} is deferred" + (" and in the hand of a receiver." if is_in_hand else "."),
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


def _job_that_takes(queue: Queue, sequence: int) -> Job | None:
    """Return the job that has a dead letter on the way to another partition."""
    for job in queue.jobs.values():
        if any(sequence in queue.dead.grants.get(t.grant, ()) for t in job.transfers):
            return job
    return None


def _session_of(queue: Queue, sequence: int) -> Session | None:
    for session in queue.sessions.values():
        if session.has(sequence):
            return session
    return None


def _of_message_in_session(
    queue: Queue,
    session: Session,
    sequence: int,
    name: str,
    command: Explain,
    now_ms: int,
    going: Sequence[int],
) -> Explained:
    if session.is_in_hand(sequence):
        return _of_holder(queue, session)
    ahead = session.count_before(sequence) - sum(gone < sequence for gone in going)
    of_session = _disabled(queue) or _of_session(
        queue, session.session_id, session, command, now_ms
    )
    if not ahead or of_session.cause is Cause.DELAYED:
        return of_session
    return Explained(
        Cause.BEHIND,
        f"{name} is behind {counted(ahead, 'older message')} of session '{session.session_id}'. {of_session.sentence}",
        of_session.remedy,
        of_session.since_ms,
        of_session.until_ms,
    )
