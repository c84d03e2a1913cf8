"""The ports between a front end, the owners and the cluster.

Here belong the protocols and the values that pass through them. Never here: a concrete cluster. The law
(design law 3): no reply leaves an owner without a fenced commit or a lease that is still valid.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from lockstep.core.commands import Command
from lockstep.core.errors import LockstepError
from lockstep.core.ids import EntityKey, PartitionEpoch, PartitionId
from lockstep.core.replies import Reply


@dataclass(frozen=True, slots=True)
class Answer:
    """What an owner answers: the core's reply, and what it names but does not carry.

    Attributes:
        reply: What the core decided; committed.
        messages: The bytes of delivered messages, in their order.
        state: The session state that an accept or a read found; None = no state.
    """

    reply: Reply
    messages: Sequence[bytes] = ()
    state: bytes | None = None


ASK_ONLY: Final = -1
"""As `wait_ms`: the caller goes on asking, so that it is not noted that a call found nothing."""


@dataclass(frozen=True, slots=True)
class Hint:
    """A partition may have something that a receiver without a session can take.

    Attributes:
        entity: The queue.
        dead_letter: Whether in its dead-letter store.
        count: How many sessions, or messages of a store without sessions; 0 = none; EVERYBODY = the queue changed, so
            whoever waits should ask.
    """

    entity: EntityKey
    dead_letter: bool
    count: int


EVERYBODY: Final = -1


class OwnerChannel(Protocol):
    """Reaches the owner of partitions."""

    async def call(
        self,
        partition: PartitionId,
        command: Command,
        *,
        wait_ms: int = 0,
        placement: str | None = None,
    ) -> Answer:
        """Have a command carried out.

        Args:
            partition: Where.
            command: What.
            wait_ms: How long an accept or a receive that finds nothing may wait, in ms; or ASK_ONLY.
            placement: Which placement the partition was chosen by; None = it does not depend on one.

        Raises:
            Misplaced: The entity has another placement.
            LockstepError: Refused; for the families Moved and Unavailable the call may be made again with
                the same request id.
        """

    def follow_hints(self, partition: PartitionId) -> AsyncIterator[Sequence[Hint]]:
        """Yield all hints of a partition, and then, until it moves, what changes of them.

        Raises:
            LockstepError: The partition is not here any more, or its owner cannot be reached.
        """

    def note_refused_send(
        self, partition: PartitionId, entity: EntityKey, messages: int, error: LockstepError
    ) -> None:
        """Have messages counted that the front end refused, so that sender and broker agree on numbers (SND-2)."""


class Directory(Protocol):
    """Knows which owner has which partition."""

    @property
    def partitions(self) -> int:
        """How many partitions the cluster has; fixed at its creation."""

    def owner_of(self, partition: PartitionId) -> OwnerChannel:
        """Return the way to a partition's owner.

        Raises:
            ClusterUnavailable: Nobody owns the partition now; try again.
        """


class Lease(Protocol):
    """The right to own a partition, for a time."""

    @property
    def epoch(self) -> PartitionEpoch:
        """Under which epoch to write; the counter of reopenings is the owner's to raise."""

    def is_valid(self) -> bool:
        """Whether the right still holds, by the monotonic clock."""


class Ownership(Protocol):
    """Which partitions this process owns and should own: the state of an election, for the owner to follow.

    An owner looks at `grants` and `unwanted` after each change. It opens what it was granted; it drains and
    closes what is unwanted, and then releases it; it drops what is granted no more, at once.
    """

    @property
    def grants(self) -> Mapping[PartitionId, Lease]:
        """What this process may own now. A partition that was lost and granted again has another lease."""

    @property
    def unwanted(self) -> Collection[PartitionId]:
        """Those of the grants that another process should have."""

    @property
    def version(self) -> int:
        """Counts the changes of what the other properties say."""

    async def wait_changed(self, seen: int) -> int:
        """Return the version once it is not `seen` any more."""

    async def release(self, partition: PartitionId) -> None:
        """Give a grant back; the partition is closed. Does nothing when it is not granted."""


class Peers(Directory, Protocol):
    """A directory that tells of its changes."""

    def placements(self) -> Mapping[PartitionId, Placement]:
        """Who owns the partitions that are owned, as far as is known."""

    @property
    def version(self) -> int:
        """Counts the changes of `placements`."""

    async def wait_changed(self, seen: int) -> int:
        """Return the version once it is not `seen` any more."""


@dataclass(frozen=True, slots=True)
class Member:
    """A process that owns partitions, or may.

    Attributes:
        node: Its name, unique in the cluster.
        release: Of Lockstep.
        is_leaving: Whether it gets no partitions any more.
        partitions: How many it owns.
    """

    node: str
    release: str
    is_leaving: bool
    partitions: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Who owns a partition.

    Attributes:
        node: The name of its process.
        address: Where its owner service listens, as host:port.
        epoch: Its right; a later owner has a higher one.
    """

    node: str
    address: str
    epoch: PartitionEpoch
