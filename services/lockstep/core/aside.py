"""Messages that are stored and wait for something: a time, or a receiver who names them.

Here belongs what is known of each. Never here: what happens to them (`scheduling`, `deferral`, `delaying`).
"""

from __future__ import annotations

from typing import NamedTuple

from lockstep.core.ids import SessionId


class Deferred:
    """A message that is delivered by its number only.

    Attributes:
        session_id: Its session; None = it has none, or is a dead letter.
        grant: Who has it in hand; 0 = nobody.
    """

    __slots__ = ("grant", "session_id")

    def __init__(self, session_id: SessionId | None, grant: int = 0) -> None:
        self.session_id = session_id
        self.grant = grant


class Scheduled(NamedTuple):
    """A message that is not active yet. `ttl_ms` counts from its activation on; 0 = for ever."""

    due_ms: int
    ttl_ms: int
    session_id: SessionId | None


class Delay(NamedTuple):
    """An abandoned message that may be delivered again at `until_ms` (ADD-6)."""

    until_ms: int
    session_id: SessionId | None
