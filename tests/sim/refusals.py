"""Whether each refusal told the truth, in the moment it leaves its owner.

A refusal must have been right at some moment between the arrival of the call and its answer (`witness` says which).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lockstep.core.commands import (
    CancelJob,
    CancelScheduled,
    ListJobs,
    ReceiveDeferred,
    SetState,
    Settle,
    TakeTransfer,
    TakeTurn,
)
from lockstep.core.errors import (
    EntityDisabled,
    InternalError,
    InvalidOperation,
    JobNotFound,
    LockstepError,
    MessageNotFound,
    RequestCancelled,
    RequestIdExpired,
    RequestIdReused,
    SessionCannotBeLocked,
    SessionLockLost,
    StateConflict,
)
from lockstep.core.ids import EntityKey, partition_of
from tests.sim.ledger import Ledger
from tests.sim.trial import Trial
from tests.sim.witness import Visit, Witness

_CAUSES = {"expired": ("expired", "grace_ended")}
_FORGOTTEN = ("ended_earlier", "entity_deleted", "never_held", "unknown")


class Refusals:
    """Holds refusals against the ledger."""

    def __init__(self, trial: Trial, ledger: Ledger, witness: Witness, requests_max: int) -> None:
        self._check = trial.check
        self._ledger = ledger
        self._witness = witness
        self._requests_max = requests_max
        self._rules: dict[type, Callable[[Visit, int, Any], None]] = {
            SessionLockLost: self._lost,
            SessionCannotBeLocked: self._cannot_be_locked,
            MessageNotFound: self._not_found,
            EntityDisabled: self._disabled,
            StateConflict: self._conflict,
            JobNotFound: self._no_job,
            InvalidOperation: self._came_late,
        }

    def refused(self, visit: Visit, error: LockstepError) -> None:
        """Check an error that leaves now."""
        self._check(not isinstance(error, InternalError), "a partition stopped:", error)
        book = self._ledger.books[visit.partition]
        self._judge_id(visit, error)
        entity: EntityKey | None = getattr(visit.command, "entity", None)
        number = book.number_of(entity) if isinstance(entity, EntityKey) else None
        rule = self._rules.get(type(error))
        if number is not None and rule is not None:
            rule(visit, number, error)

    def _judge_id(self, visit: Visit, error: LockstepError) -> None:
        request = getattr(visit.command, "request", None)
        if request is None:
            return
        memory, key = self._ledger.referee.memory, tuple(request)
        if isinstance(error, RequestIdReused):
            payloads = memory.payloads.get(key, set())
            self._check(len(payloads) > 1, "ADD-3: called a repeat another call", visit.command)
        elif isinstance(error, RequestCancelled):
            self._check(key in memory.cancelled, "ADD-3: not cancelled", visit.command)
        elif isinstance(error, RequestIdExpired):
            book = self._ledger.books[visit.partition]
            later = sum(1 for client, _ in book.requests if client == key[0])
            is_old = later >= self._requests_max
            self._check(is_old, "ADD-3: refused for its age", visit.command, later)

    def _lost(self, visit: Visit, number: int, error: SessionLockLost) -> None:
        lock = getattr(visit.command, "session", None)
        if lock is None:
            return
        seen = self._witness.seen(visit, (number, lock.session_id))
        is_true = any(facts.grant != lock.grant for facts in seen)
        self._check(is_true, "SES-20: called lost, but held", lock, seen)
        ended = self._ledger.books[visit.partition].ended.get(lock.grant)
        cause = error.details.get("cause", "")
        if ended is not None and cause not in _FORGOTTEN:
            allowed = _CAUSES.get(ended, (ended,))
            self._check(cause in allowed, "ADD-5: told", cause, "but it was", ended, lock)

    def _cannot_be_locked(self, visit: Visit, number: int, _error: LockstepError) -> None:
        session_id: str = getattr(visit.command, "session_id", "")
        seen = self._witness.seen(visit, (number, session_id))
        self._check(any(facts.grant for facts in seen), "SES-8: held by nobody", session_id)

    def _not_found(self, visit: Visit, number: int, _error: LockstepError) -> None:
        """SCH-5, DEF-2: at least one of the messages was not there."""
        command, span = visit.command, self._witness.span(visit)
        if isinstance(command, CancelScheduled):
            wanted = "main scheduled"
        elif isinstance(command, ReceiveDeferred):
            wanted = f"{'dead' if command.dead_letter else 'main'} deferred"
        else:
            return
        lock = getattr(command, "session", None)
        for sequence in command.sequences:
            where = (number, sequence)
            if partition_of(sequence) != visit.partition:
                return
            message = self._ledger.books[visit.partition].messages.get(where)
            if lock is not None and message is not None and message.session_id != lock.session_id:
                return
            if self._ledger.statuses_of(where, span) != {wanted}:
                return
        self._check(False, "SCH-5, DEF-2: called missing, but there", command, span)

    def _disabled(self, visit: Visit, number: int, _error: LockstepError) -> None:
        """16.1: the queue was disabled; a settlement is never refused for that."""
        statuses = self._ledger.statuses_of_queue(
            visit.partition, number, self._witness.span(visit)
        )
        is_true = statuses != {"active"}
        self._check(is_true, "16.1: called disabled, but it was", statuses, visit.command)
        command = visit.command
        is_allowed = isinstance(command, Settle | SetState)
        if isinstance(command, TakeTurn):
            is_allowed = command.outputs is None  # 16.1: what it sends is refused, and so all of it
        self._check(not is_allowed, "16.1: refused to a holder", visit.command)

    def _no_job(self, visit: Visit, number: int, _error: LockstepError) -> None:
        """ADD-11: there was no such job when the call came."""
        assert isinstance(visit.command, CancelJob | ListJobs)
        begun = self._ledger.jobs_since(visit.partition, number, self._witness.span(visit).since)
        is_true = visit.command.number not in begun
        self._check(is_true, "ADD-11: called missing, but there", visit.command)

    def _came_late(self, visit: Visit, _number: int, _error: LockstepError) -> None:
        """RSB-2: a transfer is late only when a later one of the same queue has arrived."""
        command = visit.command
        if isinstance(command, TakeTransfer):
            arrivals = self._ledger.books[visit.partition].arrivals
            last = arrivals.get((command.source_queue, command.source_partition))
            is_true = last is None or last.number > command.number
            self._check(is_true, "RSB-2: called late", command.number, last)

    def _conflict(self, visit: Visit, number: int, error: LockstepError) -> None:
        """ADD-7: the version was another one, and the error names it."""
        command = visit.command
        assert isinstance(command, SetState | TakeTurn)
        seen = self._witness.seen(visit, (number, command.session.session_id))
        told = int(error.details["version"])
        is_true = told != command.if_version and any(facts.version == told for facts in seen)
        self._check(is_true, "ADD-7: told", told, "not", command.if_version, "but it was", seen)
