"""How the partitions of this process stand.

Here belongs what an owner says of its partitions to people. Never here: metrics (`observer`). The law: looking visits
each queue once, and no session or message.
"""

from __future__ import annotations

from lockstep.cluster.standing import PartitionStanding
from lockstep.owner.actor import PartitionActor


def standing_of(actor: PartitionActor, *, is_closing: bool, open_ms: int) -> PartitionStanding:
    """Return how an open partition stands.

    Args:
        actor: It.
        is_closing: Whether it is being given up.
        open_ms: For how long it has been open.
    """
    partition = actor.partition
    queues = partition.queues.values()
    return PartitionStanding(
        partition.partition,
        "closing" if is_closing else "open",
        epoch=actor.epoch,
        open_ms=open_ms,
        messages=partition.totals.messages,
        ready_messages=sum(
            queue.plain(dead_letter=False).ready_count
            for queue in queues
            if not queue.definition.settings.requires_session
        ),
        ready_sessions=sum(
            len(queue.runnable) for queue in queues if queue.definition.settings.requires_session
        ),
        waiting_commands=actor.backlog,
        definitions=partition.last_revision,
    )
