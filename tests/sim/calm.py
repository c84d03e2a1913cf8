"""After the storm: everything that is stored must be reachable, once, and nothing else."""

from __future__ import annotations

import itertools

from lockstep.cluster.port import Answer
from lockstep.core.commands import (
    Accept,
    Command,
    Outcome,
    Receive,
    ReleaseSession,
    Settle,
    Settlement,
)
from lockstep.core.errors import LockstepError, NoSessionAvailable
from lockstep.core.ids import PartitionId, RequestId, SessionLock
from lockstep.core.queue import Queue
from lockstep.core.replies import Accepted, Delivered
from tests.sim.cluster import PARTITIONS, Cluster
from tests.sim.ledger import Ledger
from tests.sim.trial import Trial

_BATCH = 4000


async def drain(cluster: Cluster, trial: Trial) -> None:
    """Receive and release everything, and compare it with the ledger."""
    for number in range(PARTITIONS):
        drainer = _Drainer(cluster, PartitionId(number))
        actor = cluster.current.actor(PartitionId(number))
        assert actor is not None
        ledger: Ledger = cluster.disk.ledger
        try:
            for queue in list(actor.partition.queues.values()):
                await drainer.drain(queue)
        except LockstepError as error:
            trial.check(False, "in the calm, a call was refused:", repr(error))
        stored = {where: m.body for where, m in ledger.books[number].messages.items()}
        missing = sorted(set(stored) - set(drainer.found))
        trial.check(not missing, "I-1: stored but not delivered", number, missing)
        trial.check(drainer.found == stored, "I-1: delivered, but stored differently", number)


class _Drainer:
    def __init__(self, cluster: Cluster, partition: PartitionId) -> None:
        self._cluster = cluster
        self._partition = partition
        self._requests = itertools.count(1)
        self.found: dict[tuple[int, int], bytes] = {}

    def _request(self) -> RequestId:
        return RequestId(f"calm{self._partition}", next(self._requests))

    async def drain(self, queue: Queue) -> None:
        """Take every active message and every dead letter of a queue."""
        key = queue.definition.key
        await self._take(Receive(key, True, None, _BATCH, self._request()))
        if not queue.definition.settings.requires_session:
            await self._take(Receive(key, False, None, _BATCH, self._request()))
            return
        locks: list[SessionLock] = []
        try:
            while True:
                answer = await self._call(Accept(key, None, "calm", self._request()))
                reply = answer.reply
                assert isinstance(reply, Accepted)
                locks.append(reply.session)
                await self._take(Receive(key, False, reply.session, _BATCH, self._request()))
        except NoSessionAvailable:
            pass
        for lock in locks:
            await self._call(ReleaseSession(key, lock, self._request()))

    async def _take(self, receive: Receive) -> None:
        answer = await self._call(receive)
        reply = answer.reply
        assert isinstance(reply, Delivered)
        for sequence, body in zip(reply.sequences, answer.messages, strict=True):
            self.found[reply.entity, sequence] = body
        if reply.sequences and receive.session is None:
            release = Settlement(Outcome.RELEASE, reply.grant, reply.sequences)
            await self._call(
                Settle(receive.entity, receive.dead_letter, None, (release,), self._request())
            )

    async def _call(self, command: Command) -> Answer:
        request = getattr(command, "request", None)
        self._cluster.disk.ledger.referee.commands[tuple(request or ())] = command
        return await self._cluster.current.supervisor.call(self._partition, command)
