"""Opens partitions, keeps them open, and brings definitions from the catalogue to them.

Here belongs the life of partitions in this process. Never here: what a partition does. The laws: a
partition that failed is opened anew under a higher epoch while the lease holds; one whose data is damaged
or whose invariants broke stays closed (design law 9); a definition counts as changed only when every
partition has it (ADD-12).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

from lockstep.cluster.port import Answer, Hint, Lease
from lockstep.core.commands import (
    ApplyDefinition,
    ApplyDeletion,
    Command,
    CreateQueue,
    DeleteQueue,
    ForgetDeletions,
    ListDefinitions,
    UpdateQueue,
)
from lockstep.core.errors import (
    InternalError,
    LockstepError,
    Misplaced,
    Moved,
    ShuttingDown,
    StoreRefused,
)
from lockstep.core.ids import EntityKey, PartitionEpoch, PartitionId
from lockstep.core.limits import Limits
from lockstep.core.partition import Partition
from lockstep.core.replies import Definitions
from lockstep.core.snapshot import restore_partition
from lockstep.owner.actor import ActorLimits, PartitionActor
from lockstep.owner.measured_store import MeasuredStore
from lockstep.owner.observer import gauges_of
from lockstep.runtime.clock import Clock, SteadyClock
from lockstep.runtime.entity_counters import EntityGauges
from lockstep.runtime.metrics import Metrics
from lockstep.storage.port import PartitionStore

log = logging.getLogger(__name__)

CATALOGUE = PartitionId(0)
_REOPEN_MS = 200
_DELETIONS_KEPT = 64  # so that forgetting costs little


@dataclass(frozen=True, slots=True)
class OwnerParts:
    """What a supervisor needs from outside."""

    store: PartitionStore
    lease: Lease
    clock: Clock
    limits: Limits
    actor_limits: ActorLimits
    metrics: Metrics


class Supervisor:
    """Owns partitions 0 … n-1 of a cluster of one process; the `OwnerChannel` of its front end."""

    def __init__(self, parts: OwnerParts, partitions: int) -> None:
        self._parts = parts
        self._store = MeasuredStore(parts.store, parts.clock, parts.metrics)
        self._actors: dict[PartitionId, PartitionActor] = {}
        parts.metrics.owner_partitions.set_function(lambda: len(self._actors))
        parts.metrics.owner_draining.set_function(lambda: self._closing)
        self._stopped: dict[PartitionId, LockstepError] = {}
        self._numbers = [PartitionId(number) for number in range(partitions)]
        self._reopened = dict.fromkeys(self._numbers, 0)
        self._closing = False
        self._opened = asyncio.Event()  # a partition was opened anew, or none will be any more
        self._applying = asyncio.Semaphore(
            1
        )  # definitions reach the partitions in the order of revisions

    # --- life ------------------------------------------------------------------------------------

    async def open_all(self) -> None:
        """Open every partition and bring it up to the catalogue.

        Raises:
            StoreRefused: A store is damaged, of a newer version, or not ours. Nothing was written to it.
            LockstepError: A store does not answer.
        """
        for number in self._numbers:
            await self._open(number)

    async def run(self, when_ready: Callable[[], None] = lambda: None) -> None:
        """Keep the partitions open until `close`. `open_all` must have returned."""
        async with asyncio.TaskGroup() as tasks:
            for number in self._numbers:
                tasks.create_task(self._keep_open(number))
            tasks.create_task(self._keep_up(when_ready))

    async def close(self) -> None:
        """Answer what was asked, then let `run` end and let go of the store."""
        self._closing = True
        self._opened.set()
        for actor in self._actors.values():
            actor.stop()

    async def _open(self, number: PartitionId) -> None:
        parts = self._parts
        epoch = PartitionEpoch(*parts.lease.epoch[:2], self._reopened[number])
        snapshot = await self._store.open(number, epoch)
        clock = SteadyClock(parts.clock, snapshot.partition.last_time_ms)
        now_ms = clock.now_ms()
        try:
            partition = restore_partition(number, parts.limits, snapshot, now_ms)
        except Exception as error:  # a bug: it stops this partition, not its neighbours
            raise InternalError(
                f"What partition {number} stored cannot be opened: {type(error).__name__}: {error}. Report this."
            ) from error
        self._actors[number] = PartitionActor(
            partition,
            epoch=epoch,
            store=self._store,
            lease=parts.lease,
            clock=clock,
            limits=parts.actor_limits,
            metrics=parts.metrics,
            when_queues_went=self._opened.set,  # they are brought to the partitions as after an opening
        )
        messages = partition.totals.messages
        log.info(
            "partition.opened",
            extra={"partition": number, "epoch": str(tuple(epoch)), "messages": messages},
        )

    async def _keep_open(self, number: PartitionId) -> None:
        while not self._closing:
            if not await self._run(number):
                break
            if number in self._actors:
                continue
            await self._reopen(number)
            if number not in self._actors:
                break
            self._opened.set()
        self._actors.pop(number, None)
        await self._store.close(number)

    async def _run(self, number: PartitionId) -> bool:
        """Run a partition until it ends, and return whether it may be opened anew.

        No error is left behind: it would keep all that the partition held in memory beside what is opened anew.
        """
        try:
            await self._actors[number].run()
        except (InternalError, StoreRefused) as error:
            self._stop(number, error)
            return False
        except LockstepError as error:
            log.warning("partition.lost", extra={"partition": number, "reason": error.reason})
            del self._actors[number]  # with everything that it decided (design law 4)
        return True

    async def _reopen(self, number: PartitionId) -> None:
        while not self._closing and self._parts.lease.is_valid():
            self._reopened[number] += 1
            tried_ms = self._parts.clock.monotonic_ms()
            try:
                await self._open(number)
            except (InternalError, StoreRefused) as error:
                self._stop(number, error)
                return
            except LockstepError as error:
                log.warning(
                    "partition.not_opened", extra={"partition": number, "reason": error.reason}
                )
                await self._parts.clock.sleep(_REOPEN_MS)
            else:
                return
            finally:
                away_ms = self._parts.clock.monotonic_ms() - tried_ms
                self._parts.metrics.partition_unavailable_seconds.inc(away_ms / 1000)

    def _stop(self, number: PartitionId, error: LockstepError) -> None:
        """Leave a partition closed; only a person can help."""
        self._stopped[number] = error
        self._opened.set()
        log.exception("partition.stopped", extra={"partition": number, "reason": error.reason})

    # --- calls -----------------------------------------------------------------------------------

    async def call(
        self,
        partition: PartitionId,
        command: Command,
        *,
        wait_ms: int = 0,
        placement: str | None = None,
    ) -> Answer:
        """As `OwnerChannel` says; definitions are brought to every partition before the call returns."""
        if isinstance(command, CreateQueue | UpdateQueue | DeleteQueue):
            return await self._define(command)
        actor = self._actor(partition)
        if placement is not None:
            _refuse_misplaced(actor.partition, command, placement)
        return await actor.call(command, wait_ms=wait_ms)

    def follow_hints(self, partition: PartitionId) -> AsyncIterator[Sequence[Hint]]:
        """As `OwnerChannel` says."""
        return self._actor(partition).follow_hints()

    def epoch_of(self, partition: PartitionId) -> PartitionEpoch:
        """Return under which epoch a partition is open here.

        Raises:
            Moved: It is not.
        """
        return self._actor(partition).epoch

    def note_refused_send(
        self, partition: PartitionId, entity: EntityKey, messages: int, error: LockstepError
    ) -> None:
        """As `OwnerChannel` says."""
        actor = self._actors.get(partition)
        if actor is not None:
            actor.note_refused_send(entity, messages, error)

    def _actor(self, partition: PartitionId) -> PartitionActor:
        actor = self._actors.get(partition)
        if actor is not None:
            return actor
        if self._closing:
            raise ShuttingDown("This process is stopping. Try again.")
        stopped = self._stopped.get(partition)
        if stopped is not None:
            raise type(stopped)(stopped.message, details=stopped.details)
        raise Moved(f"Partition {partition} is not open here. Try again.")

    async def _define(self, command: CreateQueue | UpdateQueue | DeleteQueue) -> Answer:
        try:
            async with self._applying:
                answer = await self._actor(CATALOGUE).call(command)
                await self._bring()
        except asyncio.CancelledError:
            self._opened.set()  # the catalogue may have changed: let the partitions have it all the same
            raise
        return answer

    async def _keep_up(self, when_ready: Callable[[], None]) -> None:
        """Bring definitions at the start, and again after a partition was opened anew."""
        is_ready = False
        while not self._closing and CATALOGUE not in self._stopped:
            self._opened.clear()
            try:
                await self._bring_definitions()
            except LockstepError as error:
                log.warning("definitions.not_brought", extra={"reason": error.reason})
                await self._parts.clock.sleep(_REOPEN_MS)
                continue
            if not is_ready:
                is_ready = True
                when_ready()
            await self._opened.wait()

    async def _bring_definitions(self) -> None:
        async with self._applying:
            await self._bring()

    async def _bring(self) -> None:
        """Apply to each partition what it has missed of the catalogue, in the order of revisions."""
        definitions = (await self._actor(CATALOGUE).call(ListDefinitions())).reply
        assert isinstance(definitions, Definitions)
        missed: list[tuple[int, ApplyDefinition | ApplyDeletion]] = [
            (definition.revision, ApplyDefinition(definition)) for definition in definitions.queues
        ]
        missed += [
            (revision, ApplyDeletion(entity, revision)) for entity, revision in definitions.deleted
        ]
        missed.sort(key=lambda item: item[0])
        for number in self._numbers:
            actor = self._actor(number)
            for revision, command in missed:
                if revision > actor.partition.last_revision:
                    await actor.call(command)
        if len(definitions.deleted) > _DELETIONS_KEPT:
            applied = min(self._actor(number).partition.last_revision for number in self._numbers)
            await self._actor(CATALOGUE).call(ForgetDeletions(applied))

    # --- looking ---------------------------------------------------------------------------------

    def gauges(self) -> Iterator[EntityGauges]:
        """Return how every queue stands, for metrics."""
        for actor in self._actors.values():
            waiting: dict[int, int] = {}
            for call in actor.waiters.all():
                if call.place is not None and call.place.session_id is None:
                    waiting[call.place.entity] = waiting.get(call.place.entity, 0) + 1
            yield from gauges_of(actor.partition, waiting, self._parts.clock.now_ms())

    def not_ready(self) -> list[str]:
        """Return why this process cannot serve everything; empty = it can."""
        reasons = [f"partition {n} has stopped: {e.message}" for n, e in self._stopped.items()]
        closed = [n for n in self._numbers if n not in self._actors and n not in self._stopped]
        return reasons + [f"partition {n} is not open" for n in closed]


def _refuse_misplaced(partition: Partition, command: Command, placement: str) -> None:
    entity = getattr(command, "entity", None)
    queue = partition.queues.get(entity) if entity is not None else None
    if queue is not None and queue.definition.settings.placement != placement:
        found = queue.definition.settings.placement
        raise Misplaced(
            f"{queue.path} has the placement {found}, not {placement}.",
            details={"placement": found},
        )
