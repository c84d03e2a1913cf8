"""Which nodes count when partitions are shared out.

Here belongs the short wait for nodes that come. Never here: how partitions are shared out
(`core.placement`). The law: a node that goes stops counting at once, because its partitions have no owner;
nodes that come count together, when no other has come for a while, because each change of the set moves
partitions that are being served.
"""

from __future__ import annotations

_WAITS_MAX = 5


class SettledNodes:
    """The set of nodes, with a wait for additions."""

    def __init__(self, settle_ms: int) -> None:
        """Begin with no nodes.

        Args:
            settle_ms: For how long no other node must come, in ms; five times that is the longest wait.
        """
        self._settle_ms = settle_ms
        self._present: frozenset[str] = frozenset()
        self._counted: frozenset[str] = frozenset()
        self._first_ms = 0
        self._last_ms = 0

    @property
    def due_ms(self) -> int | None:
        """When to look again, on the clock of `look`; None = nobody waits."""
        if self._counted == self._present:
            return None
        return min(self._last_ms + self._settle_ms, self._first_ms + _WAITS_MAX * self._settle_ms)

    def look(self, present: frozenset[str], now_ms: int) -> frozenset[str]:
        """Return the nodes that count, given those that are there now."""
        if present - self._present:
            self._last_ms = now_ms
            if self._counted == self._present:
                self._first_ms = now_ms
        self._present = present
        self._counted &= present
        due_ms = self.due_ms
        if due_ms is not None and now_ms >= due_ms:
            self._counted = present
        return self._counted
