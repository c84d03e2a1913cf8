"""A batch knows what its queue and its broker take, so a send of it is not refused for its size (SND-6)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lockstep import LockstepClient, Message, aio
from lockstep.core.limits import Limits
from lockstep.errors import EntityNotFound, LimitExceeded, MessageSizeExceeded
from lockstep.testing import BlockingBroker, Broker

KIB = 1024


@pytest.fixture
def client() -> Iterator[LockstepClient]:
    with BlockingBroker() as broker:
        client = broker.client()
        administration = client.get_administration_client()
        administration.create_queue("jobs", max_message_size_in_kilobytes=1)
        yield client


def test_snd_6_a_message_that_the_queue_refuses_is_refused_by_the_batch(
    client: LockstepClient,
) -> None:
    sender = client.get_queue_sender("jobs")
    batch = sender.create_message_batch()

    with pytest.raises(MessageSizeExceeded, match="1024 bytes for one message") as refused:
        batch.add_message(Message(bytes(KIB)))

    assert refused.value.details["limit"] == "max_message_size_in_kilobytes"
    batch.add_message(Message(b"small"))
    assert len(sender.send_messages(batch)) == 1


def test_what_the_batch_takes_at_the_limit_the_queue_takes_too(client: LockstepClient) -> None:
    sender = client.get_queue_sender("jobs")
    taken, refused = [], []
    for size in range(KIB - 40, KIB):
        batch = sender.create_message_batch()
        try:
            batch.add_message(Message(bytes(size)))
        except MessageSizeExceeded:
            refused.append(size)
            with pytest.raises(MessageSizeExceeded):
                sender.send_messages(Message(bytes(size)))
        else:
            taken.append(size)
            sender.send_messages(batch)

    assert taken
    assert refused
    assert max(taken) + 1 == min(refused)


def test_a_batch_is_no_larger_than_what_the_broker_takes_at_once(client: LockstepClient) -> None:
    sender = client.get_queue_sender("jobs")

    assert sender.create_message_batch().max_size_in_bytes == Limits().send_bytes_max
    with pytest.raises(LimitExceeded) as refused:
        sender.create_message_batch(Limits().send_bytes_max + 1)

    assert refused.value.details["configured"] == str(Limits().send_bytes_max)


def test_a_batch_for_a_queue_that_is_not_there_is_refused(client: LockstepClient) -> None:
    with pytest.raises(EntityNotFound):
        client.get_queue_sender("missing").create_message_batch()


async def test_snd_6_so_it_is_with_asyncio(lockstep_broker: Broker) -> None:
    client: aio.LockstepClient = lockstep_broker.client()
    await client.get_administration_client().create_queue("jobs", max_message_size_in_kilobytes=1)
    batch = await client.get_queue_sender("jobs").create_message_batch()

    with pytest.raises(MessageSizeExceeded):
        batch.add_message(Message(bytes(KIB)))
