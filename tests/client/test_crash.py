"""Retries of the client across the crash of its server: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio

import pytest

from lockstep.aio import NEXT_AVAILABLE_SESSION, LockstepClient, Message
from lockstep.errors import ConnectionFailed
from tests.client.calls import Q, session_receiver, texts
from tests.server.server_process import ServerProcess, wait_until

pytestmark = pytest.mark.slow
MESSAGES = 200
CRASHES_AFTER = 60
PLAIN = "plain"
RECEIVERS = "lockstep_entity_receivers{"


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


async def test_waits_without_an_end_survive_what_a_call_does_not(own_server: ServerProcess) -> None:
    address = f"127.0.0.1:{own_server.port}"
    async with (
        LockstepClient(address) as other,
        LockstepClient(address, retry_total=1, retry_backoff_factor=0.05) as client,
    ):
        admin = other.get_administration_client()
        await admin.create_queue(Q, requires_session=True)
        await admin.create_queue(PLAIN)

        async with asyncio.TaskGroup() as group:
            accepting = group.create_task(_accept_next(client))
            iterating = group.create_task(anext(client.get_queue_receiver(PLAIN)))
            await asyncio.to_thread(_until_waiting, own_server, 2)
            await asyncio.to_thread(own_server.kill)
            with pytest.raises(ConnectionFailed):
                await client.get_administration_client().get_queue(Q)
            await asyncio.to_thread(own_server.start)
            await other.get_queue_sender(Q).send_messages(Message("1", session_id="s"))
            await other.get_queue_sender(PLAIN).send_messages(Message("2"))

    assert accepting.result() == "s"
    assert str(iterating.result()) == "2"


def _until_waiting(server: ServerProcess, count: int) -> None:
    def are_waiting() -> bool:
        _, page = server.http("metrics", "/metrics/entities")
        receivers = [line for line in page.splitlines() if line.startswith(RECEIVERS)]
        return [line.rpartition(" ")[2] for line in receivers] == ["1.0"] * count

    wait_until(are_waiting, f"a receiver waits at each of {count} queues")


async def _accept_next(client: LockstepClient) -> str:
    async with client.get_queue_receiver(Q, session_id=NEXT_AVAILABLE_SESSION) as receiver:
        return receiver.session.session_id


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
