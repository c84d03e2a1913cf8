"""What an owner tells about its store, and about partitions that it lost with it."""

from __future__ import annotations

import asyncio

import pytest

from lockstep.core.commands import Accept, Outcome
from lockstep.core.errors import Fenced, NoSessionAvailable, ServerBusy, StoreUnavailable
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.snapshot import Snapshot
from lockstep.owner.actor import ActorLimits
from lockstep.storage.memory import MemoryStore
from tests.unit.owner.owner_rig import PARTITION, PLAIN, SESSIONS, Owner, running_owner


class FailingStore(MemoryStore):
    """Opens, and fails to open as often as the test says."""

    failures = 0

    async def open(self, partition: PartitionId, epoch: PartitionEpoch) -> Snapshot:
        """As the port says."""
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("The disk is away.")
        return await super().open(partition, epoch)


def operations(owner: Owner, op: str) -> float:
    return owner.of_process("storage_operation_duration_seconds_count", op=op)


async def test_every_kind_of_call_to_the_store_is_measured() -> None:
    async with running_owner(actor_limits=ActorLimits(body_cache_bytes_max=0)) as owner:
        await owner.create(PLAIN)
        before = operations(owner, "commit")
        await owner.send(PLAIN)
        got = await owner.receive(PLAIN)
        await owner.settle(PLAIN, Outcome.COMPLETE, got)

        assert operations(owner, "open") == 1
        assert operations(owner, "commit") - before == 3
        assert operations(owner, "load_chunks") == 1
        assert owner.of_process("storage_commit_batch_messages_sum") == 1


async def test_partition_that_is_being_opened_anew_does_not_count_as_owned() -> None:
    store = FailingStore()
    async with running_owner(store) as owner:
        await owner.create(PLAIN)
        owned = [owner.of_process("owner_partitions")]
        await store.open(PARTITION, PartitionEpoch(0, 1, 1))  # somebody else opens it
        store.failures = 2

        with pytest.raises(Fenced):
            await owner.send(PLAIN)
        await owner.pass_time(1)
        owned.append(owner.of_process("owner_partitions"))
        await owner.pass_time(1_000)
        owned.append(owner.of_process("owner_partitions"))

        assert owned == [1, 0, 1]
        tries_s = 0.2 + 0.4
        assert owner.of_process("partition_unavailable_seconds_total") == tries_s
        assert owner.of_process("fenced_writes_total") == 1
        assert owner.of_process("storage_errors_total", op="commit", error_class="Fenced") == 1
        errors = owner.of_process("storage_errors_total", op="open", error_class="StoreUnavailable")
        assert errors == 2


async def test_owner_that_stops_says_that_it_drains() -> None:
    async with running_owner() as owner:
        draining = [owner.of_process("owner_draining")]
        await owner.supervisor.close()
        draining.append(owner.of_process("owner_draining"))

    assert draining == [0, 1]


async def test_accept_that_is_refused_for_load_did_not_time_out() -> None:
    async with running_owner(actor_limits=ActorLimits(waiters_max=1)) as owner:
        await owner.create(SESSIONS)
        accept = Accept(SESSIONS, None, "holder")
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(expect_nothing(owner, accept))
            await owner.pass_time(1)
            with pytest.raises(ServerBusy):
                await owner.call(accept, object, wait_ms=5_000)
            await owner.pass_time(5_000)
            await waiting

        assert owner.counted(SESSIONS, "session_accepts") == {("timeout",): 1}


async def expect_nothing(owner: Owner, accept: Accept) -> None:
    with pytest.raises(NoSessionAvailable):
        await owner.call(accept, object, wait_ms=5_000)
