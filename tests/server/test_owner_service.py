"""The internal API between a front end and an owner, over a connection (design section 5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from pydantic import SecretStr

from lockstep.cli.cluster_processes import OwnerProcess
from lockstep.cluster.port import Hint
from lockstep.cluster.static import StaticLease, StaticOwnership
from lockstep.core.commands import CreateQueue, Receive, Send
from lockstep.core.errors import Moved
from lockstep.core.ids import EntityKey, PartitionEpoch, PartitionId
from lockstep.core.limits import Limits
from lockstep.core.replies import Sent
from lockstep.frontend.remote import RemoteOwner, connection_to
from lockstep.owner.actor import ActorLimits
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.clock import SystemClock
from lockstep.runtime.cluster_config import ClusterConfig
from lockstep.runtime.config import LimitsConfig, ServerConfig
from lockstep.storage.memory import MemoryStore
from lockstep.v1 import message_pb2
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.wire.sends import send_command

P = PartitionId(0)
ORDERS = EntityKey("default", "orders")
HUNG_S = 20


@asynccontextmanager
async def connected(limits: LimitsConfig) -> AsyncIterator[tuple[Supervisor, RemoteOwner]]:
    """An owner of one partition with a queue, in memory, and a front end's connection to its process."""
    cluster = ClusterConfig(postgres_dsns=SecretStr("postgresql://nowhere.invalid/none"))
    process = OwnerProcess(ServerConfig(partitions=1, limits=limits, cluster=cluster))
    parts = OwnerParts(
        store=MemoryStore(),
        ownership=StaticOwnership(1, StaticLease(PartitionEpoch(0, 1, 0))),
        clock=process.clock,
        limits=Limits(),
        actor_limits=ActorLimits(),
        metrics=process.metrics,
    )
    supervisor = Supervisor(parts, 1)
    await supervisor.open_all()
    process._service.serve(supervisor)
    port = await process._server.start("127.0.0.1", 0)
    address = f"127.0.0.1:{port}"
    connection = connection_to(address)
    owner = RemoteOwner(address, connection, partitions=1, overtaken=lambda *_: False)
    async with asyncio.timeout(HUNG_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        most = {"max_message_size_in_kilobytes": 16_384}
        await supervisor.call(P, CreateQueue("default", ORDERS.name, most, "uid"))
        try:
            yield supervisor, owner
        finally:
            await supervisor.close()
            await owner.close()
            await process._server.stop(0)


async def test_the_largest_batch_that_a_front_end_takes_reaches_the_owner() -> None:
    """The ids of messages go beside them too; with long ones that is more than gRPC's own slack."""
    count, id_of = 4096, "é" * 120 + "{:08}"
    messages = [
        message_pb2.Message(
            body=b"x" * 3500, message_id=id_of.format(i), session_id=id_of.format(i)
        )
        for i in range(count)
    ]
    request = messaging.SendMessagesRequest(entity=ORDERS.name, messages=messages)

    async with connected(LimitsConfig()) as (_, owner):
        answer = await owner.call(P, send_command(request.SerializeToString()))

    assert isinstance(answer.reply, Sent)
    assert len(answer.reply.numbers) == count


async def test_ses_14_hints_are_told_however_many_calls_wait() -> None:
    """Waiting calls of all front ends are open here; without hints, receivers of spread queues would sleep."""
    async with (
        connected(LimitsConfig(concurrent_requests_max=1)) as (supervisor, owner),
        asyncio.TaskGroup() as tasks,
    ):
        waiting = [
            tasks.create_task(owner.call(P, Receive(ORDERS, True, None, 1), wait_ms=60_000))
            for _ in range(2)
        ]
        while len(supervisor._actor(P).waiters) < len(waiting):
            await SystemClock().sleep(5)
        hints = owner.follow_hints(P)
        assert await anext(hints) == []
        await supervisor.call(P, Send(ORDERS, (b"x",), (None,)))
        assert await anext(hints) == [Hint(ORDERS, False, 1)]
        for call in waiting:
            call.cancel()


async def test_a_connection_that_is_closed_ends_what_waits_on_it_as_moved() -> None:
    """gRPC cancels it; taken for a cancellation of the task, it ended the following of a partition for good."""
    async with connected(LimitsConfig()) as (supervisor, owner):
        hints = owner.follow_hints(P)
        assert await anext(hints) == []
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(_moved(anext(hints)))
            waiting = tasks.create_task(
                _moved(owner.call(P, Receive(ORDERS, True, None, 1), wait_ms=60_000))
            )
            while not len(supervisor._actor(P).waiters):
                await SystemClock().sleep(5)
            await owner.close()

    assert following.result()
    assert waiting.result()


async def test_what_is_cancelled_on_a_connection_stays_cancelled() -> None:
    async with connected(LimitsConfig()) as (_, owner):
        hints = owner.follow_hints(P)
        assert await anext(hints) == []
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(_moved(anext(hints)))
            await SystemClock().sleep(0)
            following.cancel()

    assert following.cancelled()


async def _moved(answer: Awaitable[object]) -> bool:
    try:
        await answer
    except Moved:
        return True
    return False
