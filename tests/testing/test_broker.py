"""The in-process broker with asyncio, used as a test of a user's program would."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from lockstep.aio import (
    NEXT_AVAILABLE_SESSION,
    AutoLockRenewer,
    LockstepClient,
    Message,
    ProcessorContext,
    QueueReceiver,
    ReceivedMessage,
)
from lockstep.client.transport import RECEIVE_MESSAGES
from lockstep.errors import (
    ClientClosed,
    EntityNotFound,
    InvalidRequest,
    LockstepError,
    MessageLockLost,
    NoSessionAvailable,
    OperationTimeout,
    SessionCannotBeLocked,
    SessionLockLost,
)
from lockstep.testing import Broker

HOUR_S = 3600


async def sessions_queue(client: LockstepClient, *sessions: str) -> None:
    """Make the session queue "orders" with one message in each session."""
    await client.get_administration_client().create_queue("orders", requires_session=True)
    for session in sessions:
        await send(client, "orders", session, session=session)


async def plain_queue(client: LockstepClient, *bodies: str, max_delivery_count: int = 10) -> None:
    """Make the plain queue "jobs" with these messages."""
    administration = client.get_administration_client()
    await administration.create_queue("jobs", max_delivery_count=max_delivery_count)
    for body in bodies:
        await send(client, "jobs", body)


async def send(client: LockstepClient, queue: str, body: str, session: str | None = None) -> None:
    await client.get_queue_sender(queue).send_messages(Message(body, session_id=session))


def next_session(client: LockstepClient, wait_s: float) -> QueueReceiver:
    return client.get_queue_receiver(
        "orders", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=wait_s
    )


async def test_a_session_lock_that_ran_out_goes_to_the_next_receiver(
    lockstep_broker: Broker,
) -> None:
    client = lockstep_broker.client()
    await sessions_queue(client, "A")
    async with next_session(client, 0) as slow:
        (message,) = await slow.receive_messages()

        await lockstep_broker.advance(60)

        async with next_session(client, 0) as quick:
            (again,) = await quick.receive_messages()
            assert (again.body, again.delivery_count) == (b"A", 1)
            with pytest.raises(SessionLockLost):
                await slow.complete_message(message)


async def test_a_session_lock_holds_until_the_last_millisecond(lockstep_broker: Broker) -> None:
    client = lockstep_broker.client()
    await sessions_queue(client, "A")

    async with next_session(client, 0):
        await lockstep_broker.advance(59.999)

        with pytest.raises(SessionCannotBeLocked):
            await client.get_queue_receiver("orders", session_id="A").__aenter__()


async def test_a_message_lock_runs_out_at_its_time(lockstep_broker: Broker) -> None:
    client = lockstep_broker.client()
    await plain_queue(client, "one")
    receiver = client.get_queue_receiver("jobs")
    (message,) = await receiver.receive_messages()
    assert message.locked_until_utc is not None
    left = message.locked_until_utc - lockstep_broker.clock.now()

    await lockstep_broker.advance(left.total_seconds())

    with pytest.raises(MessageLockLost):
        await receiver.complete_message(message)
    (again,) = await receiver.receive_messages()
    assert again.delivery_count == 1


async def test_a_waiting_accept_is_woken_by_a_send_without_time_passing(
    lockstep_broker: Broker,
) -> None:
    client = lockstep_broker.client()
    await sessions_queue(client)
    async with asyncio.TaskGroup() as tasks:
        accept = tasks.create_task(next_session(client, HOUR_S).__aenter__())
        await lockstep_broker.advance(10)
        assert not accept.done()
        before = lockstep_broker.clock.now()

        await send(client, "orders", "hello", session="B")

        async with await accept as receiver:
            assert receiver.session.session_id == "B"
    assert lockstep_broker.clock.now() == before


async def test_a_waiting_accept_ends_when_its_wait_is_over(lockstep_broker: Broker) -> None:
    client = lockstep_broker.client()
    await sessions_queue(client)
    began = lockstep_broker.clock.now()
    ended: list[datetime] = []

    async def accept() -> None:
        with pytest.raises(NoSessionAvailable):
            await next_session(client, 90).__aenter__()
        ended.append(lockstep_broker.clock.now())

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(accept())
        await lockstep_broker.advance(HOUR_S)

    assert ended == [began + timedelta(seconds=90)]


async def test_a_waiting_receive_gets_what_another_receiver_did_not_settle(
    lockstep_broker: Broker,
) -> None:
    client = lockstep_broker.client()
    await plain_queue(client, "one")
    await client.get_queue_receiver("jobs").receive_messages()
    began = lockstep_broker.clock.now()

    async with asyncio.TaskGroup() as tasks:
        other = client.get_queue_receiver("jobs")
        waiting = tasks.create_task(other.receive_messages(max_wait_time=HOUR_S))
        await lockstep_broker.advance(HOUR_S)
        (message,) = await waiting

    assert message.locked_until_utc is not None
    assert message.locked_until_utc - began == timedelta(seconds=120)


async def test_renewal_keeps_a_session_for_as_long_as_it_is_asked_to(
    lockstep_broker: Broker,
) -> None:
    client = lockstep_broker.client()
    await sessions_queue(client, "A")
    began = lockstep_broker.clock.now()
    lost: list[tuple[datetime, LockstepError]] = []

    async with next_session(client, 0) as receiver, AutoLockRenewer() as renewer:
        renewer.register(
            receiver,
            receiver.session,
            max_lock_renewal_duration=HOUR_S,
            on_lock_renew_failure=lambda _, error: lost.append(
                (lockstep_broker.clock.now(), error)
            ),
        )
        await lockstep_broker.advance(HOUR_S)
        assert lost == []
        (message,) = await receiver.receive_messages()
        await lockstep_broker.advance(HOUR_S)

        with pytest.raises(SessionLockLost):
            await receiver.complete_message(message)

    ((when, error),) = lost
    assert timedelta(hours=1) < when - began <= timedelta(hours=1, seconds=61)
    assert isinstance(error, SessionLockLost)


async def test_a_scheduled_message_comes_at_its_time_to_a_waiting_receive(
    lockstep_broker: Broker,
) -> None:
    client = lockstep_broker.client()
    await plain_queue(client)
    due = lockstep_broker.clock.now() + timedelta(minutes=15)
    await client.get_queue_sender("jobs").schedule_messages(Message("remind"), due)
    received: list[tuple[bytes | None, datetime]] = []

    async def receive() -> None:
        receiver = client.get_queue_receiver("jobs")
        (message,) = await receiver.receive_messages(max_wait_time=1800)
        received.append((message.body, lockstep_broker.clock.now()))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(receive())
        await lockstep_broker.advance(899.999)
        assert received == []
        await lockstep_broker.advance(HOUR_S)

    assert received == [(b"remind", due)]


async def test_messages_of_one_send_come_with_their_own_bodies_in_the_order_of_their_times(
    lockstep_broker: Broker,
) -> None:
    """SCH-3: they lie where their send put them, and get their numbers as each becomes active."""
    client = lockstep_broker.client()
    await plain_queue(client)
    sender, now = client.get_queue_sender("jobs"), lockstep_broker.clock.now()
    late, early, middle = (now + timedelta(minutes=n) for n in (3, 1, 2))
    await sender.schedule_messages([Message("late 1"), Message("late 2")], late)
    await sender.schedule_messages(Message("middle 1"), middle)
    await sender.send_messages(
        [
            Message("late 3", scheduled_enqueue_time_utc=late),
            Message("early", scheduled_enqueue_time_utc=early),
            Message("middle 2", scheduled_enqueue_time_utc=middle),
        ]
    )
    await lockstep_broker.advance(HOUR_S)

    received = await client.get_queue_receiver("jobs").receive_messages(10)

    bodies = [message.body for message in received]
    assert bodies == [b"early", b"middle 1", b"middle 2", b"late 1", b"late 2", b"late 3"]


async def test_a_message_expires_when_its_time_to_live_is_over(lockstep_broker: Broker) -> None:
    client = lockstep_broker.client()
    await plain_queue(client)
    sender = client.get_queue_sender("jobs")
    await sender.send_messages([Message("brief", time_to_live=timedelta(seconds=30)), Message("x")])

    await lockstep_broker.advance(30)

    receiver = client.get_queue_receiver("jobs")
    assert [m.body for m in await receiver.receive_messages(10, max_wait_time=0)] == [b"x"]


async def test_a_message_is_a_dead_letter_after_the_most_deliveries(
    lockstep_broker: Broker,
) -> None:
    client = lockstep_broker.client()
    await plain_queue(client, "poison", max_delivery_count=3)
    receiver = client.get_queue_receiver("jobs")
    for _ in range(3):
        assert await receiver.receive_messages(max_wait_time=0)
        await lockstep_broker.advance(HOUR_S)

    assert await receiver.receive_messages(max_wait_time=0) == []

    dead = client.get_queue_receiver("jobs", sub_queue="deadletter")
    (message,) = await dead.receive_messages(max_wait_time=0)
    assert (message.body, message.dead_letter_reason) == (b"poison", "MaxDeliveryCountExceeded")


async def test_two_clients_compete_and_each_session_has_one_holder(
    lockstep_broker: Broker,
) -> None:
    one, other = lockstep_broker.client(), lockstep_broker.client()
    await sessions_queue(one, "A", "B", "C")
    handled: list[str] = []

    async def work(client: LockstepClient) -> None:
        while True:
            try:
                async with next_session(client, 60) as receiver:
                    for message in await receiver.receive_messages(10, max_wait_time=0):
                        await lockstep_broker.clock.sleep(20)
                        await receiver.complete_message(message)
                        handled.append(receiver.session.session_id)
            except NoSessionAvailable:
                return

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work(one))
        tasks.create_task(work(other))
        await lockstep_broker.advance(20)
        assert sorted(handled) == ["A", "B"]
        await lockstep_broker.advance(HOUR_S)

    assert handled[2:] == ["C"]


async def test_what_a_long_chain_of_calls_does_happens_at_one_time(lockstep_broker: Broker) -> None:
    client = lockstep_broker.client()
    await plain_queue(client)
    times: set[datetime] = set()

    async def send_many() -> None:
        await lockstep_broker.clock.sleep(5)
        for number in range(200):
            await send(client, "jobs", str(number))
            times.add(lockstep_broker.clock.now())

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send_many())
        await lockstep_broker.advance(5.001)

    assert len(times) == 1


async def test_an_error_arrives_with_its_class_its_text_and_its_details(
    lockstep_broker: Broker,
) -> None:
    client = lockstep_broker.client("shop")

    with pytest.raises(EntityNotFound, match="shop/nothing") as caught:
        await send(client, "nothing", "hello")

    assert caught.value.__cause__ is not None


async def test_namespaces_are_apart(lockstep_broker: Broker) -> None:
    await plain_queue(lockstep_broker.client("one"), "hello")

    with pytest.raises(EntityNotFound):
        await lockstep_broker.client("other").get_queue_receiver("jobs").receive_messages()


async def test_brokers_share_nothing() -> None:
    async with Broker() as one, Broker() as other:
        await plain_queue(one.client(), "hello")
        before = other.clock.now()
        await one.advance(HOUR_S)

        assert other.clock.now() == before
        with pytest.raises(EntityNotFound):
            await send(other.client(), "jobs", "hello")


async def test_a_broker_starts_at_the_time_that_it_is_told() -> None:
    start = datetime(2030, 1, 1, tzinfo=UTC)

    async with Broker(start=start) as broker:
        await plain_queue(broker.client(), "hello")
        (message,) = await broker.client().get_queue_receiver("jobs").receive_messages()

        assert broker.clock.now() == start
        assert message.enqueued_time_utc == start


async def test_closing_a_client_ends_its_waiting_calls(lockstep_broker: Broker) -> None:
    client = lockstep_broker.client()
    await plain_queue(client)

    async def receive() -> None:
        with pytest.raises(ClientClosed):
            await client.get_queue_receiver("jobs").receive_messages()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(receive())
        await lockstep_broker.advance(0)
        await client.close()


async def test_cancelling_a_waiting_receive_takes_no_message(lockstep_broker: Broker) -> None:
    client = lockstep_broker.client()
    await plain_queue(client)
    receiver = client.get_queue_receiver("jobs")
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(receiver.receive_messages())
        await lockstep_broker.advance(1)

        waiting.cancel()
        await send(client, "jobs", "hello")

    (message,) = await receiver.receive_messages(max_wait_time=0)
    assert message.delivery_count == 0


async def test_after_its_block_a_broker_takes_no_calls() -> None:
    async with Broker() as broker:
        client = broker.client()
        await plain_queue(client)

    with pytest.raises(ClientClosed):
        client.get_queue_sender("jobs")


async def test_a_wait_for_a_clock_that_nobody_moves_ends_with_an_explanation() -> None:
    async with Broker(patience=0.05) as broker:
        client = broker.client()
        await plain_queue(client)

        with pytest.raises(RuntimeError, match="virtual clock stands still"):
            await client.get_queue_receiver("jobs").receive_messages(max_wait_time=5)


async def test_time_does_not_go_back(lockstep_broker: Broker) -> None:
    with pytest.raises(InvalidRequest):
        await lockstep_broker.advance(-1)


async def test_two_tasks_cannot_move_one_clock(lockstep_broker: Broker) -> None:
    async def interfere() -> None:
        with pytest.raises(RuntimeError, match="advanced already"):
            await lockstep_broker.advance(1)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(interfere())
        await lockstep_broker.advance(1)


async def test_a_task_that_calls_without_ever_waiting_is_found_out() -> None:
    async with Broker(patience=0.1) as broker, asyncio.TaskGroup() as tasks:
        client = broker.client()
        await plain_queue(client)

        async def poll() -> None:
            while True:
                await client.get_queue_receiver("jobs").receive_messages(max_wait_time=0)

        polling = tasks.create_task(poll())
        with pytest.raises(RuntimeError, match="without end"):
            await broker.advance(1)
        polling.cancel()


async def test_without_time_left_a_call_ends_with_its_deadline(lockstep_broker: Broker) -> None:
    client = lockstep_broker.client()
    await plain_queue(client)
    transport = client._connection.transport
    request = RECEIVE_MESSAGES.request(namespace="default", entity="jobs", max_messages=1)
    request.max_wait.FromSeconds(60)

    async def call() -> None:
        with pytest.raises(OperationTimeout):
            await transport.call(RECEIVE_MESSAGES, request, timeout_ms=1_000)

    async with asyncio.TaskGroup() as tasks:
        calling = tasks.create_task(call())
        await lockstep_broker.advance(0.999)
        assert not calling.done()
        await lockstep_broker.advance(0.001)
        assert calling.done()


async def test_a_processor_works_in_virtual_time(lockstep_broker: Broker) -> None:
    client = lockstep_broker.client()
    await sessions_queue(client, "A", "B")
    handled: list[str] = []

    async def handle(message: ReceivedMessage, _: ProcessorContext) -> None:
        await lockstep_broker.clock.sleep(200)  # more than three lock durations
        handled.append(str(message.session_id))

    async with client.get_session_processor("orders", handle, auto_complete=True):
        await lockstep_broker.advance(300)

    assert sorted(handled) == ["A", "B"]
    administration = client.get_administration_client()
    orders = await administration.get_queue_runtime_properties("orders")
    assert orders.total_message_count == 0
