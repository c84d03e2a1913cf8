"""The bytes of recent messages, in memory.

Here belongs a bounded cache of chunks. Never here: which message lies where. The law: the cache never
holds what is not committed, and never more bytes than it may; what it does not hold is read from storage.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class BodyCache:
    """Chunks of messages, the least recently used ones forgotten first."""

    __slots__ = ("_bytes", "_bytes_max", "_chunks")

    def __init__(self, bytes_max: int) -> None:
        """Hold at most so many bytes of messages; 0 = nothing."""
        self._bytes_max = bytes_max
        self._bytes = 0
        self._chunks: OrderedDict[int, tuple[int, Sequence[bytes]]] = OrderedDict()

    def put(self, chunk: int, messages: Sequence[bytes]) -> None:
        """Keep a chunk, and forget others if need be."""
        self.drop(chunk)
        size = sum(map(len, messages))
        self._chunks[chunk] = (size, messages)
        self._bytes += size
        while self._bytes > self._bytes_max and self._chunks:
            _, (forgotten, _) = self._chunks.popitem(last=False)
            self._bytes -= forgotten

    def drop(self, chunk: int) -> None:
        """Forget a chunk, if it is kept."""
        known = self._chunks.pop(chunk, None)
        if known is not None:
            self._bytes -= known[0]

    def get(self, chunk: int) -> Sequence[bytes] | None:
        """Return the messages of a chunk; None = not kept."""
        known = self._chunks.get(chunk)
        if known is None:
            return None
        self._chunks.move_to_end(chunk)
        return known[1]
