"""Retries of the client across the crash of its server: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio

import pytest

from lockstep.aio import LockstepClient, Message
from tests.client.calls import Q, session_receiver, texts
from tests.server.server_process import ServerProcess

pytestmark = pytest.mark.slow
MESSAGES = 200
CRASHES_AFTER = 60


async def test_a_crash_loses_and_doubles_nothing(own_server: ServerProcess) -> None:
    address = f"127.0.0.1:{own_server.port}"
    bodies = [str(number) for number in range(MESSAGES)]
    has_begun = asyncio.Event()
    async with LockstepClient(address, retry_total=20, retry_backoff_max=1) as client:
        await client.get_administration_client().create_queue(Q, requires_session=True)

        async with asyncio.TaskGroup() as group:
            group.create_task(_send_all(client, bodies, has_begun))
            receiving = group.create_task(_receive_all(client, len(bodies)))
            await has_begun.wait()
            await asyncio.to_thread(own_server.restart, with_kill=True)

        assert receiving.result() == bodies
        runtime = await client.get_administration_client().get_queue_runtime_properties(Q)
        assert runtime.total_message_count == 0


async def _send_all(client: LockstepClient, bodies: list[str], has_begun: asyncio.Event) -> None:
    sender = client.get_queue_sender(Q)
    for number, body in enumerate(bodies):
        if number == CRASHES_AFTER:
            has_begun.set()
        await sender.send_messages(Message(body, session_id="s"))


async def _receive_all(client: LockstepClient, count: int) -> list[str]:
    seen: list[str] = []
    async with session_receiver(client) as receiver:
        while len(seen) < count:
            messages = await receiver.receive_messages(10, 5)
            assert not await receiver.complete_messages(messages)
            seen += texts(messages)
    return seen
