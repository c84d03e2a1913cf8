"""How a program that uses Lockstep tests itself: an in-process broker, and a clock that the test moves.

The program takes orders, cancels those that nobody paid within 15 minutes, and packs the others. Its tests
go through hours in milliseconds. The fixture comes with Lockstep; run them with

    pytest examples/test_with_virtual_clock.py
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest

from lockstep.aio import NEXT_AVAILABLE_SESSION, AutoLockRenewer, LockstepClient, Message
from lockstep.errors import NoSessionAvailable
from lockstep.testing import Broker

pytestmark = pytest.mark.asyncio

PAYMENT_TIME = timedelta(minutes=15)
IDLE_S = 300.0


# --- the program: it is given its client, its clock and its work, and so can be tested ---------------


async def place_order(client: LockstepClient, order: str, now: datetime) -> None:
    """Take an order, and look at it again when it should have been paid."""
    sender = client.get_queue_sender("orders")
    await sender.schedule_messages(Message("check payment", session_id=order), now + PAYMENT_TIME)


async def handle_orders(client: LockstepClient, handle: Callable[[str], Awaitable[None]]) -> None:
    """Handle orders, each under its session's lock, until none has come for a while."""
    async with AutoLockRenewer() as renewer:
        while True:
            try:
                async with client.get_queue_receiver(
                    "orders", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=IDLE_S
                ) as receiver:
                    renewer.register(receiver, receiver.session)
                    for message in await receiver.receive_messages(10, max_wait_time=0):
                        await handle(receiver.session.session_id)
                        await receiver.complete_message(message)
            except NoSessionAvailable:
                return


# --- its tests ---------------------------------------------------------------------------------------


async def shop(broker: Broker) -> LockstepClient:
    client = broker.client()
    await client.get_administration_client().create_queue("orders", requires_session=True)
    return client


async def test_an_order_is_looked_at_after_15_minutes(lockstep_broker: Broker) -> None:
    client = await shop(lockstep_broker)
    placed = lockstep_broker.clock.now()
    looked_at: list[tuple[str, datetime]] = []

    async def handle(order: str) -> None:
        looked_at.append((order, lockstep_broker.clock.now()))

    await place_order(client, "order-1", placed)
    await lockstep_broker.advance(14 * 60 + 30)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(handle_orders(client, handle))
        await lockstep_broker.advance(3600)

    assert looked_at == [("order-1", placed + PAYMENT_TIME)]


async def test_an_order_that_takes_long_stays_with_its_worker(lockstep_broker: Broker) -> None:
    client = await shop(lockstep_broker)
    handled: list[str] = []

    async def handle_slowly(order: str) -> None:
        await lockstep_broker.clock.sleep(240)  # four lock durations, so only renewal keeps it
        handled.append(order)

    await client.get_queue_sender("orders").send_messages(Message("pack", session_id="order-1"))
    async with asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(handle_orders(client, handle_slowly))
        await lockstep_broker.advance(3600)

    assert handled == ["order-1"]


async def test_an_order_of_a_worker_that_vanished_is_handled_by_another(
    lockstep_broker: Broker,
) -> None:
    client = await shop(lockstep_broker)
    handled: list[str] = []

    async def handle(order: str) -> None:
        handled.append(order)

    await client.get_queue_sender("orders").send_messages(Message("pack", session_id="order-1"))
    async with client.get_queue_receiver("orders", session_id="order-1") as vanished:
        assert await vanished.receive_messages()  # and is not heard of any more
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(handle_orders(client, handle))
            await lockstep_broker.advance(59.999)
            assert handled == []
            await lockstep_broker.advance(0.001)
            assert handled == ["order-1"]
            await lockstep_broker.advance(3600)
