"""How the messages of a chunk are kept: one after the other, with a checksum.

Here belongs what every durable store does with bodies alike. Never here: where they are kept.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

import xxhash


def stored_chunk(row: Any) -> tuple[Any, ...]:
    """Return the columns of a `ChunkRow`: all but its messages, then the checksum and the bodies."""
    bodies = b"".join(row.messages)
    return (*row[:8], xxhash.xxh3_64_digest(bodies), bodies)


def is_intact(bodies: bytes, checksum: bytes) -> bool:
    """Whether bodies are those that the checksum was made of."""
    return xxhash.xxh3_64_digest(bodies) == checksum


def messages_of(bodies: bytes, sizes: bytes) -> tuple[bytes, ...]:
    """Return the messages of a chunk."""
    return tuple(_cut(bodies, array("I", sizes)))


def _cut(bodies: bytes, sizes: array[int]) -> Iterator[bytes]:
    start = 0
    for size in sizes:
        yield bodies[start : start + size]
        start += size
