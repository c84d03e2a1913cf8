"""What the asyncio program of `test_programs` does not go through, against a running server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from lockstep.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusMessage, ServiceBusMessageState
from lockstep.servicebus.aio import AutoLockRenewer, ServiceBusClient
from lockstep.servicebus.aio.management import ServiceBusAdministrationClient
from lockstep.servicebus.exceptions import (
    AutoLockRenewFailed,
    MessageNotFoundError,
    ResourceNotFoundError,
)

Q = "orders"


@pytest.fixture
async def admin(connection_string: str) -> AsyncIterator[ServiceBusAdministrationClient]:
    """An administration client, closed after the test."""
    async with ServiceBusAdministrationClient.from_connection_string(connection_string) as opened:
        yield opened


@pytest.fixture
async def client(connection_string: str) -> AsyncIterator[ServiceBusClient]:
    """An asyncio client, closed after the test."""
    async with ServiceBusClient.from_connection_string(connection_string) as opened:
        yield opened


async def test_sessions_are_listed_and_accepted_when_they_are_needed(
    admin: ServiceBusAdministrationClient, client: ServiceBusClient
) -> None:
    await admin.create_queue(Q, requires_session=True)
    await client.get_queue_sender(Q).send_messages(ServiceBusMessage("x", session_id="s"))
    receiver = client.get_queue_receiver(Q, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=5)
    session = receiver.session
    assert session is not None
    async with AutoLockRenewer() as renewer:
        with pytest.raises(ValueError, match="not accepted"):
            renewer.register(receiver, session)

    await session.set_state(bytearray(b"state"))

    assert session.session_id == "s"
    assert await session.get_state() == b"state"
    assert [each async for each in client.list_queue_sessions(Q)] == ["s"]
    await receiver.close()


async def test_a_deferred_message_is_received_by_its_number(
    admin: ServiceBusAdministrationClient, client: ServiceBusClient
) -> None:
    await admin.create_queue("plain")
    await client.get_queue_sender("plain").send_messages(ServiceBusMessage("x"))
    async with client.get_queue_receiver("plain") as receiver:
        [message] = await receiver.receive_messages(max_wait_time=5)
        await receiver.defer_message(message)

        [deferred] = await receiver.receive_deferred_messages([message.sequence_number])

        assert deferred.state is ServiceBusMessageState.DEFERRED
        await receiver.complete_message(deferred)
        with pytest.raises(MessageNotFoundError):
            await receiver.receive_deferred_messages(message.sequence_number)


@pytest.mark.slow
async def test_the_renewer_awaits_what_it_is_told_to_call(
    admin: ServiceBusAdministrationClient, client: ServiceBusClient
) -> None:
    await admin.create_queue("plain", lock_duration=timedelta(seconds=5))
    await client.get_queue_sender("plain").send_messages(ServiceBusMessage("x"))
    told: list[object] = []

    async def on_failure(renewable: object, error: Exception | None) -> None:
        told.extend([renewable, error])

    async with (
        AutoLockRenewer(1, on_lock_renew_failure=on_failure) as renewer,
        client.get_queue_receiver("plain", auto_lock_renewer=renewer) as receiver,
        client.get_queue_receiver("plain") as other,
    ):
        [message] = await receiver.receive_messages(max_wait_time=5)
        [again] = await other.receive_messages(max_wait_time=20)
        assert again.delivery_count == 1
        assert await other.receive_messages(max_wait_time=1) == []

    assert told == [message, message.auto_renew_error]
    assert isinstance(message.auto_renew_error, AutoLockRenewFailed)


async def test_queues_are_administered_with_azures_names(
    admin: ServiceBusAdministrationClient, client: ServiceBusClient
) -> None:
    await admin.create_queue("plain")
    await client.get_queue_sender("plain").send_messages(ServiceBusMessage("x"))

    runtimes = [each async for each in admin.list_queues_runtime_properties()]

    assert [(each.name, each.active_message_count) for each in runtimes] == [("plain", 1)]
    await admin.delete_queue("plain")
    with pytest.raises(ResourceNotFoundError):
        await admin.get_queue_runtime_properties("plain")
    with pytest.raises(NotImplementedError, match="create_topic"):
        await admin.create_topic("t")
    with pytest.raises(NotImplementedError, match="get_topic_sender"):
        client.get_topic_sender("t")
