"""Receivers: of sessions, of a plain queue and of dead letters.

They accept, receive, settle in every way, keep state, renew, close, crash, and sometimes are slower than their
locks. A worker is orderly on sessions whose name says so: it completes what it receives, in that order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lockstep.cluster.port import Answer
from lockstep.core.commands import (
    Accept,
    Browse,
    Disconnect,
    Explain,
    GetRuntime,
    GetSession,
    GetState,
    ListSessions,
    Outcome,
    Receive,
    ReceiveDeferred,
    ReleaseSession,
    RenewMessages,
    RenewSession,
    SetState,
    Settle,
    Settlement,
    TakeTurn,
)
from lockstep.core.errors import LockstepError, MessageNotFound, SessionLockLost, StateConflict
from lockstep.core.ids import (
    EntityKey,
    GrantNumber,
    PartitionId,
    SessionId,
    SessionLock,
    partition_of,
)
from lockstep.core.replies import Accepted, Browsed, Delivered, StateIs, StateSet, TurnTaken
from lockstep.v1.message_pb2 import PropertyValue
from lockstep.wire.amending import encoded_properties
from tests.sim.clients import EXTRA, JOBS, ORDERS, SESSIONS, Client, GaveUp, World, home_of
from tests.sim.cluster import PARTITIONS
from tests.sim.letters import Letters

LOST = (GaveUp, LockstepError)
PROPERTIES = [
    encoded_properties({name: PropertyValue(string_value=value)})
    for name, value in (("step", "one"), ("step", "two"), ("kind", "odd"))
]
_OUTCOMES = (
    Outcome.COMPLETE,
    Outcome.ABANDON,
    Outcome.RELEASE,
    Outcome.DEAD_LETTER,
    Outcome.DEFER,
)


@dataclass(slots=True)
class Held:
    """What a worker believes to hold."""

    entity: EntityKey
    partition: PartitionId
    lock: SessionLock
    state_version: int = 0
    hand: list[int] = field(default_factory=list)

    @property
    def is_orderly(self) -> bool:
        """Whether this session's messages are completed in order."""
        return self.lock.session_id.startswith("orderly")


_DISCONNECTED = 0.5  # of the receivers that crash, those whose stream the broker sees break


class Onlooker(Client):
    """Looks at sessions and messages without holding them."""

    async def look(self) -> None:
        """Look once at everything that can be looked at."""
        session_id = SessionId(self.random.choice(SESSIONS))
        await self.ask(home_of(ORDERS, session_id), GetSession(ORDERS, session_id), tries=1)
        number = PartitionId(self.random.randrange(PARTITIONS))
        await self.ask(number, ListSessions(ORDERS, 100), tries=1)
        await self.browse(number)
        await self.ask(home_of(JOBS, None), GetRuntime(JOBS), tries=1)
        await self.ask(home_of(ORDERS, session_id), Explain(ORDERS, session_id), tries=1)

    async def browse(self, number: PartitionId) -> None:
        """Browse a queue, a dead-letter store or a session."""
        entity = ORDERS if self.chance(0.6) else JOBS
        session_id: SessionId | None = None
        if entity == JOBS:
            number = home_of(JOBS, None)
        elif self.chance(0.5):
            session_id = SessionId(self.random.choice(SESSIONS))
            number = home_of(ORDERS, session_id)
        dead_letter = session_id is None and self.chance(0.3)
        await self.browse_from(number, entity, session_id, 0, dead_letter=dead_letter)

    async def browse_from(
        self,
        number: PartitionId,
        entity: EntityKey,
        session_id: SessionId | None,
        first: int,
        *,
        dead_letter: bool = False,
    ) -> list[int]:
        """Browse a page, and return the numbers that it shows."""
        browse = Browse(entity, dead_letter, session_id, first, self.random.choice((1, 3, 100)))
        answer = await self.ask(number, browse, tries=2)
        assert isinstance(answer.reply, Browsed)
        return list(answer.reply.delivered.sequences)


class Receiver(Onlooker):
    """What receivers with and without sessions share."""

    def settlement(self, outcome: Outcome, grant: GrantNumber, part: list[int]) -> Settlement:
        """Decide about some messages; of those that are abandoned some are wanted later (ADD-6)."""
        is_later = outcome is Outcome.ABANDON and self.chance(0.3)
        delay_ms = self.random.choice((200, 2000, 6000)) if is_later else 0
        properties: dict[str, bytes] = {}
        if outcome not in (Outcome.COMPLETE, Outcome.RELEASE) and self.chance(0.3):
            properties = self.random.choice(PROPERTIES)  # MSG-8
        return Settlement(outcome, grant, part, "because", "", properties, delay_ms)

    def note_deferred(
        self, entity: EntityKey, session_id: str | None, settlement: Settlement, *, dead: bool
    ) -> None:
        """Write down which messages are about to be deferred."""
        if settlement.outcome is Outcome.DEFER:
            known = self.world.deferred.setdefault((entity, session_id, dead), [])
            known.extend(s for s in settlement.sequences if s not in known)

    def _wanted(
        self,
        entity: EntityKey,
        partition: PartitionId,
        session_id: str | None,
        stray: list[int],
        *,
        dead: bool,
    ) -> list[int]:
        """Choose which deferred messages to ask for; now and then one of another session, or one that is not."""
        mine: list[int] = []
        others = list(stray)
        for (key, name, is_dead), numbers in self.world.deferred.items():
            if key == entity and is_dead == dead:
                near = [s for s in numbers if partition_of(s) == partition]
                (mine if name == session_id else others).extend(near)
        wanted = self.random.sample(mine, k=min(len(mine), self.random.randint(1, 3)))
        if others and self.chance(0.2):
            wanted = [*wanted[: self.random.choice((0, 1))], self.random.choice(others)]
        return wanted

    async def crash(
        self,
        partition: PartitionId,
        entity: EntityKey,
        lock: SessionLock | None,
        tokens: tuple[tuple[GrantNumber, int], ...] = (),
        *,
        dead: bool = False,
    ) -> None:
        """Forget what is in hand; perhaps the front end sees the stream break, and tells the owner (RACE-19)."""
        self.trial.count("client crash")
        if self.trial.strike(self.name, "stream_broken", _DISCONNECTED) is None:
            return
        broken = [(lock.grant, 0)] if lock is not None else tokens
        memory = self.world.ledger.referee.memory
        memory.broken.update((partition, grant, sequence) for grant, sequence in broken)
        with contextlib.suppress(*LOST):
            await self.ask(partition, Disconnect(entity, dead, lock, tokens), tries=3)

    async def receive_deferred(
        self,
        entity: EntityKey,
        partition: PartitionId,
        lock: SessionLock | None,
        stray: list[int],
        *,
        dead: bool,
    ) -> Delivered | None:
        """Ask for deferred messages by their numbers; sometimes for one that is not deferred."""
        session_id = lock.session_id if lock is not None else None
        known = self.world.deferred.get((entity, session_id, dead), [])
        wanted = self._wanted(entity, partition, session_id, stray, dead=dead)
        if not wanted:
            return None
        deletes = self.chance(0.2)
        command = ReceiveDeferred(entity, dead, lock, wanted, self.request(), deletes=deletes)
        try:
            answer = await self.ask(partition, command, tries=self.random.choice((1, 3)))
        except MessageNotFound:
            missing = set(wanted) if len(wanted) == 1 else {self.random.choice(wanted)}
            known[:] = [s for s in known if s not in missing]
            return None
        except GaveUp:
            if self.chance(0.5) and command.request is not None:
                await self.cancel(partition, entity, command.request)
            raise
        assert isinstance(answer.reply, Delivered)
        if deletes:
            known[:] = [s for s in known if s not in wanted]
            return None
        return answer.reply


class SessionWorker(Receiver):
    """Accepts sessions and works on them."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self._letters = Letters(self)

    async def run(self) -> None:
        """Work until the calm."""
        while not self.world.is_calm:
            held = await self._accept()
            if held is None:
                await self.pause(100, 1500)
                with contextlib.suppress(*LOST):
                    await self.look()
                continue
            try:
                await self._work(held)
            except (SessionLockLost, GaveUp):
                await self.pause(1, 50)
            except LockstepError as error:
                self.trial.note(self.name, "stopped by", type(error).__name__)
                await self.pause(1, 50)

    async def _accept(self) -> Held | None:
        entity = EXTRA if self.world.extra_has_sessions and self.chance(0.15) else ORDERS
        session_id = SessionId(self.random.choice(SESSIONS)) if self.chance(0.5) else None
        partition = PartitionId(self.random.randrange(PARTITIONS))
        if session_id is not None:
            partition = home_of(entity, session_id)
        wait_ms = self.random.choice((0, 500, 4000)) if session_id is None else 0
        accept = Accept(entity, session_id, self.name, self.request())
        try:
            answer = await self.ask(
                partition, accept, wait_ms=wait_ms, tries=self.random.choice((1, 1, 3))
            )
        except GaveUp:
            assert accept.request is not None
            if self.chance(0.4):
                await self.cancel(partition, entity, accept.request)
            return None
        except LockstepError:
            return None
        assert isinstance(answer.reply, Accepted)
        return Held(entity, partition, answer.reply.session, answer.reply.state_version)

    async def _work(self, held: Held) -> None:
        turns: dict[Callable[[Held], Awaitable[None]], int] = {
            self._settle: 2,
            self._take_turn: 2,
            self._set_state: 1,
            self._get_state: 1,
            self._renew: 1,
            self._receive_deferred: 2,
        }
        for _ in range(self.random.randint(1, 7)):
            await self._receive(held)
            await self._maybe_think()
            deck = [turn for turn, cards in turns.items() for _ in range(cards)]
            for turn in self.random.sample(deck, k=self.random.randint(1, 3)):
                await turn(held)
            if self.trial.strike(self.name, "confused", self.world.network.faults.confused):
                await self._settle_unseen(held)
        if self.chance(0.7):
            await self.ask(held.partition, ReleaseSession(held.entity, held.lock, self.request()))
            return
        await self.crash(held.partition, held.entity, held.lock)

    async def _maybe_think(self) -> None:
        if self.chance(0.06):
            self.trial.count("client slower than its lock")
            await self.pause(5000, 14_000)
        else:
            await self.pause(5, 900)

    async def _receive(self, held: Held) -> None:
        wait_ms = self.random.choice((0, 0, 800, 4000))
        count = self.random.choice((1, 2, 4, 16))
        deletes = self.chance(0.1)
        receive = Receive(held.entity, False, held.lock, count, self.request(), deletes=deletes)
        try:
            answer = await self.ask(held.partition, receive, wait_ms=wait_ms, tries=3)
        except GaveUp:
            assert receive.request is not None
            if self.chance(0.3) or held.is_orderly:
                raise
            await self.cancel(held.partition, held.entity, receive.request)
            return
        assert isinstance(answer.reply, Delivered)
        if not deletes:
            held.hand.extend(s for s in answer.reply.sequences if s not in set(held.hand))

    async def _receive_deferred(self, held: Held) -> None:
        got = await self.receive_deferred(
            held.entity, held.partition, held.lock, held.hand, dead=False
        )
        if got is not None:
            held.hand.extend(s for s in got.sequences if s not in set(held.hand))

    async def _settle(self, held: Held) -> None:
        if not held.hand:
            return
        chosen = self._choose(held, self.random.randint(1, len(held.hand)))
        settlements = [Settlement(Outcome.COMPLETE, held.lock.grant, chosen)]
        if not held.is_orderly:
            settlements = self._split(held.lock.grant, chosen)
        for settlement in settlements:
            self.note_deferred(held.entity, held.lock.session_id, settlement, dead=False)
        settle = Settle(held.entity, False, held.lock, tuple(settlements), self.request())
        await self.ask(held.partition, settle, tries=6)

    def _choose(self, held: Held, count: int) -> list[int]:
        """Take so many messages out of the worker's hand."""
        chosen = held.hand[:count] if held.is_orderly else self.random.sample(held.hand, k=count)
        done = set(chosen)
        held.hand = [sequence for sequence in held.hand if sequence not in done]
        return chosen

    async def _take_turn(self, held: Held) -> None:
        """Complete, set the state and send, all at once, or some of it (ADD-8)."""
        done = self._choose(held, self.random.randint(0, min(3, len(held.hand))))
        outputs = None
        if self.chance(0.6):
            near = [s for s in SESSIONS if home_of(held.entity, s) == held.partition]
            count = self.random.choice((1, 1, 2))
            ids = tuple(self.random.choice(near) for _ in range(count))
            outputs = self._letters.send(held.entity, ids, count, None)
        sets_state = self.chance(0.6) or (not done and outputs is None)
        turn = TakeTurn(
            held.entity,
            held.lock,
            done,
            outputs,
            sets_state,
            self._new_state() if sets_state else None,
            self._if_version(held) if sets_state else None,
            self.request(),
        )
        try:
            answer = await self.ask(held.partition, turn, tries=self.random.choice((1, 6)))
        except StateConflict as error:
            held.state_version = int(error.details["version"])
            held.hand = [*done, *held.hand]
            return
        assert isinstance(answer.reply, TurnTaken)
        held.state_version = answer.reply.state_version

    def _split(self, grant: GrantNumber, chosen: list[int]) -> list[Settlement]:
        cut = self.random.randint(0, len(chosen))
        parts = [part for part in (chosen[:cut], chosen[cut:]) if part]
        return [
            self.settlement(self.random.choices(_OUTCOMES, (6, 4, 3, 2, 3))[0], grant, part)
            for part in parts
        ]

    async def _settle_unseen(self, held: Held) -> None:
        """Settle messages that were only looked at: nothing may come of it (I-4)."""
        numbers = await self.browse_from(held.partition, held.entity, held.lock.session_id, 0)
        unseen = [s for s in numbers if s not in held.hand]
        if unseen:
            wrong = Settlement(Outcome.COMPLETE, held.lock.grant, unseen)
            if self.chance(0.5):
                properties = self.random.choice(PROPERTIES)  # MSG-8
                wrong = Settlement(Outcome.ABANDON, held.lock.grant, unseen, properties=properties)
            settle = Settle(held.entity, False, held.lock, (wrong,), self.request())
            await self.ask(held.partition, settle, tries=2)

    async def _set_state(self, held: Held) -> None:
        value, if_version = self._new_state(), self._if_version(held)
        request = self.request()
        set_state = SetState(held.entity, held.lock, value, request, if_version=if_version)
        try:
            answer = await self.ask(held.partition, set_state)
        except StateConflict as error:
            held.state_version = int(error.details["version"])
            return
        assert isinstance(answer.reply, StateSet)
        held.state_version = answer.reply.version

    def _new_state(self) -> bytes | None:
        value = self.random.choice((None, b"", b"step", f"{self.name}".encode()))
        return value + str(self.random.randrange(1000)).encode() if value else value

    def _if_version(self, held: Held) -> int | None:
        if self.chance(0.4):
            return held.state_version - (1 if self.chance(0.2) else 0)
        return None

    async def _get_state(self, held: Held) -> None:
        answer: Answer = await self.ask(held.partition, GetState(held.entity, held.lock))
        assert isinstance(answer.reply, StateIs)
        held.state_version = answer.reply.version

    async def _renew(self, held: Held) -> None:
        await self.ask(held.partition, RenewSession(held.entity, held.lock))


class PlainWorker(Receiver):
    """Receives single messages under their own locks: of a plain queue, or dead letters."""

    def __init__(self, world: World, name: str, *, dead_letter: bool) -> None:
        super().__init__(world, name)
        self._dead_letter = dead_letter

    async def run(self) -> None:
        """Work until the calm."""
        while not self.world.is_calm:
            try:
                await self._turn()
            except LOST:
                await self.pause(50, 500)
            await self.pause(10, 1500)

    async def _turn(self) -> None:
        entity = JOBS
        partition = home_of(JOBS, None)
        if self._dead_letter and self.chance(0.6):
            entity, partition = ORDERS, PartitionId(self.random.randrange(PARTITIONS))
        elif not self.world.extra_has_sessions and self.chance(0.15):
            entity, partition = EXTRA, home_of(EXTRA, None)
        if self.chance(0.3):
            dead = self._dead_letter
            got = await self.receive_deferred(entity, partition, None, [], dead=dead)
        else:
            got = await self._receive(entity, partition)
        if got is not None and got.sequences and got.grant:
            await self._handle(entity, partition, got)

    async def _receive(self, entity: EntityKey, partition: PartitionId) -> Delivered:
        wait_ms = self.random.choice((0, 700, 3000))
        count = self.random.choice((1, 2, 5))
        deletes = self.chance(0.1)
        receive = Receive(entity, self._dead_letter, None, count, self.request(), deletes=deletes)
        try:
            answer = await self.ask(
                partition, receive, wait_ms=wait_ms, tries=self.random.choice((1, 1, 3))
            )
        except GaveUp:
            if self.chance(0.4):
                assert receive.request is not None
                await self.cancel(partition, entity, receive.request)
            raise
        assert isinstance(answer.reply, Delivered)
        return answer.reply

    async def _handle(self, entity: EntityKey, partition: PartitionId, got: Delivered) -> None:
        left = list(got.sequences)
        if self.chance(0.07):
            self.trial.count("client slower than its lock")
            await self.pause(5000, 14_000)
        while left and not self.chance(0.1):
            await self.pause(5, 700)
            if self.chance(0.2):
                tokens = tuple((got.grant, sequence) for sequence in left)
                await self.ask(partition, RenewMessages(entity, self._dead_letter, tokens))
            chosen = self.random.sample(left, k=self.random.randint(1, len(left)))
            left = [sequence for sequence in left if sequence not in chosen]
            weights = (2, 2, 2, 0, 2) if self._dead_letter else (5, 2, 2, 3, 2)
            outcome = self.random.choices(_OUTCOMES, weights)[0]
            settlement = self.settlement(outcome, got.grant, chosen)
            self.note_deferred(entity, None, settlement, dead=self._dead_letter)
            settle = Settle(entity, self._dead_letter, None, (settlement,), self.request())
            await self.ask(partition, settle, tries=6)
        if left:
            tokens = tuple((got.grant, sequence) for sequence in left)
            await self.crash(partition, entity, None, tokens, dead=self._dead_letter)
