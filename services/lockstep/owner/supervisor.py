"""Opens the partitions that this process owns, keeps them open, and gives them back.

Here belongs the life of partitions in this process. Never here: what a partition does, or who should own it
(`cluster`). The laws: a partition is open only under a grant, and answers nothing any more when the grant is over; one
that failed is opened anew under a higher epoch while the grant holds; one whose data is damaged or whose invariants
broke stays closed (design law 9); what another process should own is drained, closed and then released.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

from lockstep.cluster.port import Answer, Hint, Lease, Ownership, Peers
from lockstep.cluster.standing import OwnerStanding, PartitionStanding
from lockstep.core.commands import Command, CreateQueue, DeleteQueue, UpdateQueue
from lockstep.core.errors import (
    ClusterUnavailable,
    Fenced,
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
from lockstep.core.snapshot import restore_partition
from lockstep.owner.actor import ActorLimits, PartitionActor, Surroundings
from lockstep.owner.definitions import CATALOGUE, DefinitionBringer
from lockstep.owner.measured_store import MeasuredStore
from lockstep.owner.observer import gauges_of
from lockstep.owner.openings import Openings
from lockstep.owner.standing import standing_of
from lockstep.owner.tenure import Tenure
from lockstep.runtime.clock import Clock, SteadyClock
from lockstep.runtime.entity_counters import EntityGauges
from lockstep.runtime.metrics import Metrics
from lockstep.runtime.tasks import Beside, at_once
from lockstep.storage.port import PartitionStore

log = logging.getLogger(__name__)

_BRING_AGAIN_MS = 200


@dataclass(frozen=True, slots=True)
class OwnerParts:
    """What a supervisor needs from outside.

    `peers` leads to the owners in other processes; None = there are none. `beside` does long work, so that other
    partitions are served meanwhile. `why_nothing` returns what keeps this process from owning anything.
    """

    store: PartitionStore
    ownership: Ownership
    clock: Clock
    limits: Limits
    actor_limits: ActorLimits
    metrics: Metrics
    peers: Peers | None = None
    beside: Beside = at_once
    why_nothing: Callable[[], LockstepError | None] = lambda: None


class Supervisor:
    """Owns partitions in this process; the `OwnerChannel` to them."""

    def __init__(self, parts: OwnerParts, partitions: int) -> None:
        """Prepare.

        Args:
            parts: What it needs from outside.
            partitions: How many the cluster has.
        """
        self._parts = parts
        self._store = MeasuredStore(parts.store, parts.clock, parts.metrics)
        self._actors: dict[PartitionId, PartitionActor] = {}
        self._tenures: dict[PartitionId, Tenure] = {}
        parts.metrics.owner_partitions.set_function(lambda: self.open_partitions)
        parts.metrics.owner_draining.set_function(lambda: self._closing)
        self._stopped: dict[PartitionId, LockstepError] = {}
        self._numbers = [PartitionId(number) for number in range(partitions)]
        self._openings = Openings(parts.clock)
        self._reopened = dict.fromkeys(self._numbers, 0)
        self._closing = False
        self._news = asyncio.Event()  # what is granted, or held, has changed
        self._opened = asyncio.Event()  # definitions may be missing somewhere
        self._is_bringing_late = False
        self._definitions = DefinitionBringer(self._numbers, self._call_owner, self._epoch_known)

    # --- life ------------------------------------------------------------------------------------

    async def open_all(self) -> None:
        """Open every partition that is granted already.

        Raises:
            StoreRefused: A store is damaged, of a newer version, or not ours. Nothing was written to it.
            LockstepError: A store does not answer.
        """
        for number, lease in self._parts.ownership.grants.items():
            await self._open(number, lease)

    async def run(self, when_ready: Callable[[], None] = lambda: None) -> None:
        """Own what is granted until `close`."""
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(self._watch_ownership()),
                tasks.create_task(self._watch_peers()),
            ]
            keeping = tasks.create_task(self._keep_up(when_ready))
            while not self._closing or self._tenures:
                self._news.clear()
                self._follow(tasks)
                if not self._closing or self._tenures:
                    await self._news.wait()
            await keeping
            for task in beside:
                task.cancel()
        while self._actors:  # what was opened, but never run
            number, _ = self._actors.popitem()
            await self._store.close(number)

    async def close(self) -> None:
        """Answer what was asked, then let `run` end and let go of the store."""
        self._closing = True
        self._opened.set()
        self._news.set()

    async def _watch_ownership(self) -> None:
        seen = self._parts.ownership.version
        self._news.set()
        while True:
            seen = await self._parts.ownership.wait_changed(seen)
            self._news.set()

    async def _watch_peers(self) -> None:
        peers = self._parts.peers
        if peers is None:
            return
        seen = peers.version
        while True:
            seen = await peers.wait_changed(seen)
            if CATALOGUE in self._actors:
                self._opened.set()  # a partition has another owner now

    def _follow(self, tasks: asyncio.TaskGroup) -> None:
        """Begin and end tenures, as what is granted says."""
        ownership = self._parts.ownership
        grants, unwanted = ownership.grants, ownership.unwanted
        now_ms = self._parts.clock.monotonic_ms()
        for number, tenure in self._tenures.items():
            if grants.get(number) is not tenure.lease:
                tenure.is_over = True
                tenure.end("lease_lost", now_ms)
                if number in self._actors:
                    self._actors[number].drop(self._moved(number))
            elif self._closing or number in unwanted:
                tenure.is_ending = True
                tenure.end("drain" if self._closing else "rebalance", now_ms)
                if number in self._actors:
                    why = self._moved(number) if self._parts.peers is not None else None
                    self._actors[number].stop(why)
        if self._closing:
            return
        for number, lease in grants.items():
            is_free = number not in self._tenures and number not in self._stopped
            if is_free and lease.is_valid():
                # What is unwanted by now is not opened, but somebody has to release it.
                tenure = self._tenures[number] = Tenure(lease, is_ending=number in unwanted)
                tasks.create_task(self._hold(number, tenure))

    async def _hold(self, number: PartitionId, tenure: Tenure) -> None:
        """Own a partition from its grant to its end."""
        try:
            while tenure.goes_on():
                if number not in self._actors and not await self._open_in_the_end(number, tenure):
                    break
                self._opened.set()
                if not tenure.goes_on() or not await self._run(number):
                    break
        finally:
            self._actors.pop(number, None)
        await self._store.close(number)
        if number not in self._stopped and not tenure.is_over:
            await self._parts.ownership.release(number)
        if tenure.why_ending:
            took_ms = self._parts.clock.monotonic_ms() - tenure.ending_ms
            handoffs = self._parts.metrics.cluster.handoff_duration_seconds
            handoffs.labels(tenure.why_ending).observe(took_ms / 1000)
        del self._tenures[number]
        self._news.set()
        self._opened.set()

    async def _open(self, number: PartitionId, lease: Lease) -> None:
        parts = self._parts
        epoch = PartitionEpoch(*lease.epoch[:2], self._reopened[number])
        snapshot = await self._store.open(number, epoch)
        clock = SteadyClock(parts.clock, snapshot.partition.last_time_ms)
        now_ms = clock.now_ms()
        try:
            partition = await parts.beside(
                lambda: restore_partition(
                    number, parts.limits, snapshot, now_ms, partitions=len(self._numbers)
                )
            )
        except Exception as error:  # a bug: it stops this partition, not its neighbours
            raise InternalError(
                f"What partition {number} stored cannot be opened: {type(error).__name__}: {error}. Report this."
            ) from error
        self._actors[number] = PartitionActor(
            partition,
            epoch=epoch,
            store=self._store,
            lease=lease,
            clock=clock,
            limits=parts.actor_limits,
            metrics=parts.metrics,
            around=Surroundings(
                when_queues_went=self._opened.set,  # they are brought to the partitions as after an opening
                call_other=self._call_owner,
            ),
        )
        self._openings.note_opened(number)
        messages = partition.totals.messages
        log.info(
            "partition.opened",
            extra={"partition": number, "epoch": str(tuple(epoch)), "messages": messages},
        )

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
            self._openings.note_lost(number, error)
            del self._actors[number]  # with everything that it decided (design law 4)
            self._reopened[number] += 1
        return True

    async def _open_in_the_end(self, number: PartitionId, tenure: Tenure) -> bool:
        """Open a partition as soon as its store lets it; False = it stopped, or is not to be opened any more."""
        clock = self._parts.clock
        while tenure.goes_on():
            tried_ms = clock.monotonic_ms()
            try:
                await self._open_while_wanted(number, tenure)
            except (InternalError, StoreRefused) as error:
                self._stop(number, error)
                return False
            except LockstepError as error:
                self._reopened[number] += 1
                await tenure.pause(clock, self._openings.note_failure(number, error))
                if isinstance(error, Fenced):
                    # No counter outranks a later claim. Where etcd has begun anew and does not know of it, the claim
                    # is made again, under the generation that an operator has set meanwhile.
                    tenure.is_ending = True
            else:
                return number in self._actors
            finally:
                away_ms = clock.monotonic_ms() - tried_ms
                self._parts.metrics.partition_unavailable_seconds.inc(away_ms / 1000)
        return False

    async def _open_while_wanted(self, number: PartitionId, tenure: Tenure) -> None:
        """Open a partition, unless its tenure ends meanwhile; then it is not open."""
        try:
            async with asyncio.timeout(None) as tenure.opening:
                await self._open(number, tenure.lease)
        except TimeoutError:
            if tenure.goes_on():
                raise
        finally:
            tenure.opening = None
            tenure.opened_ms = self._parts.clock.monotonic_ms()

    def _stop(self, number: PartitionId, error: LockstepError) -> None:
        """Leave a partition closed; only a person can help."""
        self._stopped[number] = error
        self._opened.set()
        log.exception("partition.stopped", extra={"partition": number, "reason": error.reason})

    def _moved(self, number: PartitionId) -> Moved:
        return Moved(f"Partition {number} is moving to another process. Try again.")

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
        stopped = self._stopped.get(partition)
        if stopped is not None:
            raise type(stopped)(stopped.message, details=stopped.details)
        if self._closing and self._parts.peers is None:
            raise ShuttingDown("This process is stopping. Try again.")
        is_owned = partition in self._parts.ownership.grants
        why = None if is_owned else self._parts.why_nothing()
        why = why or self._openings.refusal(partition, is_owned=is_owned)
        if why is not None:
            raise why
        doing = "being opened" if is_owned else "not open"
        raise Moved(f"Partition {partition} is {doing} here. Try again.")

    # --- definitions -----------------------------------------------------------------------------

    async def _define(self, command: CreateQueue | UpdateQueue | DeleteQueue) -> Answer:
        is_changed = False
        try:
            answer = await self._actor(CATALOGUE).call(command)
            is_changed = True
            await self._definitions.bring()
        except asyncio.CancelledError:
            self._opened.set()  # the catalogue may have changed: let the partitions have it all the same
            raise
        except ClusterUnavailable as error:
            self._opened.set()
            if not is_changed:
                raise
            # The error means "nothing was done", but the catalogue has the change.
            raise Moved(
                f"The catalogue has the change, but not every partition can be told of it now: {error.message}"
            ) from error
        except LockstepError:
            self._opened.set()
            raise
        return answer

    async def _keep_up(self, when_ready: Callable[[], None]) -> None:
        """Bring definitions at the start, and again after a partition was opened anew, here or elsewhere.

        A partition of another process that cannot be reached does not keep this one from being ready.
        """
        is_ready = False
        while not self._closing and CATALOGUE not in self._stopped:
            self._opened.clear()
            is_brought = CATALOGUE not in self._actors or await self._is_brought()
            if not is_ready and (is_brought or self._parts.peers) and not self.not_ready():
                is_ready = True
                when_ready()
            if is_brought:
                await self._opened.wait()
            else:
                await self._parts.clock.sleep(_BRING_AGAIN_MS)

    async def _is_brought(self) -> bool:
        """Bring definitions, and return whether every partition has them. The first failure in a row is logged."""
        try:
            await self._definitions.bring()
        except LockstepError as error:
            if not self._is_bringing_late:
                log.warning(
                    "definitions.not_brought", extra={"reason": error.reason, "why": error.message}
                )
            self._is_bringing_late = True
            return False
        self._is_bringing_late = False
        return True

    async def _call_owner(self, partition: PartitionId, command: Command) -> Answer:
        """Have a command carried out by whoever owns a partition."""
        actor = self._actors.get(partition)
        peers = self._parts.peers
        if actor is not None or peers is None:
            return await self._actor(partition).call(command)
        return await peers.owner_of(partition).call(partition, command)

    def _epoch_known(self, partition: PartitionId) -> PartitionEpoch | None:
        actor = self._actors.get(partition)
        if actor is not None:
            return actor.epoch
        placement = self._parts.peers.placements().get(partition) if self._parts.peers else None
        return placement.epoch if placement is not None else None

    # --- looking ---------------------------------------------------------------------------------

    def gauges(self) -> Iterator[EntityGauges]:
        """Return how every queue stands, for metrics."""
        for actor in self._actors.values():
            waiting: dict[int, int] = {}
            for call in actor.waiters.all():
                if call.place is not None and call.place.session_id is None:
                    waiting[call.place.entity] = waiting.get(call.place.entity, 0) + 1
            yield from gauges_of(actor.partition, waiting, self._parts.clock.now_ms())

    @property
    def open_partitions(self) -> int:
        """How many partitions are open here."""
        return len(self._actors)

    def standing(self) -> OwnerStanding:
        """Return how the partitions of this process stand."""
        now_ms = self._parts.clock.monotonic_ms()
        found = [
            PartitionStanding(number, "stopped", error.message)
            for number, error in self._stopped.items()
        ]
        for number, tenure in self._tenures.items():
            actor = self._actors.get(number)
            if actor is not None:
                is_closing = tenure.is_ending or tenure.is_over
                open_ms = now_ms - tenure.opened_ms
                found.append(standing_of(actor, is_closing=is_closing, open_ms=open_ms))
            elif number not in self._stopped:
                found.append(PartitionStanding(number, "opening", epoch=tenure.lease.epoch))
        actor = self._actors.get(CATALOGUE)
        catalogue = actor.partition.catalogue if actor is not None else None
        return OwnerStanding(
            tuple(sorted(found, key=lambda one: one.partition)),
            catalogue.revision if catalogue is not None else None,
        )

    def not_ready(self) -> list[str]:
        """Return why this process cannot serve everything that it is to own; empty = it can."""
        reasons = [f"partition {n} has stopped: {e.message}" for n, e in self._stopped.items()]
        ownership = self._parts.ownership
        closed = [
            number
            for number in sorted(ownership.grants)
            if number not in self._actors
            and number not in self._stopped
            and number not in ownership.unwanted
        ]
        for number in closed:
            why = self._openings.why_closed(number, is_owned=True)
            reasons.append(f"partition {number} is not open" + (f": {why}" if why else ""))
        return reasons


def _refuse_misplaced(partition: Partition, command: Command, placement: str) -> None:
    entity = getattr(command, "entity", None)
    queue = partition.queues.get(entity) if entity is not None else None
    if queue is not None and queue.definition.settings.placement != placement:
        found = queue.definition.settings.placement
        raise Misplaced(
            f"{queue.path} has the placement {found}, not {placement}.",
            details={"placement": found},
        )
