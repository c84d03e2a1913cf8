"""What administrators see of the in-process broker: times, holders and receivers that wait."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from importlib.metadata import version

import pytest

from lockstep.aio import (
    NEXT_AVAILABLE_SESSION,
    DeliveryCause,
    LockstepClient,
    Message,
    SessionFilter,
)
from lockstep.errors import NoSessionAvailable
from lockstep.testing import BlockingBroker, Broker

MINUTE_S = 60


async def sessions_queue(client: LockstepClient, **settings: timedelta) -> None:
    """Make the session queue "orders" with two messages in the session A."""
    administration = client.get_administration_client()
    await administration.create_queue("orders", requires_session=True, **settings)  # type: ignore[arg-type]
    sender = client.get_queue_sender("orders")
    await sender.send_messages([Message("1", session_id="A"), Message("2", session_id="A")])


async def test_add_9_a_session_shows_when_what_happened(lockstep_broker: Broker) -> None:
    client, clock = lockstep_broker.client(), lockstep_broker.clock
    administration = client.get_administration_client()
    await sessions_queue(client)
    sent = clock.now()
    await lockstep_broker.advance(1)
    receiver = client.get_queue_receiver("orders", session_id="A", client_identifier="worker-1")
    async with receiver:
        granted = clock.now()
        await lockstep_broker.advance(1)
        await receiver.session.renew_lock()
        await receiver.session.set_state(b"half")
        (message,) = await receiver.receive_messages(1)

        (held,) = [s async for s in administration.list_sessions("orders", filter="held")]
        assert (held.holder_client_id, held.renewal_count) == ("worker-1", 1)
        assert held.granted_at_utc == granted
        assert held.locked_until_utc == clock.now() + timedelta(seconds=MINUTE_S)
        assert held.first_enqueued_at_utc == held.oldest_deliverable_at_utc == sent
        await receiver.abandon_message(message, delay=timedelta(seconds=30))

    free = await administration.get_session("orders", "A")
    now = clock.now()
    assert (free.last_loss_cause, free.released_at_utc) == ("closed", now)
    assert free.delayed_until_utc == now + timedelta(seconds=30)
    assert (free.oldest_deliverable_at_utc, free.state_updated_at_utc) == (None, now)
    runtime = await administration.get_queue_runtime_properties("orders")
    assert (runtime.delayed_message_count, runtime.accessed_at_utc) == (2, now)


async def test_ses_50_sessions_are_listed_by_when_their_state_was_set(
    lockstep_broker: Broker,
) -> None:
    client = lockstep_broker.client()
    administration = client.get_administration_client()
    await sessions_queue(client)
    for name in ("B", "C"):
        async with client.get_queue_receiver("orders", session_id=name) as receiver:
            await receiver.session.set_state(b"x")
        await lockstep_broker.advance(MINUTE_S)

    since = lockstep_broker.clock.now() - timedelta(seconds=MINUTE_S)
    listing = administration.list_sessions("orders", state_updated_since=since)
    assert [session.session_id async for session in listing] == ["C"]
    idle_for = timedelta(seconds=2 * MINUTE_S)
    assert await administration.clear_session_states("orders", idle_for=idle_for) == 1
    left = administration.list_sessions("orders", filter=SessionFilter.STATE_ONLY)
    assert [session.session_id async for session in left] == ["C"]


async def test_snd_3_a_queue_is_explained_with_who_waits_and_what_runs(
    lockstep_broker: Broker,
) -> None:
    client = lockstep_broker.client()
    administration = client.get_administration_client()
    await administration.create_queue("orders", requires_session=True)

    async def wait_for_a_session() -> None:
        with pytest.raises(NoSessionAvailable):
            await client.get_queue_receiver(
                "orders", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=MINUTE_S
            ).__aenter__()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(wait_for_a_session())
        await lockstep_broker.advance(1)
        shown = await administration.explain("orders")
        await lockstep_broker.advance(MINUTE_S)

    assert shown.cause is DeliveryCause.EMPTY
    assert shown.facts["path"] == "default/orders"
    assert shown.facts["waiting_receivers"] == "1"
    assert shown.facts["server_release"] == version("lockstep-broker")
    assert (await administration.explain("orders")).facts["waiting_receivers"] == "0"


def test_the_blocking_client_sees_the_same(lockstep_blocking_broker: BlockingBroker) -> None:
    client = lockstep_blocking_broker.client()
    administration = client.get_administration_client()
    administration.create_queue("orders", requires_session=True)
    client.get_queue_sender("orders").send_messages(Message("1", session_id="A"))
    with client.get_queue_receiver("orders", session_id="B", client_identifier="b") as receiver:
        receiver.session.set_state(b"x")
        explained = administration.explain("orders", session_id="B")
        assert explained.cause is DeliveryCause.HELD
        assert explained.until_utc == receiver.session.locked_until_utc

    listed = administration.list_sessions("orders", filter=SessionFilter.RUNNABLE)
    assert [session.session_id for session in listed] == ["A"]
    assert administration.explain("orders", sequence_number=1).cause is DeliveryCause.NO_RECEIVER
    assert administration.clear_session_states("orders", "B") == 1
    assert [session.session_id for session in administration.list_sessions("orders")] == ["A"]
