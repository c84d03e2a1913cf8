"""Receivers: of sessions, of a plain queue and of dead letters; and an administrator.

They accept, receive, settle in every way, keep state, renew, close, crash, and sometimes are slower than their
locks. A worker is orderly on sessions whose name says so: it completes what it receives, in that order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lockstep.core.commands import (
    Accept,
    CreateQueue,
    DeleteQueue,
    GetRuntime,
    GetSession,
    GetState,
    ListSessions,
    Outcome,
    Receive,
    ReleaseSession,
    RenewMessages,
    RenewSession,
    SetState,
    Settle,
    Settlement,
    UpdateQueue,
)
from lockstep.core.entity import SettingValue
from lockstep.core.errors import LockstepError, SessionLockLost
from lockstep.core.ids import EntityKey, GrantNumber, PartitionId, SessionId, SessionLock
from lockstep.core.replies import Accepted, Delivered
from tests.sim.clients import EXTRA, JOBS, ORDERS, SESSIONS, Client, GaveUp, World, home_of
from tests.sim.cluster import PARTITIONS

_CATALOGUE = PartitionId(0)
_LOST = (GaveUp, LockstepError)
_OUTCOMES = (Outcome.COMPLETE, Outcome.ABANDON, Outcome.RELEASE, Outcome.DEAD_LETTER)


@dataclass(slots=True)
class Held:
    """What a worker believes to hold."""

    entity: EntityKey
    partition: PartitionId
    lock: SessionLock
    hand: list[int] = field(default_factory=list)

    @property
    def is_orderly(self) -> bool:
        """Whether this session's messages are completed in order."""
        return self.lock.session_id.startswith("orderly")


class Onlooker(Client):
    """Looks at sessions without holding them."""

    async def _look(self) -> None:
        session_id = SessionId(self.random.choice(SESSIONS))
        await self.ask(home_of(ORDERS, session_id), GetSession(ORDERS, session_id), tries=1)
        number = PartitionId(self.random.randrange(PARTITIONS))
        await self.ask(number, ListSessions(ORDERS, 100), tries=1)


class SessionWorker(Onlooker):
    """Accepts sessions and works on them."""

    async def run(self) -> None:
        """Work until the calm."""
        while not self.world.is_calm:
            held = await self._accept()
            if held is None:
                await self.pause(100, 1500)
                with contextlib.suppress(*_LOST):
                    await self._look()
                continue
            try:
                await self._work(held)
            except (SessionLockLost, GaveUp):
                continue
            except LockstepError as error:
                self.trial.note(self.name, "stopped by", type(error).__name__)

    async def _accept(self) -> Held | None:
        entity = EXTRA if self.world.extra_has_sessions and self.trial.chance(0.15) else ORDERS
        session_id = SessionId(self.random.choice(SESSIONS)) if self.trial.chance(0.5) else None
        partition = PartitionId(self.random.randrange(PARTITIONS))
        if session_id is not None:
            partition = home_of(entity, session_id)
        wait_ms = self.random.choice((0, 500, 4000)) if session_id is None else 0
        accept = Accept(entity, session_id, self.name, self.request(), 7)
        try:
            answer = await self.ask(partition, accept, wait_ms=wait_ms, tries=3)
        except GaveUp:
            assert accept.request is not None
            if self.trial.chance(0.6):
                await self.cancel(partition, entity, accept.request)
            return None
        except LockstepError:
            return None
        assert isinstance(answer.reply, Accepted)
        return Held(entity, partition, answer.reply.session)

    async def _work(self, held: Held) -> None:
        for _ in range(self.random.randint(1, 7)):
            await self._receive(held)
            await self._maybe_think()
            turns: list[Callable[[Held], Awaitable[None]]] = [
                self._settle,
                self._settle,
                self._set_state,
                self._get_state,
                self._renew,
            ]
            for turn in self.random.sample(turns, k=self.random.randint(1, 3)):
                await turn(held)
        if self.trial.chance(0.7):
            release = ReleaseSession(held.entity, held.lock, self.request(), 11)
            await self.ask(held.partition, release)
            return
        self.trial.count("client crash")

    async def _maybe_think(self) -> None:
        if self.trial.chance(0.06):
            self.trial.count("client slower than its lock")
            await self.pause(5000, 14_000)
        else:
            await self.pause(5, 900)

    async def _receive(self, held: Held) -> None:
        wait_ms = self.random.choice((0, 0, 800, 4000))
        count = self.random.choice((1, 2, 4, 16))
        receive = Receive(held.entity, False, held.lock, count, self.request(), 13)
        try:
            answer = await self.ask(held.partition, receive, wait_ms=wait_ms, tries=3)
        except GaveUp:
            assert receive.request is not None
            if self.trial.chance(0.3) or held.is_orderly:
                raise
            await self.cancel(held.partition, held.entity, receive.request)
            return
        assert isinstance(answer.reply, Delivered)
        known = set(held.hand)
        held.hand.extend(s for s in answer.reply.sequences if s not in known)

    async def _settle(self, held: Held) -> None:
        if not held.hand:
            return
        if held.is_orderly:
            chosen = held.hand[: self.random.randint(1, len(held.hand))]
            settlements = [Settlement(Outcome.COMPLETE, held.lock.grant, chosen)]
        else:
            chosen = self.random.sample(held.hand, k=self.random.randint(1, len(held.hand)))
            settlements = self._split(held.lock.grant, chosen)
        done = set(chosen)
        held.hand = [sequence for sequence in held.hand if sequence not in done]
        settle = Settle(held.entity, False, held.lock, tuple(settlements), self.request(), 17)
        await self.ask(held.partition, settle, tries=6)

    def _split(self, grant: GrantNumber, chosen: list[int]) -> list[Settlement]:
        cut = self.random.randint(0, len(chosen))
        parts = [part for part in (chosen[:cut], chosen[cut:]) if part]
        return [
            Settlement(self.random.choices(_OUTCOMES, (6, 3, 2, 1))[0], grant, part, "because")
            for part in parts
        ]

    async def _set_state(self, held: Held) -> None:
        value = self.random.choice((None, b"", b"step", f"{self.name}".encode()))
        if value:
            value += str(self.random.randrange(1000)).encode()
        request = self.request()
        await self.ask(
            held.partition, SetState(held.entity, held.lock, value, request, len(value or b"") + 1)
        )

    async def _get_state(self, held: Held) -> None:
        await self.ask(held.partition, GetState(held.entity, held.lock))

    async def _renew(self, held: Held) -> None:
        await self.ask(held.partition, RenewSession(held.entity, held.lock))


class PlainWorker(Client):
    """Receives single messages under their own locks: of a plain queue, or dead letters."""

    def __init__(self, world: World, name: str, *, dead_letter: bool) -> None:
        super().__init__(world, name)
        self._dead_letter = dead_letter

    async def run(self) -> None:
        """Work until the calm."""
        while not self.world.is_calm:
            try:
                await self._turn()
            except _LOST:
                await self.pause(50, 500)
            await self.pause(10, 1500)

    async def _turn(self) -> None:
        entity = JOBS
        partition = home_of(JOBS, None)
        if self._dead_letter and self.trial.chance(0.6):
            entity, partition = ORDERS, PartitionId(self.random.randrange(PARTITIONS))
        elif not self.world.extra_has_sessions and self.trial.chance(0.15):
            entity, partition = EXTRA, home_of(EXTRA, None)
        wait_ms = self.random.choice((0, 700, 3000))
        count = self.random.choice((1, 2, 5))
        receive = Receive(entity, self._dead_letter, None, count, self.request(), 13)
        try:
            answer = await self.ask(partition, receive, wait_ms=wait_ms, tries=3)
        except GaveUp:
            if self.trial.chance(0.6):
                assert receive.request is not None
                await self.cancel(partition, entity, receive.request)
            raise
        assert isinstance(answer.reply, Delivered)
        if answer.reply.sequences:
            await self._handle(entity, partition, answer.reply)

    async def _handle(self, entity: EntityKey, partition: PartitionId, got: Delivered) -> None:
        left = list(got.sequences)
        if self.trial.chance(0.07):
            self.trial.count("client slower than its lock")
            await self.pause(5000, 14_000)
        while left and not self.trial.chance(0.1):
            await self.pause(5, 700)
            if self.trial.chance(0.2):
                tokens = tuple((got.grant, sequence) for sequence in left)
                await self.ask(partition, RenewMessages(entity, self._dead_letter, tokens))
            chosen = self.random.sample(left, k=self.random.randint(1, len(left)))
            left = [sequence for sequence in left if sequence not in chosen]
            weights = (6, 2, 2, 0 if self._dead_letter else 1)
            outcome = self.random.choices(_OUTCOMES, weights)[0]
            settlement = Settlement(outcome, got.grant, chosen, "because")
            settle = Settle(entity, self._dead_letter, None, (settlement,), self.request(), 17)
            await self.ask(partition, settle, tries=6)


class Administrator(Onlooker):
    """Makes, changes and deletes a queue, and looks at the others."""

    async def run(self) -> None:
        """Administer until the calm."""
        while not self.world.is_calm:
            with contextlib.suppress(*_LOST):
                await self._turn()
            await self.pause(800, 6000)

    async def _turn(self) -> None:
        chosen = self.random.randrange(6)
        if chosen == 0:
            await self.ask(_CATALOGUE, DeleteQueue(EXTRA, self.request(), 3), tries=6)
        elif chosen <= 2:
            self.world.extra_has_sessions = self.trial.chance(0.5)
            settings: dict[str, SettingValue] = {
                "requires_session": self.world.extra_has_sessions,
                "max_delivery_count": self.random.randint(1, 4),
                "lock_duration_ms": 5000,
            }
            request = self.request()
            uid = f"uid-{request.counter}"
            await self.ask(
                _CATALOGUE, CreateQueue("default", "extra", settings, uid, request, 5), tries=6
            )
        elif chosen == 3:
            most = self.random.randint(1, 9)
            update = UpdateQueue(EXTRA, {"max_delivery_count": most}, 0, self.request(), most)
            await self.ask(_CATALOGUE, update, tries=6)
        else:
            await self._look()
            await self.ask(home_of(JOBS, None), GetRuntime(JOBS))
