"""What an answer carries beside the core's reply."""

from __future__ import annotations

import pytest

from lockstep.core.changes import ChunkRow
from lockstep.core.commands import (
    ApplyDefinition,
    CreateQueue,
    Outcome,
    Receive,
    ReceiveDeferred,
    Send,
    Settle,
    Settlement,
    Tick,
)
from lockstep.core.ids import EntityKey, PartitionId, RequestId
from lockstep.core.limits import Limits
from lockstep.core.partition import Partition
from lockstep.core.replies import Delivered
from lockstep.owner.answers import Contents, answer_of, undoing
from lockstep.owner.bodies import BodyCache

QUEUE = EntityKey("default", "orders")


def with_queue() -> Partition:
    partition = Partition(PartitionId(0), Limits(), now_ms=1)
    partition.step(CreateQueue("default", "orders", {}, "uid"), 1)
    assert partition.catalogue is not None
    partition.step(ApplyDefinition(partition.catalogue.queues[QUEUE]), 1)
    return partition


def activated(*due_ms: int) -> tuple[Delivered, Contents]:
    """Send b"0", b"1", … that become active at these times, all in one step; return what a receiver gets."""
    partition = with_queue()
    bodies = tuple(str(place).encode() for place in range(len(due_ms)))
    sent = partition.step(Send(QUEUE, bodies, (None,), due_ms=due_ms), 1)
    contents = Contents(BodyCache(0))
    contents.note([row for row in sent.changes if isinstance(row, ChunkRow)])
    partition.step(Tick(), max(due_ms))
    reply = partition.step(Receive(QUEUE, False, None, 10), max(due_ms)).reply
    assert isinstance(reply, Delivered)
    return reply, contents


def test_sch_3_messages_that_became_active_in_another_order_keep_their_bodies() -> None:
    reply, contents = activated(300, 100, 200)

    answer = answer_of(reply, None, contents)

    assert answer.messages == [b"1", b"2", b"0"]


def test_messages_in_the_order_of_their_chunk_are_one_slice_of_it() -> None:
    reply, contents = activated(100, 200, 300)

    answer = answer_of(reply, None, contents)

    assert answer.messages == (b"0", b"1", b"2")


@pytest.mark.parametrize("request_id", [RequestId("client", 1), None], ids=["named", "unnamed"])
def test_bat_9_deferred_messages_that_nobody_takes_are_deferred_again(
    request_id: RequestId | None,
) -> None:
    partition = with_queue()
    partition.step(Send(QUEUE, (b"1",), (None,)), 1)
    first = partition.step(Receive(QUEUE, False, None, 1), 1).reply
    assert isinstance(first, Delivered)
    defer = Settlement(Outcome.DEFER, first.grant, first.sequences)
    partition.step(Settle(QUEUE, False, None, (defer,)), 1)
    ask = ReceiveDeferred(QUEUE, False, None, first.sequences, request_id)
    reply = partition.step(ask, 1).reply
    assert isinstance(reply, Delivered)

    undo = undoing(ask, reply)

    assert undo is not None
    partition.step(undo, 1)
    again = partition.step(ReceiveDeferred(QUEUE, False, None, first.sequences), 1).reply
    assert isinstance(again, Delivered)
    assert (list(again.sequences), again.counts) == ([1], (1,))
