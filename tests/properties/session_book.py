"""The model of sessions: for each one its holder, its state and its place in the order of accept-next.

Its messages are those of the queue that name it; what its holder has in hand bears the holder's grant.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass
class Holder:
    """Who holds a session, and until when."""

    grant: int
    name: str
    since_ms: int
    until_ms: int


@dataclass
class SessionModel:
    """One session, its messages apart."""

    place: int  # in the order of accept-next; lower goes first
    holder: Holder | None = None
    state: bytes | None = None
    version: int = 0
    last_grant: int = 0
    idle_since_ms: int = 0  # when its state was written, or its last holder left
    alone_since_ms: int = (
        0  # when all that is left of it was seen to be its state; 0 = more is left
    )


class SessionBook:
    """All sessions of a queue, and how the last locks ended."""

    def __init__(self, losses_most: int) -> None:
        self.sessions: dict[str, SessionModel] = {}
        self.releases = 0
        self.losses: OrderedDict[int, tuple[str, int, str]] = OrderedDict()  # cause, when, by whom
        self.losses_most = losses_most
        self.granted: list[tuple[str, int]] = []

    def session(self, session_id: str) -> SessionModel:
        """Return a session; an unknown one stands level with the one that was released last."""
        return self.sessions.setdefault(session_id, SessionModel(self.releases))

    def held(self, session_id: str, grant: int) -> Holder | None:
        """Return the holder of the session if it holds it under this grant."""
        session = self.sessions.get(session_id)
        if session is None or session.holder is None or session.holder.grant != grant:
            return None
        return session.holder

    def holders(self) -> dict[str, Holder]:
        """All sessions that somebody holds."""
        return {i: s.holder for i, s in self.sessions.items() if s.holder is not None}

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

    def end_grant(self, session_id: str, cause: str, now_ms: int, by: str = "") -> Holder:
        """Take a session from its holder; it goes behind all others."""
        session = self.sessions[session_id]
        holder = session.holder
        assert holder is not None
        self.note_loss(holder.grant, cause, now_ms, by)
        session.holder = None
        session.idle_since_ms = now_ms
        self.releases += 1
        session.place = self.releases
        return holder

    def note_loss(self, grant: int, cause: str, now_ms: int, by: str = "") -> None:
        """Remember how a grant ended, and forget the oldest of too many."""
        self.losses[grant] = (cause, now_ms, by)
        if len(self.losses) > self.losses_most:
            self.losses.popitem(last=False)

    def loss(self, session_id: str, grant: int, last_grant: int) -> dict[str, str]:
        """What a caller whose lock is gone must be told (P-4, ADD-5)."""
        session = self.sessions.get(session_id)
        told = {"session_id": session_id, "grant": str(grant)}
        if not 0 < grant <= last_grant:
            told["cause"] = "unknown"
        elif (session_id, grant) in self.granted and grant in self.losses:
            told["cause"], since_ms, _ = self.losses[grant]
            told["since_ms"] = str(since_ms)
        elif (session_id, grant) in self.granted:
            told["cause"] = "ended_earlier"
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
            if not session.last_grant:
                session.place = 0
