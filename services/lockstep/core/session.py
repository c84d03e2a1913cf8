"""One session: its messages, its lock, and what its holder has in hand.

Here belongs everything about the lock of a single session. Never here: which session is handed out
next (`turns`), or storage. The laws:

1. A session has at most one holder. Each grant has a number that only rises, and every call of a holder
   shows it; a call under another grant changes nothing (SES-18, SES-26).
2. What the holder has in hand is a prefix: every message up to `cursor`, except those in `returned`
   (design law 7). So a whole batch is delivered, or taken back, by moving one number.
3. Messages are delivered in sequence order. What came back under the same grant is delivered again
   before anything younger (SES-27, SES-28, SES-29).
4. A lock that *expires* counts one failed delivery for each message in hand; a lock that is *closed*
   counts none (DCN-4).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from itertools import zip_longest

from lockstep.core.ids import SessionId
from lockstep.core.turns import Turn

_TRIM_AT = 512


class Session:
    """A session of one queue.

    Attributes:
        session_id: Its id.
        scheduled: How many of its messages are scheduled.
        grant: The number of the current or last grant; 0 = never granted.
        holder: How the current holder named itself; meaningless when nobody holds it.
        locked_until_ms: When the lock ends; 0 = nobody holds it.
        granted_ms: When the current grant began.
        released_ms: When the last grant ended; 0 = never.
        cursor: The highest sequence number delivered under the current grant; 0 = none.
        deferred: How many of its messages are deferred, those in hand included.
        deferred_hand: The deferred messages that the holder received and has not settled.
        delayed: Rising numbers of active messages whose delay has not ended; nothing from the first on is delivered.
        expires_ms: No active message expires earlier; 0 = none expires.
        returned: Rising numbers at or below `cursor` that came back and are not delivered again yet.
        turn: Its place in the order of accept-next: lower goes first (SES-13).
        grace: Whether the lock is only kept by the grace after an outage; its end counts as a close (ADD-4).
        offered_at: Its place among the sessions that accept-next may hand out, kept there; None = it is none of them.
        is_stored: Whether storage has a row of it; kept by the queue.
        state_bytes: Length of the stored state; None = no state.
        state_version: Given by the last write of the state, higher at each; 0 = never set, or forgotten since.
        state_set_ms: When the state was written last; 0 = never.
        address: Where the current holder called from; "" = not known.
        renewals: How often the current or last lock was renewed by its holder.
        last_loss: How the last grant ended; "" = there was none, or it is not known.
    """

    __slots__ = (
        "_head",
        "_live",
        "address",
        "cursor",
        "deferred",
        "deferred_hand",
        "delayed",
        "expires_ms",
        "grace",
        "grant",
        "granted_ms",
        "holder",
        "is_stored",
        "last_loss",
        "locked_until_ms",
        "offered_at",
        "released_ms",
        "renewals",
        "returned",
        "scheduled",
        "session_id",
        "state_bytes",
        "state_set_ms",
        "state_version",
        "turn",
    )

    def __init__(self, session_id: SessionId, turn: int) -> None:
        self.session_id = session_id
        self.turn = turn
        self.grant = 0
        self.holder = ""
        self.locked_until_ms = 0
        self.granted_ms = 0
        self.released_ms = 0
        self.cursor = 0
        self.expires_ms = 0
        self.scheduled = 0
        self.deferred = 0
        self.deferred_hand: set[int] = set()
        self.delayed: list[int] = []
        self.returned: list[int] = []
        self.address = ""
        self.renewals = 0
        self.last_loss = ""
        self.grace = False
        self.offered_at: Turn | None = None
        self.is_stored = False
        self.state_bytes: int | None = None
        self.state_version = 0
        self.state_set_ms = 0
        self._live = array("q")  # all and only the active messages, rising; before _head: leftovers
        self._head = 0

    # --- what can be said about it -------------------------------------------------------------

    @property
    def is_held(self) -> bool:
        """Whether somebody holds the lock. A lock that ran out is held until its expiry is recorded."""
        return self.locked_until_ms != 0

    @property
    def active_count(self) -> int:
        """Messages that are ready or in the holder's hand."""
        return len(self._live) - self._head

    @property
    def oldest_active(self) -> int:
        """The lowest active sequence number; 0 = no active message."""
        return self._live[self._head] if self._head < len(self._live) else 0

    @property
    def oldest_deliverable(self) -> int:
        """The lowest sequence number that a holder could receive next; 0 = there is none."""
        if not self.cursor and not self.delayed:  # this is asked of every session at each scrape
            return self._live[self._head] if self._head < len(self._live) else 0
        return next(iter(self.peek_deliverable(1)), 0)

    @property
    def is_runnable(self) -> bool:
        """Whether accept-next may hand it out: nobody holds it and it has a message to deliver (SES-9, ADD-6)."""
        return (
            not self.locked_until_ms
            and self._head < len(self._live)
            and (not self.delayed or self.delayed[0] != self._live[self._head])
        )

    @property
    def is_forgettable(self) -> bool:
        """Whether nothing would be lost with it: no message, no lock, no state (SES-2)."""
        return (
            not self.locked_until_ms
            and self._head == len(self._live)
            and self.state_bytes is None
            and not self.scheduled
            and not self.deferred
        )

    @property
    def deliverable_count(self) -> int:
        """Messages that the next receive of the holder could get."""
        if self.delayed:
            return len(self.peek_deliverable(self.active_count))
        return self.active_count - self.in_hand_count

    @property
    def in_hand_count(self) -> int:
        """Messages delivered under the current grant and not settled."""
        if not self.cursor:
            return 0
        return bisect_right(self._live, self.cursor, self._head) - self._head - len(self.returned)

    def in_hand(self) -> array[int]:
        """Return the messages delivered under the current grant and not settled, rising."""
        if not self.cursor:
            return array("q")
        prefix = self._live[self._head : bisect_right(self._live, self.cursor, self._head)]
        if not self.returned:
            return prefix
        back = set(self.returned)
        return array("q", (sequence for sequence in prefix if sequence not in back))

    def active(self) -> array[int]:
        """Return all active messages, rising."""
        return self._live[self._head :]

    def is_in_hand(self, sequence: int) -> bool:
        """Whether the message was delivered under the current grant and is not settled."""
        if sequence > self.cursor:
            return False
        at = bisect_left(self._live, sequence, self._head)
        if at == len(self._live) or self._live[at] != sequence:
            return False
        back = bisect_left(self.returned, sequence)
        return back == len(self.returned) or self.returned[back] != sequence

    def has_in_hand(self, sequences: Sequence[int]) -> bool:
        """Whether the messages are the beginning of an unbroken hand; the usual case, found at little cost."""
        if self.returned or not sequences or sequences[-1] > self.cursor:
            return False
        return self._live[self._head : self._head + len(sequences)].tolist() == list(sequences)

    def has(self, sequence: int) -> bool:
        """Whether the message is one of the active ones."""
        at = bisect_left(self._live, sequence, self._head)
        return at < len(self._live) and self._live[at] == sequence

    def count_before(self, sequence: int) -> int:
        """Return how many active messages are older and not in the holder's hand."""
        ahead = self._live[self._head : bisect_left(self._live, sequence, self._head)]
        return sum(1 for older in ahead if not self.is_in_hand(older))

    # --- messages ------------------------------------------------------------------------------

    def add(self, sequences: Sequence[int], expires_ms: int = 0) -> None:
        """Add new messages, rising and younger than all before.

        Args:
            sequences: The messages.
            expires_ms: When the first of them expires; 0 = none does.
        """
        self._live.extend(sequences)
        if expires_ms and (not self.expires_ms or expires_ms < self.expires_ms):
            self.expires_ms = expires_ms

    def take_out(self, sequences: Sequence[int]) -> None:
        """Take messages out that are not in the holder's hand."""
        going = set(sequences)
        stop = self._head + len(sequences)
        if self._live[self._head : stop] == array("q", sequences):  # the oldest go
            self._head = stop
            self._trim()
        else:
            self._live = array("q", (s for s in self.active() if s not in going))
            self._head = 0
        self.returned = [s for s in self.returned if s not in going]
        self.delayed = [s for s in self.delayed if s not in going]

    def put_back(self, sequences: Sequence[int]) -> None:
        """Add messages, rising, that may be older than others, at their places; a holder gets them next."""
        self._live = array("q", sorted([*self.active(), *sequences]))
        self._head = 0
        for sequence in sequences:
            if sequence <= self.cursor:
                insort(self.returned, sequence)

    def delay(self, sequence: int) -> None:
        """Deliver neither an active message nor anything younger until its delay ends (ADD-6)."""
        insort(self.delayed, sequence)

    def peek_deliverable(self, maximum: int) -> array[int]:
        """Return what a receive of up to `maximum` messages gets now, in delivery order (BAT-2)."""
        chosen = array("q", self.returned[:maximum])
        if len(chosen) < maximum:
            start = bisect_right(self._live, self.cursor, self._head) if self.cursor else self._head
            fresh = self._live[start : start + maximum - len(chosen)]
            if not chosen and not self.delayed:
                return fresh
            chosen.extend(fresh)
        if self.delayed:
            del chosen[bisect_left(chosen, self.delayed[0]) :]
        return chosen

    def misordered(self, sequences: Sequence[int]) -> int:
        """Return how many messages are out of order if these are delivered next; more than 0 is a bug.

        Cost: every active message up to the youngest of them is looked at.
        """
        in_hand = set(self.in_hand())
        end = bisect_right(self._live, max(sequences, default=0), self._head)
        due = sorted(s for s in self._live[self._head : end] if s not in in_hand)
        return sum(a != b for a, b in zip_longest(due, sequences))

    def deliver(self, sequences: Sequence[int]) -> None:
        """Put into the holder's hand what `peek_deliverable` returned, or the beginning of it."""
        if self.returned:
            del self.returned[: bisect_right(self.returned, sequences[-1])]
        self.cursor = max(self.cursor, sequences[-1])

    def give_back(self, sequence: int) -> None:
        """Return one message from the holder's hand to its place."""
        insort(self.returned, sequence)

    def remove(self, sequences: Sequence[int]) -> None:
        """Forget messages from the holder's hand: they are done, or dead letters. Rising."""
        count = len(sequences)
        stop = self._head + count
        if not self.returned and self._live[self._head : stop] == array("q", sequences):
            self._head = stop
        else:
            for sequence in reversed(sequences):
                self._remove_one(sequence)
        self._trim()

    def _trim(self) -> None:
        if self._head == len(self._live):
            self._live = array("q")
            self._head = 0
        elif self._head > _TRIM_AT and self._head * 2 > len(self._live):
            del self._live[: self._head]
            self._head = 0

    def _remove_one(self, sequence: int) -> None:
        # The hand is near the head, so the few older messages move up, not the many younger ones down.
        at = bisect_left(self._live, sequence, self._head)
        self._live[self._head + 1 : at + 1] = self._live[self._head : at]
        self._head += 1

    # --- the lock ------------------------------------------------------------------------------

    def grant_to(
        self, holder: str, *, grant: int, now_ms: int, lock_duration_ms: int, address: str = ""
    ) -> None:
        """Give the lock to a holder. Nobody may hold it."""
        assert not self.is_held, f"session {self.session_id!r} is held by grant {self.grant}"
        self.grant = grant
        self.holder = holder
        self.address = address
        self.renewals = 0
        self.granted_ms = now_ms
        self.locked_until_ms = now_ms + lock_duration_ms
        self.grace = False
        self.cursor = 0
        self.returned = []

    def renew(self, *, now_ms: int, lock_duration_ms: int) -> None:
        """Move the end of the lock to now + lock duration; never backwards (SES-18)."""
        self.locked_until_ms = max(self.locked_until_ms, now_ms + lock_duration_ms)
        self.grace = False

    def hear_of_holder(self) -> None:
        """Note that the holder is alive, so that the lock does not depend on the grace any more (ADD-4)."""
        self.grace = False

    def release(self, *, turn: int, now_ms: int, cause: str) -> array[int]:
        """End the lock and return what the holder had in hand; it is back in its place (SES-32)."""
        hand = self.in_hand()
        self.locked_until_ms = 0
        self.cursor = 0
        self.returned = []
        self.grace = False
        self.holder = ""
        self.address = ""
        self.last_loss = cause
        self.released_ms = now_ms
        self.turn = turn
        return hand
