"""The model of sessions: for each one a list of messages, its holder and its state.

The next message of a holder is simply the oldest one that is not in its hand: what was abandoned is
older than what was never delivered, so it comes first without a rule of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from tests.properties.shelf import Message


@dataclass
class Holder:
    """Who holds a session, until when, and what is in the hand."""

    grant: int
    name: str
    since_ms: int
    until_ms: int
    hand: set[int] = field(default_factory=set)
    is_heard: bool = True  # False: an outage met the lock, and its holder was silent since


@dataclass
class SessionModel:
    """One session."""

    place: int  # in the order of accept-next; lower goes first
    messages: list[Message] = field(default_factory=list)
    holder: Holder | None = None
    state: bytes | None = None
    version: int = 0
    last_grant: int = 0

    @property
    def hand(self) -> list[int]:
        """What the holder has in hand, oldest first."""
        return sorted(self.holder.hand) if self.holder else []

    @property
    def deliverable(self) -> list[Message]:
        """What the holder's next receive would get, or anybody's if there is no holder."""
        return [m for m in self.messages if m["sequence"] not in self.hand]


class SessionBook:
    """All sessions of a queue, and how the last locks ended."""

    def __init__(self, losses_most: int) -> None:
        self.sessions: dict[str, SessionModel] = {}
        self.releases = 0
        self.losses: OrderedDict[int, str] = OrderedDict()
        self.losses_most = losses_most
        self.granted: list[tuple[str, int]] = []

    def session(self, session_id: str) -> SessionModel:
        """Return a session; an unknown one stands level with the one that was released last."""
        return self.sessions.setdefault(session_id, SessionModel(self.releases))

    def held(self, session_id: str, grant: int) -> SessionModel | None:
        """Return the session if this grant holds it."""
        session = self.sessions.get(session_id)
        if session is None or session.holder is None or session.holder.grant != grant:
            return None
        return session

    def next_runnable(self) -> str | None:
        """Whom accept-next gets: released longest ago, among equals the one with the oldest message."""
        runnable = self.runnable()
        return runnable[0] if runnable else None

    def runnable(self) -> list[str]:
        """All sessions that accept-next may hand out, in order."""
        free = [(i, s) for i, s in self.sessions.items() if s.holder is None and s.messages]
        return [
            i for i, s in sorted(free, key=lambda f: (f[1].place, f[1].messages[0]["sequence"]))
        ]

    def grant(
        self, session_id: str, *, grant: int, name: str, now_ms: int, until_ms: int
    ) -> SessionModel:
        """Give a free session to a holder."""
        session = self.session(session_id)
        assert session.holder is None
        session.holder = Holder(grant, name, now_ms, until_ms)
        session.last_grant = grant
        self.granted.append((session_id, grant))
        return session

    def end_grant(self, session_id: str, cause: str) -> list[Message]:
        """Take a session from its holder and return what was in the hand; it is back in its place."""
        session = self.sessions[session_id]
        assert session.holder is not None
        hand = [m for m in session.messages if m["sequence"] in session.holder.hand]
        self.note_loss(session.holder.grant, cause)
        session.holder = None
        self.releases += 1
        session.place = self.releases
        return hand

    def forget_empty(self) -> None:
        """A session of which nothing is left does not exist (SES-2)."""
        for session_id, session in list(self.sessions.items()):
            if not session.messages and session.holder is None and session.state is None:
                del self.sessions[session_id]

    def due(self, now_ms: int) -> list[str]:
        """Sessions whose lock has ended."""
        return [
            i
            for i, s in self.sessions.items()
            if s.holder is not None and s.holder.until_ms <= now_ms
        ]

    def note_loss(self, grant: int, cause: str) -> None:
        """Remember how a grant ended, and forget the oldest of too many."""
        self.losses[grant] = cause
        if len(self.losses) > self.losses_most:
            self.losses.popitem(last=False)

    def loss(self, session_id: str, grant: int, last_grant: int) -> dict[str, str]:
        """What a caller whose lock is gone must be told (P-4)."""
        session = self.sessions.get(session_id)
        told = {"session_id": session_id, "grant": str(grant)}
        if not 0 < grant <= last_grant:
            told["cause"] = "unknown"
        elif (session_id, grant) in self.granted:
            told["cause"] = self.losses.get(grant, "ended_earlier")
        if session is not None and session.holder is not None:
            told["taken_by_grant"] = str(session.holder.grant)
            told["holder"] = session.holder.name
        return told

    def reopen(self, grace_until_ms: int) -> None:
        """Locks get their grace. Which sessions were never granted is seen; when they came is not, so they go first."""
        self.losses.clear()
        places = [s.place for s in self.sessions.values() if s.last_grant]
        self.releases = max(places, default=0)
        for session in self.sessions.values():
            if session.holder is not None:
                session.holder.until_ms = max(session.holder.until_ms, grace_until_ms)
                session.holder.is_heard = False
            if not session.last_grant:
                session.place = 0

    def view(self) -> dict[str, Any]:
        """What can be compared with a partition."""
        return {
            session_id: {
                "active": [m["sequence"] for m in session.messages],
                "hand": session.hand,
                "deliverable": [m["sequence"] for m in session.deliverable],
                "holder": (
                    (session.holder.name, session.holder.until_ms, session.holder.since_ms)
                    if session.holder
                    else None
                ),
                "grant": session.last_grant,
                "state": None if session.state is None else len(session.state),
                "version": session.version,
            }
            for session_id, session in self.sessions.items()
        }
