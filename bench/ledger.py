"""What a benchmark of a session queue must find true while it measures.

Pure book-keeping of what was sent, held and received; no clock, no network. The law: a fast wrong answer is not a
result, so the first broken promise ends the run and is named.
"""

from __future__ import annotations

from collections.abc import Sequence


class Violation(Exception):
    """A promise was broken.

    Attributes:
        promise: ORDER, EXCLUSIVITY, LOCK, LOSS or DUPLICATE.
    """

    def __init__(self, promise: str, what: str) -> None:
        """Name the promise and say what was seen."""
        super().__init__(promise, what)
        self.promise = promise

    def __str__(self) -> str:
        """Return the promise and what was seen in one line."""
        return ": ".join(map(str, self.args))


class Ledger:
    """Numbers the messages of each session from 0 and checks what comes back.

    A session's messages must be numbered and sent by one sender at a time, or their order is not defined.
    """

    def __init__(self, sessions: int) -> None:
        """Begins with nothing sent."""
        self._sent = [0] * sessions
        self._received = [0] * sessions
        self._holders: dict[int, int] = {}
        self._grants = 0

    @property
    def outstanding(self) -> int:
        """How many numbered messages were not received yet."""
        return sum(self._sent) - sum(self._received)

    def number(self, session: int, count: int) -> range:
        """Return the numbers of the next messages of a session."""
        first = self._sent[session]
        self._sent[session] += count
        return range(first, first + count)

    def accepted(self, session: int) -> int:
        """Note that a receiver holds a session; returns the receiver's grant.

        Raises:
            Violation: EXCLUSIVITY, when another receiver holds it.
        """
        if session in self._holders:
            raise Violation("EXCLUSIVITY", f"session {session} was granted while it was held")
        self._grants += 1
        self._holders[session] = self._grants
        return self._grants

    def received(self, session: int, grant: int, numbers: Sequence[int]) -> None:
        """Check what was delivered under a grant.

        Raises:
            Violation: EXCLUSIVITY, when the grant is over; DUPLICATE or ORDER, when a message came again or early.
        """
        if self._holders.get(session) != grant:
            raise Violation(
                "EXCLUSIVITY", f"session {session} delivered to a receiver that gave it back"
            )
        for number in numbers:
            due = self._received[session]
            if number < due:
                raise Violation(
                    "DUPLICATE", f"session {session}: message {number} came again, {due} was due"
                )
            if number > due:
                raise Violation(
                    "ORDER", f"session {session}: message {number} came when {due} was due"
                )
            self._received[session] = due + 1

    def releasing(self, session: int) -> None:
        """Note that a receiver is about to give a session back: another may hold it before the reply comes."""
        del self._holders[session]

    def check_nothing_lost(self) -> None:
        """Compare what was received with what was sent.

        Raises:
            Violation: LOSS, with the first session that lacks a message.
        """
        for session, (sent, received) in enumerate(zip(self._sent, self._received, strict=True)):
            if received < sent:
                raise Violation(
                    "LOSS", f"session {session}: messages {received} to {sent - 1} never came"
                )
