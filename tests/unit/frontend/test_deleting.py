"""A queue that is to be deleted only if nothing is in it, on any partition (ADD-13)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lockstep.core.commands import (
    Accept,
    DeleteQueue,
    ListDefinitions,
    ReleaseSession,
    SealIdle,
    Send,
    SetState,
)
from lockstep.core.errors import ClusterUnavailable, EntityNotEmpty, EntityNotFound, ServerBusy
from lockstep.core.ids import PartitionId, RequestId, SessionId
from lockstep.core.replies import Accepted, Definitions, IdleIs
from lockstep.frontend.deleting import delete_if_empty
from tests.unit.frontend.cluster_rig import (
    ORDERS,
    PARTITIONS,
    Cluster,
    running_cluster,
    session_on,
)

LAST = PARTITIONS - 1
FAR = session_on(LAST)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running_cluster() as running:
        await running.create()
        yield running


async def number_of(cluster: Cluster) -> int | None:
    """Return the queue's number in the catalogue; None = it is not there."""
    found = (await cluster.call(0, ListDefinitions(), Definitions)).queues
    return found[0].number if found else None


async def send(cluster: Cluster, *, due_ms: tuple[int, ...] = ()) -> None:
    await cluster.call(LAST, Send(ORDERS, (b"x",), (FAR,), due_ms=due_ms), object)


async def test_an_empty_queue_goes_everywhere(cluster: Cluster) -> None:
    await delete_if_empty(cluster.router, DeleteQueue(ORDERS))

    assert await number_of(cluster) is None
    for partition in range(PARTITIONS):
        with pytest.raises(EntityNotFound):
            await cluster.supervisor.call(PartitionId(partition), Send(ORDERS, (b"x",), (FAR,)))


@pytest.mark.parametrize("what", ["active", "scheduled", "dead letter", "state"])
async def test_what_is_anywhere_keeps_it(cluster: Cluster, what: str) -> None:
    match what:
        case "active":
            await send(cluster)
        case "scheduled":
            await send(cluster, due_ms=(cluster.clock.now_ms() + 10**7,))
        case "dead letter":
            await cluster.add_dead_letters(1, [FAR])
        case _:
            name = SessionId(FAR)
            lock = (await cluster.call(LAST, Accept(ORDERS, name, "x"), Accepted)).session
            await cluster.call(LAST, SetState(ORDERS, lock, b"half way"), object)
            await cluster.call(LAST, ReleaseSession(ORDERS, lock), object)

    with pytest.raises(EntityNotEmpty, match="Nothing was deleted"):
        await delete_if_empty(cluster.router, DeleteQueue(ORDERS))

    assert await number_of(cluster) is not None
    await send(cluster)  # and is used as before


async def test_the_refusal_says_what_is_there(cluster: Cluster) -> None:
    await cluster.add_dead_letters(3, [FAR])
    await send(cluster)

    with pytest.raises(EntityNotEmpty) as refused:
        await delete_if_empty(cluster.router, DeleteQueue(ORDERS))
    details = refused.value.details
    assert (details["dead_letter_messages"], details["active_messages"]) == ("3", "1")


async def test_a_use_that_comes_meanwhile_is_refused_and_may_be_retried(cluster: Cluster) -> None:
    number = await number_of(cluster)
    assert number is not None
    sealed = await cluster.call(LAST, SealIdle(number, 5_000, if_empty=True), IdleIs)  # type: ignore[arg-type]
    assert sealed.is_idle

    with pytest.raises(ServerBusy) as busy:
        await send(cluster)
    assert busy.value.retry_after_ms
    await cluster.pass_time(5_001)  # who sealed it has died
    await send(cluster)


async def test_nothing_is_deleted_when_the_seal_is_over(cluster: Cluster) -> None:
    with pytest.raises(ServerBusy, match="Nothing was deleted"):
        await cluster.call(0, DeleteQueue(ORDERS, is_sealed=True), object)
    assert await number_of(cluster) is not None


async def test_a_partition_that_is_away_keeps_it_and_the_others_take_uses_again(
    cluster: Cluster,
) -> None:
    cluster.paths.closed = {LAST}
    deleted, _ = await asyncio.gather(
        delete_if_empty(cluster.router, DeleteQueue(ORDERS)),
        cluster.pass_time(20_000),
        return_exceptions=True,
    )
    assert isinstance(deleted, ClusterUnavailable)
    cluster.paths.closed = set()

    assert await number_of(cluster) is not None
    near = session_on(0)
    await cluster.call(0, Send(ORDERS, (b"x",), (near,)), object)


async def test_only_the_queue_that_was_meant_goes(cluster: Cluster) -> None:
    for command in (DeleteQueue(ORDERS, uid="other"), DeleteQueue(ORDERS, uid="uid")):
        if command.uid == "other":
            with pytest.raises(EntityNotFound, match="created again"):
                await delete_if_empty(cluster.router, command)
        else:
            await delete_if_empty(cluster.router, command)
    assert await number_of(cluster) is None


async def test_add_3_a_repeat_of_a_deletion_is_answered_as_before(cluster: Cluster) -> None:
    command = DeleteQueue(ORDERS, RequestId("client", 1), 7)
    await delete_if_empty(cluster.router, command)
    await delete_if_empty(cluster.router, command)

    with pytest.raises(EntityNotFound):
        await delete_if_empty(cluster.router, DeleteQueue(ORDERS, RequestId("client", 2), 7))
