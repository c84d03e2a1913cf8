"""What a batch promises whose sessions live on several partitions (ADD-2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lockstep import Message
from lockstep.core.limits import Limits
from lockstep.core.placement import partition_of_entity
from lockstep.errors import (
    ClusterUnavailable,
    InvalidOperation,
    LockstepError,
    MessageSizeExceeded,
    QuotaExceeded,
)
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.unit.frontend.cluster_rig import (
    ORDERS,
    PARTITIONS,
    Cluster,
    running_cluster,
    session_on,
)

EVERYWHERE = [session_on(partition) for partition in range(PARTITIONS)]
FULL = EVERYWHERE[1]
ROOM = 3
# Neither the home, which tells the placement, nor the first of the batch, which judges it.
AWAY = (partition_of_entity(ORDERS, PARTITIONS) + 3) % PARTITIONS


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """A cluster with a session queue, whose partitions hold three messages each."""
    async with running_cluster(Limits(partition_messages_max=ROOM)) as running:
        await running.create(max_message_size_in_kilobytes=1)
        yield running


def one_for_each(*sizes: int) -> list[Message]:
    """Return a message for a session on each partition."""
    return [
        Message(bytes(size), session_id=name) for name, size in zip(EVERYWHERE, sizes, strict=True)
    ]


async def stored(cluster: Cluster) -> list[int]:
    """Return how many messages each partition's session has."""
    admin = cluster.client().get_administration_client()
    views = [await admin.get_session("orders", name) for name in EVERYWHERE]
    return [view.active_message_count for view in views]


@pytest.mark.parametrize("bad", range(PARTITIONS))
async def test_one_bad_message_refuses_all_on_every_partition(cluster: Cluster, bad: int) -> None:
    sender = cluster.client().get_queue_sender("orders")
    sizes = [1, 1, 1, 1]
    sizes[bad] = 2048

    with pytest.raises(MessageSizeExceeded):
        await sender.send_messages(one_for_each(*sizes))
    with pytest.raises(InvalidOperation):
        await sender.send_messages([*one_for_each(1, 1, 1, 1), Message(b"no session")])

    assert await stored(cluster) == [0, 0, 0, 0]


async def test_require_atomic_refuses_a_batch_over_partitions_before_it_is_stored(
    cluster: Cluster,
) -> None:
    sender = cluster.client().get_queue_sender("orders")

    with pytest.raises(InvalidOperation, match="spans 4 partitions"):
        await sender.send_messages(one_for_each(1, 1, 1, 1), require_atomic=True)
    of_one = [Message(b"x", session_id=EVERYWHERE[2]) for _ in range(ROOM)]
    assert len(await sender.send_messages(of_one, require_atomic=True)) == ROOM

    assert await stored(cluster) == [0, 0, ROOM, 0]


async def test_a_failure_of_one_partition_is_told_for_its_messages_and_mended_by_the_same_request(
    cluster: Cluster,
) -> None:
    client = cluster.client()
    sender = client.get_queue_sender("orders")
    await sender.send_messages([Message(b"old", session_id=FULL) for _ in range(ROOM)])
    request = messaging.SendMessagesRequest(entity="orders")
    request.request_id.client_id, request.request_id.counter = "by hand", 1
    for name in (EVERYWHERE[0], FULL, EVERYWHERE[2], FULL):
        request.messages.add(body=b"new", session_id=name)

    first = await _send(cluster, request)
    async with client.get_queue_receiver("orders", session_id=FULL) as receiver:
        await receiver.complete_messages(await receiver.receive_messages(ROOM))
    second = await _send(cluster, request)

    failures = [(one.index, one.reason) for one in first.failures]
    assert failures == [(1, "QUOTA_EXCEEDED"), (3, "QUOTA_EXCEEDED")]
    assert [bool(number) for number in first.sequence_numbers] == [True, False, True, False]
    assert not second.failures
    assert second.sequence_numbers[0::2] == first.sequence_numbers[0::2]
    assert await stored(cluster) == [1, 2, 1, 0]


async def _send(
    cluster: Cluster, request: messaging.SendMessagesRequest
) -> messaging.SendMessagesResponse:
    path = "/lockstep.v1.MessagingService/SendMessages"
    payload = request.SerializeToString()
    return messaging.SendMessagesResponse.FromString(
        await cluster.serve(path, payload, timeout_ms=0)
    )


async def test_the_client_says_which_messages_were_not_stored(cluster: Cluster) -> None:
    sender = cluster.client().get_queue_sender("orders")
    await sender.send_messages([Message(b"old", session_id=FULL) for _ in range(ROOM)])

    with pytest.raises(QuotaExceeded, match="1 of 4 messages was not stored") as failed:
        await sender.send_messages(one_for_each(1, 1, 1, 1))

    assert failed.value.details["not_stored_indexes"] == "1"
    assert failed.value.details["stored"] == "3"
    assert await stored(cluster) == [1, ROOM, 1, 1]


async def test_the_client_sends_again_what_a_partition_could_not_take_for_a_while(
    cluster: Cluster,
) -> None:
    sender = cluster.client().get_queue_sender("orders")
    cluster.paths.closed = {AWAY}

    async def open_again() -> None:
        await cluster.pass_time(6_000)
        cluster.paths.closed = set()
        await cluster.pass_time(10_000)

    numbers, _ = await asyncio.gather(sender.send_messages(one_for_each(1, 1, 1, 1)), open_again())

    assert all(numbers)
    assert await stored(cluster) == [1, 1, 1, 1]


async def test_the_client_gives_up_in_the_end_and_names_the_messages(cluster: Cluster) -> None:
    sender = cluster.client().get_queue_sender("orders")
    cluster.paths.closed = {AWAY}

    async def send() -> LockstepError:
        with pytest.raises(ClusterUnavailable) as failed:
            await sender.send_messages(one_for_each(1, 1, 1, 1))
        return failed.value

    error, _ = await asyncio.gather(send(), cluster.pass_time(60_000))
    cluster.paths.closed = set()

    assert error.details["not_stored_indexes"] == str(AWAY)
    assert await stored(cluster) == [int(number != AWAY) for number in range(PARTITIONS)]
