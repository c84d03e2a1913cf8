"""What clients could hold against the broker from what it told them (I-2 … I-8 of section 19 of the contract).

Nothing here knows how a broker works, nor the model: it compares what was answered with what was answered before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from lockstep.core import commands as c
from lockstep.core import replies
from lockstep.core.ids import RequestId, SessionLock


class Promises:
    """What one queue promised to its clients so far."""

    def __init__(self, answered: Iterable[RequestId] = ()) -> None:
        """Begin with a new queue; the partition may know calls from its predecessor (ADD-3)."""
        self.last_number = 0
        self.grants: dict[str, int] = {}  # of each session the last one
        self.answered = set(answered)
        self.highest: dict[tuple[str, int], int] = defaultdict(int)
        self.counts: dict[int, int] = defaultdict(int)
        self.states: dict[str, bytes | None] = {}

    def keep(
        self, command: c.Command, reply: replies.Reply, state: bytes | None, now_ms: int
    ) -> None:
        """Check an answer against those before.

        Args:
            command: What was asked.
            reply: What was answered.
            state: The session state that came along, where the reply speaks of one.
            now_ms: When.
        """
        request = getattr(command, "request", None)
        is_first = request not in self.answered
        if request is not None:
            self.answered.add(request)
        match command, reply:
            case c.Send(), replies.Sent() if is_first:
                self._number(reply)
            case _, replies.Accepted():
                self._grant(reply.session)
                assert state == self.states.get(reply.session.session_id), "I-6: another state"
            case _, replies.StateIs():
                assert state == self.states.get(reply.session_id), "I-6: another state"
            case c.ClearStates(session_id=str() as cleared), replies.StatesCleared(1):
                self.states[cleared] = None
            case c.SetState(), replies.StateSet() if is_first:
                self.states[command.session.session_id] = command.value
            case c.TakeTurn(), replies.TurnTaken() if is_first:
                self._take_turn(command, reply)
            case c.Settle(session=SessionLock() as lock), replies.Settled() if is_first:
                self._settle(command, reply, lock)
            case c.Receive() | c.ReceiveDeferred(), replies.Delivered():
                self._deliver(command, reply, now_ms)

    def _number(self, sent: replies.Sent) -> None:
        places = range(len(sent.numbers))
        stored = [sent.numbers[p] for p in places if p not in sent.duplicates]
        rising = [self.last_number, *stored]
        assert rising == sorted(set(rising)), "I-7: numbers fall"
        self.last_number = rising[-1]

    def _grant(self, lock: SessionLock) -> None:
        assert lock.grant >= self.grants.get(lock.session_id, 0), "I-3: an older grant lives"
        self.grants[lock.session_id] = lock.grant

    def _take_turn(self, command: c.TakeTurn, reply: replies.TurnTaken) -> None:
        lock = command.session
        assert lock.grant == self.grants[lock.session_id], "I-4: a turn under an old grant"
        if reply.sent is not None:
            self._number(reply.sent)
        if command.sets_state:
            self.states[lock.session_id] = command.state

    def _settle(self, command: c.Settle, reply: replies.Settled, lock: SessionLock) -> None:
        asked = sum(len(settlement.sequences) for settlement in command.settlements)
        if len(reply.failures) < asked:
            assert lock.grant == self.grants[lock.session_id], "I-4: settled under an old grant"

    def _deliver(
        self, command: c.Receive | c.ReceiveDeferred, reply: replies.Delivered, now_ms: int
    ) -> None:
        numbers = list(reply.sequences)
        for number, count in zip(numbers, reply.counts or (0,) * len(numbers), strict=True):
            assert count >= self.counts[number], f"I-5: the count of {number} fell"
            self.counts[number] = count
        if not isinstance(command, c.Receive) or command.dead_letter or reply.is_final:
            return
        over = [ms for ms in reply.expires_ms if 0 < ms <= now_ms]
        assert not over, f"I-8: delivered after {over}"
        if command.session is not None:
            self._deliver_in_order(command.session, numbers)

    def _deliver_in_order(self, lock: SessionLock, numbers: list[int]) -> None:
        """Within a grant, what is delivered for the first time is younger than all that was before (I-2)."""
        assert lock.grant == self.grants[lock.session_id], "I-3: delivered to an old grant"
        assert numbers == sorted(numbers), "I-2: not in order"
        new = [number for number in numbers if number > self.highest[lock]]
        assert numbers[len(numbers) - len(new) :] == new
        if numbers:
            self.highest[lock] = max(self.highest[lock], numbers[-1])
