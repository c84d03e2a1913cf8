"""How the processes of a cluster stand, as they say themselves; for people who look.

Here belong the values. Never here: how they are asked (`frontend.remote`, `frontend.view`) or shown (`cli`). The law:
times are how long ago something was, because clocks of machines differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lockstep.core.ids import PartitionEpoch, PartitionId

_NO_EPOCH = PartitionEpoch(0, 0, 0)


@dataclass(frozen=True, slots=True)
class PartitionStanding:
    """A partition at its owner.

    Attributes:
        partition: Which.
        state: opening, open, closing, stopped.
        why: Of one that has stopped.
        epoch: Under which it is owned here; of one that has stopped it is not told.
        open_ms: For how long it has been open here; 0 = it is not.
        messages: All that it holds.
        ready_messages: Messages of queues without sessions that a receiver could get now.
        ready_sessions: Sessions that a receiver could get now.
        waiting_commands: Calls that wait for their turn.
        definitions: The revision of the catalogue that it has applied.
    """

    partition: PartitionId
    state: str
    why: str = ""
    epoch: PartitionEpoch = _NO_EPOCH
    open_ms: int = 0
    messages: int = 0
    ready_messages: int = 0
    ready_sessions: int = 0
    waiting_commands: int = 0
    definitions: int = 0


@dataclass(frozen=True, slots=True)
class OwnerStanding:
    """An owner.

    Attributes:
        partitions: Those that it has, or opens, in their order.
        catalogue: The last revision of the catalogue of queues; None = it is not open here.
    """

    partitions: tuple[PartitionStanding, ...]
    catalogue: int | None


@dataclass(frozen=True, slots=True)
class ViewStanding:
    """What a front end knows of the cluster.

    Attributes:
        heard_ms: How long ago etcd told it something, or that there was nothing to tell; None = never.
        revision: The revision of etcd that it knows.
        problem: Why it hears nothing now; empty = it does.
        epochs: Under which epoch each partition is owned, as it knows.
    """

    heard_ms: int | None
    revision: int
    problem: str
    epochs: Mapping[PartitionId, PartitionEpoch] = field(default_factory=dict)
