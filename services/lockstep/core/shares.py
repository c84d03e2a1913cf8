"""The quota of a queue that is spread over partitions (ADD-1, SND-11).

Here belongs how much of the quota each partition may use, and how it is taken back. Never here: who shares it out
(`cluster.shares`). The laws: all shares of a queue together are never more than its quota; a share that was frozen
grows only by a grant of that freeze, so of two who share out at a time the later one counts; a partition that was just
opened has none, so that nothing about shares needs storing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockstep.core.commands import FreezeShare, GrantShare
from lockstep.core.entity import SPREAD
from lockstep.core.errors import ShareUsed
from lockstep.core.replies import ShareIs

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step


class Share:
    """What a partition may hold of a queue.

    Attributes:
        bytes_max: So much, with what it holds already.
        frozen: The last freeze, which a grant must name; it only rises, over restarts too.
    """

    __slots__ = ("bytes_max", "frozen")

    def __init__(self) -> None:
        self.bytes_max = 0
        self.frozen = 0


def check_share(partition: Partition, queue: Queue, growth: int) -> None:
    """Refuse what is more than this partition's share.

    Raises:
        ShareUsed: The quota has to be shared out again. Nothing was done.
    """
    if partition.partitions == 1 or queue.definition.settings.placement != SPREAD:
        return
    if queue.size_bytes + growth > queue.share.bytes_max:
        raise ShareUsed(
            f"Partition {partition.partition} has used its share of the quota of {queue.path}. Try again.",
            details={"needed": str(growth)},
        )


def on_freeze_share(partition: Partition, command: FreezeShare, step: Step) -> ShareIs:
    """Let the partition take nothing more of a queue, and tell what it holds."""
    queue = partition.queue(command.entity)
    share = queue.share
    share.bytes_max = queue.size_bytes
    share.frozen = max(share.frozen + 1, step.now_ms)
    return ShareIs(queue.number, queue.size_bytes, queue.size_bytes_max, share.frozen)


def on_grant_share(partition: Partition, command: GrantShare, _step: Step) -> ShareIs:
    """Let the partition take so much more, unless its share was frozen again meanwhile."""
    queue = partition.queue(command.entity)
    share = queue.share
    if (queue.number, share.frozen) == (command.queue, command.frozen):
        share.bytes_max = command.bytes_max
        share.frozen += 1  # a grant counts once
    return ShareIs(queue.number, queue.size_bytes, queue.size_bytes_max, share.frozen)
