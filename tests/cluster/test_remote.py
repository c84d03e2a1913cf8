"""The way to an owner in another process, over a real connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from lockstep.cluster.port import OwnerChannel
from lockstep.core.commands import Receive
from lockstep.core.errors import LockstepError
from lockstep.frontend.remote import RemoteOwner, connection_to
from lockstep.owner.service import OwnerService
from lockstep.runtime.clock import SystemClock
from lockstep.runtime.metrics import Metrics
from lockstep.wire.server import Server
from tests.unit.owner.owner_rig import PARTITION, PLAIN, running_owner

Use = Callable[[OwnerChannel, asyncio.Event], Coroutine[Any, Any, None]]


@asynccontextmanager
async def remote_owner() -> AsyncIterator[RemoteOwner]:
    """An owner of one partition, with a plain queue, and the way to it."""
    service = OwnerService(1)
    server = Server(
        [service.methods()],
        clock=SystemClock(),
        metrics=Metrics(CollectorRegistry(), version="test"),
        request_bytes_max=1024 * 1024,
        calls_max=100,
    )
    async with running_owner() as owner:
        await owner.create(PLAIN)
        service.serve(owner.supervisor)
        port = await server.start("127.0.0.1", 0)
        address = f"127.0.0.1:{port}"
        remote = RemoteOwner(
            address,
            connection_to(address),
            partitions=1,
            overtaken=lambda _partition, _epoch: False,
        )
        try:
            yield remote
        finally:
            await remote.close()
            await server.stop(0)


async def follow(owner: OwnerChannel, begun: asyncio.Event) -> None:
    async for _ in owner.follow_hints(PARTITION):
        begun.set()


async def receive(owner: OwnerChannel, begun: asyncio.Event) -> None:
    begun.set()
    await owner.call(PARTITION, Receive(PLAIN, False, None, 1), wait_ms=60_000)


@pytest.mark.parametrize("use", [follow, receive])
async def test_who_uses_a_connection_that_is_closed_is_told_to_look_elsewhere(use: Use) -> None:
    """The directory closes it when no partition leads there any more; its users must not end with it."""
    begun = asyncio.Event()

    async def reason(owner: RemoteOwner) -> str:
        with pytest.raises(LockstepError) as refused:
            await use(owner, begun)
        return refused.value.reason

    async with remote_owner() as owner, asyncio.TaskGroup() as tasks:
        told = tasks.create_task(reason(owner))
        await begun.wait()

        await owner.close()

    assert told.result() == "PARTITION_MOVED"


@pytest.mark.parametrize("use", [follow, receive])
async def test_who_is_cancelled_stays_cancelled(use: Use) -> None:
    begun = asyncio.Event()
    async with remote_owner() as owner, asyncio.TaskGroup() as tasks:
        user = tasks.create_task(use(owner, begun))
        await begun.wait()

        user.cancel()

    assert user.cancelled()
