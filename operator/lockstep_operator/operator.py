"""The operator as a whole: it watches, waits for its lease, works, and gives the lease back.

Here belongs how the parts are put together. Never here: what any of them does. The laws: only the holder of the lease
works, the others keep up with what happens; a lost lease ends the work at once, and the process; a stop lets begun
work end before the lease is given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import kopf

from lockstep.runtime.clock import Clock
from lockstep.runtime.ids import IdSource
from lockstep_operator.breaker import Breaker
from lockstep_operator.broker import Broker
from lockstep_operator.broker_object import BrokerObject
from lockstep_operator.definitions import Definitions
from lockstep_operator.events import Events
from lockstep_operator.hearing import Hearing
from lockstep_operator.kube import QUEUES, RESUBMISSIONS, Kube
from lockstep_operator.lease import Lease
from lockstep_operator.listing import Listing
from lockstep_operator.looks import Parts
from lockstep_operator.metrics import OperatorMetrics
from lockstep_operator.mirror import Mirror
from lockstep_operator.objects import Key, Objects
from lockstep_operator.pace import Pace
from lockstep_operator.probes import served
from lockstep_operator.queues import Queues
from lockstep_operator.resubmissions import Resubmissions
from lockstep_operator.resync import Resync
from lockstep_operator.sampling import Sampling
from lockstep_operator.settings import OperatorSettings
from lockstep_operator.surroundings import Surroundings
from lockstep_operator.watching import watch
from lockstep_operator.work_queue import WorkQueue
from lockstep_operator.workers import Workers

log = logging.getLogger(__name__)

_BEGIN_S = 35
_STUCK_WAIT_MS = 300_000
_STUCK_WORK_MS = 60_000


class LeaseLost(Exception):
    """Another operator works now, or may; this one must not go on."""


class Operator:
    """One operator."""

    def __init__(
        self,
        settings: OperatorSettings,
        *,
        holder: str,
        login: Callable[[], kopf.ConnectionInfo],
        clock: Clock,
        ids: IdSource,
    ) -> None:
        """Put the parts together; nothing is called yet.

        Args:
            settings: What to keep, and how.
            holder: The name of this operator, unique in the cluster.
            login: Reads the credentials of Kubernetes.
            clock: Of everything.
            ids: Makes names that are unique in the world.
        """
        self._settings = settings
        self._login = login
        self.metrics = OperatorMetrics()
        self.objects = Objects()
        self.work: WorkQueue[Key] = WorkQueue(clock)
        self.mirror = Mirror(clock, recreates_at_once=settings.bulk_recreate)
        self._kube = Kube(login, clock=clock, counted=self.metrics.kube_request)
        self._broker = Broker(
            settings.broker.address, clock=clock, ids=ids, counted=self.metrics.broker_call
        )
        self.breaker = Breaker(clock, self._broker.answers)
        self._around = Surroundings(settings, self.objects, self._kube)
        self._events = Events(self._kube, clock, ids)
        self.definitions = Definitions(self._kube, clock, self.metrics)
        self._pace = Pace(clock)
        parts = Parts(
            settings=settings,
            kube=self._kube,
            broker=self._broker,
            breaker=self.breaker,
            objects=self.objects,
            mirror=self.mirror,
            around=self._around,
            definitions=self.definitions,
            events=self._events,
            pace=self._pace,
            clock=clock,
            metrics=self.metrics,
        )
        self._queues = Queues(parts)
        self._resubmissions = Resubmissions(parts)
        self._workers = Workers(
            {QUEUES.kind: self._queues.look_at, RESUBMISSIONS.kind: self._resubmissions.look_at},
            work=self.work,
            metrics=self.metrics,
            clock=clock,
        )
        self._hearing = Hearing(
            settings, self.objects, self._around, self.work, self.metrics, clock, self._workers
        )
        self._resync = Resync(parts, self.work)
        self.broker_object = BrokerObject(parts)
        self._sampling = Sampling(parts, self.work, self.metrics, lambda: self._workers.is_running)
        self._lease = Lease(self._kube, settings.lease, holder, clock)
        self._clock = clock
        self._listing = Listing(
            self._kube, self.objects, self._hearing, clock, settings.watch_namespaces
        )
        self._is_begun = asyncio.Event()

    async def run(
        self, stop: asyncio.Event, started: Callable[[int, int], None] | None = None
    ) -> None:
        """Work until `stop` is set.

        Args:
            stop: Ends the operator in order.
            started: Told of the ports of metrics and health once they are taken.

        Raises:
            LeaseLost: Another operator may work now.
            KubeError: Kubernetes refused what the operator cannot do without.
        """
        settings = self._settings
        async with (
            self._kube,
            served(
                registry=self.metrics.registry,
                live=self._what_is_stuck,
                ready=self._what_is_missing,
                metrics_port=settings.metrics_port,
                health_port=settings.health_port,
            ) as ports,
        ):
            if started is not None:
                started(*ports)
            try:
                await self._run(stop)
            finally:
                await self._broker.close()

    async def _run(self, stop: asyncio.Event) -> None:
        watching_ends = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(
                watch(
                    self._hearing.heard,
                    namespaces=self._settings.watch_namespaces,
                    login=self._login,
                    stop=watching_ends,
                    clock=self._clock,
                )
            )
            beside = [group.create_task(self._sampling.run())]
            try:
                await self._listing.first()
                interval_s = self._settings.drift_interval_s
                beside.append(group.create_task(self._listing.run(interval_s)))
                await self._lead(stop)
            finally:
                watching_ends.set()
                for task in beside:
                    task.cancel()

    async def _lead(self, stop: asyncio.Event) -> None:
        """Wait for the lease, work while it is held, and give it back."""
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(stop.wait())
            acquiring = group.create_task(self._lease.acquire())
            await asyncio.wait((stopping, acquiring), return_when=asyncio.FIRST_COMPLETED)
            acquiring.cancel()
            if stopping.done():
                # It may have been acquired at the last moment.
                await self._lease.release()
                return
            self.metrics.leader.set(1)
            self.metrics.transitions.inc()
            holding = group.create_task(self._lease.hold())
            jobs = [group.create_task(job) for job in self._jobs()]
            await asyncio.wait((stopping, holding, *jobs), return_when=asyncio.FIRST_COMPLETED)
            is_lost = holding.done()
            if not is_lost:
                await self._workers.finish()
            for task in (stopping, holding, *jobs):
                task.cancel()
        self.metrics.leader.set(0)
        self.metrics.transitions.inc()
        if is_lost:
            raise LeaseLost("The lease was lost; another operator may work now.")
        await self._lease.release()

    def _jobs(self) -> list[Any]:
        settings = self._settings
        found = [
            self._begin(),
            self._work(),
            self.work.keep_time(),
            self._events.run(),
            self.breaker.watch(self._answered),
            self._resync.run(settings.drift_interval_s),
            self.broker_object.run(),
            self.definitions.run(),
        ]
        if settings.counts_refresh_s:
            found.append(self._resync.run_counts(settings.counts_refresh_s))
        return found

    async def _begin(self) -> None:
        """Do what comes first, then wait for ever: a job that ends would end the others."""
        await self.broker_object.apply()
        is_read = await self._resync.read()
        self._is_begun.set()
        if not is_read:
            self._hearing.look_at_all(QUEUES.kind)
        self._hearing.look_at_all(RESUBMISSIONS.kind)
        await self._resync.look_at_differing()
        await asyncio.Event().wait()

    async def _work(self) -> None:
        """Let the workers begin once it is known what the broker has, or that it does not answer, or does not say."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BEGIN_S):
                await self._is_begun.wait()
        self._workers.begin_measuring()
        await self._workers.run(self._settings.workers)

    async def _answered(self) -> None:
        """Go on when the broker answers again: first with what waits for it, then with everything."""
        if await self._resync.read():
            self._hearing.look_at_pending()
            await self._resync.look_at_differing()

    async def compare(self) -> bool:
        """Compare everything with the broker now, and return whether it answered."""
        return await self._resync.compare()

    # --- probes ------------------------------------------------------------------------------------

    def _what_is_missing(self) -> str:
        return "" if self._listing.is_done else "the objects were not listed yet"

    def _what_is_stuck(self) -> str:
        waits_ms, idle_ms = self.work.oldest_ms(), self._workers.idle_ms()
        if self._workers.is_running and waits_ms > _STUCK_WAIT_MS and idle_ms > _STUCK_WORK_MS:
            return (
                f"an object waits for {waits_ms} ms, and no worker ended anything for {idle_ms} ms"
            )
        return ""
