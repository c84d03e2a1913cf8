"""Messages without sessions: a plain queue, or a dead-letter store.

Here belongs which messages are ready and which are locked by whom. Never here: what a message is, or
where it lies (`message`). The laws: a message is ready or under exactly one grant; what comes back goes
ahead of what is younger (LCK-9); each lock has its own end, and expiry counts one failed delivery (DCN-2).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Container, Sequence

FOR_EVER_MS = 2**62
"""The end of a lock that no time ends."""

_TRIM_AT = 1024


class PlainStore:
    """Ready and locked messages of one store.

    Attributes:
        grants: For each grant the messages still under it, with the end of each one's lock.
        locked_count: Messages under any grant.
    """

    __slots__ = ("_fresh", "_head", "_order", "_returned", "grants", "locked_count")

    def __init__(self, order: dict[int, int] | None = None) -> None:
        """Make an empty store.

        Args:
            order: Where a message stands in the store, by sequence number; None = by the number itself.
        """
        self.grants: dict[int, dict[int, int]] = {}
        self.locked_count = 0
        self._order = order
        self._fresh = array("q")  # never delivered, in order; before _head: leftovers
        self._head = 0
        self._returned: list[tuple[int, int]] = []  # (place, sequence) of what came back, rising

    @property
    def ready_count(self) -> int:
        """Messages that a receive could get."""
        return len(self._fresh) - self._head + len(self._returned)

    def add(self, sequences: Sequence[int]) -> None:
        """Add messages at the end."""
        self._fresh.extend(sequences)

    def peek_ready(self, maximum: int) -> array[int]:
        """Return what a receive of up to `maximum` messages gets now, in delivery order."""
        chosen = array("q", (sequence for _, sequence in self._returned[:maximum]))
        if len(chosen) < maximum:
            fresh = self._fresh[self._head : self._head + maximum - len(chosen)]
            if not chosen:
                return fresh
            chosen.extend(fresh)
        return chosen

    def lock(self, sequences: Sequence[int], *, grant: int, locked_until_ms: int) -> None:
        """Lock what `peek_ready` returned, or the beginning of it."""
        self._take(len(sequences))
        self.grants[grant] = dict.fromkeys(sequences, locked_until_ms)
        self.locked_count += len(sequences)

    def _take(self, count: int) -> None:
        came_back = min(count, len(self._returned))
        del self._returned[:came_back]
        self._head += count - came_back
        if self._head == len(self._fresh):
            self._fresh = array("q")
            self._head = 0
        elif self._head > _TRIM_AT and self._head * 2 > len(self._fresh):
            del self._fresh[: self._head]
            self._head = 0

    def skip(self, chosen: Sequence[int], going: Container[int]) -> None:
        """Take out some of what `peek_ready` returned, and leave the others where they are."""
        self._take(len(chosen))
        for sequence in chosen:
            if sequence not in going:
                self.give_back(sequence)

    def take_out(self, sequences: Sequence[int]) -> None:
        """Take ready messages out, wherever they stand."""
        going = set(sequences)
        if self._returned:
            stayed = [item for item in self._returned if item[1] not in going]
            if len(stayed) < len(self._returned):
                going.difference_update(sequence for _, sequence in self._returned)
                self._returned = stayed
        if not going:
            return
        places = sorted(map(self._place, going))
        fresh = self._fresh
        first = bisect_left(fresh, places[0], self._head, key=self._place)
        stop = bisect_right(fresh, places[-1], first, key=self._place)
        kept = array("q", (s for s in fresh[first:stop] if s not in going))
        assert stop - first - len(kept) == len(going), "what is taken out is ready"
        if first == self._head:  # the usual case: the oldest go
            fresh[stop - len(kept) : stop] = kept
            self._head = stop - len(kept)
            self._take(0)
        else:
            fresh[first:stop] = kept

    def restore_ready(self, sequences: Sequence[int]) -> None:
        """Add, in order, what was ready; locks must be back already.

        What stands before a locked message counts as come back, so that the locked one finds its place (LCK-9).
        """
        last = max((self._place(s) for held in self.grants.values() for s in held), default=0)
        for at, sequence in enumerate(sequences):
            if self._place(sequence) > last:
                self._fresh.extend(sequences[at:])
                return
            self._returned.append((self._place(sequence), sequence))

    def _place(self, sequence: int) -> int:
        return sequence if self._order is None else self._order[sequence]

    def hold(self, grant: int, locked_until_ms: dict[int, int]) -> None:
        """Put messages that are in no place under a grant, each with the end of its lock."""
        self.grants[grant] = locked_until_ms
        self.locked_count += len(locked_until_ms)

    def is_locked(self, grant: int, sequence: int) -> bool:
        """Whether a receiver has the message under the grant; what is held for ever is in nobody's hand (RSB-2)."""
        held = self.grants.get(grant)
        return held is not None and held.get(sequence, FOR_EVER_MS) < FOR_EVER_MS

    def unlock(self, grant: int, sequence: int) -> None:
        """Take one message from its grant; it is in no place until `give_back`, or gone for good."""
        held = self.grants[grant]
        del held[sequence]
        self.locked_count -= 1
        if not held:
            del self.grants[grant]

    def give_back(self, sequence: int) -> None:
        """Return one unlocked message to its place: ahead of what is younger (LCK-9), behind what is older."""
        place, fresh = self._place(sequence), self._fresh
        if self._head < len(fresh) and place > self._place(fresh[self._head]):
            fresh.insert(bisect_left(fresh, place, self._head, key=self._place), sequence)
        else:
            insort(self._returned, (place, sequence))

    def renew(self, grant: int, sequence: int, locked_until_ms: int) -> None:
        """Move the end of one message's lock; never backwards."""
        held = self.grants[grant]
        held[sequence] = max(held[sequence], locked_until_ms)

    def ready(self) -> array[int]:
        """Return all ready messages in delivery order."""
        return self.peek_ready(self.ready_count)
