"""A call that is cancelled at any step of the event loop has either its answer or no effect (BAT-9, SES-15).

In one process, without gRPC: over a connection the interesting steps are hit once in a million calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from lockstep.cluster.static import StaticLease, StaticOwnership
from lockstep.core.commands import Accept, Command, CreateQueue, GetRuntime, Receive, Send
from lockstep.core.ids import EntityKey, PartitionEpoch, PartitionId
from lockstep.core.limits import Limits
from lockstep.core.replies import Runtime
from lockstep.owner.actor import ActorLimits
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.clock import SystemClock
from lockstep.runtime.metrics import Metrics
from lockstep.storage.memory import MemoryStore

PARTITION = PartitionId(0)
SESSIONS, PLAIN = EntityKey("default", "sessions"), EntityKey("default", "plain")
STEPS = range(14)
clock = SystemClock()


@pytest.fixture
async def owner() -> AsyncIterator[Supervisor]:
    parts = OwnerParts(
        store=MemoryStore(),
        ownership=StaticOwnership(1, StaticLease(PartitionEpoch(0, 1, 0))),
        clock=clock,
        limits=Limits(),
        actor_limits=ActorLimits(),
        metrics=Metrics(CollectorRegistry(), version="test", entities_max=10),
    )
    owner = Supervisor(parts, 1)
    await owner.open_all()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(owner.run())
        for entity in (SESSIONS, PLAIN):
            settings = {"requires_session": entity is SESSIONS}
            command = CreateQueue("default", entity.name, settings, "uid")
            await owner.call(PARTITION, command)
        yield owner
        await owner.close()


async def is_cancelled(owner: Supervisor, waiting: Command, send: Send, steps: int) -> bool:
    """Let a call wait, send, and cancel the call some steps of the loop later."""
    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(owner.call(PARTITION, waiting, wait_ms=60_000))
        for _ in range(10):
            await clock.sleep(0)
        tasks.create_task(owner.call(PARTITION, send))
        for _ in range(steps):
            await clock.sleep(0)
        call.cancel()
    return call.cancelled()


async def runtime(owner: Supervisor, entity: EntityKey) -> Runtime:
    for _ in range(10):  # what was undone, was undone by then
        await clock.sleep(0)
    reply = (await owner.call(PARTITION, GetRuntime(entity))).reply
    assert isinstance(reply, Runtime)
    return reply


async def test_a_cancelled_accept_holds_no_session(owner: Supervisor) -> None:
    accept = Accept(SESSIONS, None, "me")
    cancelled, held = [], 0
    for steps in STEPS:
        send = Send(SESSIONS, (b"",), (str(steps),))
        cancelled.append(await is_cancelled(owner, accept, send, steps))
        locked = (await runtime(owner, SESSIONS)).locked_sessions
        assert (steps, locked - held) == (steps, 0 if cancelled[-1] else 1)
        held = locked
        if cancelled[-1]:  # nothing may be left that the next accept finds at once
            await owner.call(PARTITION, accept)
            held += 1

    assert set(cancelled) == {True, False}


async def test_a_cancelled_receive_locks_no_message(owner: Supervisor) -> None:
    receive = Receive(PLAIN, dead_letter=False, session=None, max_messages=1)
    cancelled, held = [], 0
    for steps in STEPS:
        cancelled.append(await is_cancelled(owner, receive, Send(PLAIN, (b"",), (None,)), steps))
        locked = (await runtime(owner, PLAIN)).locked
        assert (steps, locked - held) == (steps, 0 if cancelled[-1] else 1)
        held = locked
        if cancelled[-1]:  # nothing may be left that the next receive finds at once
            held += len((await owner.call(PARTITION, receive)).messages)

    assert set(cancelled) == {True, False}
