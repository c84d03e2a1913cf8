"""Why the next message is not being delivered (ADD-10).

Here belongs the answer for a queue, for a session and for a message: the first cause in a closed list that applies,
since when, and what ends it. Never here: anything that changes something. The law: an answer names what it saw, so
that "my messages do not arrive" (SND-3) ends in a fact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockstep.core.commands import Explain
from lockstep.core.entity import RECEIVING_FORBIDDEN
from lockstep.core.errors import InvalidRequest
from lockstep.core.ids import SessionId
from lockstep.core.limits import duration_text
from lockstep.core.locks import time_text
from lockstep.core.looking import runtime_of
from lockstep.core.replies import Cause, Explained, Runtime

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step
    from lockstep.core.session import Session

_START_A_RECEIVER = "Start a receiver, or look why the one that should run does not."


def on_explain(partition: Partition, command: Explain, step: Step) -> Explained:
    """Say why the next message of a queue or session, or a certain message, is not delivered."""
    queue = partition.queue(command.entity)
    if command.session_id is not None and command.sequence:
        raise InvalidRequest("Name a session or a message, not both.")
    if command.sequence:
        return _of_message(queue, command, step.now_ms)
    disabled = _disabled(queue)
    if command.session_id is not None:
        if not queue.definition.settings.requires_session:
            raise InvalidRequest(f"{queue.path} has no sessions; explain the queue, or a message.")
        session = queue.sessions.get(command.session_id)
        return disabled or _of_session(queue, command.session_id, session, command, step.now_ms)
    return disabled or _of_queue(queue, command, step.now_ms)


def _disabled(queue: Queue) -> Explained | None:
    definition = queue.definition
    if definition.settings.status not in RECEIVING_FORBIDDEN:
        return None
    return Explained(
        Cause.DISABLED,
        f"{queue.path} has the status {definition.settings.status}, which forbids receiving.",
        "Set its status to active.",
        since_ms=definition.updated_ms,
    )


# --- a queue -----------------------------------------------------------------------------------------


def _of_queue(queue: Queue, command: Explain, now_ms: int) -> Explained:
    runtime = runtime_of(queue)
    facts = _facts(queue, runtime, command)
    explained = _of_contents(queue, runtime, command, now_ms)
    if explained.cause is Cause.EMPTY and queue.size_bytes >= queue.size_bytes_max:
        explained = Explained(
            Cause.QUOTA,
            f"{queue.path} is full with dead letters and states: {queue.size_bytes} of {queue.size_bytes_max} bytes, so"
            " sends are refused.",
            "Receive, resubmit or purge dead letters, purge states, or raise max_size_in_megabytes.",
        )
    return Explained(
        explained.cause,
        explained.sentence,
        explained.remedy,
        explained.since_ms,
        explained.until_ms,
        facts,
    )


def _of_contents(queue: Queue, runtime: Runtime, command: Explain, now_ms: int) -> Explained:
    if queue.definition.settings.requires_session:
        ready = len(queue.runnable)
        what = f"Free sessions with messages: {ready}"
    else:
        ready = queue.main.ready_count
        what = f"Ready messages: {ready}"
    if ready and command.waiting:
        return Explained(
            Cause.DELIVERABLE,
            f"{what}. Receivers that wait: {command.waiting}; they get them now.",
            "Nothing; ask again.",
        )
    if ready:
        last = _last_delivery(queue)
        return Explained(Cause.NO_RECEIVER, f"{what}. No receiver waits. {last}", _START_A_RECEIVER)
    held = sum(1 for s in queue.sessions.values() if s.is_held and s.active_count)
    if held:
        return Explained(
            Cause.HELD,
            f"{held} sessions with messages are held by receivers, and no other session has a message to deliver.",
            "Their receivers receive, give them back, or lose them; list the held sessions to see whose they are.",
        )
    if runtime.locked:
        until = min(min(held.values()) for held in queue.main.grants.values())
        return Explained(
            Cause.HELD,
            f"All {runtime.locked} messages that are left are locked by receivers.",
            "They are settled, or their locks run out.",
            until_ms=until,
        )
    return _of_the_rest(queue, runtime, now_ms)


def _of_the_rest(queue: Queue, runtime: Runtime, now_ms: int) -> Explained:
    """Explain a queue of which nothing is ready and nothing locked."""
    delays = [delay for sequence, delay in queue.delays.items() if sequence not in queue.dead_order]
    if delays:
        until = min(delay.until_ms for delay in delays)
        return Explained(
            Cause.DELAYED,
            f"{len(delays)} messages wait for the delay of an abandon.",
            "The delay ends.",
            until_ms=until,
        )
    if runtime.scheduled:
        until = min(message.due_ms for message in queue.scheduled.values())
        return Explained(
            Cause.SCHEDULED,
            f"{runtime.scheduled} messages are scheduled; the first is due in {duration_text(until - now_ms)}.",
            "Its time comes.",
            until_ms=until,
        )
    if runtime.deferred:
        return Explained(
            Cause.DEFERRED,
            f"Only {runtime.deferred} deferred messages are left.",
            "Somebody receives them by their sequence numbers.",
        )
    sent = queue.activity.sent_ms
    when = (
        f"the last message came at {time_text(sent)}" if sent else "none came since it was opened"
    )
    dead = f" {runtime.dead_letters} are dead letters." if runtime.dead_letters else ""
    return Explained(
        Cause.EMPTY,
        f"{queue.path} has no message to deliver; {when}.{dead} {_last_delivery(queue)}",
        f"Send to exactly {queue.path}; check the path that the sender uses.",
        since_ms=queue.activity.delivered_ms,
    )


def _last_delivery(queue: Queue) -> str:
    activity = queue.activity
    if not activity.delivered_ms:
        return "Nobody has received from it since it was opened."
    whom = f" to '{activity.receiver}'" if activity.receiver else ""
    return f"The last delivery was at {time_text(activity.delivered_ms)}{whom}."


def _facts(queue: Queue, runtime: Runtime, command: Explain) -> tuple[tuple[str, str], ...]:
    activity, settings = queue.activity, queue.definition.settings
    values: dict[str, object] = {
        "path": queue.path,
        "status": settings.status,
        "waiting_receivers": command.waiting,
        "active": runtime.active,
        "locked": runtime.locked,
        "delayed": runtime.delayed,
        "scheduled": runtime.scheduled,
        "deferred": runtime.deferred,
        "dead_letters": runtime.dead_letters,
        "held_sessions": runtime.locked_sessions,
        "free_sessions": runtime.runnable_sessions,
        "size_bytes": f"{runtime.size_bytes} of {queue.size_bytes_max}",
        "last_sent": time_text(activity.sent_ms) if activity.sent_ms else "",
        "last_delivered": time_text(activity.delivered_ms) if activity.delivered_ms else "",
        "last_receiver": activity.receiver,
        "accept_next": settings.accept_next if settings.requires_session else "",
    }
    return tuple((name, str(value)) for name, value in values.items() if value != "")


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
            _START_A_RECEIVER,
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
    return _disabled(queue) or _of_queue(queue, command, now_ms)


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
