"""Which session accept-next hands out next (SES-13).

Here belongs the order of the sessions that nobody holds and that have a message to deliver. Never here: what makes a
session one of them (`session`), or what a grant is. The law: the order holds these sessions and no other, so that
asking for the first one never takes long, whatever happened before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sortedcontainers import SortedList

from lockstep.core.ids import SessionId

if TYPE_CHECKING:
    from lockstep.core.session import Session


class Turn(NamedTuple):
    """The place of a session in the order: released sessions stand behind; then the oldest message decides."""

    turn: int
    oldest: int
    session_id: SessionId


class RunnableSessions:
    """The sessions that accept-next may hand out, in their order. Every operation takes O(log n)."""

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: SortedList[Turn] = SortedList()

    def __len__(self) -> int:
        """How many sessions accept-next may hand out."""
        return len(self._turns)

    def first(self) -> SessionId | None:
        """Return the session whose turn it is; None = there is none."""
        return self._turns[0].session_id if self._turns else None

    def offer(self, session: Session) -> None:
        """Put a session in at its turn."""
        session.offered_at = Turn(session.turn, session.oldest_active, session.session_id)
        self._turns.add(session.offered_at)

    def withdraw(self, session: Session) -> None:
        """Take a session out that was put in."""
        assert session.offered_at is not None, f"session {session.session_id!r} was not offered"
        self._turns.remove(session.offered_at)
        session.offered_at = None

    def in_order(self) -> list[SessionId]:
        """Return all of them, the next one first."""
        return [turn.session_id for turn in self._turns]
