"""Which cluster the keys of etcd are of, so that nobody joins another one than its database's.

Here belongs what is remembered of a cluster in etcd, and the refusal of strangers. Never here: the record in the
database (`storage`), which makes the id. The law: who finds the keys of another cluster neither
claims nor serves anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from lockstep.core.errors import StoreRefused


@dataclass(frozen=True, slots=True)
class Identity:
    """A cluster.

    Attributes:
        cluster_id: Made when its first database was; empty = not known.
        partitions: How many it has.
    """

    cluster_id: str
    partitions: int


def refuse_stranger(prefix: str, found: Identity | None, own: Identity) -> None:
    """Refuse to take part in another cluster, or in one with another number of partitions.

    Raises:
        StoreRefused: The keys are of another cluster, or it has another number of partitions. Nothing was claimed.
    """
    if found is None:
        return
    if own.cluster_id and found.cluster_id != own.cluster_id:
        raise StoreRefused(
            f"The keys under {prefix} in etcd are of another cluster ({found.cluster_id}) than this database"
            f" ({own.cluster_id}). Nothing was claimed. Name the database of that cluster, or give this cluster a"
            f" name of its own (cluster.name). If that cluster is gone for good, delete the key {prefix}{KEY} in etcd.",
            details={"observed": found.cluster_id, "configured": own.cluster_id},
        )
    if found.partitions != own.partitions:
        raise StoreRefused(
            f"This cluster has {found.partitions} partitions, and {own.partitions} are configured. Start with"
            f" --partitions {found.partitions}.",
            details={"observed": str(found.partitions), "configured": str(own.partitions)},
        )


KEY = "cluster"
"""The name of the key, below the prefix of the cluster."""
