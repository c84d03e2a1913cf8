"""Whether each reply told the truth, in the moment it leaves its owner.

A reply to a change must follow its commit. A reply to a read must have been true at some moment between the
arrival of the call and the reply; from an owner that was fenced, at some moment before it was. What refusals say
is checked by `refusals`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from lockstep.cluster.port import Answer
from lockstep.core.commands import (
    BreakLock,
    Browse,
    Command,
    Disconnect,
    GetSession,
    GetState,
    ListJobs,
    ListSessions,
    Receive,
    ReceiveDeferred,
    Send,
    Settle,
    StartJob,
    TakeTransfer,
    TakeTurn,
)
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.jobs import Job
from lockstep.core.replies import (
    Accepted,
    Browsed,
    Delivered,
    JobIs,
    JobsAre,
    LockBroken,
    Released,
    Renewed,
    ScheduleCancelled,
    Sent,
    SessionView,
    SessionViews,
    Settled,
    StateIs,
    StateSet,
    TransferTaken,
    TurnTaken,
)
from tests.sim.book import Book
from tests.sim.case import CallKey, TransferKey
from tests.sim.ledger import GONE, Facts, Ledger, Span
from tests.sim.rows import Where
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
    ScheduleCancelled: "cancel_scheduled",
    Accepted: "accept",
    Settled: "settle",
    Released: "release",
    StateSet: "state",
    TurnTaken: "turn",
    JobIs: "job",
}


class Witness:
    """Holds replies against the ledger."""

    def __init__(self, trial: Trial, ledger: Ledger) -> None:
        self._trial = trial
        self._check = trial.check
        self._ledger = ledger
        self._visits: Counter[tuple[int, tuple[str, int]]] = Counter()

    # --- arrivals ----------------------------------------------------------------------------------

    def arrived(self, visit: Visit) -> None:
        """Note that a holder may have been heard (ADD-4), and that a call came (again)."""
        book = self._ledger.books[visit.partition]
        if visit.epoch == book.epoch:
            book.maybe_heard |= _grants(visit.command) | _received(book, visit.command)
        request = getattr(visit.command, "request", None)
        if request is not None:
            self._visits[visit.partition, tuple(request)] += 1
            book.orphans.pop(tuple(request), None)

    def hung_up(self, visit: Visit) -> None:
        """Note that the owner knows that nobody waits for the only copy of a call any more (SES-15)."""
        book = self._ledger.books[visit.partition]
        request = getattr(visit.command, "request", None)
        if request is None or self._visits[visit.partition, tuple(request)] > 1:
            return
        if visit.epoch == book.epoch and visit.openings == book.openings and not visit.is_deposed:
            self._trial.count("a caller had gone")
            book.orphans[tuple(request)] = self._trial.loop.time()

    # --- replies -----------------------------------------------------------------------------------

    def answered(self, visit: Visit, answer: Answer) -> None:
        """Check an answer that leaves now."""
        book = self._ledger.books[visit.partition]
        is_current = visit.epoch == book.epoch and visit.openings == book.openings
        reply = answer.reply
        self._check_committed(visit, book, reply)
        match reply:
            case Sent():
                self._check_sent(visit, reply, visit.command)
            case Accepted(session=lock, state_version=version, entity=number):
                seen = self.seen(visit, (number, lock.session_id))
                is_true = any(f.grant == lock.grant and f.version == version for f in seen)
                self._check(is_true, "I-3: accepted, but not held", lock, seen)
                self._check_state(seen, version, answer.state)
            case StateIs(entity=number, session_id=session_id, version=version):
                self._check_state_is(visit, book, (number, session_id), version, answer.state)
            case Browsed():
                self._check_browsed(visit, reply, answer)
            case Delivered():
                self._check_delivered(visit, reply, answer, is_current=is_current)
            case _:
                self._check_short(visit, book, reply)
        if is_current:
            self._note_told(book, visit.command, reply)

    def _check_short(self, visit: Visit, book: Book, reply: object) -> None:
        """Check an answer that carries neither messages nor a state."""
        match reply:
            case StateSet(version=version):
                self._check_result(visit, book, [version])
            case JobIs(job=job):
                self._check_job(visit, job)
                if isinstance(visit.command, StartJob):
                    self._check_result(visit, book, [job.number])
            case JobsAre(jobs=jobs):
                self._check_jobs(visit, book, jobs)
            case TurnTaken():
                self._check_turn(visit, book, reply)
            case LockBroken():
                self._check_broken(visit, book, reply)
            case Released() if isinstance(visit.command, Disconnect):
                self._check_disconnected(visit, book, visit.command, reply)
            case SessionViews(sessions=views):
                for view in views:
                    self._check_view(visit, book, view)
            case _:
                pass

    def told_nothing(self, partition: PartitionId, command: Command) -> None:
        """Note that a client was told that its accept or receive found nothing."""
        if getattr(command, "request", None) is not None:
            memory = self._ledger.referee.memory
            memory.answered_nothing.add((partition, *key_of(command)))

    def span(self, visit: Visit) -> Span:
        """Return from when to when a reply that leaves now may have been true."""
        since, until = visit.moment, self._ledger.moment
        if visit.epoch is not None and not visit.has_lease:
            end = self._ledger.fenced.get((visit.partition, visit.epoch), until)
            since, until = min(since, end), min(until, end)
        return Span(since, until)

    def seen(self, visit: Visit, place: tuple[int, str]) -> list[Facts]:
        """Return what a reply about a session may say."""
        return self._ledger.facts_in(visit.partition, place, self.span(visit))

    def _check_committed(self, visit: Visit, book: Book, reply: object) -> None:
        """No reply before its commit, and none that belongs to another call (ADD-3)."""
        if isinstance(reply, TransferTaken):
            self._check_transfer(visit, reply)
        request = getattr(visit.command, "request", None)
        kind = _KINDS.get(type(reply))
        if isinstance(reply, Delivered) and reply.sequences:
            is_deferred = isinstance(visit.command, ReceiveDeferred)
            kind = "receive_deferred" if is_deferred else "receive"
        elif isinstance(reply, LockBroken) and reply.was_held:
            kind = "break_lock"
        if request is None or kind is None:
            return
        stored = book.requests.get(tuple(request))
        is_stored = book.result_of(tuple(request))[0] in (kind, "cancelled")
        self._check(is_stored, "design law 3: replied before the commit", visit.command, stored)
        fingerprint = getattr(visit.command, "fingerprint", 0)
        is_own = stored is None or stored.fingerprint == fingerprint
        self._check(is_own, "ADD-3: answered with what another call did", visit.command, stored)

    def _check_result(self, visit: Visit, book: Book, told: list[Any]) -> None:
        kind, *stored = book.result_of(tuple(visit.command.request))  # type: ignore[union-attr,arg-type]
        is_true = kind == "cancelled" or stored == told
        self._check(is_true, "ADD-3: another result", visit.command, told, stored)

    def _check_job(self, visit: Visit, job: Job) -> None:
        known = self._ledger.jobs_of(visit.partition, job.number, self.span(visit))
        self._check(job.to_text() in known, "ADD-11: told", job, "but it was", known)

    def _check_jobs(self, visit: Visit, book: Book, jobs: tuple[Job, ...]) -> None:
        """ADD-11: each job is shown as it stood, and none is left out."""
        assert isinstance(visit.command, ListJobs)
        for job in jobs:
            self._check_job(visit, job)
        number = book.number_of(visit.command.entity)
        if visit.epoch == book.epoch and number is not None and not visit.command.number:
            begun = self._ledger.jobs_since(visit.partition, number, visit.moment)
            left_out = begun - {job.number for job in jobs}
            self._check(not left_out, "ADD-11: not shown", left_out)

    def _check_transfer(self, visit: Visit, reply: TransferTaken) -> None:
        """RSB-2: what is told of a transfer is stored, and is never another thing."""
        assert isinstance(visit.command, TakeTransfer)
        sent = self._ledger.referee.memory.transfers.get(transfer_key(visit.command))
        told = (reply.refused, reply.error)
        is_stored = sent is not None and sent.said == told
        self._check(is_stored, "design law 3: told of a transfer", told, "not", sent)

    def _check_turn(self, visit: Visit, book: Book, reply: TurnTaken) -> None:
        assert isinstance(visit.command, TakeTurn)
        assert visit.command.request is not None
        kind, *stored = book.result_of(visit.command.request)
        is_true = kind == "cancelled" or stored[1] == reply.state_version
        self._check(is_true, "ADD-3, ADD-8: another result", visit.command, reply, stored)
        is_whole = (reply.sent is None) == (visit.command.outputs is None)
        self._check(is_whole, "ADD-8: told less than it did", visit.command, reply)
        if reply.sent is not None:
            self._check_sent(visit, reply.sent, visit.command.outputs)

    def _check_sent(self, visit: Visit, reply: Sent, send: Command | None) -> None:
        if getattr(visit.command, "request", None) is None:
            return
        assert isinstance(send, Send)
        memory = self._ledger.referee.memory
        known = memory.numbers.get(key_of(visit.command))
        told = list(reply.numbers)
        self._check(known == told, "I-7, DUP-2: told other numbers", visit.command, told, known)
        for at, body in enumerate(send.messages):
            if at in reply.duplicates:
                continue
            where = memory.bodies.get(body)
            is_there = where is not None and where[1] == told[at]
            self._check(is_there, "I-1: acknowledged but not stored", body, where)

    def _check_state(self, seen: list[Facts], version: int, state: bytes | None) -> None:
        is_true = any(f.version == version and f.state == state for f in seen)
        self._check(is_true, "I-6: state", version, state, "but it was", seen)

    def _check_state_is(
        self, visit: Visit, book: Book, place: tuple[int, str], version: int, state: bytes | None
    ) -> None:
        assert isinstance(visit.command, GetState)
        seen = self.seen(visit, place)
        grant = visit.command.session.grant
        is_held = any(f.grant == grant for f in seen)
        self._check(is_held, "SES-40: state read without lock", grant, seen)
        self._check_state(seen, version, state)
        if visit.epoch == book.epoch and visit.openings == book.openings:
            book.heard.add(grant)

    def _check_broken(self, visit: Visit, book: Book, reply: LockBroken) -> None:
        assert isinstance(visit.command, BreakLock)
        if reply.was_held:
            self._check_result(visit, book, [True, reply.holder, reply.returned])
            return
        number = book.number_of(visit.command.entity)
        if number is not None:
            seen = self.seen(visit, (number, visit.command.session_id))
            is_true = any(not facts.grant for facts in seen)
            self._check(is_true, "ADD-5: not broken, but held", visit.command, seen)

    def _check_disconnected(
        self, visit: Visit, book: Book, command: Disconnect, reply: Released
    ) -> None:
        """RACE-19: a broken stream releases what the queue says, and nothing else."""
        number = book.number_of(command.entity)
        if number is None or visit.epoch != book.epoch or visit.openings != book.openings:
            return
        if not book.entities[number].settings.release_on_disconnect:
            self._check(not reply.returned, "RACE-19: released", command, reply)
        elif command.session is not None:
            seen = self.seen(visit, (number, command.session.session_id))
            is_free = any(facts.grant != command.session.grant for facts in seen)
            self._check(is_free, "RACE-19: still held", command, seen)
        else:
            left = [(g, s) for g, s in command.tokens if s in book.locked(number, g)]
            self._check(not left, "RACE-19: still locked", command, left)

    def _check_view(self, visit: Visit, book: Book, view: SessionView) -> None:
        assert isinstance(visit.command, GetSession | ListSessions)
        number = book.number_of(visit.command.entity)
        if number is None:
            return
        seen = self.seen(visit, (number, view.session_id))
        shown = (view.grant if view.locked_until_ms else 0, view.state_version)
        is_true = any((f.grant, f.version) == shown for f in seen)
        self._check(is_true, "SES-53: shown", view.session_id, shown, "but it was", seen)

    # --- messages ----------------------------------------------------------------------------------

    def _check_delivered(
        self, visit: Visit, reply: Delivered, answer: Answer, *, is_current: bool
    ) -> None:
        wheres: list[Where] = [(reply.entity, sequence) for sequence in reply.sequences]
        for where, body in zip(wheres, answer.messages, strict=True):
            known = self._ledger.bodies.get(where)
            self._check(known == body, "MSG-7: another body", where, body, known)
        self._check_changes(visit, reply, wheres)
        numbers = list(reply.sequences)
        if isinstance(visit.command, Receive) and visit.command.session is not None:
            self._check(numbers == sorted(numbers), "I-2: told out of order", numbers)
        if getattr(visit.command, "deletes", False):
            taken = self._ledger.referee.memory.taken.get(key_of(visit.command))
            is_true = not wheres or sorted(wheres) == taken or wheres == taken
            self._check(is_true, "RCV-1: delivered", wheres, "but took", taken)
            self._check(not reply.grant, "RCV-1: locked", reply.grant)
        elif is_current:
            self._check_counts(visit, reply, wheres)

    def _check_changes(self, visit: Visit, reply: Delivered, wheres: list[Where]) -> None:
        """MSG-8, RSB-4: what was changed about a message comes along with it."""
        told = dict(reply.amendments)
        span = self.span(visit)
        for place, where in enumerate(wheres):
            text = told[place].to_text() if place in told else ""
            then = self._ledger.amendments_of(where, span)
            self._check(text in then, "MSG-8, RSB-4: delivered with", text, "not", then, where)

    def _check_counts(self, visit: Visit, reply: Delivered, wheres: list[Where]) -> None:
        """A round may have counted a failed delivery, or dropped a message, after the step of this call."""
        span = self.span(visit)
        counts = reply.counts or (0,) * len(wheres)
        for where, count in zip(wheres, counts, strict=True):
            statuses = self._ledger.statuses_of(where, span)
            self._check(statuses != {GONE}, "I-1: delivered what is not stored", where)
            counts_then = self._ledger.counts_of(where, span)
            self._check(count in counts_then, "DCN: told", count, "not", counts_then, where)

    def _check_browsed(self, visit: Visit, reply: Browsed, answer: Answer) -> None:
        """PEK-1 to PEK-3, DEF-7: what is shown was there, in order, and nothing that stayed is left out."""
        command, shown = visit.command, reply.delivered
        assert isinstance(command, Browse)
        self._check(not shown.grant, "PEK-1: browsed with a lock", shown.grant)
        numbers = list(shown.sequences)
        self._check(numbers == sorted(set(numbers)), "PEK-3: out of order", numbers)
        self._check_changes(visit, shown, [(shown.entity, sequence) for sequence in numbers])
        span, store = self.span(visit), "dead" if command.dead_letter else "main"
        for at, (sequence, body) in enumerate(zip(numbers, answer.messages, strict=True)):
            where = (shown.entity, sequence)
            statuses = self._ledger.statuses_of(where, span)
            is_there = any(status.startswith(store) for status in statuses)
            self._check(is_there, "PEK-2: shown, but it was", where, statuses, span)
            known = self._ledger.bodies.get(where)
            self._check(known == body, "MSG-7: another body", where, body, known)
            is_right = at not in reply.scheduled or f"{store} scheduled" in statuses
            self._check(is_right, "SCH-2: shown as scheduled, but it was", where, statuses)
        self._check_complete(visit, reply, span, store)

    def _check_complete(self, visit: Visit, reply: Browsed, span: Span, store: str) -> None:
        command, numbers = visit.command, list(reply.delivered.sequences)
        assert isinstance(command, Browse)
        book = self._ledger.books[visit.partition]
        if visit.epoch != book.epoch:
            return
        last = numbers[-1] if reply.has_more and numbers else None
        known = set(numbers)
        for (entity, sequence), message in book.messages.items():
            if entity != reply.delivered.entity or sequence < command.from_sequence:
                continue
            if command.session_id is not None and message.session_id != command.session_id:
                continue
            if sequence in known or (last is not None and sequence > last):
                continue
            statuses = self._ledger.statuses_of((entity, sequence), span)
            stayed = all(status.startswith(store) for status in statuses)
            self._check(not stayed, "PEK-2, DEF-7: not shown", sequence, statuses, command)

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


def key_of(command: Any) -> CallKey:
    """Return by what the referee remembers a call."""
    return (*command.request, command.fingerprint)


def transfer_key(command: TakeTransfer) -> TransferKey:
    """Return by what the referee remembers a transfer."""
    return (command.source_partition, command.source_queue, command.number)


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
    if not isinstance(command, Receive | ReceiveDeferred) or command.request is None:
        return set()
    kind, *result = book.result_of((command.request.client_id, command.request.counter))
    return {result[1]} if kind in ("receive", "receive_deferred") else set()
