"""Jobs on dead letters in the in-process broker, as a test of a user's program would use them."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from lockstep import DeadLetterJob, DeadLetterJobStatus, DeadLetterSelector, Message, SubQueue
from lockstep import LockstepClient as BlockingClient
from lockstep.aio import LockstepClient
from lockstep.errors import OperationTimeout
from lockstep.testing import BlockingBroker, Broker

RATE = 10


async def with_dead_letters(client: LockstepClient, count: int) -> None:
    """Make the queue "orders" with so many dead letters."""
    await client.get_administration_client().create_queue("orders")
    await client.get_queue_sender("orders").send_messages(
        [Message(str(number)) for number in range(count)]
    )
    receiver = client.get_queue_receiver("orders")
    while messages := await receiver.receive_messages(1000, 0):
        await receiver.dead_letter_messages(messages, reason="broken")


async def bodies(client: LockstepClient, sub_queue: SubQueue | None = None) -> list[int]:
    receiver = client.get_queue_receiver("orders", sub_queue=sub_queue)
    return [int(str(message)) for message in await receiver.peek_messages(1000)]


async def test_a_job_without_a_rate_needs_no_time(lockstep_broker: Broker) -> None:
    client = lockstep_broker.client()
    await with_dead_letters(client, 700)
    administration = client.get_administration_client()
    began = lockstep_broker.clock.now()

    job = await administration.resubmit_dead_letters("orders", requested_by="ann")
    job = await administration.wait_for_dead_letter_job(job)

    assert (job.status, job.matched_message_count) == (DeadLetterJobStatus.DONE, 700)
    assert await bodies(client) == list(range(700))
    assert await bodies(client, SubQueue.DEAD_LETTER) == []
    assert lockstep_broker.clock.now() == began


async def test_a_job_that_looks_at_much_and_takes_nothing_needs_no_time(
    lockstep_broker: Broker,
) -> None:
    client = lockstep_broker.client()
    await with_dead_letters(client, 4000)
    administration = client.get_administration_client()

    nobody = DeadLetterSelector(application_properties={"kind": "b"})
    job = await administration.purge_dead_letters("orders", nobody)
    job = await administration.wait_for_dead_letter_job(job)

    assert (job.status, job.matched_message_count) == (DeadLetterJobStatus.DONE, 0)


async def test_add_11_a_rate_is_kept_in_virtual_time(lockstep_broker: Broker) -> None:
    client = lockstep_broker.client()
    await with_dead_letters(client, 3 * RATE + 5)
    administration = client.get_administration_client()
    job = await administration.resubmit_dead_letters("orders", messages_per_second=RATE)

    taken = []
    for _ in range(4):
        await lockstep_broker.advance(0.999)
        taken.append(await administration.get_dead_letter_job("orders", job.number))
        await lockstep_broker.advance(0.001)

    assert [one.matched_message_count for one in taken] == [10, 20, 30, 35]
    assert [one.is_running for one in taken] == [True, True, True, False]


async def test_a_wait_for_a_slow_job_goes_on_with_the_clock(lockstep_broker: Broker) -> None:
    client = lockstep_broker.client()
    await with_dead_letters(client, 3 * RATE)
    administration = client.get_administration_client()
    job = await administration.resubmit_dead_letters("orders", messages_per_second=RATE)
    seen: list[int] = []

    def note(look: DeadLetterJob) -> None:
        if not seen or look.matched_message_count != seen[-1]:
            seen.append(look.matched_message_count)

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(
            administration.wait_for_dead_letter_job(job, on_progress=note, timeout=60)
        )
        await lockstep_broker.advance(10)

    assert waiting.result().status is DeadLetterJobStatus.DONE
    assert seen[-3:] == [10, 20, 30]
    ended = waiting.result().ended_at_utc
    assert ended is not None
    assert (ended - job.started_at_utc).total_seconds() == 2


async def test_a_wait_ends_at_its_virtual_time(lockstep_broker: Broker) -> None:
    client = lockstep_broker.client()
    await with_dead_letters(client, 3 * RATE)
    administration = client.get_administration_client()
    job = await administration.resubmit_dead_letters("orders", messages_per_second=RATE)

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(_outlasted(lockstep_broker, client, job))
        await lockstep_broker.advance(10)

    assert waiting.result() - job.started_at_utc == timedelta(seconds=1.5)


async def _outlasted(broker: Broker, client: LockstepClient, job: DeadLetterJob) -> datetime:
    """Wait for a job for too short a time, and return when that was over."""
    administration = client.get_administration_client()
    with pytest.raises(OperationTimeout):
        await administration.wait_for_dead_letter_job(job, timeout=1.5)
    return broker.clock.now()


def test_the_blocking_broker_repairs_too(lockstep_blocking_broker: BlockingBroker) -> None:
    client: BlockingClient = lockstep_blocking_broker.client()
    administration = client.get_administration_client()
    administration.create_queue("orders", requires_session=True)
    administration.create_queue("parked")
    client.get_queue_sender("orders").send_messages(
        [Message(str(number), session_id="A") for number in range(5)]
    )

    job = administration.dead_letter_session("orders", "A", reason="stuck")
    assert administration.wait_for_dead_letter_job(job).matched_message_count == 5
    job = administration.move_dead_letters("orders", "parked", DeadLetterSelector(max_count=2))
    assert administration.wait_for_dead_letter_job(job).matched_message_count == 2
    job = administration.resubmit_dead_letters("orders", to_session_id="B")
    assert administration.wait_for_dead_letter_job(job).matched_message_count == 3

    with client.get_queue_receiver("orders", session_id="B") as receiver:
        assert list(map(str, receiver.receive_messages(10))) == ["2", "3", "4"]
    parked = client.get_queue_receiver("parked").receive_messages(10)
    assert [(str(m), m.last_dead_letter_reason) for m in parked] == [("0", "stuck"), ("1", "stuck")]
    assert [one.number for one in administration.list_dead_letter_jobs("orders")] == [3, 2, 1]
