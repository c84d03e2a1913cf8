"""Comparing everything: what the broker has with what is declared, and what queues hold with what is told.

Here belong the two regular passes. Never here: what is done about one object (`queues`). The laws: a pass over
objects that are as they should be writes nothing and calls the broker a few times in all; it never delays what users
change.
"""

from __future__ import annotations

import logging
import random

from lockstep.core.errors import LockstepError
from lockstep_operator.broker import Found
from lockstep_operator.conditions import Kind
from lockstep_operator.declared import DeclaredQueue, DeletionPolicy, InvalidSpec, read_queue
from lockstep_operator.kube import QUEUES, KubeError
from lockstep_operator.looks import Parts
from lockstep_operator.objects import Key
from lockstep_operator.plan import effective_policy, tells_policy
from lockstep_operator.status import counts, urgency
from lockstep_operator.work_queue import Priority, WorkQueue

log = logging.getLogger(__name__)

_PUT_PAUSE_MS = 20
_PATCH_PAUSE_MS = 200
_AGAIN_MS = 2_000
_JITTER = 0.1


class Resync:
    """Compares everything now and then."""

    def __init__(self, parts: Parts, work: WorkQueue[Key]) -> None:
        """Compare what `parts` know, and put into `work` what differs."""
        self._kube = parts.kube
        self._broker = parts.broker
        self._breaker = parts.breaker
        self._objects = parts.objects
        self._mirror = parts.mirror
        self._around = parts.around
        self._clock = parts.clock
        self._work = work
        self._default_policy = parts.settings.broker.default_policy

    # --- definitions -------------------------------------------------------------------------------

    async def read(self) -> bool:
        """Read the broker until it told of everything; return False when it does not answer (`breaker`)."""
        while not await self._load():
            if self._breaker.is_open:
                return False
            await self._clock.sleep(_AGAIN_MS)
        return True

    async def compare(self) -> bool:
        """Read the broker and have the objects looked at that differ; return whether the broker answered."""
        if not await self._load():
            return False
        await self.look_at_differing()
        return True

    async def look_at_differing(self) -> None:
        """Have the objects looked at that differ from the last reading, slowly; a broker that falls silent ends it."""
        for key, queue in self._declared():
            if self._breaker.is_open:
                return
            if queue is None or self._differs(queue):
                self._work.put(key, Priority.RESYNC)
                await self._clock.sleep(_PUT_PAUSE_MS)

    async def run(self, interval_s: int) -> None:
        """Compare every so many seconds, a tenth more or less; runs until it is cancelled."""
        while True:
            spread = 1 + random.uniform(-_JITTER, _JITTER)
            await self._clock.sleep(round(interval_s * 1000 * spread))
            if not self._breaker.is_open:
                await self.compare()

    async def _load(self) -> bool:
        began = self._mirror.begin_reading()
        try:
            self._mirror.load([found async for found in self._broker.queues()], began)
        except LockstepError as error:
            self._breaker.failed(error)
            log.info("resync.failed", extra={"reason": error.reason, "error": str(error)})
            return False
        declared = [queue for _, queue in self._declared() if queue is not None]
        gone = sum(1 for queue in declared if self._is_lost(queue))
        self._mirror.judge_loss(gone, len(declared))
        return True

    def _declared(self) -> list[tuple[Key, DeclaredQueue | None]]:
        """Return our objects; None = one says what no broker can do."""
        found: list[tuple[Key, DeclaredQueue | None]] = []
        for key, body in self._objects.all(QUEUES.kind):
            if not self._around.is_ours(body):
                continue
            try:
                found.append((key, read_queue(body)))
            except InvalidSpec:
                found.append((key, None))
        return found

    def _found(self, queue: DeclaredQueue) -> Found | None:
        return self._mirror.get(self._around.broker_namespace(queue.namespace), queue.entity)

    def _is_lost(self, queue: DeclaredQueue) -> bool:
        was_there = bool(queue.status.get("entityId")) and not queue.is_going
        return was_there and not queue.observes_only and self._found(queue) is None

    def _differs(self, queue: DeclaredQueue) -> bool:
        """Whether a look might find something to do; a cheap question that may say yes in vain."""
        found = self._found(queue)
        status = queue.status
        ready = {one.get("type"): one.get("status") for one in queue.conditions}.get("Ready")
        if found is None or queue.is_going or ready != "True" or queue.observes_only:
            return True
        told = {one.get("type") for one in queue.conditions}
        policy = effective_policy(queue, self._default_policy)
        if (Kind.RECONCILING in told) != queue.is_paused or (
            queue.has_finalizer == (policy is DeletionPolicy.RETAIN)
            or not tells_policy(queue, policy)
        ):
            return True
        entity = found.entity
        known = (
            status.get("observedGeneration"),
            status.get("entityId"),
            status.get("entityRevision"),
        )
        return known != (queue.generation, entity.uid, entity.revision) or (
            entity.manager_uid != queue.uid
        )

    # --- counts ------------------------------------------------------------------------------------

    async def refresh_counts(self) -> int:
        """Tell what queues hold where that says something new; return how many objects were written.

        At most 5 writes in a second, dead letters first.
        """
        if self._breaker.is_open or not await self._load():
            return 0
        due: list[tuple[int, Key, Found]] = []
        for key, queue in self._declared():
            found = self._found(queue) if queue is not None else None
            if queue is None or found is None or not _has_counts(queue, found):
                continue
            urgent = urgency(queue.status, found.figures)
            if urgent is not None:
                due.append((urgent, key, found))
        due.sort(key=lambda one: one[0])
        written = 0
        for _, key, found in due:
            written += await self._write(key, found)
            await self._clock.sleep(_PATCH_PAUSE_MS)
        return written

    async def run_counts(self, interval_s: int) -> None:
        """Refresh the counts every so many seconds; runs until it is cancelled."""
        while True:
            await self._clock.sleep(interval_s * 1000)
            await self.refresh_counts()

    async def _write(self, key: Key, found: Found) -> bool:
        change = {"status": counts(found.figures, self._clock.now_ms())}
        try:
            newer = await self._kube.patch(
                QUEUES, key.namespace, key.name, change, subresource="status"
            )
        except KubeError as error:
            log.info("counts.refused", extra={"object": str(key), "error": str(error)})
            return False
        self._objects.learn(key, newer)
        return True


def _has_counts(queue: DeclaredQueue, found: Found) -> bool:
    """Whether an object tells what a queue holds: it keeps or observes it, and nothing else is going on."""
    is_its = queue.observes_only or found.entity.manager_uid == queue.uid
    return is_its and bool(queue.status) and not queue.is_going and not queue.is_paused
