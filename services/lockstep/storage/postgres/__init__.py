"""Partitions in PostgreSQL, in one database or in several: what a cluster runs on."""

from lockstep.storage.postgres.session import PostgresSettings
from lockstep.storage.postgres.shards import ClusterRecord
from lockstep.storage.postgres.store import PostgresStore

__all__ = ["ClusterRecord", "PostgresSettings", "PostgresStore"]
