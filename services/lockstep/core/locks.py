"""Who holds what, and why somebody holds it no more.

Here belongs the check that every call under a lock begins with, and the memory of how locks ended. Never
here: how a lock is granted (`receiving`) or runs out (`expiry`). The law: a caller whose lock is gone
learns why and since when (P-4).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from lockstep.core.errors import EntityDisabled, InvalidOperation, MessageLockLost, SessionLockLost
from lockstep.core.ids import SessionLock
from lockstep.core.session import Session

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue

CLOSED = "closed"
EXPIRED = "expired"
GRACE_ENDED = "grace_ended"
DELETED = "entity_deleted"
BROKEN = "broken"
DISCONNECTED = "disconnected"
NEVER_HELD = "never_held"

_SENTENCES = {
    CLOSED: "its holder closed it",
    EXPIRED: "the lock ran out without a renewal",
    GRACE_ENDED: "its holder was not heard of after the broker's outage",
    DELETED: "its queue was deleted",
    BROKEN: "an administrator broke it",
    DISCONNECTED: "the stream of its holder broke, and the queue releases then",
    "cancelled": "the caller cancelled the accept that granted it",
}


def time_text(at_ms: int) -> str:
    """Return a time of day, in ms since the epoch, as people read it (RFC 3339, UTC)."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


class Loss(NamedTuple):
    """How a session's lock ended, and by whom where that is a person."""

    cause: str
    at_ms: int
    by: str = ""


class LossMemory:
    """How the last sessions' locks ended, by grant; a bounded number of them."""

    __slots__ = ("_forgotten", "_losses", "_most", "_since_ms")

    def __init__(self, most: int, since_ms: int) -> None:
        self._most = most
        self._since_ms = since_ms
        self._forgotten = 0  # no grant above it is forgotten
        self._losses: OrderedDict[int, Loss] = OrderedDict()

    def note(self, grant: int, cause: str, at_ms: int, by: str = "") -> None:
        """Keep how a grant ended, and forget the oldest when there are too many."""
        self._losses[grant] = Loss(cause, at_ms, by)
        if len(self._losses) > self._most:
            self.forget_up_to(self._losses.popitem(last=False)[0])

    def forget_up_to(self, grant: int) -> None:
        """Note that the end of a grant, or of one before it, may not be known any more."""
        self._forgotten = max(self._forgotten, grant)

    def explain(self, grant: int, last_grant: int) -> tuple[str, str, int]:
        """Return the cause of a grant's end, a sentence about it, and since when (0 = not known)."""
        if not 0 < grant <= last_grant:
            return "unknown", "this partition never granted that token", 0
        loss = self._losses.get(grant)
        if loss is None and grant > self._forgotten:
            return NEVER_HELD, "the token belongs to another session, or to no session", 0
        if loss is None:
            sentence = f"it ended before the broker opened the partition at {time_text(self._since_ms)}, or long ago"
            return "ended_earlier", sentence, 0
        return (
            loss.cause,
            f"{_SENTENCES[loss.cause]}{f' ({loss.by})' if loss.by else ''} at {time_text(loss.at_ms)}",
            loss.at_ms,
        )


def refuse_disabled(queue: Queue, forbidden: Container[str], what: str) -> None:
    """Refuse a call that the status of the queue forbids (section 16.1).

    Raises:
        EntityDisabled: The status is one of those that forbid it.
    """
    status = queue.definition.settings.status
    if status in forbidden:
        raise EntityDisabled(
            f"{queue.path} has the status {status}, which forbids {what}. Nothing was done. Set its status to active,"
            " or try again when somebody has.",
            details={"entity": queue.path, "status": status},
        )


def find_held(partition: Partition, queue: Queue, lock: SessionLock) -> Session:
    """Return the session that the lock holds. Who then does something under it calls `Session.hear_of_holder`.

    Raises:
        InvalidOperation: The queue has no sessions.
        SessionLockLost: The lock is not held under this grant (any more); the error says why.
    """
    if not queue.definition.settings.requires_session:
        raise InvalidOperation(
            f"{queue.path} has no sessions (RCV-3). Use it without one, or create it with requires_session.",
            details={"entity": queue.path},
        )
    session = queue.sessions.get(lock.session_id)
    if session is None or not session.is_held or session.grant != lock.grant:
        raise session_lock_lost(partition, queue, lock)
    return session


def session_lock_lost(partition: Partition, queue: Queue, lock: SessionLock) -> SessionLockLost:
    """Return the error for a lock that is not held, with everything that is known about why."""
    cause, sentence, at_ms = partition.losses.explain(lock.grant, partition.last_grant)
    details = {
        "entity": queue.path,
        "session_id": lock.session_id,
        "grant": str(lock.grant),
        "cause": cause,
    }
    if at_ms:
        details["since_ms"] = str(at_ms)
    verb = "was never given" if cause == NEVER_HELD else "is over"
    taken = ""
    session = queue.sessions.get(lock.session_id)
    if session is not None and session.is_held and session.grant != lock.grant:
        details["taken_by_grant"] = str(session.grant)
        details["holder"] = session.holder
        whom = f", for '{session.holder}'" if session.holder else ""
        taken = f" Since then grant {session.grant} holds it{whom}."
    return SessionLockLost(
        f"Grant {lock.grant} of session '{lock.session_id}' of {queue.path} {verb}: {sentence}.{taken}"
        " Nothing was changed. Accept the session again.",
        details=details,
    )


def message_lock_lost(
    partition: Partition, queue: Queue, grant: int, sequence: int
) -> MessageLockLost:
    """Return the error for a message that is not under the grant."""
    known = 0 < grant <= partition.last_grant
    why = (
        "it was settled already, or its lock ran out"
        if known
        else "this partition never granted that token"
    )
    return MessageLockLost(
        f"Message {sequence} of {queue.path} is not locked under grant {grant}: {why}. Nothing was changed."
        " If it was not settled it will be delivered again.",
        details={"entity": queue.path, "sequence_number": str(sequence), "grant": str(grant)},
    )
