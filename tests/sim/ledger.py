"""The one history of what was stored, over all owners and partitions.

Here belong the order of commits and what was true when. A reply is held against it by `witness`; each
commit is judged by `referee` in the moment it is stored.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lockstep.core.changes import Change
from lockstep.core.ids import PartitionEpoch, PartitionId
from tests.sim.book import Book, Place
from tests.sim.referee import Referee
from tests.sim.trial import Trial


class Facts(NamedTuple):
    """What was true of one session from one moment on. `grant` is 0 when nobody holds it."""

    since: int
    grant: int
    version: int
    state: bytes | None


class Ledger:
    """What each partition has stored, and when each session changed.

    Attributes:
        moment: How many steps were stored so far; the clock of the history.
        books: What each partition holds now.
        fenced: The moment at which an epoch of a partition ended.
        on_commit: Called after each commit with the partition and the epoch that wrote it.
    """

    def __init__(self, trial: Trial, referee: Referee, partitions: int) -> None:
        self._trial = trial
        self.referee = referee
        self.moment = 0
        self.books = [Book() for _ in range(partitions)]
        self.fenced: dict[tuple[int, PartitionEpoch], int] = {}
        self._histories: dict[tuple[int, Place], list[Facts]] = {}
        self.on_commit: Callable[[PartitionId, PartitionEpoch], None] = lambda _p, _e: None

    def opened(self, partition: PartitionId, epoch: PartitionEpoch, wall_ms: int) -> None:
        """Note that an owner took a partition over."""
        book = self.books[partition]
        self._trial.check(epoch > book.epoch, "an old owner opened", partition, epoch, book.epoch)
        self.fenced[partition, book.epoch] = self.moment
        book.epoch = epoch
        book.openings += 1
        book.opened_ms = max(wall_ms, book.partition.last_time_ms)
        held = {row.grant for row in book.sessions.values() if row.locked_until_ms}
        book.graced = held | {grant for _, grant in book.locks}
        book.maybe_heard = set()
        book.heard = set()
        # What its predecessor told by a clock that was ahead, and did not store, binds nobody: the grace does.
        book.told_ms = {}

    def committed(
        self, partition: PartitionId, epoch: PartitionEpoch, changes: Sequence[Change]
    ) -> None:
        """Judge and take over one stored commit."""
        book = self.books[partition]
        self._trial.check(epoch == book.epoch, "a fenced owner wrote", partition, epoch, book.epoch)
        for step in book.steps(changes):
            self.moment += 1
            self.referee.judge(book, step)
            book.write(step)
            changed: list[Place] = [(row.entity, row.session_id) for row in step.sessions]
            for place in dict.fromkeys([*changed, *step.forgotten, *step.states]):
                self._note(partition, place)
            for number in step.dropped_entities:
                for where, known in list(self._histories):
                    if where == partition and known[0] == number:
                        self._note(partition, known)
        self.on_commit(partition, epoch)

    def _note(self, partition: PartitionId, place: Place) -> None:
        book = self.books[partition]
        row = book.sessions.get(place)
        held = row.grant if row and row.locked_until_ms else 0
        version = row.state_version if row else 0
        facts = Facts(self.moment, held, version, book.states.get(place))
        self._histories.setdefault((partition, place), []).append(facts)

    def facts_between(
        self, partition: PartitionId, place: Place, since: int, until: int
    ) -> list[Facts]:
        """Return everything that was true of a session at some moment from `since` to `until`."""
        history = self._histories.get((partition, place), [])
        nothing = Facts(0, 0, 0, None)
        first = bisect_right(history, since, key=lambda facts: facts.since)
        before = history[first - 1] if first else nothing
        return [before, *(facts for facts in history[first:] if facts.since <= until)]
