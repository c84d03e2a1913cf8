"""The one history of what was stored, over all owners and partitions.

Here belong the order of commits and what was true when. A reply is held against it by `witness`; each
commit is judged by `referee` in the moment it is stored.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lockstep.core.changes import Change
from lockstep.core.ids import PartitionEpoch, PartitionId, partition_of
from tests.sim.book import Book
from tests.sim.referee import Referee
from tests.sim.rows import Place, Step, Where
from tests.sim.trial import Trial

GONE = "gone"


class Facts(NamedTuple):
    """What was true of one session from one moment on. `grant` is 0 when nobody holds it."""

    since: int
    grant: int
    version: int
    state: bytes | None


class Span(NamedTuple):
    """What a reply may say: what was true at some moment from `since` to `until`."""

    since: int
    until: int


class Ledger:
    """What each partition has stored, and when each session and each message changed.

    Attributes:
        moment: How many steps were stored so far; the clock of the history.
        books: What each partition holds now.
        fenced: The moment at which an epoch of a partition ended.
        bodies: The bytes of every message that was ever stored, by partition and number.
        on_commit: Called after each commit with the partition and the epoch that wrote it.
    """

    def __init__(self, trial: Trial, referee: Referee, partitions: int) -> None:
        self._trial = trial
        self.referee = referee
        self.moment = 0
        self.books = [Book(number) for number in range(partitions)]
        self.fenced: dict[tuple[int, PartitionEpoch], int] = {}
        self.bodies: dict[Where, bytes] = {}
        self._histories: dict[tuple[int, Place], list[Facts]] = {}
        self._lives: dict[Where, list[tuple[int, str]]] = {}
        self._counts: dict[Where, list[tuple[int, str]]] = {}
        self._amendments: dict[Where, list[tuple[int, str]]] = {}
        self._jobs: dict[tuple[int, int, int], list[tuple[int, str]]] = {}
        self._settings: dict[tuple[int, int], list[tuple[int, str]]] = {}
        self.on_commit: Callable[[PartitionId, PartitionEpoch], None] = lambda _p, _e: None

    def opened(self, partition: PartitionId, epoch: PartitionEpoch, wall_ms: int) -> None:
        """Note that an owner took a partition over."""
        book = self.books[partition]
        self._trial.check(epoch > book.epoch, "an old owner opened", partition, epoch, book.epoch)
        self.fenced[partition, book.epoch] = self.moment
        book.epoch = epoch
        book.openings += 1
        book.opened_ms = max(wall_ms, book.partition.last_time_ms)
        book.opened_at = self._trial.loop.time()
        held = {row.grant for row in book.sessions.values() if row.locked_until_ms}
        book.graced = held | {grant for _, grant in book.locks}
        book.maybe_heard = set()
        book.heard = set()
        book.orphans = {}
        # What its predecessor told by a clock that was ahead, and did not store, binds nobody: the grace does.
        book.told_ms = {}

    def read(self, partition: PartitionId, epoch: PartitionEpoch) -> None:
        """Note that an owner read bodies or states: only who may write may read (storage law)."""
        book = self.books[partition]
        self._trial.check(epoch == book.epoch, "a fenced owner read", partition, epoch, book.epoch)

    def committed(
        self, partition: PartitionId, epoch: PartitionEpoch, changes: Sequence[Change]
    ) -> None:
        """Judge and take over one stored commit."""
        book = self.books[partition]
        self._trial.check(epoch == book.epoch, "a fenced owner wrote", partition, epoch, book.epoch)
        for step in book.steps(changes):
            self.moment += 1
            self.referee.judge_moves(book, step)
            book.move(step)
            book.find_gone(step)
            case = self.referee.judge(book, step)
            book.write(step)
            self.referee.confirm(case)
            if case.kind in ("accept", "receive", "receive_deferred"):
                session_id, grant = case.result[:2]
                if case.kind == "accept" or (session_id is None and grant):
                    book.granted[grant] = (case.key, self._trial.loop.time())
            self._note_all(partition, book, step)
        self.on_commit(partition, epoch)

    # --- what was true when --------------------------------------------------------------------------

    def _note_all(self, partition: PartitionId, book: Book, step: Step) -> None:
        for place in dict.fromkeys([*step.sessions, *step.forgotten, *step.states]):
            self._note(partition, place)
        moved = [where for old, new, _ in step.renumbered for where in (old, new)]
        wheres = [*moved, *step.gone, *step.undead, *step.aside]
        wheres += [(dead.entity, dead.sequence) for dead in step.dead]
        for chunk in step.chunks:
            numbers = range(chunk.first_sequence, chunk.first_sequence + len(chunk.messages))
            wheres += [(chunk.entity, number) for number in numbers]
        for where in dict.fromkeys([*wheres, *step.counts]):
            self._note_message(book, where)
        for where, amendment in step.amended.items():
            text = amendment.to_text() if amendment is not None else ""
            self._amendments.setdefault(where, []).append((self.moment, text))
        for key, job in step.jobs.items():
            self._jobs.setdefault((partition, *key), []).append((self.moment, job.to_text()))
        for definition in step.entities:
            settings = book.entities[definition.entity].settings
            known = self._settings.setdefault((partition, definition.entity), [])
            known.append((self.moment, settings.status))
        for number in step.dropped_entities:
            self._note_dropped(partition, book, number)

    def _note_dropped(self, partition: PartitionId, book: Book, number: int) -> None:
        """Note that a partition dropped a queue; what others have of it stays until they do so too (ADD-12)."""
        for where, known in list(self._histories):
            if where == partition and known[0] == number:
                self._note(partition, known)
        for message in list(self._lives):
            if message[0] == number and partition_of(message[1]) == partition:
                self._note_message(book, message)

    def _note(self, partition: PartitionId, place: Place) -> None:
        book = self.books[partition]
        row = book.sessions.get(place)
        held = row.grant if row and row.locked_until_ms else 0
        version = row.state_version if row else 0
        facts = Facts(self.moment, held, version, book.states.get(place))
        self._histories.setdefault((partition, place), []).append(facts)

    def _note_message(self, book: Book, where: Where) -> None:
        message = book.messages.get(where)
        if message is not None:
            self.bodies[where] = message.body
        status = message.status if message is not None else GONE
        self._lives.setdefault(where, []).append((self.moment, status))
        if message is not None:
            self._counts.setdefault(where, []).append((self.moment, str(message.deliveries)))

    def facts_in(self, partition: PartitionId, place: Place, span: Span) -> list[Facts]:
        """Return everything that was true of a session at some moment of a span."""
        history = self._histories.get((partition, place), [])
        nothing = Facts(0, 0, 0, None)
        first = bisect_right(history, span.since, key=lambda facts: facts.since)
        before = history[first - 1] if first else nothing
        return [before, *(facts for facts in history[first:] if facts.since <= span.until)]

    def statuses_of(self, where: Where, span: Span) -> set[str]:
        """Return every status that a message had at some moment of a span."""
        return _values(self._lives.get(where, []), span, GONE)

    def counts_of(self, where: Where, span: Span) -> set[int]:
        """Return every delivery count that a message had at some moment of a span."""
        return {int(count) for count in _values(self._counts.get(where, []), span, "0")}

    def amendments_of(self, where: Where, span: Span) -> set[str]:
        """Return, as storage keeps it, all that was changed about a message at some moment of a span."""
        return _values(self._amendments.get(where, []), span, "")

    def jobs_of(self, partition: PartitionId, number: int, span: Span) -> set[str]:
        """Return, as storage keeps it, how jobs of a number stood at some moment of a span, in any queue."""
        found = [h for (p, _, n), h in self._jobs.items() if (p, n) == (partition, number)]
        return {text for history in found for text in _values(history, span, "")} - {""}

    def jobs_since(self, partition: PartitionId, entity: int, moment: int) -> set[int]:
        """Return the numbers of the jobs of a queue that had begun at a moment."""
        return {
            number
            for (p, e, number), history in self._jobs.items()
            if (p, e) == (partition, entity) and history[0][0] <= moment
        }

    def statuses_of_queue(self, partition: PartitionId, entity: int, span: Span) -> set[str]:
        """Return every status that a queue had at some moment of a span, as its partition applied it."""
        return _values(self._settings.get((partition, entity), []), span, "")

    def messages_of(self, entity: int) -> list[Where]:
        """Return every message that a queue ever had, rising."""
        return sorted(where for where in self._lives if where[0] == entity)


def _values(history: list[tuple[int, str]], span: Span, nothing: str) -> set[str]:
    first = bisect_right(history, span.since, key=lambda entry: entry[0])
    before = history[first - 1][1] if first else nothing
    return {before, *(value for moment, value in history[first:] if moment <= span.until)}
