"""A cluster of one process, which owns every partition for as long as it runs.

Two processes on one data directory would both believe that; the composition root locks the directory
against that, and storage fences the elder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lockstep.cluster.port import Lease, OwnerChannel
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


class StaticOwnership:
    """Every partition is this process's, for ever."""

    def __init__(self, partitions: int, lease: Lease) -> None:
        self._grants = {PartitionId(number): lease for number in range(partitions)}

    @property
    def grants(self) -> Mapping[PartitionId, Lease]:
        """All partitions."""
        return self._grants

    @property
    def unwanted(self) -> Collection[PartitionId]:
        """None."""
        return ()

    @property
    def version(self) -> int:
        """Nothing ever changes."""
        return 0

    async def wait_changed(self, seen: int) -> int:
        """Wait for ever, once the beginning was seen."""
        if seen == self.version:
            await asyncio.Event().wait()
        return self.version

    async def release(self, partition: PartitionId) -> None:
        """Do nothing: there is nobody to give it to."""
