"""Who uses the cluster during the storm: senders, workers with sessions, workers without, one who defines queues.

Here belongs what each of them does. Never here: how a call is made (`clients`).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

from lockstep.core.errors import LockstepError
from lockstep.core.ids import EntityKey
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import entity_pb2, message_pb2, session_pb2
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.simcluster.clients import JOBS, ORDERS, SESSIONS, Client, GaveUp
from tests.simcluster.nodes import World

_LOST = (GaveUp, LockstepError)
LOCK_MS = 5000


class Sender(Client):
    """Sends batches over several sessions, so over several partitions, and to the queue without sessions."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self._bodies = 0

    async def run(self) -> None:
        """Send until the calm."""
        while not self.world.is_calm:
            with contextlib.suppress(*_LOST):
                await self.send_some()
            await self.pause(100, 2500)

    async def send_some(self) -> None:
        """Send one batch."""
        tries = self.random.choice((1, 4, 8))
        if self.chance(0.3):
            await self.send(JOBS, [self.letter(None)], tries=tries)
            return
        ids = self.random.choices(SESSIONS, k=self.random.choice((1, 2, 4, 6)))
        await self.send(ORDERS, [self.letter(name) for name in ids], tries=tries)

    def letter(self, session_id: str | None) -> message_pb2.Message:
        """Return a message that no other one equals."""
        self._bodies += 1
        return message_pb2.Message(
            body=f"{self.name}-{self._bodies}".encode(), session_id=session_id
        )


@dataclass(slots=True)
class _Held:
    """A session that a worker has.

    Attributes:
        lock: What it shows.
        version: That of the state, as it was told last.
        hand: The messages that it received and has not settled.
    """

    lock: session_pb2.SessionLock
    version: int
    hand: list[int] = field(default_factory=list)


class SessionWorker(Client):
    """Accepts sessions, by name or the next one, and works on them."""

    async def run(self) -> None:
        """Work until the calm."""
        while not self.world.is_calm:
            try:
                held = await self._accept()
                await self._work(held)
            except _LOST:
                await self.pause(20, 600)

    async def _accept(self) -> _Held:
        name = self.random.choice(SESSIONS) if self.chance(0.35) else None
        wait_ms = self.random.choice((0, 1500, 6000)) if name is None else 0
        tries = self.random.choice((1, 3, 5))
        got = await self.accept(ORDERS, name, wait_ms=wait_ms, tries=tries)
        return _Held(got.session, got.state.version)

    async def _work(self, held: _Held) -> None:
        turns = (self._settle, self._settle, self._settle, self._set_state, self._renew, self._look)
        for _ in range(self.random.randint(1, 5)):
            await self._receive(held)
            await self.pause(5, 700)
            if self.chance(0.04):
                self.trial.count("client slower than its lock")
                await self.pause(LOCK_MS, 2 * LOCK_MS)
            for turn in self.random.sample(turns, k=2):
                await turn(held)
        if self.chance(0.2):
            self.trial.count("client crash")
            return
        release = messaging.ReleaseSessionRequest(
            entity=ORDERS.name, request_id=self.request_id(), session=held.lock
        )
        await self.ask("ReleaseSession", release, messaging.ReleaseSessionResponse)

    async def _receive(self, held: _Held) -> None:
        request = messaging.ReceiveMessagesRequest(
            entity=ORDERS.name,
            request_id=self.request_id(),
            session=held.lock,
            max_messages=self.random.choice((1, 3, 16)),
            mode=messaging.RECEIVE_MODE_PEEK_LOCK,
        )
        wait_ms = self.random.choice((0, 0, 1000))
        request.max_wait.FromMilliseconds(wait_ms)
        response = messaging.ReceiveMessagesResponse
        got = await self.ask("ReceiveMessages", request, response, wait_ms=wait_ms)
        numbers = list(got.sequence_numbers)
        self.trial.check(numbers == sorted(numbers), "I-2: out of order", numbers)
        held.hand.extend(number for number in numbers if number not in held.hand)

    async def _settle(self, held: _Held) -> None:
        if not held.hand:
            return
        count = self.random.randint(1, len(held.hand))
        chosen, held.hand = held.hand[:count], held.hand[count:]
        outcome = self.random.choices(
            ("complete", "abandon", "release", "dead_letter"), (8, 1, 1, 1)
        )
        request = messaging.SettleMessagesRequest(
            entity=ORDERS.name, request_id=self.request_id(), session=held.lock
        )
        request.settlements.append(settlement(outcome[0], numbers=chosen))
        await self.ask("SettleMessages", request, messaging.SettleMessagesResponse, tries=6)

    async def _set_state(self, held: _Held) -> None:
        request = messaging.SetSessionStateRequest(
            entity=ORDERS.name,
            request_id=self.request_id(),
            session=held.lock,
            value=f"{self.name} {self.random.randrange(1000)}".encode(),
        )
        if self.chance(0.5):
            request.if_version = held.version
        got = await self.ask("SetSessionState", request, messaging.SetSessionStateResponse)
        held.version = got.version

    async def _renew(self, held: _Held) -> None:
        request = messaging.RenewSessionLockRequest(entity=ORDERS.name, session=held.lock)
        await self.ask("RenewSessionLock", request, messaging.RenewSessionLockResponse)

    async def _look(self, held: _Held) -> None:
        request = messaging.GetSessionStateRequest(entity=ORDERS.name, session=held.lock)
        got = await self.ask("GetSessionState", request, messaging.GetSessionStateResponse)
        held.version = got.state.version


class Onlooker(Client):
    """Looks at sessions and their messages; what it is shown is judged where it leaves an owner."""

    async def run(self) -> None:
        """Look until the calm."""
        while not self.world.is_calm:
            with contextlib.suppress(*_LOST):
                await self._look()
            await self.pause(20, 800)

    async def _look(self) -> None:
        name = self.random.choice(SESSIONS)
        if self.chance(0.5):
            peek = messaging.PeekMessagesRequest(
                entity=ORDERS.name, session_id=name, max_messages=5
            )
            await self.ask("PeekMessages", peek, messaging.PeekMessagesResponse, tries=2)
            return
        look = admin.GetSessionRequest(queue=ORDERS.name, session_id=name)
        await self.ask("GetSession", look, admin.GetSessionResponse, tries=2)


class PlainWorker(Client):
    """Receives single messages under their own locks: of the queue without sessions, and dead letters."""

    async def run(self) -> None:
        """Work until the calm."""
        while not self.world.is_calm:
            with contextlib.suppress(*_LOST):
                await self._turn()
            await self.pause(20, 1500)

    async def _turn(self) -> None:
        path = self.random.choice((JOBS.name, JOBS.name, f"{ORDERS.name}/$DeadLetterQueue"))
        wait_ms = self.random.choice((0, 1000, 4000))
        got = await self.receive(path, wait_ms=wait_ms, tries=self.random.choice((1, 3)))
        tokens = tokens_of(got)
        if not tokens or self.chance(0.1):
            return
        await self.pause(5, 500)
        if self.chance(0.2):
            renew = messaging.RenewMessageLocksRequest(entity=path, lock_tokens=tokens)
            await self.ask("RenewMessageLocks", renew, messaging.RenewMessageLocksResponse)
        outcome = self.random.choice(("complete", "complete", "abandon", "release"))
        await self.settle(path, outcome, tokens)

    async def receive(self, path: str, *, wait_ms: int = 0, tries: int = 3, most: int = 4) -> Any:
        """Receive messages of a store without sessions."""
        request = messaging.ReceiveMessagesRequest(
            entity=path,
            request_id=self.request_id(),
            max_messages=most,
            mode=messaging.RECEIVE_MODE_PEEK_LOCK,
            receiver_client_id=self.name,
        )
        request.max_wait.FromMilliseconds(wait_ms)
        response = messaging.ReceiveMessagesResponse
        return await self.ask("ReceiveMessages", request, response, wait_ms=wait_ms, tries=tries)

    async def settle(self, path: str, outcome: str, tokens: list[bytes]) -> None:
        """Settle messages by their lock tokens."""
        request = messaging.SettleMessagesRequest(entity=path, request_id=self.request_id())
        request.settlements.append(settlement(outcome, tokens=tokens))
        await self.ask("SettleMessages", request, messaging.SettleMessagesResponse, tries=6)


class Administrator(Client):
    """Creates, changes and deletes queues; what was acknowledged is in force everywhere (ADD-12)."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self._made = 0

    async def run(self) -> None:
        """Define until the calm."""
        while not self.world.is_calm:
            await self.pause(500, 6000)
            with contextlib.suppress(*_LOST):
                await self._turn()

    async def _turn(self) -> None:
        self._made += 1
        name = f"extra{self._made}"
        await self.create(name, spread=True)
        await self.pause(10, 2000)
        if self.chance(0.5):
            request = admin.DeleteQueueRequest(name=name, request_id=self.request_id())
            await self.ask("DeleteQueue", request, admin.DeleteQueueResponse, tries=6)
            self._check(name, is_there=False)

    async def create(self, name: str, *, spread: bool) -> None:
        """Create a queue with sessions, or one without."""
        settings = entity_pb2.QueueSettings(requires_session=spread, max_delivery_count=3)
        settings.lock_duration.FromMilliseconds(LOCK_MS)
        request = admin.CreateQueueRequest(
            name=name, settings=settings, request_id=self.request_id()
        )
        await self.ask("CreateQueue", request, admin.CreateQueueResponse, tries=8)
        self._check(name, is_there=True)

    def _check(self, name: str, *, is_there: bool) -> None:
        """ADD-12: a definition counts as changed only when every partition has it."""
        for number, court in enumerate(self.world.courts):
            found = court.ledger.books[number].number_of(EntityKey("default", name)) is not None
            self.trial.check(found == is_there, "ADD-12: acknowledged, but not on", number, name)


def tokens_of(got: Any) -> list[bytes]:
    """Return the lock tokens of what was delivered."""
    return [
        got.lock_token_prefix + number.to_bytes(8, "big")
        for number in got.sequence_numbers
        if got.lock_token_prefix
    ]


def settlement(
    outcome: str, *, numbers: list[int] | None = None, tokens: list[bytes] | None = None
) -> messaging.Settlement:
    settlement = messaging.Settlement(sequence_numbers=numbers, lock_tokens=tokens)
    getattr(settlement, outcome).SetInParent()
    return settlement
