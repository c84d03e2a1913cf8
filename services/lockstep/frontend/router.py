"""The way of a call to the owner of its partition, and again when the owner changed.

Here belong routing and retries inside the caller's deadline. Never here: rules. The laws: a call is made
again only when that cannot have a second effect; a waiting call is made again with the time that is left; where an
entity lives is learnt from the owners, and what was learnt wrongly is learnt again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from lockstep.cluster.port import ASK_ONLY, Answer, Directory, Hint
from lockstep.cluster.shares import Shares
from lockstep.core.commands import (
    ApplyJobPart,
    Browse,
    CheckSend,
    Command,
    Disconnect,
    EndJob,
    Explain,
    FindRequest,
    GetRuntime,
    GetSession,
    GetState,
    ListDefinitions,
    ListIdle,
    ListJobs,
    ListOpenJobs,
    ListRuntimes,
    ListSessions,
    RenewMessages,
    RenewSession,
    SealIdle,
    Send,
    Unseal,
)
from lockstep.core.entity import SINGLE, SPREAD
from lockstep.core.errors import (
    ClusterUnavailable,
    LockstepError,
    Misplaced,
    Moved,
    QuotaExceeded,
    ShareUsed,
    StoreUnavailable,
    Unavailable,
)
from lockstep.core.ids import EntityKey, PartitionId
from lockstep.core.placement import home_of
from lockstep.runtime.clock import Clock
from lockstep.runtime.tasks import together

_REPEATABLE = (
    ApplyJobPart,
    Browse,
    CheckSend,
    Disconnect,
    EndJob,
    Explain,
    FindRequest,
    GetRuntime,
    GetSession,
    GetState,
    ListDefinitions,
    ListIdle,
    ListJobs,
    ListOpenJobs,
    ListRuntimes,
    ListSessions,
    RenewMessages,
    RenewSession,
    SealIdle,
    Unseal,
)
_RETRY_MS = 50
_RETRY_MAX_MS = 400
_PAUSE_SHARE = 8  # of the time that was spent already: thousands of calls may wait for one owner
RETRY_FOR_MS = 5_000
"""How long a call is made again where no process must be found that takes over."""
_PLACEMENTS_MAX = 10_000
_MISPLACED_MAX = 5  # an entity that changes its placement that often meanwhile is a fault
_Result = TypeVar("_Result")


class Router:
    """Sends commands to partitions."""

    def __init__(
        self,
        directory: Directory,
        clock: Clock,
        retry_for_ms: int = RETRY_FOR_MS,
        note_retry: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        """Send what comes to the owners of a directory.

        Args:
            directory: Knows them.
            clock: For deadlines.
            retry_for_ms: How long a call is made again that found no owner, or lost it, besides its own waiting.
            note_retry: Told the reason of each error after which a call is made again.
        """
        self._note_retry = note_retry
        self._directory = directory
        self._clock = clock
        self._retry_for_ms = retry_for_ms
        self._shares = Shares(self.partitions, self.ask, clock)
        # Where entities that are not Single live, as owners told; the one used last stands last.
        self._placements: OrderedDict[EntityKey, str] = OrderedDict()

    @property
    def partitions(self) -> Sequence[PartitionId]:
        """All partitions of the cluster."""
        return [PartitionId(number) for number in range(self._directory.partitions)]

    @property
    def clock(self) -> Clock:
        """The time that deadlines are measured by."""
        return self._clock

    async def pause(self, ms: int, bell: asyncio.Event | None = None) -> None:
        """Wait so long before a call is made again, or until a bell rings."""
        if bell is None:
            await self._clock.sleep(ms)
            return
        async with asyncio.TaskGroup() as tasks:
            timer = tasks.create_task(self._ring_after(ms, bell))
            await bell.wait()
            timer.cancel()

    async def _ring_after(self, ms: int, bell: asyncio.Event) -> None:
        await self._clock.sleep(ms)
        bell.set()

    # --- where things live -------------------------------------------------------------------------

    def home(self, entity: EntityKey, session_id: str | None, placement: str | None) -> PartitionId:
        """Return where a session lives, or without one where the entity has its home."""
        return home_of(entity, session_id, placement, self._directory.partitions)

    async def placed(
        self, entity: EntityKey, do: Callable[[str | None], Awaitable[_Result]]
    ) -> _Result:
        """Do something that depends on an entity's placement, and again if it has another one than was thought.

        `do` gets the placement; None = the cluster has one partition, where all is the same. It hands the placement to
        the calls it makes, which raise Misplaced, without effect, when it is wrong.
        """
        if self._directory.partitions == 1:
            return await do(None)
        for _ in range(_MISPLACED_MAX):
            try:
                return await do(self._placements.get(entity, SINGLE))
            except Misplaced as error:
                self._learn(entity, error.details["placement"])
        raise Unavailable(f"{entity.namespace}/{entity.name} is being created again. Try again.")

    async def placement_of(self, entity: EntityKey) -> str | None:
        """Return the placement of an entity; None = the cluster has one partition, where all is the same.

        Raises:
            LockstepError: As `call` says.
        """

        async def at(placement: str | None) -> str | None:
            if placement is not None:
                home = self.home(entity, None, placement)
                await self.call(home, GetRuntime(entity), placement=placement)
            return placement

        return await self.placed(entity, at)

    def _learn(self, entity: EntityKey, placement: str) -> None:
        if placement == SINGLE:
            self._placements.pop(entity, None)
            return
        self._placements[entity] = placement
        if len(self._placements) > _PLACEMENTS_MAX:
            self._placements.popitem(last=False)

    # --- calls -----------------------------------------------------------------------------------------

    async def call_home(
        self,
        command: Command,
        entity: EntityKey,
        session_id: str | None = None,
        *,
        wait_ms: int = 0,
    ) -> Answer:
        """Have a command carried out where an entity, or a session of it, lives.

        Raises:
            LockstepError: As `call` says.
        """

        async def at(placement: str | None) -> Answer:
            partition = self.home(entity, session_id, placement)
            return await self.call(partition, command, wait_ms=wait_ms, placement=placement)

        return await self.placed(entity, at)

    async def call_all(
        self, command: Command, entity: EntityKey
    ) -> list[tuple[PartitionId, Answer]]:
        """Have a command carried out by every partition that holds something of an entity, in their order.

        Raises:
            LockstepError: Why the first of those that failed did.
        """

        async def at(placement: str | None) -> list[tuple[PartitionId, Answer]]:
            if placement != SPREAD:
                home = self.home(entity, None, placement)
                return [(home, await self.call(home, command, placement=placement))]
            calls = [self.call(p, command, placement=placement) for p in self.partitions]
            return list(zip(self.partitions, await together(calls), strict=True))

        return await self.placed(entity, at)

    async def call(
        self,
        partition: PartitionId,
        command: Command,
        *,
        wait_ms: int = 0,
        placement: str | None = None,
    ) -> Answer:
        """Have a command carried out by a partition's owner, whoever that is by then.

        Raises:
            LockstepError: As `OwnerChannel.call` says; Moved, StoreUnavailable and ClusterUnavailable only after the
                time for retries, or when trying again could have a second effect.
        """
        is_safe = isinstance(command, _REPEATABLE) or getattr(command, "request", None) is not None
        started_ms = self._clock.monotonic_ms()
        is_shared_out = False
        while True:
            spent_ms = self._clock.monotonic_ms() - started_ms
            left_ms = wait_ms if wait_ms == ASK_ONLY else max(0, wait_ms - spent_ms)
            try:
                return await self.ask(partition, command, wait_ms=left_ms, placement=placement)
            except Misplaced:
                raise
            except ShareUsed as error:
                if spent_ms > max(0, wait_ms) + self._retry_for_ms:
                    raise
                if not is_shared_out:
                    is_shared_out = True
                    await self._share_out(partition, command, error)
                    continue
                # Somebody else shared out at the same time: see what that gave, first.
                is_shared_out = False
            except (Moved, StoreUnavailable, ClusterUnavailable) as error:
                spent_ms = self._clock.monotonic_ms() - started_ms
                is_safe_now = is_safe or isinstance(error, ClusterUnavailable)
                if not is_safe_now or spent_ms > max(0, wait_ms) + self._retry_for_ms:
                    raise
                self._note_retry(error.reason)
            await self._clock.sleep(min(max(_RETRY_MS, spent_ms // _PAUSE_SHARE), _RETRY_MAX_MS))

    async def _share_out(self, partition: PartitionId, command: Command, error: ShareUsed) -> None:
        """Have the quota shared out again, of which a partition needs more (ADD-1)."""
        entity = getattr(command, "entity", None)
        assert isinstance(entity, EntityKey), "what takes room says of which entity"
        self._note_retry(error.reason)
        try:
            await self._shares.make_room(entity, partition, int(error.details["needed"]))
        except QuotaExceeded as full:
            if isinstance(command, Send):
                self.note_refused_send(entity, len(command.messages), full)
            raise

    async def ask(
        self,
        partition: PartitionId,
        command: Command,
        *,
        wait_ms: int = 0,
        placement: str | None = None,
    ) -> Answer:
        """Have a command carried out by a partition's owner of this moment; tried once."""
        owner = self._directory.owner_of(partition)
        return await owner.call(partition, command, wait_ms=wait_ms, placement=placement)

    def follow_hints(self, partition: PartitionId) -> AsyncIterator[Sequence[Hint]]:
        """Yield what a partition has to take, as its owner of this moment tells it."""
        return self._directory.owner_of(partition).follow_hints(partition)

    def note_refused_send(self, entity: EntityKey, messages: int, error: LockstepError) -> None:
        """Have messages counted that were refused before they were routed (SND-2)."""
        partition = self.home(entity, None, None)
        try:
            owner = self._directory.owner_of(partition)
        except LockstepError:
            return  # nobody counts for a partition that nobody owns
        owner.note_refused_send(partition, entity, messages, error)
