"""Scheduled messages on several partitions are taken back all or none (SCH-5)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from lockstep import Message
from lockstep.errors import MessageNotFound
from tests.unit.frontend.cluster_rig import (
    PARTITIONS,
    Cluster,
    running_cluster,
    session_on,
)

EVERYWHERE = [session_on(partition) for partition in range(PARTITIONS)]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running_cluster() as running:
        await running.create()
        yield running


async def schedule(cluster: Cluster) -> list[int]:
    """Schedule a message on each partition and return their numbers."""
    due = datetime.fromtimestamp(cluster.clock.now_ms() / 1000, UTC) + timedelta(hours=1)
    sender = cluster.client().get_queue_sender("orders")
    messages = [Message("later", session_id=name) for name in EVERYWHERE]
    return list(await sender.schedule_messages(messages, due))


async def scheduled(cluster: Cluster) -> int:
    return (await cluster.runtime()).scheduled


async def test_all_are_cancelled_wherever_they_are(cluster: Cluster) -> None:
    numbers = await schedule(cluster)

    await cluster.client().get_queue_sender("orders").cancel_scheduled_messages(numbers)
    assert await scheduled(cluster) == 0


async def test_sch_5_one_that_is_not_there_keeps_those_on_other_partitions(
    cluster: Cluster,
) -> None:
    numbers = await schedule(cluster)
    sender = cluster.client().get_queue_sender("orders")

    with pytest.raises(MessageNotFound, match="Nothing was cancelled"):
        await sender.cancel_scheduled_messages([*numbers[:3], numbers[3] + 1])
    assert await scheduled(cluster) == PARTITIONS

    await sender.cancel_scheduled_messages(numbers)
    assert await scheduled(cluster) == 0
