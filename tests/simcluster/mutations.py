"""The cluster with one guard taken out at a time.

Patching our own code is forbidden in every other test. Here it is the point, as in `tests.sim.mutations`: a simulation
that does not notice a missing guard would prove nothing about the guards that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lockstep.cluster.lease import NodeLease
from lockstep.cluster.mirror import Mirror
from lockstep.cluster.ownership import EtcdOwnership, PartitionLease
from lockstep.cluster.registry import KeyValue, RevisionCompacted
from lockstep.cluster.static import StaticLease
from lockstep.core.changes import Change
from lockstep.core.errors import LockstepError
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.snapshot import Snapshot
from lockstep.frontend.taking import _Search
from lockstep.owner.actor import PartitionActor
from lockstep.owner.definitions import DefinitionBringer
from lockstep.storage.memory import MemoryStore
from tests.simcluster.registry import SimRegistry

Patch = pytest.MonkeyPatch
Mutation = Callable[[Patch], None]


# --- who owns -------------------------------------------------------------------------------------


def no_lease_check(patch: Patch) -> None:
    """An owner answers although its right is over, until it is told so."""
    patch.setattr(PartitionLease, "is_valid", lambda self: not self._is_over)
    patch.setattr(EtcdOwnership, "_end_what_is_over", lambda _self, _life: None)


def replies_without_a_lease(patch: Patch) -> None:
    """An owner replies without a look at its lease; that it has ended it learns as always."""
    reply = PartitionActor._reply

    def careless(self: PartitionActor, round_: Any) -> None:
        lease, self._lease = self._lease, StaticLease(self.epoch)
        try:
            reply(self, round_)
        finally:
            self._lease = lease

    patch.setattr(PartitionActor, "_reply", careless)


def no_fence_in_commit(patch: Patch) -> None:
    """The store takes commits under any epoch."""
    apply = MemoryStore.apply

    def unfenced(
        self: MemoryStore, partition: PartitionId, _epoch: PartitionEpoch, changes: Sequence[Change]
    ) -> None:
        apply(self, partition, self._partitions[partition].epoch, changes)

    patch.setattr(MemoryStore, "apply", unfenced)


def no_epoch_check_at_open(patch: Patch) -> None:
    """The store lets an older owner open."""
    opened = MemoryStore.open

    async def unchecked(
        self: MemoryStore, partition: PartitionId, epoch: PartitionEpoch
    ) -> Snapshot:
        tables = self._partitions.get(partition)
        if tables is not None:
            tables.epoch = epoch
        return await opened(self, partition, epoch)

    patch.setattr(MemoryStore, "open", unchecked)


def validity_from_the_answer(patch: Patch) -> None:
    """A lease is valid from when its renewal was answered, not from when it was sent."""
    until = NodeLease._valid_until_ms

    def generous(self: NodeLease, _sent_ms: int, ttl_ms: int) -> int:
        return until(self, self._clock.monotonic_ms(), ttl_ms)

    patch.setattr(NodeLease, "_valid_until_ms", generous)


def claims_of_anybody(patch: Patch) -> None:
    """A partition counts as claimed whoever its key belongs to."""
    create = SimRegistry.create

    async def ours(
        self: SimRegistry, key: str, value: bytes, *, lease: int, while_leased: str | None = None
    ) -> KeyValue | None:
        found = await create(self, key, value, lease=lease, while_leased=while_leased)
        if found is None or while_leased is None:
            return found
        return KeyValue(key, found.value, lease, found.create_revision, found.mod_revision)

    patch.setattr(SimRegistry, "create", ours)


def lost_keys_are_kept(patch: Patch) -> None:
    """A grant lasts although its key is gone or another's."""
    patch.setattr(EtcdOwnership, "_is_taken", lambda _self, _partition, _grant: False)


# --- who finds it ---------------------------------------------------------------------------------


def not_listed_after_compaction(patch: Patch) -> None:
    """A directory that missed changes goes on without them."""
    follow = Mirror._follow

    async def forgiving(self: Mirror) -> bool:
        try:
            return await follow(self)
        except RevisionCompacted:
            await self._clock.sleep(20)
            return False

    patch.setattr(Mirror, "_follow", forgiving)


def data_loss_is_not_noticed(patch: Patch) -> None:
    """Revisions that went back are taken for a member that lags behind."""
    take = Mirror._take

    def trusting(self: Mirror, listing: Any) -> None:
        if listing.revision >= self._revision:
            take(self, listing)

    patch.setattr(Mirror, "_take", trusting)


# --- what reaches everybody -----------------------------------------------------------------------


def unknown_accepts_are_tried_elsewhere(patch: Patch) -> None:
    """An accept whose outcome is not known is made at the next partition."""
    ask = _Search.ask

    async def careless(self: _Search, partition: PartitionId) -> Any:
        try:
            answer = await self._router.ask(
                partition, self._command, wait_ms=-1, placement=self._placement
            )
        except LockstepError as error:
            if type(error).__name__ != "Moved":
                return await ask(self, partition)
            self._failure = error  # type: ignore[assignment]  # it is one
            return None
        return partition, answer

    patch.setattr(_Search, "ask", careless)


def definitions_are_not_brought(patch: Patch) -> None:
    """The catalogue changes, and partitions are not told."""

    async def nowhere(_self: DefinitionBringer) -> None:
        return

    patch.setattr(DefinitionBringer, "bring", nowhere)


def channels_close_as_if_cancelled(patch: Patch) -> None:
    """Who follows hints over a connection that is closed ends without a word."""
    patch.setattr("lockstep.frontend.remote._is_cancelled", lambda: True)


MUTATIONS: tuple[Mutation, ...] = (
    no_lease_check,
    replies_without_a_lease,
    no_fence_in_commit,
    no_epoch_check_at_open,
    validity_from_the_answer,
    claims_of_anybody,
    lost_keys_are_kept,
    not_listed_after_compaction,
    data_loss_is_not_noticed,
    unknown_accepts_are_tried_elsewhere,
    definitions_are_not_brought,
    channels_close_as_if_cancelled,
)
