"""What a partition does with messages whose time to live is over (section 7 of the contract).

Here belongs when a message expires, and where it goes then. Never here: who asks for messages
(`receiving`). The laws: no message is delivered after its expiry (I-8); it is looked for only where somebody asks
for it, never by a scan of the store (TTL-4); who has it in hand at that moment may still settle it (TTL-5); with
one message of a session its whole session expires, unless the queue says otherwise (TTL-6, TTL-7).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lockstep.core.deadlines import Subject
from lockstep.core.decision import Wake
from lockstep.core.entity import WHOLE_SESSION, QueueSettings
from lockstep.core.ids import SessionId
from lockstep.core.locks import time_text
from lockstep.core.replies import DeadLetterInfo

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.plain import PlainStore
    from lockstep.core.queue import Queue, Step
    from lockstep.core.session import Session

EXPIRED_REASON = "TTLExpiredException"
_AT_ONCE_MAX = 4096  # of a plain queue in one step; the rest follows in the next ones


def effective_ttls(
    given: tuple[int, ...], settings: QueueSettings, count: int
) -> array[int] | None:
    """Return how long each message lives, in ms, 0 = for ever; None = all live for ever (TTL-1).

    Args:
        given: What the sender set, one for all messages or one each; 0 = nothing; empty = nothing for any.
        settings: Of the queue; its default is a ceiling too.
        count: How many messages there are.
    """
    most = settings.default_message_time_to_live_ms
    if not any(given) and most is None:
        return None
    ttls = given if len(given) == count else (given or (0,)) * count
    if most is None:
        return array("q", ttls)
    return array("q", (min(ttl, most) if ttl else most for ttl in ttls))


def ends(ttls: Sequence[int], enqueued_ms: int) -> array[int]:
    """Return when messages expire that are enqueued now, 0 = never (TTL-2)."""
    return array("q", (enqueued_ms + ttl if ttl else 0 for ttl in ttls))


def earliest(expiries: Sequence[int]) -> int:
    """Return the earliest end; 0 = there is none."""
    return min(filter(None, expiries), default=0)


def is_over(queue: Queue, sequence: int, now_ms: int) -> bool:
    """Whether a message has expired."""
    return queue.log.has_expiries and 0 < queue.log.expires_ms(sequence) <= now_ms


def expire_in_session(queue: Queue, session: Session, step: Step) -> None:
    """Take what has expired, and what goes with it, out of a session; what is in its holder's hand stays (TTL-7).

    The queue's books must be brought up to date afterwards (`Queue.reindex`).
    """
    if not 0 < session.expires_ms <= step.now_ms:
        return
    trigger, going = expired_of_session(queue, session, step.now_ms)
    if going:
        session.take_out(going)
        if queue.delays:
            queue.end_delays(going, step)
        is_whole = expires_whole(queue)
        why = f"message {trigger} of the session expired" if is_whole else "it expired"
        collect(queue, going, session.session_id, why, trigger, step)
    if going or not trigger:  # or the one that would have expired first is gone
        session.expires_ms = earliest(queue.log.expiries(session.active()))


def expired_of_session(queue: Queue, session: Session, now_ms: int) -> tuple[int, Sequence[int]]:
    """Return the first active message of a session that has expired, 0 = none, and all that go then, rising."""
    if not 0 < session.expires_ms <= now_ms:  # which needs no look at its messages
        return 0, ()
    active = session.active()
    over = [s for s in active if is_over(queue, s, now_ms)]
    if not over:
        return 0, ()
    hand = set(session.in_hand())
    return over[0], [s for s in (active if expires_whole(queue) else over) if s not in hand]


def expires_whole(queue: Queue) -> bool:
    """Whether a session expires with one of its messages (TTL-6, TTL-7)."""
    return queue.definition.settings.session_expiry == WHOLE_SESSION


def ready_messages(
    partition: Partition, queue: Queue, store: PlainStore, maximum: int, step: Step
) -> array[int]:
    """Return what a receive from a plain queue gets, and take what has expired before it out of the way (TTL-4)."""
    chosen = store.peek_ready(maximum)
    left = _AT_ONCE_MAX
    while queue.log.has_expiries:
        over = [s for s in chosen if is_over(queue, s, step.now_ms)]
        if not over:
            break
        store.skip(chosen, set(over))
        for sequence in over:
            collect(queue, (sequence,), None, "it expired", sequence, step)
        left -= len(over)
        if left <= 0:
            partition.deadlines.add(step.now_ms + 1, Subject("expiring", queue.number))
            return array("q", (s for s in chosen if s not in set(over)))
        chosen = store.peek_ready(maximum)
    return chosen


def look_again(partition: Partition, subject: Subject, step: Step) -> None:
    """Go on where a receive met too many expired messages for one step."""
    queue = partition.queues_by_number.get(subject.entity)
    if queue is not None:
        ready_messages(partition, queue, queue.main, 1, step)
        step.wake[Wake(queue.number)] = None


def return_or_expire(queue: Queue, store: PlainStore, sequence: int, step: Step) -> None:
    """Put an unlocked message back where it belongs, or let it expire at once if its time is over (TTL-5)."""
    if sequence in queue.deferred:
        queue.defer_again(sequence, step)
    elif store is not queue.dead and is_over(queue, sequence, step.now_ms):
        collect(queue, (sequence,), None, "it expired while it was locked", sequence, step)
    else:
        store.give_back(sequence)


def collect(
    queue: Queue,
    going: Sequence[int],
    session_id: SessionId | None,
    why: str,
    trigger: int,
    step: Step,
) -> None:
    """Dead-letter or drop messages of one session that are in no place (TTL-3)."""
    settings = queue.definition.settings
    if settings.dead_lettering_on_message_expiration:
        at = time_text(queue.log.expires_ms(trigger))
        info = DeadLetterInfo(
            EXPIRED_REASON, f"The message was not settled in time: {why}, at {at}.", step.now_ms
        )
        queue.move_to_dead_letters(going, info, session_id, step, cause="expired")
    else:
        queue.forget(going, step)
    step.count(queue, "expired", "", len(going))
