"""The message ids that a queue knows (section 11 of the contract).

Here belongs the history by itself. Never here: what a send does with it (`duplicates`, `sending`). The law: an id is
known for the window from the first copy's acceptance on, whatever became of that copy (DUP-3).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

Key = tuple[str | None, str]
"""A session, where ids belong to sessions (DUP-1), and a message id."""


class _Batch(NamedTuple):
    """What one send made known."""

    at_ms: int
    chunk: int
    keys: tuple[Key, ...]


class History:
    """The message ids that one queue knows, and the number of the first message with each."""

    __slots__ = ("_batches", "_renewed", "_sequences")

    def __init__(self) -> None:
        self._renewed: dict[
            Key, int
        ] = {}  # ids that came again, and with which batch the last time
        self._sequences: dict[Key, int] = {}
        self._batches: deque[_Batch] = deque()  # oldest first

    def find(self, key: Key) -> int | None:
        """Return the number of the first message with an id; None = the id is not known."""
        return self._sequences.get(key)

    def note(self, at_ms: int, chunk: int, known: dict[Key, int]) -> None:
        """Know the ids of a send from now on; one that is known already for another whole window (RSB-5)."""
        for key in known:
            if key in self._sequences:
                self._renewed[key] = chunk
        self._sequences.update(known)
        self._batches.append(_Batch(at_ms, chunk, tuple(known)))

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest known ids came; None = no id is known."""
        return self._batches[0].at_ms if self._batches else None

    def forget(self, before_ms: int) -> list[int]:
        """Forget what came at that time or before, and return its chunks."""
        chunks = []
        while self._batches and self._batches[0].at_ms <= before_ms:
            batch = self._batches.popleft()
            chunks.append(batch.chunk)
            for key in batch.keys:
                if self._renewed.get(key, batch.chunk) == batch.chunk:
                    self._renewed.pop(key, None)
                    del self._sequences[key]
        return chunks

    def __len__(self) -> int:
        """How many ids are known."""
        return len(self._sequences)
