"""A queue is deleted for being idle when no partition saw a use of it (section 16.3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lockstep.core.commands import (
    ForgetIdle,
    ListDefinitions,
    ListIdle,
    SealIdle,
    Send,
    Unseal,
)
from lockstep.core.errors import ServerBusy
from lockstep.core.ids import EntityNumber
from lockstep.core.replies import Definitions, IdleAre, IdleIs
from lockstep.frontend.idle_queues import delete_idle_queues
from tests.unit.frontend.cluster_rig import (
    ORDERS,
    PARTITIONS,
    Cluster,
    running_cluster,
    session_on,
)

MINUTE_MS = 60_000
LAST = PARTITIONS - 1


@pytest.fixture
async def unwatched() -> AsyncIterator[Cluster]:
    """A cluster whose queue may be idle for five minutes, where nobody looks for idle queues."""
    async with running_cluster() as running:
        await running.create(auto_delete_on_idle_ms=5 * MINUTE_MS)
        yield running


@pytest.fixture
async def cluster(unwatched: Cluster) -> AsyncIterator[Cluster]:
    """The same with a front end that looks for them."""
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(delete_idle_queues(unwatched.router))
        yield unwatched
        looking.cancel()


async def number_of(cluster: Cluster) -> EntityNumber | None:
    """Return the number of the queue in the catalogue; None = it is gone."""
    queues = (await cluster.call(0, ListDefinitions(), Definitions)).queues
    return next((definition.number for definition in queues), None)


def held_by(cluster: Cluster) -> list[int]:
    """Return the partitions that hold the queue."""
    actors = cluster.supervisor._actors.items()
    return [number for number, actor in actors if ORDERS in actor.partition.queues]


async def use(cluster: Cluster, partition: int) -> None:
    await cluster.call(partition, Send(ORDERS, (b"",), (session_on(partition),)), object)


async def test_a_queue_that_no_partition_saw_used_is_deleted_everywhere(cluster: Cluster) -> None:
    await cluster.pass_time(5 * MINUTE_MS - 1)
    before = held_by(cluster)
    await cluster.pass_time(MINUTE_MS)

    assert before == [0, 1, 2, 3]
    assert (await number_of(cluster), held_by(cluster)) == (None, [])


@pytest.mark.parametrize("partition", range(PARTITIONS))
async def test_a_use_on_any_partition_keeps_the_queue(cluster: Cluster, partition: int) -> None:
    for _ in range(4):
        await cluster.pass_time(4 * MINUTE_MS)
        await use(cluster, partition)
    assert await number_of(cluster) is not None

    await cluster.pass_time(6 * MINUTE_MS)
    assert await number_of(cluster) is None


async def test_a_scheduled_message_on_any_partition_keeps_the_queue(cluster: Cluster) -> None:
    due_ms = cluster.clock.now_ms() + 30 * MINUTE_MS
    later = Send(ORDERS, (b"",), (session_on(LAST),), due_ms=(due_ms,))
    await cluster.call(LAST, later, object)

    await cluster.pass_time(30 * MINUTE_MS)
    assert held_by(cluster) == [0, 1, 2, 3]
    await cluster.pass_time(6 * MINUTE_MS)
    assert held_by(cluster) == []


async def test_a_partition_that_cannot_be_asked_keeps_the_queue_which_works_on(
    cluster: Cluster,
) -> None:
    cluster.paths.closed = {LAST}
    await cluster.pass_time(10 * MINUTE_MS)

    assert held_by(cluster) == [0, 1, 2, 3]
    await use(cluster, 0)


async def test_a_sealed_queue_takes_no_use_until_its_seal_ends(unwatched: Cluster) -> None:
    await unwatched.pass_time(5 * MINUTE_MS - 1)
    number = await number_of(unwatched)
    assert number is not None
    early = await unwatched.call(LAST, SealIdle(number, 5_000), IdleIs)
    await unwatched.pass_time(1)

    sealed = await unwatched.call(LAST, SealIdle(number, 5_000), IdleIs)
    with pytest.raises(ServerBusy) as refused:
        await use(unwatched, LAST)
    await unwatched.pass_time(4_999)
    with pytest.raises(ServerBusy):
        await use(unwatched, LAST)
    await unwatched.pass_time(1)
    await use(unwatched, LAST)

    assert (early.is_idle, sealed.is_idle) == (False, True)
    assert refused.value.retry_after_ms
    assert not (await unwatched.call(LAST, SealIdle(number, 5_000), IdleIs)).is_idle


async def test_a_queue_that_is_not_sealed_is_not_forgotten(unwatched: Cluster) -> None:
    await unwatched.pass_time(5 * MINUTE_MS)
    number = await number_of(unwatched)
    assert number is not None
    assert (await unwatched.call(0, ListIdle(), IdleAre)).entities == (number,)
    await unwatched.call(0, SealIdle(number, 5_000), IdleIs)
    await unwatched.call(0, Unseal(number), IdleIs)

    assert not (await unwatched.call(0, ForgetIdle(number), IdleIs)).is_idle
    assert await number_of(unwatched) == number
