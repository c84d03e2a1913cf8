"""When a queue was used last, and by whom.

Here belongs what answers "are my messages coming, and who takes them?" (SND-3). Never here: what is stored: after a
restart a queue counts as used just now.
"""

from __future__ import annotations


class Activity:
    """The last uses of one queue; times in ms since the epoch, 0 = not since the partition opened.

    Attributes:
        sent_ms: When messages were stored last.
        delivered_ms: When messages were delivered last.
        receiver: How that receiver named itself.
        used_ms: When it was sent to, received from or looked at last, or the partition opened.
    """

    __slots__ = ("delivered_ms", "receiver", "sent_ms", "used_ms")

    def __init__(self) -> None:
        self.sent_ms = 0
        self.delivered_ms = 0
        self.receiver = ""
        self.used_ms = 0

    def send(self, now_ms: int) -> None:
        """Note that messages were stored."""
        self.sent_ms = self.used_ms = now_ms

    def deliver(self, now_ms: int, receiver: str) -> None:
        """Note that messages were delivered."""
        self.delivered_ms = self.used_ms = now_ms
        self.receiver = receiver

    def use(self, now_ms: int) -> None:
        """Note any other use."""
        self.used_ms = now_ms
