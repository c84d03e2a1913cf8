"""The quota of a queue that is spread over partitions is that of the whole queue (ADD-1, SND-11)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lockstep.cluster.shares import parts_of
from lockstep.core.commands import (
    Accept,
    FreezeShare,
    GrantShare,
    Outcome,
    Receive,
    Send,
    Settle,
    Settlement,
    UpdateQueue,
)
from lockstep.core.errors import LockstepError, QuotaExceeded, ShareUsed
from lockstep.core.ids import PartitionId, SessionId
from lockstep.core.placement import partition_of_session
from lockstep.core.replies import Accepted, Delivered, ShareIs
from lockstep.frontend.router import Router
from tests.unit.frontend.cluster_rig import (
    ORDERS,
    PARTITIONS,
    Cluster,
    running_cluster,
    session_on,
)

MIB = 1024 * 1024
BATCH = 50_000
SESSIONS = [session_on(partition) for partition in range(PARTITIONS)]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running_cluster() as running:
        await running.create(max_size_in_megabytes=1)
        yield running


async def send(
    cluster: Cluster, session: str, size: int = BATCH, *, by: Router | None = None
) -> None:
    router = by or cluster.router
    home = partition_of_session(ORDERS, session, PARTITIONS)
    await router.call(PartitionId(home), Send(ORDERS, (bytes(size),), (session,)))


async def fill(cluster: Cluster, sessions: list[str], *, by: Router | None = None) -> int:
    """Send to sessions in turn until a send is refused, and return how many were not."""
    for number in range(1000):
        try:
            await send(cluster, sessions[number % len(sessions)], by=by)
        except QuotaExceeded:
            return number
    raise AssertionError("it is never full")


async def size_of(cluster: Cluster) -> int:
    return (await cluster.runtime()).size_bytes


async def test_add_1_all_partitions_together_hold_what_the_queue_may(cluster: Cluster) -> None:
    sent = await fill(cluster, SESSIONS)

    assert sent == MIB // BATCH
    assert await size_of(cluster) <= MIB


async def test_one_session_may_use_the_whole_quota(cluster: Cluster) -> None:
    assert await fill(cluster, SESSIONS[2:3]) == MIB // BATCH


async def test_the_refusal_tells_the_figures_of_the_whole_queue(cluster: Cluster) -> None:
    await fill(cluster, SESSIONS)

    with pytest.raises(QuotaExceeded) as refused:
        await send(cluster, SESSIONS[0])

    held = await size_of(cluster)
    assert refused.value.details["configured"] == str(MIB)
    assert refused.value.details["observed"] == str(held + BATCH)


async def test_what_is_smaller_than_what_is_left_is_taken(cluster: Cluster) -> None:
    await fill(cluster, SESSIONS)
    left = MIB - await size_of(cluster)

    await send(cluster, SESSIONS[1], left)
    assert await size_of(cluster) == MIB


async def test_room_that_is_made_in_one_partition_is_there_for_others(cluster: Cluster) -> None:
    await fill(cluster, SESSIONS)
    name = SessionId(SESSIONS[0])
    lock = (await cluster.call(0, Accept(ORDERS, name, "x"), Accepted)).session
    got = await cluster.call(0, Receive(ORDERS, False, lock, 3), Delivered)
    done = Settlement(Outcome.COMPLETE, got.grant, tuple(got.sequences))
    await cluster.call(0, Settle(ORDERS, False, lock, (done,)), object)
    await cluster.pass_time(100)

    assert await fill(cluster, SESSIONS[3:]) == 3
    assert await size_of(cluster) <= MIB


async def test_front_ends_that_share_out_at_once_give_out_no_more_than_there_is(
    cluster: Cluster,
) -> None:
    """Each takes back what the others granted; all get on nevertheless."""
    others = [Router(cluster.paths, cluster.clock) for _ in range(4)]
    *counts, _ = await asyncio.gather(
        *(fill(cluster, SESSIONS[n:] + SESSIONS[:n], by=one) for n, one in enumerate(others)),
        cluster.pass_time(60_000),
    )

    assert await size_of(cluster) <= MIB
    assert sum(filter(None, counts)) >= MIB // BATCH - 1


async def test_a_quota_that_is_raised_counts_at_once(cluster: Cluster) -> None:
    sent = await fill(cluster, SESSIONS)
    await cluster.call(0, UpdateQueue(ORDERS, {"max_size_in_megabytes": 2}, 0), object)
    await cluster.pass_time(100)

    assert sent + await fill(cluster, SESSIONS) == 2 * MIB // BATCH


async def test_others_go_on_while_a_partition_is_away(cluster: Cluster) -> None:
    for _ in range(8):
        await send(cluster, SESSIONS[3])
    cluster.paths.closed = {3}

    sent = await fill(cluster, SESSIONS[:3])
    assert (
        3 <= sent <= MIB // BATCH - 8
    )  # what the one that is away may still take is not given to others
    cluster.paths.closed = set()
    assert await size_of(cluster) <= MIB


async def test_a_grant_counts_once_and_only_for_the_last_freeze(cluster: Cluster) -> None:
    first = await cluster.call(1, FreezeShare(ORDERS), ShareIs)
    second = await cluster.call(1, FreezeShare(ORDERS), ShareIs)
    assert second.frozen > first.frozen

    for frozen, room, is_granted in ((first, 10, False), (second, 10, True), (second, 99, False)):
        await cluster.call(1, GrantShare(ORDERS, frozen.queue, frozen.frozen, room), object)
        taken = await _may_take(cluster, 10)
        assert taken is is_granted


async def _may_take(cluster: Cluster, size: int) -> bool:
    message = Send(ORDERS, (bytes(size),), (SESSIONS[1],))
    try:
        await cluster.supervisor.call(PartitionId(1), message)
    except ShareUsed:
        return False
    return True


async def test_many_sends_at_once_share_out_together(cluster: Cluster) -> None:
    """Sends that find no room at the same time do not each ask all partitions."""
    asked = 0
    ask = cluster.router._shares._ask

    async def counted(partition: PartitionId, command: object) -> object:
        nonlocal asked
        asked += 1
        return await ask(partition, command)  # type: ignore[arg-type]

    cluster.router._shares._ask = counted  # type: ignore[assignment]
    await asyncio.gather(*(send(cluster, SESSIONS[0], 10) for _ in range(50)))
    assert asked <= 2 * PARTITIONS * 3


async def test_a_full_queue_is_not_asked_for_room_by_every_send(cluster: Cluster) -> None:
    await fill(cluster, SESSIONS)
    times = cluster.router._shares._queues[ORDERS].times
    for _ in range(20):
        with pytest.raises(LockstepError):
            await send(cluster, SESSIONS[0])
    assert cluster.router._shares._queues[ORDERS].times == times


@pytest.mark.parametrize("room", [0, 1, 10, 1000])
@pytest.mark.parametrize("needed", [1, 10, 900, 2000])
def test_no_more_is_granted_than_is_left(room: int, needed: int) -> None:
    everybody = [PartitionId(number) for number in range(PARTITIONS)]
    parts = parts_of(room, needed, PartitionId(2), everybody)
    assert sum(parts.values()) <= room
    assert parts[PartitionId(2)] >= min(room, needed)
