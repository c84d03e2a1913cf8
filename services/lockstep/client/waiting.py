"""A wait of a program, whether it blocks or not.

Here belongs how long a wait is still to last. Never here: what is waited for (`receiving`). The law: a wait may be
longer than one call may take, so it is made of several.
"""

from __future__ import annotations

from lockstep.client.channel_options import WAIT_MS_MAX
from lockstep.client.transport import Transport


class Wait:
    """A wait of a program, made of calls that each wait for a part of it.

    Attributes:
        left_ms: How much of it was left when the present call began; None = it has no end.
        call_ms: How much of it the present call waits for.
    """

    __slots__ = ("_began_ms", "_ends_ms", "_transport", "call_ms", "left_ms")

    def __init__(self, transport: Transport, wait_ms: int | None) -> None:
        self._transport = transport
        self._ends_ms = None if wait_ms is None else transport.monotonic_ms() + wait_ms
        self.begin_call()

    def begin_call(self) -> None:
        """Reckon the next call from now."""
        now_ms = self._began_ms = self._transport.monotonic_ms()
        self.left_ms = None if self._ends_ms is None else max(0, self._ends_ms - now_ms)
        self.call_ms = WAIT_MS_MAX if self.left_ms is None else min(self.left_ms, WAIT_MS_MAX)

    def was_last_call(self) -> bool:
        """Whether the present call waited for all that was left."""
        return self.left_ms is not None and self.left_ms <= WAIT_MS_MAX

    def outlasted_memory(self) -> bool:
        """Whether the server may have forgotten the present call in the course of an outage: a new call is due then.

        What the forgotten one took, if anything, comes back when its lock runs out.
        """
        return self._transport.monotonic_ms() - self._began_ms > WAIT_MS_MAX
