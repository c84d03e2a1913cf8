"""Plain queues, errors and waiting, as a program sees them through the asyncio client."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from lockstep.aio import (
    AdministrationClient,
    AutoLockRenewer,
    LockstepClient,
    Message,
    MessageBatch,
    MessageState,
    SubQueue,
)
from lockstep.errors import (
    EntityNotFound,
    InvalidOperation,
    InvalidRequest,
    MessageAlreadySettled,
    MessageLockLost,
    MessageSizeExceeded,
)
from lockstep.runtime.clock import SystemClock
from tests.client.calls import Q, create, numbered, send, session_receiver, texts, tomorrow

OUTCOMES = ("complete_message", "abandon_message", "release_message", "dead_letter_message")


async def test_c32_a_plain_queue_keeps_session_ids(client: LockstepClient) -> None:
    await create(client)
    await send(client, "1", session="s")

    (message,) = await client.get_queue_receiver(Q).receive_messages()

    assert message.session_id == "s"


async def test_queues_are_administered_over_a_connection_of_its_own(
    client: LockstepClient, address: str
) -> None:
    async with AdministrationClient(address) as administration:
        await administration.create_queue(Q)

    assert await send(client, "1")


async def test_c46_c47_a_batch_has_all_that_is_there(client: LockstepClient) -> None:
    await create(client, sessions=True)
    await send(client, *numbered(5), session="s")
    clock = SystemClock()

    async with session_receiver(client) as receiver:
        started_ms = clock.monotonic_ms()
        messages = await receiver.receive_messages(100, 30)

    assert texts(messages) == numbered(5)
    assert clock.monotonic_ms() - started_ms < 10_000


async def test_c49_a_receive_that_got_nothing_is_usable_again(client: LockstepClient) -> None:
    await create(client)
    receiver, clock = client.get_queue_receiver(Q), SystemClock()
    started_ms = clock.monotonic_ms()

    assert await receiver.receive_messages(1, 0.3) == []
    assert clock.monotonic_ms() - started_ms >= 300
    await send(client, "1")
    assert texts(await receiver.receive_messages(1, 5)) == ["1"]


@pytest.mark.parametrize("is_sent_first", [False, True])
async def test_c50_a_cancelled_receive_loses_nothing(
    client: LockstepClient, other: LockstepClient, is_sent_first: bool
) -> None:
    await create(client)
    receiver = client.get_queue_receiver(Q)
    for number in range(10):
        async with asyncio.TaskGroup() as group:
            if is_sent_first:
                await send(other, str(number))
            waiting = group.create_task(receiver.receive_messages(1, 30))
            await receiver_is_busy(client)
            if not is_sent_first:
                group.create_task(_send(other, str(number)))
                await receiver_is_busy(client)
            waiting.cancel()
        messages = (
            await other.get_queue_receiver(Q).receive_messages(1, 5)
            if waiting.cancelled()
            else waiting.result()
        )
        assert (texts(messages), messages[0].delivery_count) == ([str(number)], 0)


async def receiver_is_busy(client: LockstepClient) -> None:
    """Return after a round trip behind all that the client has under way."""
    async for _ in client.get_administration_client().list_queues():
        pass


async def _send(client: LockstepClient, body: str) -> None:
    await send(client, body)


async def test_c58_any_receiver_settles_what_another_received(client: LockstepClient) -> None:
    await create(client)
    await send(client, *numbered(4))
    first = client.get_queue_receiver(Q)
    messages = await first.receive_messages(4)
    await first.close()

    settler = client.get_queue_receiver(Q)
    for outcome, message in zip(OUTCOMES, messages, strict=True):
        await getattr(settler, outcome)(message)

    runtime = await client.get_administration_client().get_queue_runtime_properties(Q)
    assert (runtime.active_message_count, runtime.dead_letter_message_count) == (2, 1)
    assert runtime.locked_message_count == 0


@pytest.mark.parametrize("second", OUTCOMES)
@pytest.mark.parametrize("first", OUTCOMES)
async def test_c59_a_message_is_settled_once(
    client: LockstepClient, first: str, second: str
) -> None:
    await create(client)
    await send(client, "1")
    receiver = client.get_queue_receiver(Q)
    (message,) = await receiver.receive_messages()
    await getattr(receiver, first)(message)

    with pytest.raises(MessageAlreadySettled):
        await getattr(receiver, second)(message)


async def test_c70_ten_failures_dead_letter_a_message(client: LockstepClient) -> None:
    await create(client)
    await send(client, "1")
    receiver = client.get_queue_receiver(Q)
    counts = []
    for _ in range(10):
        (message,) = await receiver.receive_messages(1, 5)
        counts.append(message.delivery_count)
        await receiver.abandon_message(message)

    assert counts == list(range(10))
    assert await receiver.receive_messages(1, 0) == []
    dead = client.get_queue_receiver(Q, sub_queue=SubQueue.DEAD_LETTER)
    (letter,) = await dead.receive_messages(1, 0)
    assert letter.dead_letter_reason == "MaxDeliveryCountExceeded"


async def test_c95_settings_that_cannot_be_are_refused(client: LockstepClient) -> None:
    await create(client)
    admin = client.get_administration_client()

    with pytest.raises(InvalidOperation):
        await admin.update_queue(Q, requires_session=True)
    with pytest.raises(InvalidRequest):
        await admin.update_queue(Q, lock_duration=timedelta(days=25))
    with pytest.raises(InvalidRequest):
        await admin.update_queue(Q, max_delivery_count=0)


async def test_a_missing_queue_is_not_found(client: LockstepClient) -> None:
    with pytest.raises(EntityNotFound):
        await send(client, "1")
    with pytest.raises(EntityNotFound):
        await client.get_queue_receiver(Q).receive_messages()


async def test_a_full_batch_stays_usable_and_is_sent(client: LockstepClient) -> None:
    await create(client)
    sender = client.get_queue_sender(Q)
    batch: MessageBatch = await sender.create_message_batch(300)
    batch.add_message(Message(b"a" * 200))

    with pytest.raises(MessageSizeExceeded):
        batch.add_message(Message(b"b" * 200))
    batch.add_message(Message(b"c"))

    assert len(await sender.send_messages(batch)) == 2
    received = await client.get_queue_receiver(Q).receive_messages(5)
    assert texts(received) == ["a" * 200, "c"]


async def test_locks_of_both_kinds_are_renewed_until_they_may_run_out(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create(client, sessions=True, lock_duration="PT5S", session_lock_extension="off")
    admin = client.get_administration_client()
    await admin.create_queue("plain", lock_duration="PT5S")
    for name in (Q, "plain"):
        messages = [Message("kept", session_id="s"), Message("lost", session_id="t")]
        await client.get_queue_sender(name).send_messages(messages)

    async with AutoLockRenewer() as renewer:
        kept = session_receiver(client, auto_lock_renewer=renewer)
        plain = client.get_queue_receiver("plain")
        async with kept:
            (in_session,) = await kept.receive_messages()
            first, second = await plain.receive_messages(2)
            renewer.register(plain, first)
            # The rival gets the message that nobody renews when its lock ran out, and no other.
            rival = await other.get_queue_receiver("plain").receive_messages(2, 30)
            await kept.complete_message(in_session)
            await plain.complete_message(first)
            with pytest.raises(MessageLockLost):
                await plain.complete_message(second)

    assert [(str(m), m.delivery_count) for m in rival] == [("lost", 1)]


async def test_sch_2_a_look_and_a_receive_tell_what_a_message_waited_for(
    client: LockstepClient,
) -> None:
    await create(client)
    await send(client, "aside")
    sender, receiver = client.get_queue_sender(Q), client.get_queue_receiver(Q)
    await sender.schedule_messages(Message("later"), tomorrow())
    (active,) = await receiver.receive_messages()
    await receiver.defer_message(active)

    (deferred,) = await receiver.receive_deferred_messages(active.sequence_number)
    looked = await receiver.peek_messages(10)

    assert (active.state, deferred.state) == (MessageState.ACTIVE, MessageState.DEFERRED)
    assert {str(message): message.state for message in looked}["later"] is MessageState.SCHEDULED


async def test_dup_11_a_send_tells_what_was_a_duplicate(client: LockstepClient) -> None:
    await create(client, requires_duplicate_detection=True)
    sender = client.get_queue_sender(Q)
    (first,) = await sender.send_messages(Message("a", message_id="1"))

    again = await sender.send_messages([Message("b", message_id="2"), Message("a", message_id="1")])

    assert (again[1], again.duplicate_indexes) == (first, (1,))
    (later,) = await sender.schedule_messages(Message("c", message_id="3"), tomorrow())
    scheduled = await sender.schedule_messages(Message("c", message_id="3"), tomorrow())
    assert (scheduled, scheduled.duplicate_indexes) == ([later], (0,))
