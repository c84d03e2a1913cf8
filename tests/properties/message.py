"""The model of a message: its state, whose hand it is in, and how it ended as a dead letter."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

EXPIRED = "TTLExpiredException"
CHANGED = 8  # bytes that the wire needs for changes of any size, at most
MAX_DELIVERY = ("MaxDeliveryCountExceeded", "…")


class State(Enum):
    """Where a message stands (section 2.2 of the contract)."""

    ACTIVE = "active"
    DEFERRED = "deferred"
    SCHEDULED = "scheduled"


@dataclass
class Message:
    """One stored message.

    `session_id` is None in a queue without sessions. `grant` names the hand it is in, 0 = nobody's; `until_ms` is the
    end of its own lock, 0 in a session, whose lock covers it. `why` (reason, description) is set for dead letters.
    `properties` were set since it was sent (MSG-8); the bytes that its sender wrote are `payload`.
    """

    sequence: int
    payload: bytes
    session_id: str | None
    enqueued_ms: int
    ttl_ms: int = 0  # 0 = for ever
    due_ms: int = 0  # when it becomes active; 0 = it is
    state: State = State.ACTIVE
    count: int = 0
    grant: int = 0
    until_ms: int = 0
    why: tuple[str, str] | None = None
    properties: dict[str, bytes] = field(default_factory=dict)
    delayed_until_ms: int = 0  # 0 = it is not delayed (ADD-6)

    @property
    def size_bytes(self) -> int:
        """What it takes, with what was set on it."""
        set_on_it = CHANGED + sum(map(len, self.properties.values())) if self.properties else 0
        return len(self.payload) + set_on_it

    @property
    def expires_ms(self) -> int:
        """When it expires, 0 = never; the life of a scheduled one has not begun, that of a dead letter is over."""
        lives = self.ttl_ms and self.state is not State.SCHEDULED and self.why is None
        return self.enqueued_ms + self.ttl_ms if lives else 0

    def is_over(self, now_ms: int) -> bool:
        """Whether its time to live is over (TTL-2)."""
        return 0 < self.expires_ms <= now_ms

    def is_ready(self) -> bool:
        """Whether an ordinary receive could get it, if nothing went before it."""
        return self.is_idle() and not self.delayed_until_ms

    def is_idle(self) -> bool:
        """Whether it is active and in nobody's hand; its delay may go on."""
        return self.state is State.ACTIVE and not self.grant

    def free(self) -> None:
        """Take it out of the hand it is in; an active one is back in its place, a deferred one is deferred."""
        self.grant = self.until_ms = 0
