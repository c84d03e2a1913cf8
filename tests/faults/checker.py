"""The verdict on a run, from what its clients did and were told, and from what was left at its end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from tests.faults.book import DRAIN, Book, Violation
from tests.faults.draining import Ending
from tests.faults.history import Kind, Operation, Outcome
from tests.faults.message_rules import MESSAGE_RULES
from tests.faults.session_rules import SESSION_RULES

_DONE_MIN = 20


def violations(
    history: Iterable[Operation],
    ending: Ending,
    *,
    lock_ms: int,
    is_calm: bool = False,
    locks_survive: bool = False,
) -> list[Violation]:
    """Return everything that must not have happened.

    Args:
        history: All operations, by when they began.
        ending: What was left, and what became of it.
        lock_ms: The lock duration of the queues.
        is_calm: Whether nothing failed.
        locks_survive: Whether only owners, and what they need, failed.
    """
    book = Book(history, lock_ms=lock_ms, is_calm=is_calm, locks_survive=locks_survive)
    return [one for rule in (*MESSAGE_RULES, *SESSION_RULES) for one in rule(book, ending)]


def idle_run(history: Iterable[Operation]) -> list[Violation]:
    """Return a violation if a load has done so little that nothing follows from what it saw."""
    done = Counter(one.kind for one in history if one.is_ok and not one.worker.startswith(DRAIN))
    wanted = (Kind.SEND, Kind.ACCEPT, Kind.RECEIVE, Kind.COMPLETE)
    return [
        Violation("idle", f"{kind} succeeded {done[kind]} times, of {_DONE_MIN} at least")
        for kind in wanted
        if done[kind] < _DONE_MIN
    ]


def unknown_outcomes(history: Iterable[Operation]) -> int:
    """Count the operations of which it is not known whether they happened."""
    return sum(one.outcome is Outcome.UNKNOWN for one in history)


def longest_gap_ms(history: Iterable[Operation]) -> int:
    """Return for how long some sender, which always has something to send, had nothing acknowledged."""
    ends: dict[str, list[int]] = defaultdict(list)
    for one in history:
        if one.kind is Kind.SEND and one.is_ok and not one.grant:
            ends[one.worker].append(one.ended_ms)
    return max((_longest(sorted(moments)) for moments in ends.values()), default=0)


def _longest(moments: Sequence[int]) -> int:
    return max((later - earlier for earlier, later in pairwise(moments)), default=0)
