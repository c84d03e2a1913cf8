"""A history, found by message, by session and by grant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tests.faults.history import Item, Kind, Operation, Outcome, deliveries

DRAIN = "drain-"
"""Begins the names of the workers that empty the queues after the load."""
SLACK_MS = 100
"""By how much a partition's clock may run ahead of ours after it was opened anew."""
_ARRIVAL_MS = 2_000  # how long a call may take to an owner that is well, or pauses shortly


@dataclass(frozen=True, slots=True)
class Violation:
    """What must not be, and where it was seen."""

    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


class MessageKey(NamedTuple):
    """A stored message."""

    queue: str
    sequence: int


class SessionKey(NamedTuple):
    """Where there is an order; a plain queue has one session without a name."""

    queue: str
    session_id: str


class Handled(NamedTuple):
    """One message of an operation."""

    operation: Operation
    item: Item


class Book:
    """All operations of a run, and indexes of them in the order in which they began."""

    def __init__(
        self,
        history: Iterable[Operation],
        *,
        lock_ms: int,
        is_calm: bool = False,
        locks_survive: bool = False,
    ) -> None:
        """Build the indexes.

        Args:
            history: All operations, by when they began.
            lock_ms: The lock duration of the queues.
            is_calm: Whether nothing failed, so that a lock that ran out is counted without a doubt.
            locks_survive: Whether only owners, and what they need, failed: they give each lock a grace (ADD-4).
        """
        self.history = _with_whole_turns(list(history))
        self.lock_ms = lock_ms
        self.is_calm = is_calm
        self.locks_survive = locks_survive
        self.sends: dict[tuple[str, str], list[Operation]] = defaultdict(list)
        self.numbered: dict[SessionKey, list[Handled]] = defaultdict(list)
        self.delivered: dict[MessageKey, list[Handled]] = defaultdict(list)
        self.settled: dict[MessageKey, list[Operation]] = defaultdict(list)
        self.sequences: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.grants: dict[SessionKey, dict[int, list[Operation]]] = defaultdict(dict)
        for operation in self.history:
            self._note(operation)
        for operation in deliveries(self.history):
            for item in operation.items:
                key = MessageKey(operation.queue, item.sequence)
                self.delivered[key].append(Handled(operation, item))
                self.sequences[operation.queue, item.body].add(item.sequence)
        for handled in self.delivered.values():
            handled.sort(key=lambda one: one.operation.ended_ms)
            _order_those_at_the_same_time(handled)

    def _note(self, operation: Operation) -> None:
        queue = operation.queue
        if operation.kind is Kind.SEND:
            for item in operation.items:
                self.sends[queue, item.body].append(operation)
                if operation.is_ok and item.sequence:
                    self.numbered[SessionKey(queue, item.session_id)].append(
                        Handled(operation, item)
                    )
                    self.sequences[queue, item.body].add(item.sequence)
        elif operation.kind in (Kind.COMPLETE, Kind.ABANDON, Kind.DEFER):
            for item in operation.items:
                self.settled[MessageKey(queue, item.sequence)].append(operation)
        if operation.grant:
            of_session = self.grants[SessionKey(queue, operation.session_id)]
            of_session.setdefault(operation.grant, []).append(operation)

    def all_grants(self) -> Iterator[tuple[SessionKey, int, Sequence[Operation]]]:
        """All grants of all sessions, in their order."""
        for session, grants in self.grants.items():
            for grant in sorted(grants):
                yield session, grant, grants[grant]

    def may_be_gone(self, key: MessageKey, at_ms: int) -> bool:
        """Whether a message may have left the order of its session by then: completed, or set aside."""
        return any(
            one.may_have_happened and one.kind is not Kind.ABANDON and one.invoked_ms <= at_ms
            for one in self.settled[key]
        )

    def held_until_ms(
        self, operations: Iterable[Operation], before: Operation | None = None
    ) -> int:
        """Return until when a grant holds at least, by its operations that began before another one; 0 = not at all."""
        return max(
            (
                one.invoked_ms + self.lock_ms
                for one in operations
                if extends(one) and (before is None or one.ended_ms <= before.invoked_ms)
            ),
            default=0,
        )

    def was_in_time(self, operation: Operation, until_ms: int) -> bool:
        """Whether an operation came before the end of a lock, without a doubt."""
        if self.locks_survive and operation.invoked_ms < until_ms - _ARRIVAL_MS:
            return True
        return operation.ended_ms < until_ms - SLACK_MS


def _with_whole_turns(history: list[Operation]) -> list[Operation]:
    """Return a history in which a turn of which a part was seen has happened, whatever its client was told (ADD-8)."""
    part_of: dict[tuple[str, str], tuple[str, int]] = {}
    for one in history:
        if one.turn and one.outcome is Outcome.UNKNOWN:
            marks = [one.value, *(item.body for item in one.items if one.kind is Kind.SEND)]
            part_of.update({(one.queue, mark): _turn_of(one) for mark in marks if mark})
    seen_ms: dict[tuple[str, int], int] = {}
    for one in history:
        if one.is_ok and one.kind not in (Kind.SEND, Kind.SET_STATE):
            for mark in (one.value, *(item.body for item in one.items)):
                turn = part_of.get((one.queue, mark))
                if turn is not None:
                    seen_ms[turn] = min(seen_ms.get(turn, one.ended_ms), one.ended_ms)
    return [
        replace(one, outcome=Outcome.OK, ended_ms=seen_ms[_turn_of(one)])
        if _turn_of(one) in seen_ms
        else one
        for one in history
    ]


def _turn_of(operation: Operation) -> tuple[str, int]:
    return operation.worker, operation.turn


def _order_those_at_the_same_time(handled: list[Handled]) -> None:
    """Put deliveries whose order their times leave open into that of their counts, which never fall (I-5)."""
    for place in range(1, len(handled)):
        while (
            place and handled[place].operation.invoked_ms <= handled[place - 1].operation.ended_ms
        ):
            first, second = handled[place - 1 : place + 1]
            if first.item.count <= second.item.count:
                break
            handled[place - 1 : place + 1] = second, first
            place -= 1


def extends(operation: Operation) -> bool:
    """Whether an operation moved the end of its session's lock (SES-18, SES-23)."""
    if not operation.is_ok:
        return False
    if operation.kind is Kind.RECEIVE:
        return bool(operation.items)
    return operation.kind in (Kind.ACCEPT, Kind.RENEW)
