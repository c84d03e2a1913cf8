"""Where things live: which partition holds an entity or a session.

Here belong pure functions from names to partitions. Never here: who owns a partition (`cluster`). The
law (ADD-1): the answer depends on names and the number of partitions only, and never changes with a
release, because stored messages stay where they are.
"""

from __future__ import annotations

import xxhash

from lockstep.core.ids import EntityKey, PartitionId

_SEPARATOR = "\x00"


def partition_of_entity(entity: EntityKey, partitions: int) -> PartitionId:
    """Return the partition of an entity with placement Single."""
    return _hashed(_SEPARATOR.join(entity), partitions)


def partition_of_session(entity: EntityKey, session_id: str, partitions: int) -> PartitionId:
    """Return the partition of a session of an entity with placement Spread."""
    return _hashed(_SEPARATOR.join((*entity, session_id)), partitions)


def _hashed(text: str, partitions: int) -> PartitionId:
    return PartitionId(xxhash.xxh3_64_intdigest(text.encode()) % partitions)
