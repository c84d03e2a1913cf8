"""What is told of a queue while some of its partitions cannot be asked (ADD-10, ENT-11)."""

from __future__ import annotations

import asyncio

from lockstep.core.commands import Explain, Send
from lockstep.core.errors import ClusterUnavailable
from lockstep.core.ids import PartitionId, SessionId, sequence_base
from lockstep.core.placement import partition_of_entity
from lockstep.core.replies import Cause, Explained
from lockstep.frontend.looking import explain
from tests.unit.frontend.cluster_rig import (
    ORDERS,
    PARTITIONS,
    Cluster,
    running_cluster,
    session_on,
)

HOME = partition_of_entity(ORDERS, PARTITIONS)
AWAY = (HOME + 1) % PARTITIONS


async def explained(cluster: Cluster, command: Explain) -> Explained:
    found, _ = await asyncio.gather(explain(cluster.router, command), cluster.pass_time(10_000))
    return found


async def test_add_10_a_partition_without_an_owner_is_named() -> None:
    async with running_cluster() as cluster:
        await cluster.create()
        await cluster.call(HOME, Send(ORDERS, (b"x",), (session_on(HOME),)), object)
        await cluster.runtime()  # which tells where the queue's parts are
        cluster.paths.closed = {AWAY}

        whole = await explained(cluster, Explain(ORDERS))
        there = await explained(cluster, Explain(ORDERS, SessionId(session_on(AWAY))))
        message = await explained(
            cluster, Explain(ORDERS, sequence=sequence_base(PartitionId(AWAY)) + 1)
        )
        here = await explained(cluster, Explain(ORDERS, SessionId(session_on(HOME))))
        cluster.paths.closed = set()

        named = f"Partition {AWAY} cannot be asked now"
        for found in (whole, there, message):
            assert found.cause is Cause.NO_OWNER
            assert named in found.sentence
        assert dict(whole.facts)["free_sessions"] == "1"
        assert here.cause is Cause.NO_RECEIVER


async def test_cnt_1_counters_are_exact_or_refused() -> None:
    async with running_cluster() as cluster:
        await cluster.create()
        await cluster.runtime()
        cluster.paths.closed = {AWAY}

        counted = await asyncio.gather(
            cluster.runtime(), cluster.pass_time(10_000), return_exceptions=True
        )
        cluster.paths.closed = set()

        assert isinstance(counted[0], ClusterUnavailable)
        assert (await cluster.runtime()).active == 0


async def test_add_10_receivers_that_wait_in_the_front_end_are_counted_once() -> None:
    async with running_cluster() as cluster:
        await cluster.create()
        await cluster.call(HOME, Send(ORDERS, (b"x",), (session_on(HOME),)), object)

        found = await explained(cluster, Explain(ORDERS, waiting=2))

        assert found.cause is Cause.DELIVERABLE
        assert dict(found.facts)["waiting_receivers"] == "2"
