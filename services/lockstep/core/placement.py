"""Where things live: which partition holds an entity or a session, which node should own a partition.

Here belong pure functions from names to partitions and to nodes. Never here: who owns a partition
(`cluster`). The law (ADD-1): the answer depends on names and the number of partitions only. Where an
entity or a session lives never changes with a release, because stored messages stay where they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import xxhash

from lockstep.core.entity import SPREAD
from lockstep.core.ids import EntityKey, PartitionId

_SEPARATOR = "\x00"


def partition_of_entity(entity: EntityKey, partitions: int) -> PartitionId:
    """Return the partition of an entity with placement Single."""
    return _hashed(_SEPARATOR.join(entity), partitions)


def partition_of_session(entity: EntityKey, session_id: str, partitions: int) -> PartitionId:
    """Return the partition of a session of an entity with placement Spread."""
    return _hashed(_SEPARATOR.join((*entity, session_id)), partitions)


def home_of(
    entity: EntityKey, session_id: str | None, placement: str | None, partitions: int
) -> PartitionId:
    """Return where a session lives, or without one where the entity has its home."""
    if placement == SPREAD and session_id is not None:
        return partition_of_session(entity, session_id, partitions)
    return partition_of_entity(entity, partitions)


def assign(
    nodes: Collection[str],
    partitions: int,
    barred: Mapping[int, Collection[str]] | None = None,
) -> tuple[str, ...]:
    """Return which node should own each partition; empty when there are no nodes.

    Every pair of node and partition has a score. Pairs are taken from the highest score down, and each
    partition goes to the first node that still has room. No node has fewer than floor(partitions / nodes)
    or more than one above that. All who know the same nodes get the same answer, in whatever order they
    know them; when a node comes or goes, most partitions stay. (Rendezvous hashing,
    https://www.eecs.umich.edu/techreports/cse/96/CSE-TR-316-96.pdf, with room for only so many.)

    Args:
        nodes: Their names.
        partitions: How many there are.
        barred: For a partition the nodes that shall not have it, unless these are all. Such partitions are given out
            first, and where their nodes have no room left, to the one that has the fewest.
    """
    if not nodes:
        return ()
    kept_from = {
        p: set(names) for p, names in (barred or {}).items() if not set(nodes) <= set(names)
    }
    pairs = sorted(
        (
            partition not in kept_from,
            -xxhash.xxh3_64_intdigest(f"{node}{_SEPARATOR}{partition}".encode()),
            node,
            partition,
        )
        for node in nodes
        for partition in range(partitions)
        if node not in kept_from.get(partition, ())
    )
    useful = {node for _, _, node, _ in pairs}
    floor, spare = divmod(partitions, len(useful))
    room = dict.fromkeys(useful, floor)
    owners: dict[int, str] = {}
    for _, _, node, partition in pairs:
        if partition in owners:
            continue
        if room[node] == 0 and spare > 0:  # one above the floor, while there are any
            spare -= 1
            room[node] = -1
        elif room[node] > 0:
            room[node] -= 1
        else:
            continue
        owners[partition] = node
    if len(owners) < partitions:
        _place_the_rest(owners, pairs)
    return tuple(owners[partition] for partition in range(partitions))


def _place_the_rest(owners: dict[int, str], pairs: Sequence[tuple[bool, int, str, int]]) -> None:
    """Give partitions that found no room to those of their nodes that have the fewest."""
    load = Counter(owners.values())
    candidates: dict[int, list[str]] = {}
    for _, _, node, partition in pairs:
        if partition not in owners:
            candidates.setdefault(partition, []).append(node)
    for partition, names in sorted(candidates.items()):
        owners[partition] = min(names, key=lambda name: load[name])
        load[owners[partition]] += 1


def _hashed(text: str, partitions: int) -> PartitionId:
    return PartitionId(xxhash.xxh3_64_intdigest(text.encode()) % partitions)
