"""Whether each reply told the truth, in the moment it leaves its owner.

A reply to a change must follow its commit. A reply to a read must have been true at some moment between the
arrival of the call and the reply; from an owner that was fenced, at some moment before it was.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lockstep.cluster.port import Answer
from lockstep.core.commands import Command, GetSession, GetState, ListSessions, Receive, Settle
from lockstep.core.errors import (
    InternalError,
    LockstepError,
    SessionCannotBeLocked,
    SessionLockLost,
)
from lockstep.core.ids import EntityKey, PartitionEpoch, PartitionId, RequestId
from lockstep.core.replies import (
    Accepted,
    Delivered,
    Released,
    Renewed,
    Sent,
    SessionView,
    SessionViews,
    Settled,
    StateIs,
    StateSet,
)
from tests.sim.book import Book
from tests.sim.known import CONTENT_GONE, FORGIVEN
from tests.sim.ledger import Facts, Ledger
from tests.sim.trial import Trial


@dataclass(frozen=True, slots=True)
class Visit:
    """One arrival of a request at one owner.

    Attributes:
        partition: Where it went.
        command: What was asked.
        epoch: Under which epoch the owner ran; None = it had none.
        moment: The ledger's moment of the arrival.
        openings: How often the partition had been opened by then.
        has_lease: Whether the owner's lease tells the truth.
        is_deposed: Whether another process has taken its place.
    """

    partition: PartitionId
    command: Command
    epoch: PartitionEpoch | None
    moment: int
    openings: int
    has_lease: bool
    is_deposed: bool


_KINDS: dict[type, str] = {
    Sent: "send",
    Accepted: "accept",
    Settled: "settle",
    Released: "release",
    StateSet: "state",
}


class Witness:
    """Holds replies against the ledger."""

    def __init__(self, trial: Trial, ledger: Ledger) -> None:
        self._check = trial.check
        self._ledger = ledger
        self._sent: dict[tuple[str, int], tuple[int, int]] = {}
        self.acknowledged = 0

    # --- arrivals ----------------------------------------------------------------------------------

    def arrived(self, visit: Visit) -> None:
        """Note that a holder may have been heard (ADD-4)."""
        book = self._ledger.books[visit.partition]
        if visit.epoch == book.epoch:
            book.maybe_heard |= _grants(visit.command) | _received(book, visit.command)

    # --- replies -----------------------------------------------------------------------------------

    def answered(self, visit: Visit, answer: Answer) -> None:
        """Check an answer that leaves now."""
        book = self._ledger.books[visit.partition]
        is_current = visit.epoch == book.epoch and visit.openings == book.openings
        reply = answer.reply
        self._check_committed(visit, book, reply)
        match reply:
            case Sent(first, count):
                self._check_sent(visit, book, first, count)
            case Accepted(session=lock, state_version=version, entity=number):
                seen = self._seen(visit, (number, lock.session_id))
                is_true = any(f.grant == lock.grant and f.version == version for f in seen)
                self._check(is_true, "I-3: accepted, but not held", lock, seen)
                self._check_state(seen, version, answer.state)
            case StateIs(entity=number, session_id=session_id, version=version):
                assert isinstance(visit.command, GetState)
                seen = self._seen(visit, (number, session_id))
                grant = visit.command.session.grant
                is_held = any(f.grant == grant for f in seen)
                self._check(is_held, "SES-40: state read without lock", grant, seen)
                self._check_state(seen, version, answer.state)
                if is_current:
                    book.heard.add(grant)
            case SessionViews(sessions=views):
                for view in views:
                    self._check_view(visit, book, view)
            case Delivered() if is_current:
                self._check_delivered(book, reply, answer)
            case _:
                pass
        if is_current:
            self._note_told(book, visit.command, reply)

    def told_nothing(self, command: Command) -> None:
        """Note that a client was told that its accept or receive found nothing."""
        request: RequestId | None = getattr(command, "request", None)
        if request is not None:
            self._ledger.referee.answered_nothing.add((request.client_id, request.counter))

    def _seen(self, visit: Visit, place: tuple[int, str]) -> list[Facts]:
        """Return what a reply about a session may say."""
        since, until = visit.moment, self._ledger.moment
        if visit.epoch is not None and not visit.has_lease:
            end = self._ledger.fenced.get((visit.partition, visit.epoch), until)
            since, until = min(since, end), min(until, end)
        return self._ledger.facts_between(visit.partition, place, since, until)

    def _check_committed(self, visit: Visit, book: Book, reply: object) -> None:
        request = getattr(visit.command, "request", None)
        kind = _KINDS.get(type(reply))
        if isinstance(reply, Delivered) and reply.sequences:
            kind = "receive"
        if request is None or kind is None:
            return
        stored = book.requests.get(tuple(request))
        is_stored = stored is not None and json.loads(stored)[0] in (kind, "cancelled")
        self._check(is_stored, "design law 3: replied before the commit", visit.command, stored)

    def _check_sent(self, visit: Visit, book: Book, first: int, count: int) -> None:
        request = getattr(visit.command, "request", None)
        if request is None:
            return
        bodies = visit.command.messages  # type: ignore[union-attr]
        known = self._sent.setdefault(tuple(request), (first, count))
        self._check(known == (first, count), "I-7: a repeat got other numbers", known, first)
        for at, body in enumerate(bodies):
            where = self._ledger.referee.bodies.get(body)
            is_there = where is not None and where[1] == first + at
            self._check(is_there, "I-1: acknowledged but not stored", body, where)
        self.acknowledged += count

    def _check_state(self, seen: list[Facts], version: int, state: bytes | None) -> None:
        is_true = any(f.version == version and f.state == state for f in seen)
        self._check(is_true, "I-6: state", version, state, "but it was", seen)

    def _check_view(self, visit: Visit, book: Book, view: SessionView) -> None:
        assert isinstance(visit.command, GetSession | ListSessions)
        number = book.number_of(visit.command.entity)
        if number is None:
            return
        seen = self._seen(visit, (number, view.session_id))
        shown = (view.grant if view.locked_until_ms else 0, view.state_version)
        is_true = any((f.grant, f.version) == shown for f in seen)
        self._check(is_true, "SES-53: shown", view.session_id, shown, "but it was", seen)

    def _check_delivered(self, book: Book, reply: Delivered, answer: Answer) -> None:
        counts = reply.counts or (0,) * len(reply.sequences)
        for sequence, body, count in zip(reply.sequences, answer.messages, counts, strict=True):
            message = book.messages.get((reply.entity, sequence))
            self._check(message is not None, "I-1: delivered what is not stored", sequence)
            if message is not None:
                self._check(message.body == body, "MSG: another body", sequence, body, message.body)
                is_exact = message.deliveries == count
                self._check(is_exact, "DCN: told", count, "not", message.deliveries, sequence)

    def _note_told(self, book: Book, command: Command, reply: Any) -> None:
        if isinstance(reply, Accepted):
            grants: set[int] = {reply.session.grant}
        elif isinstance(reply, Delivered) and reply.grant:
            grants = {reply.grant}
        elif isinstance(reply, Renewed) and not reply.failures:
            grants = _grants(command)
        else:
            return
        book.heard |= grants  # these calls look at the lock even when they are repeated
        for grant in grants:
            until = max(book.told_ms.get(grant, 0), reply.locked_until_ms)
            book.told_ms[grant] = until

    # --- refusals ----------------------------------------------------------------------------------

    def refused(self, visit: Visit, error: LockstepError) -> None:
        """Check an error that leaves now."""
        book = self._ledger.books[visit.partition]
        is_bug = isinstance(error, InternalError) and not visit.is_deposed
        if "KeyError" in error.message and CONTENT_GONE in FORGIVEN:
            is_bug = False
        self._check(not is_bug, "a partition stopped:", error)
        entity: EntityKey | None = getattr(visit.command, "entity", None)
        number = book.number_of(entity) if isinstance(entity, EntityKey) else None
        lock = getattr(visit.command, "session", None)
        if number is None:
            return
        if isinstance(error, SessionLockLost) and lock is not None:
            seen = self._seen(visit, (number, lock.session_id))
            is_true = any(facts.grant != lock.grant for facts in seen)
            self._check(is_true, "SES-20: called lost, but held", lock, seen)
        elif isinstance(error, SessionCannotBeLocked):
            session_id: str = getattr(visit.command, "session_id", "")
            seen = self._seen(visit, (number, session_id))
            self._check(any(facts.grant for facts in seen), "SES-8: held by nobody", session_id)


def _grants(command: Command) -> set[int]:
    """Return the grants whose holder speaks in a command."""
    lock = getattr(command, "session", None)
    if lock is not None:
        return {lock.grant}
    if isinstance(command, Settle):
        return {settlement.grant for settlement in command.settlements}
    return {grant for grant, _ in getattr(command, "tokens", ())}


def _received(book: Book, command: Command) -> set[int]:
    """Return the grant of a plain receive that came before: asking again shows that its receiver lives."""
    if not isinstance(command, Receive) or command.request is None:
        return set()
    kind, *result = json.loads(
        book.requests.get((command.request.client_id, command.request.counter), '["none"]')
    )
    return {result[1]} if kind == "receive" else set()
