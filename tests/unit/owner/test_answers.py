"""What an answer carries beside the core's reply."""

from __future__ import annotations

from lockstep.core.changes import ChunkRow
from lockstep.core.commands import ApplyDefinition, CreateQueue, Receive, Send, Tick
from lockstep.core.ids import EntityKey, PartitionId
from lockstep.core.limits import Limits
from lockstep.core.partition import Partition
from lockstep.core.replies import Delivered
from lockstep.owner.answers import Contents, answer_of
from lockstep.owner.bodies import BodyCache

QUEUE = EntityKey("default", "orders")


def activated(*due_ms: int) -> tuple[Delivered, Contents]:
    """Send b"0", b"1", … that become active at these times, all in one step; return what a receiver gets."""
    partition = Partition(PartitionId(0), Limits(), now_ms=1)
    partition.step(CreateQueue("default", "orders", {}, "uid"), 1)
    assert partition.catalogue is not None
    partition.step(ApplyDefinition(partition.catalogue.queues[QUEUE]), 1)
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
