"""A cluster of one process, which owns every partition for as long as it runs.

Two processes on one data directory would both believe that; the composition root locks the directory
against that, and storage fences the elder.
"""

from __future__ import annotations

from dataclasses import dataclass

from lockstep.cluster.port import OwnerChannel
from lockstep.core.ids import PartitionEpoch, PartitionId


@dataclass(frozen=True, slots=True)
class StaticLease:
    """A right that never ends. `epoch.revision` counts the starts of the process."""

    epoch: PartitionEpoch

    def is_valid(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, slots=True)
class StaticDirectory:
    """One owner for everything."""

    partitions: int
    owner: OwnerChannel

    def owner_of(self, _partition: PartitionId) -> OwnerChannel:
        """Return the one owner."""
        return self.owner
