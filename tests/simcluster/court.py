"""The judges of each partition, and the way of every call past them.

Here belongs how the rules of `tests.sim` are asked: every commit is judged, by whichever owner, and every answer of
every owner is held against what is stored. Never here: a rule. The law: each partition is judged by itself; what spans
partitions is judged by what clients were told (`clients`, `calm`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from lockstep.cluster.port import Answer, Hint
from lockstep.cluster.standing import OwnerStanding
from lockstep.core.changes import Change
from lockstep.core.commands import Cancel, Command
from lockstep.core.errors import LockstepError, Moved, StoreUnavailable
from lockstep.core.ids import EntityKey, PartitionEpoch, PartitionId
from lockstep.core.limits import Limits
from lockstep.core.snapshot import Snapshot
from lockstep.owner.supervisor import Supervisor
from lockstep.storage.port import StateKey
from tests.sim.faults import Faults
from tests.sim.ledger import Ledger
from tests.sim.referee import Referee
from tests.sim.refusals import Refusals
from tests.sim.store import Disk, FaultyStore
from tests.sim.trial import Trial
from tests.sim.virtual_time import NodeClock
from tests.sim.witness import Visit, Witness
from tests.simcluster.processes import Process


class Court:
    """What one partition has stored, and its judges.

    Attributes:
        arrivals: How often each call with a request id came.
    """

    def __init__(self, trial: Trial, partitions: int, limits: Limits) -> None:
        self.ledger = Ledger(
            trial, Referee(trial.check, limits.outage_grace_ms, partitions), partitions
        )
        self.disk = Disk(trial, self.ledger, Faults())
        self.witness = Witness(trial, self.ledger)
        requests_max = limits.requests_per_client_max
        self.refusals = Refusals(trial, self.ledger, self.witness, requests_max)
        self.arrivals: Counter[tuple[str, int]] = Counter()


class Shards:
    """The stores of all partitions, as one process reaches them.

    Attributes:
        is_cut: Whether the process reaches none of them.
    """

    def __init__(self, courts: Sequence[Court], name: str, clock: NodeClock) -> None:
        self._shards = [FaultyStore(court.disk, name, clock) for court in courts]
        self.is_cut = False
        self.when_opened: Callable[[PartitionId, PartitionEpoch], None] = lambda _p, _e: None

    @property
    def under_way(self) -> int:
        """How many commits and reads have begun and not ended."""
        return sum(shard.under_way for shard in self._shards)

    def die(self) -> None:
        """Let what is under way end as it does for a killed process."""
        for shard in self._shards:
            shard.is_dead = True

    async def _reach(self, partition: PartitionId) -> FaultyStore:
        if self.is_cut:
            raise StoreUnavailable("nobody answers")
        return self._shards[partition]

    async def open(self, partition: PartitionId, epoch: PartitionEpoch) -> Snapshot:
        """As the port says."""
        snapshot = await (await self._reach(partition)).open(partition, epoch)
        self.when_opened(partition, epoch)
        return snapshot

    async def commit(
        self, partition: PartitionId, epoch: PartitionEpoch, changes: Sequence[Change]
    ) -> None:
        """As the port says."""
        await (await self._reach(partition)).commit(partition, epoch, changes)

    async def load_chunks(
        self, partition: PartitionId, epoch: PartitionEpoch, chunks: Sequence[int]
    ) -> dict[int, tuple[bytes, ...]]:
        """As the port says."""
        return await (await self._reach(partition)).load_chunks(partition, epoch, chunks)

    async def load_states(
        self, partition: PartitionId, epoch: PartitionEpoch, keys: Sequence[StateKey]
    ) -> dict[StateKey, bytes]:
        """As the port says."""
        return await (await self._reach(partition)).load_states(partition, epoch, keys)

    async def close(self, partition: PartitionId) -> None:
        """As the port says."""
        await self._shards[partition].close(partition)


class WatchedOwner:
    """The partitions of one process, as the owner service serves them; each answer is judged when it leaves."""

    def __init__(
        self,
        supervisor: Supervisor,
        courts: Sequence[Court],
        process: Process,
        is_trusted: Callable[[], bool],
    ) -> None:
        self._supervisor = supervisor
        self._courts = courts
        self._process = process
        self._is_trusted = is_trusted

    def epoch_of(self, partition: PartitionId) -> PartitionEpoch:
        """As `Supervisor` says."""
        return self._supervisor.epoch_of(partition)

    def standing(self) -> OwnerStanding:
        """As `Supervisor` says."""
        return self._supervisor.standing()

    def follow_hints(self, partition: PartitionId) -> AsyncIterator[Sequence[Hint]]:
        """As `Supervisor` says."""
        return self._supervisor.follow_hints(partition)

    def note_refused_send(
        self, partition: PartitionId, entity: EntityKey, messages: int, error: LockstepError
    ) -> None:
        """As `Supervisor` says."""
        self._supervisor.note_refused_send(partition, entity, messages, error)

    async def call(
        self,
        partition: PartitionId,
        command: Command,
        *,
        wait_ms: int = 0,
        placement: str | None = None,
    ) -> Answer:
        """As `Supervisor` says."""
        court = self._courts[partition]
        memory, book = court.ledger.referee.memory, court.ledger.books[partition]
        memory.note_command(command)
        request = getattr(command, "request", None)
        if isinstance(command, Cancel):
            memory.cancelled.add((command.request.client_id, command.request.counter))
        visit = Visit(
            partition,
            command,
            self._epoch(partition),
            court.ledger.moment,
            book.openings,
            has_lease=True,
            is_deposed=False,
        )
        court.witness.arrived(visit)
        if request is not None:
            court.arrivals[request.client_id, request.counter] += 1
        stops = self._process.stops
        try:
            answer = await self._supervisor.call(
                partition, command, wait_ms=wait_ms, placement=placement
            )
        except LockstepError as error:
            court.refusals.refused(self._leaving(visit, stops), error)
            raise
        except asyncio.CancelledError:
            if request is not None:
                memory.cancelled.add((request.client_id, request.counter))
            court.witness.hung_up(replace(visit, is_deposed=visit.epoch != book.epoch))
            raise
        court.witness.answered(self._leaving(visit, stops), answer)
        return answer

    def _leaving(self, visit: Visit, stops: int) -> Visit:
        """Return a visit as it is when its answer leaves.

        One that stood still between its last look at the lease and the sending may be late, but not wrong.
        """
        book = self._courts[visit.partition].ledger.books[visit.partition]
        is_sure = self._process.stops == stops and self._is_trusted()
        return replace(visit, has_lease=is_sure, is_deposed=visit.epoch != book.epoch)

    def _epoch(self, partition: PartitionId) -> PartitionEpoch | None:
        try:
            return self._supervisor.epoch_of(partition)
        except Moved:
            return None
