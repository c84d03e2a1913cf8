"""How one process reaches the etcd in memory: calls that are slow, fail, or whose outcome stays unknown.

Here belong the `Registry` and the lease of a process of the simulation. Never here: what etcd does (`etcd`). As with
the real client (`cluster.etcd`), a call is made at one member after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from random import Random
from typing import TypeVar

from lockstep.cluster.changes import wait_at_most
from lockstep.cluster.lease import NodeLease
from lockstep.cluster.registry import KeyValue, Listing, RevisionCompacted, WatchBatch
from lockstep.core.errors import ClusterUnavailable
from lockstep.runtime.clock import Clock
from tests.sim.trial import Trial
from tests.simcluster.etcd import MEMBERS, Etcd
from tests.simcluster.faults import Faults
from tests.simcluster.processes import AGAIN_MS, Line, Outside, Process, sleep_ms

_CALL_MS = 2000
_SLOW_MS = (100, 1500)
_LATE_MS = (200, 6000)
_PINGED_MS = (3000, 9000)  # etcd is asked every 6 s whether it lives, and given 3 s
_Result = TypeVar("_Result")


class EtcdLinks:
    """Which members of etcd a process reaches.

    Attributes:
        cut: The members that do not hear it.
    """

    def __init__(self, trial: Trial, etcd: Etcd, outside: Outside, process: Process) -> None:
        self.trial = trial
        self.etcd = etcd
        self.outside = outside
        self.process = process
        self.cut: set[int] = set()
        self.faults = Faults()
        self._member = 0
        self._broken: dict[Callable[[], None], None] = {}

    @property
    def name(self) -> str:
        """The process, for the trace."""
        return self.process.name

    def delay_ms(self) -> float:
        """Draw how long something is on its way."""
        return self.trial.stream(f"etcd of {self.name}").uniform(0.3, 8)

    def strikes(self, fault: str) -> Random | None:
        """Draw whether a fault happens to a call."""
        return self.trial.strike(self.name, fault, getattr(self.faults, fault))

    async def call(self, do: Callable[[], _Result], *, timeout_ms: float = _CALL_MS) -> _Result:
        """Have etcd do something, at the next member when one does not answer.

        Raises:
            ClusterUnavailable: Nobody answered; it may have been done, or be done yet.
        """
        for _ in range(MEMBERS):
            try:
                async with asyncio.timeout(timeout_ms):
                    return await self._ask(do)
            except (TimeoutError, _Refused):
                self._turn()
        raise ClusterUnavailable("no member of etcd answers")

    async def _ask(self, do: Callable[[], _Result]) -> _Result:
        if self.strikes("etcd_refused"):
            await sleep_ms(self.delay_ms())
            raise _Refused
        answer: asyncio.Future[_Result] = self.outside.loop.create_future()
        member, late, unknown = (
            self._member,
            self.strikes("etcd_late"),
            self.strikes("etcd_unknown"),
        )

        slow = self.strikes("etcd_slow")

        def reach() -> None:
            if member in self.cut or not self.etcd.has_leader:
                return
            result = do()
            if not unknown and not late:
                back_ms = slow.uniform(*_SLOW_MS) if slow else self.delay_ms()
                self.outside.later(back_ms, lambda: come_back(result))

        def come_back(result: _Result) -> None:
            if member not in self.cut and not answer.done():
                answer.set_result(result)

        self.outside.later(late.uniform(*_LATE_MS) if late else self.delay_ms(), reach)
        return await answer

    def _turn(self) -> None:
        self._member = (self._member + 1) % MEMBERS

    # --- watches ---------------------------------------------------------------------------------

    def break_watches(self) -> None:
        """Break all watches of the process."""
        for tell in list(self._broken):
            tell()

    async def watch(
        self, prefix: str, after_revision: int, for_ms: int
    ) -> AsyncGenerator[WatchBatch]:
        """Yield what changes; see `Registry.watch`."""
        etcd, ends_ms = self.etcd, self.outside.loop.time() + for_ms
        stream = _Watch(self, prefix, after_revision)
        lag = luck.randint(1, 3) if (luck := self.strikes("lagging")) else 0
        at = await self.call(lambda: max(etcd.revision - lag, 1), timeout_ms=_CALL_MS)
        etcd.follow(stream.news)
        self._broken[stream.end] = None
        try:
            yield WatchBatch(at, ())
            stream.news()
            while True:
                try:
                    async with asyncio.timeout_at(ends_ms):
                        batch = await stream.next()
                except TimeoutError:
                    return
                yield batch
        finally:
            etcd.unfollow(stream.news)
            self._broken.pop(stream.end, None)


class _Watch:
    """One watch at one member: what it was told and has not passed on."""

    def __init__(self, links: EtcdLinks, prefix: str, revision: int) -> None:
        self._links = links
        self._prefix = prefix
        self._told = revision
        self._generation = links.etcd.generation
        self._bell = asyncio.Event()
        self._batches: list[WatchBatch | Exception] = []
        self._way = Line(links.outside, self._arrive)
        self._member = links._member
        self._is_over = False
        self._is_suspect = False

    def news(self) -> None:
        """Take what is new, and send it on; in order, each a little later."""
        links = self._links
        if self._is_over:
            return
        if links.etcd.generation != self._generation:
            self.end()
            return
        if self._member in links.cut:
            self._suspect()
            return
        try:
            changes = links.etcd.since(self._told, self._prefix)
        except RevisionCompacted as error:
            self._send(error)
            return
        for revision, changed in changes:
            if links.strikes("watch_broken"):
                self.end()
                return
            self._told = revision
            self._send(WatchBatch(links.etcd.revision, changed))

    def _suspect(self) -> None:
        """Wait until something comes through again, or until pings tell that nothing does."""
        if self._is_suspect:
            return
        self._is_suspect = True
        outside = self._links.outside
        ends_ms = outside.loop.time() + self._links.trial.stream("pings").uniform(*_PINGED_MS)

        def look() -> None:
            if self._member not in self._links.cut:
                self._is_suspect = False
                self.news()
            elif outside.loop.time() < ends_ms:
                outside.later(AGAIN_MS, look)
            else:
                self.end()

        outside.later(AGAIN_MS, look)

    def end(self) -> None:
        """Break."""
        if self._is_over:
            return
        self._is_over = True
        self._links._turn()
        self._send(ClusterUnavailable("the watch broke"))

    def _send(self, batch: WatchBatch | Exception) -> None:
        self._way.send(batch, self._links.delay_ms())

    def _arrive(self, batch: WatchBatch | Exception) -> None:
        self._batches.append(batch)
        self._bell.set()

    async def next(self) -> WatchBatch:
        """Return what comes next."""
        while not self._batches:
            self._bell.clear()
            await self._bell.wait()
        batch = self._batches.pop(0)
        if isinstance(batch, Exception):
            raise batch
        return batch


class _Refused(Exception):
    """A member said no."""


class SimRegistry:
    """A `Registry` of one process."""

    def __init__(self, links: EtcdLinks) -> None:
        self._links = links
        self._etcd = links.etcd

    async def list_prefix(self, prefix: str) -> Listing:
        """As `Registry` says."""
        return await self._links.call(lambda: self._etcd.list_prefix(prefix))

    async def create(
        self, key: str, value: bytes, *, lease: int, while_leased: str | None = None
    ) -> KeyValue | None:
        """As `Registry` says."""
        etcd = self._etcd
        return await self._links.call(
            lambda: etcd.create(key, value, lease=lease, while_leased=while_leased)
        )

    async def replace(self, key: str, value: bytes, *, lease: int) -> bool:
        """As `Registry` says."""
        return await self._links.call(lambda: self._etcd.replace(key, value, lease=lease))

    async def delete(self, key: str, *, create_revision: int) -> bool:
        """As `Registry` says."""
        etcd = self._etcd
        return await self._links.call(lambda: etcd.delete(key, create_revision=create_revision))

    def watch(self, prefix: str, *, after_revision: int, for_ms: int) -> AsyncGenerator[WatchBatch]:
        """As `Registry` says."""
        return self._links.watch(prefix, after_revision, for_ms)


class _SimLeases:
    """`LeaseExchange` of one process."""

    def __init__(self, links: EtcdLinks) -> None:
        self._links = links
        self._etcd = links.etcd

    async def grant(self, ttl_ms: int, *, timeout_ms: int) -> tuple[int, int]:
        """As `LeaseExchange` says."""
        return await self._links.call(lambda: self._etcd.grant(ttl_ms), timeout_ms=timeout_ms)

    async def keep_alive(self, lease: int, *, timeout_ms: int) -> int:
        """As `LeaseExchange` says."""
        return await self._links.call(lambda: self._etcd.keep_alive(lease), timeout_ms=timeout_ms)

    async def revoke(self, lease: int, *, timeout_ms: int) -> None:
        """As `LeaseExchange` says."""
        await self._links.call(lambda: self._etcd.revoke(lease), timeout_ms=timeout_ms)


class _NoCalls:
    """Where calls would go that block; in a simulation nothing may."""

    def grant(self, ttl_ms: int, *, timeout_ms: int) -> tuple[int, int]:
        raise NotImplementedError

    def keep_alive(self, lease: int, *, timeout_ms: int) -> int:
        raise NotImplementedError

    def revoke(self, lease: int, *, timeout_ms: int) -> None:
        raise NotImplementedError


class SimNodeLease(NodeLease):
    """The node's lease without a thread: the same exchanges, in a task of the process."""

    def __init__(self, links: EtcdLinks, clock: Clock, *, ttl_ms: int) -> None:
        super().__init__(_NoCalls(), clock, ttl_ms=ttl_ms)
        self._over_there = _SimLeases(links)
        self._process = links.process
        self._sim_clock = clock
        self._stopping = asyncio.Event()

    def start(self, tell: Callable[[], None]) -> None:
        """As `NodeLease` says."""
        self._tell = tell
        self._process.begin(self._live())

    async def stop(self) -> None:
        """As `NodeLease` says."""
        self._stopping.set()
        if self._life is not None:
            self._life.end()
        await self._ended.wait()

    async def _live(self) -> None:
        while not self._stopping.is_set():
            pause_ms = await self.exchange(self._over_there)
            await wait_at_most(self._stopping, self._sim_clock, pause_ms)
        await self.resign(self._over_there)
        self._ended.set()

    @property
    def has_ended(self) -> bool:
        """Whether it is given back, or nobody could be told."""
        return self._ended.is_set()
