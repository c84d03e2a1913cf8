"""What is told of a queue while some of its partitions cannot be asked (ADD-10, ENT-11)."""

from __future__ import annotations

import asyncio
from typing import Any

from lockstep.cluster.port import Answer
from lockstep.core.commands import Command, Explain, ListDefinitions, Send
from lockstep.core.errors import ClusterUnavailable
from lockstep.core.ids import EntityKey, PartitionId, SessionId, sequence_base
from lockstep.core.placement import partition_of_entity
from lockstep.core.replies import Cause, Definitions, Explained, Runtime
from lockstep.frontend.looking import explain, runtimes_of
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


async def test_a_listing_of_many_queues_asks_each_partition_seldom() -> None:
    """Figures of a page come with few calls, and are those of each queue by itself."""
    async with running_cluster() as cluster:
        await cluster.create()
        await cluster.add_dead_letters(2, [session_on(1), session_on(2)])
        plain = [EntityKey("default", f"plain-{number:03}") for number in range(70)]
        for key in plain:
            await cluster.create(key, requires_session=False)
        asked: list[Command] = []
        call = cluster.router.call

        async def counted(partition: PartitionId, command: Command, **rest: Any) -> Answer:
            asked.append(command)
            return await call(partition, command, **rest)

        definitions = (await cluster.call(0, ListDefinitions(), Definitions)).queues
        cluster.router.call = counted  # type: ignore[method-assign]
        found = await runtimes_of(cluster.router, definitions)

        by_key = dict(zip((queue.key for queue in definitions), found, strict=True))
        assert by_key[ORDERS].dead_letters == 4
        assert all(by_key[key] == Runtime(used_ms=by_key[key].used_ms) for key in plain)
        assert len(asked) <= 2 * PARTITIONS
