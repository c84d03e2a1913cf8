"""Who mends what failed: resubmits, purges and moves dead letters, and gives sessions up (section 10.4, ADD-11)."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from lockstep.core.commands import CancelJob, ListJobs, StartJob
from lockstep.core.ids import EntityKey, PartitionId, SessionId
from lockstep.core.jobs import JobKind, JobOptions, Selector
from lockstep.core.message import as_ranges
from lockstep.core.replies import JobIs
from tests.sim.clients import EXTRA, JOBS, ORDERS, SESSIONS, World, home_of
from tests.sim.cluster import PARTITIONS
from tests.sim.workers import LOST, PROPERTIES, Onlooker

_REASONS = ("because", "MaxDeliveryCountExceeded", "TTLExpiredException", "no such reason")


class Mender(Onlooker):
    """Starts jobs, cancels some, and looks at how they stand."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self._begun: list[tuple[PartitionId, EntityKey, int]] = []
        self._given_up: tuple[EntityKey, PartitionId] | None = (
            None  # where dead letters were made last
        )

    async def run(self) -> None:
        """Mend until the calm."""
        turns: dict[Callable[[], Awaitable[None]], int] = {
            self._start: 5,
            self._cancel: 1,
            self._list: 1,
        }
        while not self.world.is_calm:
            with contextlib.suppress(*LOST):
                await self.random.choices(list(turns), list(turns.values()))[0]()
            await self.pause(200, 4000)

    async def _start(self) -> None:
        entity, partition = self._queue()
        if self._given_up is not None and self.chance(0.8):
            (entity, partition), self._given_up = self._given_up, None
        shown = await self._browse(partition, entity)
        kind = self.random.choices(tuple(JobKind), (6, 1, 7, 1))[0]
        if not shown and self._has_sessions(entity) and self.chance(0.6):
            kind = JobKind.DEAD_LETTER
        await self._begin(entity, partition, kind, self._selector(shown))

    async def _begin(
        self, entity: EntityKey, partition: PartitionId, kind: JobKind, selector: Selector
    ) -> None:
        """Start a job, and sometimes cancel it soon."""
        if kind is JobKind.DEAD_LETTER:
            near = self._near(entity, partition) or SESSIONS
            session_id = selector.session_id or SessionId(self.random.choice(near))
            selector = Selector(session_id=session_id, max_count=selector.max_count)
        options = self._options(partition, entity, kind)
        request = self.request()
        uid = f"{self.name}-{request.counter}"
        start = StartJob(entity, kind, selector, options, uid, self.name, request)
        answer = await self.ask(partition, start, tries=self.random.choice((1, 6)))
        assert isinstance(answer.reply, JobIs)
        if kind is JobKind.DEAD_LETTER:
            self._given_up = (entity, partition)
        self._begun.append((partition, entity, answer.reply.job.number))
        if self.chance(0.15):
            await self.pause(1, 3000)
            await self._cancel()

    async def _cancel(self) -> None:
        if self._begun:
            partition, entity, number = self.random.choice(self._begun[-3:])
            await self.ask(partition, CancelJob(entity, number), tries=self.random.choice((1, 4)))

    async def _list(self) -> None:
        entity, partition = self._queue()
        number = self.random.choice((0, 0, 1, 5))
        await self.ask(partition, ListJobs(entity, number), tries=self.random.choice((1, 2)))

    # --- what to do ----------------------------------------------------------------------------------

    def _queue(self) -> tuple[EntityKey, PartitionId]:
        entity = self.random.choices((ORDERS, JOBS, EXTRA), (6, 3, 1))[0]
        if self._has_sessions(entity):
            return entity, PartitionId(self.random.randrange(PARTITIONS))
        return entity, home_of(entity, None)

    def _has_sessions(self, entity: EntityKey) -> bool:
        return entity == ORDERS or (entity == EXTRA and self.world.extra_has_sessions)

    def _near(self, entity: EntityKey, partition: PartitionId) -> list[str]:
        return [s for s in SESSIONS if home_of(entity, s) == partition]

    async def _browse(self, partition: PartitionId, entity: EntityKey) -> list[int]:
        with contextlib.suppress(*LOST):
            return await self.browse_from(partition, entity, None, 0, dead_letter=True)
        return []

    def _selector(self, shown: list[int]) -> Selector:
        """Return which dead letters: all, or some of them."""
        chosen = [sequence for sequence in shown if self.chance(0.6)]
        now_ms = self.now_ms()
        return Selector(
            ranges=as_ranges(chosen) if chosen and self.chance(0.3) else (),
            session_id=SessionId(self.random.choice(SESSIONS)) if self.chance(0.1) else None,
            reason=self.random.choice(_REASONS) if self.chance(0.15) else None,
            since_ms=now_ms - self.random.randint(0, 15_000) if self.chance(0.1) else 0,
            until_ms=now_ms - self.random.randint(-1000, 9000) if self.chance(0.1) else 0,
            max_count=self.random.choice((1, 2, 5)) if self.chance(0.2) else 0,
        )

    def _options(self, partition: PartitionId, entity: EntityKey, kind: JobKind) -> JobOptions:
        rate = self.random.choice((0, 1, 1, 2, 5))
        is_dry = self.chance(0.1)
        if kind in (JobKind.PURGE, JobKind.DEAD_LETTER):
            return JobOptions(rate=rate, dry_run=is_dry)
        at_head = kind is JobKind.RESUBMIT and self.chance(0.3)
        target = self._target(partition, entity) if kind is JobKind.MOVE else None
        wants_session = target is not None and self._has_sessions(target)
        session_id: SessionId | None = None
        if not at_head and self.chance(0.8 if wants_session else 0.4):
            away = [s for s in SESSIONS if home_of(target or entity, s) != partition]
            session_id = SessionId(self.random.choice(away if self.chance(0.4) else SESSIONS))
        return JobOptions(
            target=target,
            session_id=session_id,
            properties=self.random.choice(PROPERTIES) if self.chance(0.3) else {},
            new_message_id=self.chance(0.2),
            at_head=at_head,
            max_resubmits=self.random.choice((1, 1, 2)) if self.chance(0.4) else 0,
            rate=rate,
            dry_run=is_dry,
        )

    def _target(self, partition: PartitionId, entity: EntityKey) -> EntityKey:
        """Return another queue, more often one of the other partition; now and then the same one, which is refused."""
        if self.chance(0.03):
            return entity
        others = [key for key in (ORDERS, JOBS, EXTRA) if key != entity]
        away = [key for key in others if home_of(key, None) != partition]
        return self.random.choice(away if away and self.chance(0.6) else others)
