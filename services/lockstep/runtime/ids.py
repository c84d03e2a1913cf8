"""Ids: the one place that makes names out of randomness.

Here belong the port for new ids, the random source and the counting one. Never here: ids that
follow from others (lock tokens, sequence numbers), which `core` derives. The law: two ids of one
source are never equal.
"""

from __future__ import annotations

import itertools
import uuid
from typing import Protocol


class IdSource(Protocol):
    """Where new ids come from."""

    def client_id(self) -> str:
        """Return a new id for a client, by which its request ids are remembered (ADD-3)."""
        ...

    def uid(self) -> str:
        """Return a new id for an entity, which tells it from an earlier one of the same name."""
        ...


class SystemIds:
    """Random ids: 32 lower-case hexadecimal digits of a version 4 UUID (RFC 9562, section 5.4)."""

    def client_id(self) -> str:
        """Return a new random client id."""
        return uuid.uuid4().hex

    def uid(self) -> str:
        """Return a new random entity id."""
        return uuid.uuid4().hex


class CountingIds:
    """Ids that are the same in every run: prefix, kind, counter. `CountingIds("a-").uid()` gives `a-uid-1`."""

    def __init__(self, prefix: str = "") -> None:
        """Start both counters at 1.

        Args:
            prefix: What every id begins with; give each source of one run its own.
        """
        self._prefix = prefix
        self._clients = itertools.count(1)
        self._uids = itertools.count(1)

    def client_id(self) -> str:
        """Return the next client id: `<prefix>client-<n>`."""
        return f"{self._prefix}client-{next(self._clients)}"

    def uid(self) -> str:
        """Return the next entity id: `<prefix>uid-<n>`."""
        return f"{self._prefix}uid-{next(self._uids)}"
