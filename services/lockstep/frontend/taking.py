"""Taking the next session, or the next messages, from whatever partition has one.

Here belongs what a receiver without a session asks of an entity that is spread over partitions (design section 5).
Never here: what it gets. The laws: nobody waits at several partitions; what was stored before a call began is found by
it, whether its hint has arrived or not; when it is not known whether a partition granted something, that partition is
asked again, with the same request id, before another one is.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

from lockstep.cluster.port import ASK_ONLY, Answer
from lockstep.core.commands import Accept, FindRequest, Receive
from lockstep.core.entity import SPREAD
from lockstep.core.errors import (
    ClusterUnavailable,
    LockstepError,
    Misplaced,
    Moved,
    NoSessionAvailable,
    ServerBusy,
    ShuttingDown,
    Unavailable,
)
from lockstep.core.ids import EntityKey, PartitionId
from lockstep.core.replies import Delivered, RequestFound
from lockstep.frontend.hint_book import HintBook, Store
from lockstep.frontend.router import Router
from lockstep.runtime.tasks import together

log = logging.getLogger(__name__)

_FOLLOW_AGAIN_MS = 100
_BUSY_MAX_MS = 1_000
# What says that a partition did nothing.
_CERTAIN = (ClusterUnavailable, ShuttingDown, ServerBusy, Misplaced)


class Taker:
    """Takes for the receivers of one front end."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._book = HintBook(router.clock)

    async def run(self) -> None:
        """Follow the hints of all partitions, until cancelled. Not needed where there is one partition."""
        if len(self._router.partitions) == 1:
            return
        async with asyncio.TaskGroup() as tasks:
            for partition in self._router.partitions:
                tasks.create_task(self._follow(partition))

    async def _follow(self, partition: PartitionId) -> None:
        while True:
            try:
                is_new = True
                async for hints in self._router.follow_hints(partition):
                    if is_new:
                        self._book.forget(partition)
                        is_new = False
                    self._book.note(partition, hints)
            except LockstepError as error:
                log.debug("hints.lost", extra={"partition": partition, "reason": error.reason})
            await self._router.pause(_FOLLOW_AGAIN_MS)

    async def take(
        self, command: Accept | Receive, *, wait_ms: int, is_retry: bool = False
    ) -> tuple[PartitionId, Answer]:
        """Have an accept or a receive carried out wherever it finds something.

        Args:
            command: One without a session.
            wait_ms: How long to wait when there is nothing, in ms.
            is_retry: Whether the call may have found something before, perhaps through another front end: then the
                partition that remembers it answers.

        Returns:
            The partition that answered, and its answer, which may be that there are no messages.

        Raises:
            NoSessionAvailable: No session came in time.
            LockstepError: As `Router.call` says.
        """

        async def at(placement: str | None) -> tuple[PartitionId, Answer]:
            if placement == SPREAD:
                if is_retry and (found := await self._find_again(command, placement)) is not None:
                    return found
                return await self._take_somewhere(command, wait_ms, placement)
            home = self._router.home(command.entity, None, placement)
            call = self._router.call(home, command, wait_ms=wait_ms, placement=placement)
            return home, await call

        return await self._router.placed(command.entity, at)

    def waiting(self, entity: EntityKey) -> int:
        """Return how many receivers wait here, and at no partition, for what a queue has."""
        return self._book.waiting(entity)

    async def _find_again(
        self, command: Accept | Receive, placement: str
    ) -> tuple[PartitionId, Answer] | None:
        """Return what a call found before (ADD-3); None = nothing that is remembered."""
        router = self._router
        if command.request is None:
            return None
        question = FindRequest(command.entity, command.request)
        calls = [router.call(p, question, placement=placement) for p in router.partitions]
        for partition, answer in zip(router.partitions, await together(calls), strict=True):
            if isinstance(answer.reply, RequestFound) and answer.reply.is_known:
                call = router.call(partition, command, wait_ms=ASK_ONLY, placement=placement)
                return partition, await call
        return None

    async def _take_somewhere(
        self, command: Accept | Receive, wait_ms: int, placement: str
    ) -> tuple[PartitionId, Answer]:
        clock, store = self._router.clock, _store_of(command)
        ends_ms = clock.monotonic_ms() + wait_ms
        search = _Search(self._router, command, placement)
        if (found := await self._take_what_is_known(store, search)) is not None:
            return found
        left = [p for p in _from_anywhere(self._router.partitions) if p not in search.asked]
        if (found := await search.ask_each(left)) is not None:
            return found
        is_again = False
        while True:
            # Also hints that came while the partitions were asked: nobody was woken for them.
            if (found := await self._take_what_is_known(store, search)) is not None:
                return found
            again = sorted(search.busy - search.asked)
            if is_again and not again and not search.asked:
                # The queue changed: whoever owns any of it knows how.
                again = [self._router.home(command.entity, None, placement)]
            if (found := await search.ask_each(again)) is not None:
                return found
            left_ms = ends_ms - clock.monotonic_ms()
            if left_ms <= 0:
                return search.nothing()
            # A partition that was too busy to look tells of nothing that it told already.
            within_ms = min(left_ms, search.pause_ms) if search.busy else left_ms
            is_told = await self._book.wait(store, within_ms, is_again=is_again)
            if not is_told and within_ms == left_ms:
                return search.nothing()
            is_again = True
            search.asked.clear()

    async def _take_what_is_known(
        self, store: Store, search: _Search
    ) -> tuple[PartitionId, Answer] | None:
        while (partition := self._book.take(store)) is not None:
            try:
                found = await search.ask(partition)
            except BaseException:  # a caller that has gone: what it was told of is for the next
                self._book.give_back(store, partition)
                raise
            if found is not None:
                return found
        return None


class _Search:
    """One call, and how the partitions answered it."""

    def __init__(self, router: Router, command: Accept | Receive, placement: str) -> None:
        self._router = router
        self._command = command
        self._placement = placement
        self._empty: tuple[PartitionId, Answer] | None = None
        self._none: NoSessionAvailable | None = None
        self._failure: Unavailable | Moved | None = None
        self.asked: set[PartitionId] = set()
        # Those that refused to look, for load, and when to ask them again.
        self.busy: set[PartitionId] = set()
        self.pause_ms = 0

    async def ask(self, partition: PartitionId) -> tuple[PartitionId, Answer] | None:
        """Return what a partition has; None = nothing, or it cannot be asked now."""
        self.asked.add(partition)
        self.busy.discard(partition)
        try:
            answer = await self._ask(partition)
        except NoSessionAvailable as error:
            self._none = error
            return None
        except Misplaced:
            raise
        except (Unavailable, Moved) as error:
            if not isinstance(error, _CERTAIN):
                raise
            self._failure = error
            if isinstance(error, ServerBusy):
                self.busy.add(partition)
                self.pause_ms = min(max(2 * self.pause_ms, error.retry_after_ms or 1), _BUSY_MAX_MS)
            return None
        if isinstance(answer.reply, Delivered) and not answer.reply.sequences:
            self._empty = (partition, answer)
            return None
        return partition, answer

    async def ask_each(
        self, partitions: Sequence[PartitionId]
    ) -> tuple[PartitionId, Answer] | None:
        """Return what the first of some partitions has that has anything; None = nothing."""
        for partition in partitions:
            if (found := await self.ask(partition)) is not None:
                return found
        return None

    async def _ask(self, partition: PartitionId) -> Answer:
        router, command, placement = self._router, self._command, self._placement
        try:
            return await router.ask(partition, command, wait_ms=ASK_ONLY, placement=placement)
        except _CERTAIN:
            raise
        except (Unavailable, Moved):
            if command.request is None:
                raise
        return await router.call(partition, command, wait_ms=ASK_ONLY, placement=placement)

    def nothing(self) -> tuple[PartitionId, Answer]:
        """Answer that nothing was found.

        Raises:
            NoSessionAvailable: For an accept.
            Unavailable, Moved: No partition could be asked.
        """
        if self._empty is not None:
            return self._empty
        if self._none is not None:
            raise self._none
        assert self._failure is not None, "a partition that was asked answered in some way"
        raise self._failure


def _store_of(command: Accept | Receive) -> Store:
    dead_letter = isinstance(command, Receive) and command.dead_letter
    return Store(command.entity, dead_letter)


def _from_anywhere(partitions: Sequence[PartitionId]) -> list[PartitionId]:
    """Return all partitions from any of them on, so that not all receivers begin at the same."""
    start = random.randrange(len(partitions))
    return [*partitions[start:], *partitions[:start]]
