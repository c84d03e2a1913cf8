"""Owners, real ones, that start, crash, are deposed and hand over, over one disk.

Here belong processes and leases. Never here: what clients do. There is one rightful owner at a time; deposed
ones go on running, some without knowing, until they are killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from prometheus_client import CollectorRegistry

from lockstep.cluster.port import Answer
from lockstep.cluster.static import StaticOwnership
from lockstep.core.commands import Command, TakeTransfer
from lockstep.core.errors import LockstepError
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.invariants import check_partition
from lockstep.core.limits import Limits
from lockstep.owner.actor import ActorLimits, PartitionActor
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.metrics import Metrics
from tests.sim.store import Disk, FaultyStore
from tests.sim.virtual_time import NodeClock, sleep_ms

PARTITIONS = 2
START_MS = 1_700_000_000_000
_RESTART_MS = (10, 2500)
_JUMP_MS = 40_000
_CACHE_BYTES = 200  # of bodies, so little that most are read from the store


@dataclass(slots=True)
class SimLease:
    """A lease that ends at a known time, or (`ends_ms` None) never as far as its owner knows."""

    epoch: PartitionEpoch
    loop: asyncio.AbstractEventLoop
    ends_ms: float | None = None

    def is_valid(self) -> bool:
        """Whether the right still holds."""
        return self.ends_ms is None or self.loop.time() < self.ends_ms


Bring = Callable[[str, PartitionId, TakeTransfer], Awaitable[Answer]]


class _Owner(Supervisor):
    """One whose transfers go over the network, as if the other partition were in another process."""

    def __init__(self, name: str, parts: OwnerParts, bring: Bring) -> None:
        super().__init__(parts, PARTITIONS)
        self._name = name
        self._bring = bring

    async def _call_owner(self, partition: PartitionId, command: Command) -> Answer:
        if isinstance(command, TakeTransfer):
            return await self._bring(self._name, partition, command)
        return await super()._call_owner(partition, command)


class Node:
    """One process: a supervisor and everything it needs."""

    def __init__(self, disk: Disk, number: int, jump_ms: int, limits: Limits, bring: Bring) -> None:
        trial = disk.trial
        self._bring = bring
        self.name = f"node{number}"
        self.lease = SimLease(PartitionEpoch(1, number, 0), trial.loop)
        self.clock = NodeClock(trial.loop, START_MS + jump_ms)
        self.store = FaultyStore(disk, self.name, self.clock)
        self.store.is_dropped = self._is_dropped
        self.limits = limits
        self.supervisor = self._new_supervisor()
        self.is_deposed = False
        self.is_alive = True
        self.is_ready = False
        self.under_way: list[Command] = []  # what it was asked and has not answered
        self._is_killed = False
        self._trial = trial
        self._task: asyncio.Task[None] | None = None

    def _new_supervisor(self) -> Supervisor:
        parts = OwnerParts(
            store=self.store,
            ownership=StaticOwnership(PARTITIONS, self.lease),
            clock=self.clock,
            limits=self.limits,
            actor_limits=ActorLimits(body_cache_bytes_max=_CACHE_BYTES),
            metrics=Metrics(CollectorRegistry()),
        )
        return _Owner(self.name, parts, self._bring)

    def actor(self, partition: PartitionId) -> PartitionActor | None:
        """Return the actor that carries out a partition's commands now."""
        return self.supervisor._actors.get(partition)

    def _is_dropped(self, partition: PartitionId) -> bool:
        actor = self.actor(partition)
        return actor is not None and actor._failure is not None

    def epoch(self, partition: PartitionId) -> PartitionEpoch | None:
        """Return under which epoch the partition is open here."""
        actor = self.actor(partition)
        return actor.epoch if actor is not None else None

    def start(self) -> None:
        """Start the process."""
        self._task = self._trial.loop.create_task(self._live())
        self._task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() or self._is_killed else task.exception()
        self._trial.check(error is None, "a process ended with", repr(error))

    def kill(self) -> None:
        """End the process at whatever it waits for."""
        if self.is_alive:
            for command in self.under_way:
                self._trial.meet(command, "owner killed")
        self.is_alive = self.is_ready = False
        self.store.is_dead = self._is_killed = True
        if self._task is not None:
            self._task.cancel()

    async def _live(self) -> None:
        try:
            await self.supervisor.open_all()
            await self.supervisor.run(self._is_ready)
        except* LockstepError as group:
            self._trial.note(self.name, "ended", type(group.exceptions[0]).__name__)
        finally:
            self.is_alive = self.is_ready = False
            self.store.is_dead = True

    def _is_ready(self) -> None:
        self.is_ready = True
        self._trial.note(self.name, "ready")

    def has_ended(self) -> bool:
        """Whether nothing can reach or leave the process any more."""
        return not self.is_alive

    async def ended(self) -> None:
        """Wait until the process is over."""
        if self._task is not None:
            await asyncio.wait([self._task])


class Cluster:
    """The rightful owner, and the deposed ones that still run.

    Attributes:
        bring: Takes a transfer from a process to whoever has the other partition; the network sets it.
    """

    bring: Bring

    def __init__(self, disk: Disk, limits: Limits) -> None:
        self.disk = disk
        self.trial = disk.trial
        self.limits = limits
        self.deposed: list[Node] = []
        self._started = 0
        self.current = self._start()
        self.is_calm = False
        self._is_replacing = False
        disk.ledger.on_commit = self._check_partition

    def _start(self) -> Node:
        trial, jump_ms = self.trial, 0
        if self._started and (luck := self._strikes("clock_jump")):
            jump_ms = luck.randint(-_JUMP_MS, _JUMP_MS)
        self._started += 1
        node = Node(self.disk, self._started, jump_ms, self.limits, self._take_there)
        trial.note(node.name, "started", jump_ms)
        node.start()
        return node

    async def _take_there(self, who: str, partition: PartitionId, command: TakeTransfer) -> Answer:
        return await self.bring(who, partition, command)

    def _check_partition(self, partition: PartitionId, epoch: PartitionEpoch) -> None:
        for node in (self.current, *self.deposed):
            actor = node.actor(partition)
            if actor is not None and actor.epoch == epoch and node.is_alive:
                try:
                    check_partition(actor.partition)
                except AssertionError as error:
                    self.trial.check(False, str(error))
                return

    def pick(self, who: str) -> Node:
        """Return the owner that a client believes in."""
        running = [node for node in self.deposed if node.is_alive]
        if running:
            luck = self.trial.strike(who, "stale_route", self.disk.faults.stale_route)
            if luck is not None:
                return luck.choice(running)
        return self.current

    def _strikes(self, fault: str) -> Random | None:
        return self.trial.strike("cluster", fault, getattr(self.disk.faults, fault))

    # --- chaos -------------------------------------------------------------------------------------

    async def chaos(self) -> None:
        """Let faults of owners happen until the calm."""
        random = self.trial.stream("cluster")
        while True:
            await sleep_ms(random.uniform(1500, 8000))
            if self.is_calm:
                return
            for name in ("crash", "takeover", "deposed", "handover"):
                if luck := self._strikes(name):
                    self.trial.note("chaos", name)
                    self._is_replacing = True
                    await getattr(self, f"_{name}")(luck)
                    self._is_replacing = False
                    break

    async def watch(self) -> None:
        """Start a process in the place of one that ended by itself."""
        while True:
            await sleep_ms(500)
            if not self.current.is_alive and not self._is_replacing:
                self.trial.count("fault process ended")
                self.current = self._start()

    async def _crash(self, luck: Random) -> None:
        self.current.kill()
        await sleep_ms(luck.uniform(*_RESTART_MS))
        self.current = self._start()

    async def _takeover(self, luck: Random) -> None:
        old = self.current
        old.lease.ends_ms = self.trial.loop.time() + luck.uniform(0, 1500)
        await sleep_ms(max(0, old.lease.ends_ms - self.trial.loop.time()) + luck.uniform(0, 3000))
        self._succeed(old, luck)

    async def _deposed(self, luck: Random) -> None:
        self._succeed(self.current, luck)

    def _succeed(self, old: Node, luck: Random) -> None:
        old.is_deposed = True
        if old.is_alive:
            self.deposed.append(old)
            self.trial.loop.call_later(luck.uniform(500, 9000), old.kill)
        self.current = self._start()

    async def _handover(self, _luck: Random) -> None:
        old = self.current
        await old.supervisor.close()
        closing = self.trial.loop.create_task(old.ended())
        await asyncio.wait([closing], timeout=20_000)
        closing.cancel()
        old.kill()
        self.current = self._start()

    async def settle(self) -> None:
        """Kill every deposed owner, start a new one, and wait until it is ready."""
        self.is_calm = self._is_replacing = True
        for node in (*self.deposed, self.current):
            node.kill()
        self.current = self._start()
        for _ in range(200):
            if self.current.is_ready:
                return
            await sleep_ms(100)
        self.trial.check(False, "no owner became ready in the calm")
