"""A store that keeps the port's laws and still fails in every way that the port allows.

Here belong delays, failed and unknown commits, and commits that outlive their owner. What is stored, and
fencing, are `MemoryStore`'s; each stored commit is shown to the ledger in the same moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from random import Random

from lockstep.core.changes import ArrivalRow, Change, JobRow, RequestRow
from lockstep.core.commands import AdvanceJob, SettleTransfer, TakeTransfer
from lockstep.core.errors import Fenced, StoreUnavailable
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.jobs import Job
from lockstep.core.limits import Limits
from lockstep.core.snapshot import Snapshot, restore_partition
from lockstep.storage.memory import MemoryStore
from lockstep.storage.port import StateKey
from tests.sim.faults import Faults
from tests.sim.known import DROPPED_GOES_ON, FORGIVEN
from tests.sim.ledger import Ledger
from tests.sim.standing import jobs_of, stored, stores
from tests.sim.trial import Trial
from tests.sim.virtual_time import NodeClock, sleep_ms

_SLOW_MS = (500, 6000)


class Disk:
    """What all owners share: the rows, and the ledger that watches them.

    Attributes:
        context: In which commits are stored: that of no owner, whatever becomes of the one who asked.
    """

    def __init__(self, trial: Trial, ledger: Ledger, faults: Faults) -> None:
        self.trial = trial
        self.ledger = ledger
        self.faults = faults
        self.memory = MemoryStore()
        self.context = Context()

    def judge_opening(self, partition: PartitionId, snapshot: Snapshot) -> None:
        """See that who opens now finds each message in exactly one store (RSB-2), and every job (ADD-11)."""
        book = self.ledger.books[partition]
        wanted = stored(book)
        restored = restore_partition(partition, Limits(), snapshot, book.opened_ms)
        found = stores(restored)
        if found != wanted:
            every = sorted({*found, *wanted})
            wrong = [
                (w, found.get(w), wanted.get(w)) for w in every if found.get(w) != wanted.get(w)
            ]
            self.trial.check(False, "RSB-2: not in exactly one store", partition, wrong)
        jobs = jobs_of(restored)
        self.trial.check(jobs == book.jobs, "ADD-11: jobs opened", jobs, "not", book.jobs)


class FaultyStore:
    """The way of one owner to the disk.

    Attributes:
        is_dead: Its process was killed.
        under_way: How many commits and reads have begun and not ended.
        is_dropped: Whether the owner has dropped what it had in memory of a partition.
    """

    def __init__(self, disk: Disk, name: str, clock: NodeClock) -> None:
        self._disk = disk
        self._name = name
        self._clock = clock
        self.is_dead = False
        self.under_way = 0
        self.is_dropped: Callable[[PartitionId], bool] = lambda _partition: False

    async def open(self, partition: PartitionId, epoch: PartitionEpoch) -> Snapshot:
        """As the port says; slow, and sometimes without an answer."""
        disk = self._disk
        await self._work()
        if disk.trial.strike(self._name, "open_failed", disk.faults.commit_failed):
            raise StoreUnavailable("no answer to open")
        snapshot = await disk.memory.open(partition, epoch)
        disk.trial.note(self._name, "opened", partition, tuple(epoch))
        disk.ledger.opened(partition, epoch, self._clock.now_ms())
        disk.judge_opening(partition, snapshot)
        return snapshot

    async def commit(
        self, partition: PartitionId, epoch: PartitionEpoch, changes: Sequence[Change]
    ) -> None:
        """As the port says; may fail before or after it is stored, and may be stored later than its caller knows."""
        self.under_way += 1
        try:
            await self._commit(partition, epoch, changes)
        finally:
            self.under_way -= 1

    async def _commit(
        self, partition: PartitionId, epoch: PartitionEpoch, changes: Sequence[Change]
    ) -> None:
        disk, trial = self._disk, self._disk.trial
        await self._refuse_dropped(partition)
        if self._strikes("commit_failed", changes):
            await self._work()
            trial.note(self._name, "commit failed", partition)
            raise StoreUnavailable("nothing was stored")
        outlives = trial.stream(f"{self._name} outlives").random() < disk.faults.orphaned
        delay_ms = trial.stream(self._name).uniform(0.5, 12)
        if luck := self._strikes("commit_slow", changes):
            delay_ms = luck.uniform(*_SLOW_MS)
        stored: asyncio.Future[None] = trial.loop.create_future()

        def store_now() -> None:
            if self.is_dead and not outlives:
                self._meet(changes, "crash before commit")
            else:
                self._store_now(partition, epoch, changes, stored)

        luck = self._strikes("commit_unknown", changes)
        trial.loop.call_later(delay_ms, store_now, context=disk.context)
        if luck is not None and luck.random() < 0.5:  # it is late, or it is answered too late
            trial.count("fault commit late")
            stored.cancel()
            await sleep_ms(delay_ms * luck.random())
            trial.note(self._name, "commit given up", partition)
            raise StoreUnavailable("it may be stored yet, unless a later owner opens before")
        await stored
        try:
            await self._work()
        except asyncio.CancelledError:
            self._meet(changes, "crash after commit")
            raise
        if luck is not None:
            trial.note(self._name, "commit unknown", partition)
            raise StoreUnavailable("stored, but the answer was lost")

    def _store_now(
        self,
        partition: PartitionId,
        epoch: PartitionEpoch,
        changes: Sequence[Change],
        stored: asyncio.Future[None],
    ) -> None:
        if self.is_dead:
            self._disk.trial.count("fault commit outlived its owner")
            self._meet(changes, "crash after commit")
        error = self._apply(partition, epoch, changes)
        if stored.done():
            return
        if error is None:
            stored.set_result(None)
        else:
            stored.set_exception(error)

    def _strikes(self, fault: str, changes: Sequence[Change] = ()) -> Random | None:
        disk = self._disk
        luck = disk.trial.strike(self._name, fault, getattr(disk.faults, fault))
        if luck is not None:
            self._meet(changes, fault)
        return luck

    def _meet(self, changes: Sequence[Change], fault: str) -> None:
        """Count the fault for each call that is in the commit."""
        commands = self._disk.ledger.referee.memory.commands
        for row in changes:
            if isinstance(row, RequestRow):
                command = commands.get((row.client_id, row.counter, row.fingerprint))
                self._disk.trial.meet(command, fault)
            elif isinstance(row, ArrivalRow):
                self._disk.trial.meet(TakeTransfer, fault)
            elif isinstance(row, JobRow):
                self._disk.trial.meet(self._kind_of(Job.from_text(row.job)), fault)

    def _kind_of(self, job: Job) -> type:
        """Return what brought a job to where it stands now."""
        known = (j for book in self._disk.ledger.books for j in book.jobs.values())
        before = next((j for j in known if j.uid == job.uid), job)
        return SettleTransfer if len(before.transfers) > len(job.transfers) else AdvanceJob

    async def _refuse_dropped(self, partition: PartitionId) -> None:
        """See that what was dropped after a failure is not committed afterwards (design law 4)."""
        if not self.is_dropped(partition):
            return
        trial = self._disk.trial
        is_known = DROPPED_GOES_ON in FORGIVEN
        trial.check(is_known, "design law 4: a dropped partition commits", partition, self._name)
        trial.count("known bug: commit of a dropped partition")
        await self._work()
        raise StoreUnavailable("a partition that was dropped has nothing to commit")

    def _apply(
        self, partition: PartitionId, epoch: PartitionEpoch, changes: Sequence[Change]
    ) -> Fenced | None:
        disk = self._disk
        try:
            disk.memory.apply(partition, epoch, changes)
        except Fenced as error:
            disk.trial.count("fault commit fenced")
            self._meet(changes, "commit fenced")
            disk.trial.note(self._name, "fenced", partition, tuple(epoch))
            return error
        disk.trial.note(self._name, "committed", partition, len(changes))
        disk.ledger.committed(partition, epoch, changes)
        return None

    async def load_chunks(
        self, partition: PartitionId, epoch: PartitionEpoch, chunks: Sequence[int]
    ) -> dict[int, tuple[bytes, ...]]:
        """As the port says."""
        await self._read()
        loaded = await self._disk.memory.load_chunks(partition, epoch, chunks)
        self._disk.ledger.read(partition, epoch)
        return loaded

    async def load_states(
        self, partition: PartitionId, epoch: PartitionEpoch, keys: Sequence[StateKey]
    ) -> dict[StateKey, bytes]:
        """As the port says."""
        await self._read()
        loaded = await self._disk.memory.load_states(partition, epoch, keys)
        self._disk.ledger.read(partition, epoch)
        return loaded

    async def close(self, partition: PartitionId) -> None:
        """As the port says."""
        await self._work()

    async def _work(self) -> None:
        await sleep_ms(self._disk.trial.stream(self._name).uniform(0.2, 4))

    async def _read(self) -> None:
        self.under_way += 1
        try:
            await self._work()
            if luck := self._strikes("read_slow"):
                await sleep_ms(luck.uniform(*_SLOW_MS))
        finally:
            self.under_way -= 1
