"""A broker with several partitions in a test: sessions on all of them, and time that a test moves."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from lockstep import NEXT_AVAILABLE_SESSION, Message
from lockstep.errors import InvalidOperation, InvalidRequest, NoSessionAvailable
from lockstep.testing import BlockingBroker, Broker

NAMES = [f"session {number}" for number in range(12)]


async def test_sessions_of_all_partitions_are_sent_taken_listed_and_looked_at() -> None:
    async with Broker(partitions=4) as broker:
        client = broker.client()
        admin = client.get_administration_client()
        await admin.create_queue("orders", requires_session=True)
        sender = client.get_queue_sender("orders")
        await sender.send_messages([Message(name, session_id=name) for name in NAMES])
        with pytest.raises(InvalidOperation):
            await sender.send_messages(
                [Message("x", session_id=n) for n in NAMES], require_atomic=True
            )

        seen = await client.get_queue_receiver("orders").peek_messages(100)
        listed = [view.session_id async for view in admin.list_sessions("orders")]
        taken = []
        for _ in NAMES:
            receiver = client.get_queue_receiver("orders", session_id=NEXT_AVAILABLE_SESSION)
            async with receiver:
                (message,) = await receiver.receive_messages(10)
                await receiver.complete_message(message)
                taken.append(message.session_id or "")

        assert listed == sorted(NAMES) == sorted(taken)
        assert len(seen) == len(NAMES)


async def test_a_receiver_waits_in_virtual_time_and_is_woken_by_any_partition() -> None:
    async with Broker(partitions=4) as broker:
        client = broker.client()
        await client.get_administration_client().create_queue("orders", requires_session=True)
        sender = client.get_queue_sender("orders")

        async def take() -> str:
            receiver = client.get_queue_receiver(
                "orders", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=60
            )
            async with receiver:
                (message,) = await receiver.receive_messages(1)
                await receiver.complete_message(message)
                return message.session_id or ""

        async with asyncio.TaskGroup() as tasks:
            late = [tasks.create_task(take()) for _ in range(3)]
            await broker.advance(30)
            for name in NAMES[:3]:
                await sender.send_messages(Message("x", session_id=name))

        assert {one.result() for one in late} == set(NAMES[:3])
        before = broker.clock.now()
        outcome, _ = await asyncio.gather(take(), broker.advance(60), return_exceptions=True)
        assert isinstance(outcome, NoSessionAvailable)
        assert broker.clock.now() - before == timedelta(seconds=60)


def test_jobs_and_idle_queues_work_as_time_is_moved() -> None:
    with BlockingBroker(partitions=4) as broker, broker.client() as client:
        admin = client.get_administration_client()
        admin.create_queue(
            "orders", requires_session=True, auto_delete_on_idle=timedelta(minutes=10)
        )
        sender = client.get_queue_sender("orders")
        sender.send_messages([Message(name, session_id=name) for name in NAMES])
        for name in NAMES:
            with client.get_queue_receiver("orders", session_id=name) as receiver:
                for message in receiver.receive_messages(1):
                    receiver.dead_letter_message(message)

        job = admin.resubmit_dead_letters("orders")
        broker.advance(30)
        ended = admin.get_dead_letter_job("orders", job.number)
        runtime = admin.get_queue_runtime_properties("orders")
        broker.advance(11 * 60)
        left = list(admin.list_queues())

    assert (ended.status.value, ended.matched_message_count) == ("done", len(NAMES))
    assert (runtime.active_message_count, runtime.dead_letter_message_count) == (len(NAMES), 0)
    assert left == []


@pytest.mark.parametrize("partitions", [0, 65])
def test_a_number_of_partitions_has_bounds(partitions: int) -> None:
    for kind in (Broker, BlockingBroker):
        with pytest.raises(InvalidRequest):
            kind(partitions=partitions)
