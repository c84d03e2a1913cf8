"""The way of a call to the owner of its partition, and again when the owner changed.

Here belong routing and retries inside the caller's deadline. Never here: rules. The laws: a call is made
again only when that cannot have a second effect; a waiting call is made again with the time that is left.
"""

from __future__ import annotations

from lockstep.cluster.port import Answer, Directory
from lockstep.core.commands import (
    Command,
    GetRuntime,
    GetSession,
    GetState,
    ListDefinitions,
    ListSessions,
    RenewMessages,
    RenewSession,
)
from lockstep.core.errors import LockstepError, Moved, StoreUnavailable
from lockstep.core.ids import EntityKey, PartitionId
from lockstep.core.placement import partition_of_entity, partition_of_session
from lockstep.runtime.clock import Clock

_REPEATABLE = (
    GetRuntime,
    GetSession,
    GetState,
    ListDefinitions,
    ListSessions,
    RenewMessages,
    RenewSession,
)
_RETRY_MS = 50
_RETRY_FOR_MS = 5_000


class Router:
    """Sends commands to partitions."""

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock

    def partition_of(self, entity: EntityKey, session_id: str | None) -> PartitionId:
        """Return where a session lives, or without one where the entity does."""
        if session_id is None:
            return partition_of_entity(entity, self._directory.partitions)
        return partition_of_session(entity, session_id, self._directory.partitions)

    def note_refused_send(self, entity: EntityKey, messages: int, error: LockstepError) -> None:
        """Have messages counted that were refused before they were routed (SND-2)."""
        partition = self.partition_of(entity, None)
        try:
            owner = self._directory.owner_of(partition)
        except LockstepError:
            return  # nobody counts for a partition that nobody owns
        owner.note_refused_send(partition, entity, messages, error)

    async def pause(self, ms: int) -> None:
        """Wait so long before a call is made again."""
        await self._clock.sleep(ms)

    async def call(self, partition: PartitionId, command: Command, *, wait_ms: int = 0) -> Answer:
        """Have a command carried out by the partition's owner, whoever that is by then.

        Raises:
            LockstepError: As `OwnerChannel.call` says; Moved and StoreUnavailable only after 5 s of trying, or
                when trying again could have a second effect.
        """
        is_safe = isinstance(command, _REPEATABLE) or getattr(command, "request", None) is not None
        started_ms = self._clock.monotonic_ms()
        while True:
            spent_ms = self._clock.monotonic_ms() - started_ms
            left_ms = max(0, wait_ms - spent_ms)
            try:
                return await self._directory.owner_of(partition).call(
                    partition, command, wait_ms=left_ms
                )
            except (Moved, StoreUnavailable):
                if not is_safe or self._clock.monotonic_ms() - started_ms > wait_ms + _RETRY_FOR_MS:
                    raise
            await self._clock.sleep(_RETRY_MS)
