"""After the storm: everything that is stored must be reachable, once, and nothing else."""

from __future__ import annotations

import itertools
from dataclasses import replace

from lockstep.cluster.port import Answer
from lockstep.core.commands import (
    Accept,
    Browse,
    Command,
    GetRuntime,
    Outcome,
    Receive,
    ReceiveDeferred,
    ReleaseSession,
    Settle,
    Settlement,
    UpdateQueue,
)
from lockstep.core.errors import LockstepError, MessageNotFound, NoSessionAvailable
from lockstep.core.ids import EntityKey, PartitionId, RequestId, SessionId, SessionLock
from lockstep.core.replies import Accepted, Browsed, Delivered, Runtime
from tests.sim.book import Book, Message
from tests.sim.clients import with_fingerprint
from tests.sim.cluster import PARTITIONS, Cluster
from tests.sim.ledger import Ledger
from tests.sim.rows import Where
from tests.sim.trial import Trial

_BATCH = 4000
_PAGE = 7
_LATE_MS = 1000  # how late a message may become active (SCH-4)


async def drain(cluster: Cluster, trial: Trial) -> None:
    """Start every queue; receive, browse and release everything, and compare it with the ledger."""
    try:
        for number in range(PARTITIONS):
            await _Drainer(cluster, trial, PartitionId(number)).start_queues()
        for number in range(PARTITIONS):
            await _Drainer(cluster, trial, PartitionId(number)).drain_all()
    except LockstepError as error:
        trial.check(False, "in the calm, a call was refused:", repr(error))


class _Drainer:
    def __init__(self, cluster: Cluster, trial: Trial, partition: PartitionId) -> None:
        self._cluster = cluster
        self._trial = trial
        self._partition = partition
        self._requests = itertools.count(1)
        ledger: Ledger = cluster.disk.ledger
        self._memory = ledger.referee.memory
        self._book: Book = ledger.books[partition]
        self._found: set[Where] = set()

    def _request(self, what: str = "calm") -> RequestId:
        return RequestId(f"{what}{self._partition}", next(self._requests))

    async def start_queues(self) -> None:
        """Let every queue be active again."""
        for definition in list(self._book.entities.values()):
            if definition.settings.status != "active":
                start = UpdateQueue(definition.key, {"status": "active"}, 0, self._request("start"))
                await self._call(start, PartitionId(0))

    async def drain_all(self) -> None:
        """Take every message of the partition, and see that all that is stored was found."""
        for entity, definition in list(self._book.entities.items()):
            key, has_sessions = definition.key, definition.settings.requires_session
            locks = await self._take_active(key, has_sessions=has_sessions)
            locks += await self._take_deferred(entity, key, locks, has_sessions=has_sessions)
            await self._take(Receive(key, True, None, _BATCH, self._request()))
            await self._take_dead_deferred(entity, key)
            await self._browse(entity, key)
            for lock in locks:
                await self._call(ReleaseSession(key, lock, self._request()))
            await self._count(entity, key)
        missing = sorted(self._stored() - self._found)
        self._trial.check(not missing, "I-1: stored but not delivered", self._partition, missing)

    def _stored(self) -> set[Where]:
        return {where for where, m in self._book.messages.items() if not m.due_ms}

    def _is_over(self, message: Message) -> bool:
        actor = self._cluster.current.actor(self._partition)
        assert actor is not None
        return message.is_over(actor._clock.now_ms())

    # --- receiving -----------------------------------------------------------------------------------

    async def _take_active(self, key: EntityKey, *, has_sessions: bool) -> list[SessionLock]:
        if not has_sessions:
            await self._take(Receive(key, False, None, _BATCH, self._request()))
            return []
        locks: list[SessionLock] = []
        try:
            while True:
                lock = await self._accept(key, None)
                locks.append(lock)
                await self._take(Receive(key, False, lock, _BATCH, self._request()))
        except NoSessionAvailable:
            return locks

    async def _accept(self, key: EntityKey, session_id: SessionId | None) -> SessionLock:
        answer = await self._call(Accept(key, session_id, "calm", self._request()))
        assert isinstance(answer.reply, Accepted)
        return answer.reply.session

    async def _take_deferred(
        self, entity: int, key: EntityKey, locks: list[SessionLock], *, has_sessions: bool
    ) -> list[SessionLock]:
        held = {str(lock.session_id): lock for lock in locks}
        more: list[SessionLock] = []
        for sequence, message in self._deferred(entity, dead=False):
            lock = None
            if has_sessions:
                session_id = message.session_id or ""
                if session_id not in held:
                    held[session_id] = await self._accept(key, SessionId(session_id))
                    more.append(held[session_id])
                lock = held[session_id]
            ask = ReceiveDeferred(key, False, lock, (sequence,), self._request())
            is_over = self._is_over(message)
            try:
                await self._take(ask)
            except MessageNotFound:
                self._trial.check(is_over, "DEF-2: deferred, but not found", key, sequence)
            else:
                self._trial.check(not is_over, "TTL-9: delivered after its expiry", key, sequence)
        return more

    async def _take_dead_deferred(self, entity: int, key: EntityKey) -> None:
        numbers = [sequence for sequence, _ in self._deferred(entity, dead=True)]
        if numbers:
            await self._take(ReceiveDeferred(key, True, None, numbers, self._request()))

    def _deferred(self, entity: int, *, dead: bool) -> list[tuple[int, Message]]:
        messages = sorted(self._book.messages.items(), key=lambda item: item[0])
        return [
            (s, m)
            for (number, s), m in messages
            if number == entity and m.grant is not None and bool(m.dead) == dead
        ]

    async def _take(self, receive: Receive | ReceiveDeferred) -> None:
        answer = await self._call(receive)
        reply = answer.reply
        assert isinstance(reply, Delivered)
        for sequence, body in zip(reply.sequences, answer.messages, strict=True):
            where = (reply.entity, sequence)
            message = self._book.messages.get(where)
            is_same = message is not None and message.body == body
            self._trial.check(is_same, "I-1: delivered, but stored differently", where, message)
            self._found.add(where)
        if reply.sequences and receive.session is None:
            release = Settlement(Outcome.RELEASE, reply.grant, reply.sequences)
            settle = Settle(receive.entity, receive.dead_letter, None, (release,), self._request())
            await self._call(settle)

    # --- looking -------------------------------------------------------------------------------------

    async def _browse(self, entity: int, key: EntityKey) -> None:
        """PEK-2, PEK-4: page by page, everything is shown."""
        for dead in (False, True):
            shown: list[int] = []
            while True:
                first = shown[-1] + 1 if shown else 0
                answer = await self._call(Browse(key, dead, None, first, _PAGE))
                assert isinstance(answer.reply, Browsed)
                shown += answer.reply.delivered.sequences
                if not answer.reply.has_more:
                    break
            messages = self._book.messages.items()
            stored = sorted(s for (e, s), m in messages if e == entity and bool(m.dead) == dead)
            self._trial.check(shown == stored, "PEK-2: browsed", key, shown, "of", stored)

    async def _count(self, entity: int, key: EntityKey) -> None:
        """I-9, SCH-4: the counters are right, and nothing that was due is scheduled."""
        answer = await self._call(GetRuntime(key))
        counted = answer.reply
        assert isinstance(counted, Runtime)
        mine = [m for (number, _), m in self._book.messages.items() if number == entity]
        now_ms = self._book.partition.last_time_ms
        late = [m for m in mine if m.due_ms and m.due_ms < now_ms - _LATE_MS]
        self._trial.check(not late, "SCH-4: due, but not active", key, late)
        shown = (counted.active, counted.scheduled, counted.deferred, counted.dead_letters)
        stored = (
            sum(1 for m in mine if not m.dead and not m.due_ms),
            sum(1 for m in mine if m.due_ms),
            sum(1 for m in mine if m.grant is not None and not m.dead),
            sum(1 for m in mine if m.dead),
        )
        self._trial.check(shown == stored, "I-9: counted", key, shown, "of", stored)

    async def _call(self, command: Command, partition: PartitionId | None = None) -> Answer:
        command = with_fingerprint(replace(command))
        self._memory.note_command(command)
        where = self._partition if partition is None else partition
        return await self._cluster.current.supervisor.call(where, command)
