"""What every simulated client is made of, and the senders.

A client asks, times out, asks again with the same request id, gives up, cancels, or forgets. It never
believes more than it was told.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from lockstep.cluster.port import Answer
from lockstep.core.commands import Cancel, Command, Send
from lockstep.core.errors import LockstepError, Moved, Unavailable
from lockstep.core.ids import EntityKey, PartitionId, RequestId
from lockstep.core.placement import partition_of_entity, partition_of_session
from lockstep.core.replies import Sent
from tests.sim.cluster import PARTITIONS
from tests.sim.ledger import Ledger
from tests.sim.network import Network, NoReply
from tests.sim.trial import Trial
from tests.sim.virtual_time import sleep_ms

ORDERS = EntityKey("default", "orders")  # with sessions, over all partitions
JOBS = EntityKey("default", "jobs")  # without
EXTRA = EntityKey("default", "extra")  # made, changed and deleted during the run
SESSIONS = ("orderly-1", "orderly-2", "s1", "s2", "s3")
_RETRY_MS = (20, 400)


class GaveUp(Exception):
    """The client does not know whether its call had an effect, and asks no more."""


@dataclass(slots=True)
class World:
    """What the clients of one run share."""

    trial: Trial
    network: Network
    ledger: Ledger
    extra_has_sessions: bool = False
    is_calm: bool = False
    sent: dict[tuple[str, int], Sent] = field(default_factory=dict)


def home_of(entity: EntityKey, session_id: str | None) -> PartitionId:
    """Return where a session, or an entity without sessions, lives."""
    if session_id is None:
        return partition_of_entity(entity, PARTITIONS)
    return partition_of_session(entity, session_id, PARTITIONS)


class Client:
    """A client with an id of its own and its calls."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.trial = world.trial
        self.random = world.trial.random
        self.name = name
        self._counter = itertools.count(1)

    def request(self) -> RequestId:
        """Return the id of a new call."""
        return RequestId(self.name, next(self._counter))

    async def ask(
        self, partition: PartitionId, command: Command, *, wait_ms: int = 0, tries: int = 5
    ) -> Answer:
        """Have a command carried out, asking again with the same id as long as it makes sense.

        Raises:
            GaveUp: Whether it had an effect is not known.
            LockstepError: It was refused.
        """
        request = getattr(command, "request", None)
        if request is not None and not isinstance(command, Cancel):
            self.world.ledger.referee.commands[tuple(request)] = command
        self.trial.count(f"command {type(command).__name__}")
        timeout_ms = wait_ms + self.random.choice((60, 400, 2500))
        for left in reversed(range(tries)):
            try:
                return await self.world.network.call(
                    self.name,
                    partition,
                    command,
                    wait_ms=wait_ms,
                    timeout_ms=timeout_ms,
                    is_last=not left,
                )
            except (NoReply, Moved, Unavailable):
                await self.pause(*_RETRY_MS)
        raise GaveUp

    async def cancel(self, partition: PartitionId, entity: EntityKey, request: RequestId) -> None:
        """Undo an accept or a receive whose reply did not come, or forget about it."""
        self.world.ledger.referee.cancelled.add((request.client_id, request.counter))
        try:
            await self.ask(partition, Cancel(entity, request))
        except (GaveUp, LockstepError):
            return

    async def pause(self, least_ms: float, most_ms: float) -> None:
        """Wait for a while."""
        await sleep_ms(self.random.uniform(least_ms, most_ms))


class Sender(Client):
    """Sends batches, of one session or of several that live together, and to queues without sessions."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self._bodies = itertools.count(1)

    async def run(self) -> None:
        """Send until the calm."""
        while not self.world.is_calm:
            await self._send_one()
            await self.pause(50, 2500)

    async def _send_one(self) -> None:
        entity = self.random.choices((ORDERS, JOBS, EXTRA), (6, 3, 1))[0]
        count = self.random.choice((1, 1, 2, 3, 5))
        has_sessions = entity == ORDERS or (entity == EXTRA and self.world.extra_has_sessions)
        ids, partition = self._destination(entity, count, has_sessions=has_sessions)
        bodies = tuple(self._body() for _ in range(count))
        request = self.request()
        send = Send(entity, bodies, ids, request, hash_of(bodies))
        try:
            answer = await self.ask(partition, send, tries=self.random.choice((1, 4, 8)))
        except (GaveUp, LockstepError):
            return
        assert isinstance(answer.reply, Sent)
        self.world.sent[request.client_id, request.counter] = answer.reply

    def _destination(
        self, entity: EntityKey, count: int, *, has_sessions: bool
    ) -> tuple[tuple[str | None, ...], PartitionId]:
        if not has_sessions:
            return (None,), home_of(entity, None)
        first = self.random.choice(SESSIONS)
        partition = home_of(entity, first)
        if self.trial.chance(0.6):
            return (first,), partition
        near = [s for s in SESSIONS if home_of(entity, s) == partition]
        return tuple(self.random.choice(near) for _ in range(count)), partition

    def _body(self) -> bytes:
        return f"{self.name}-{next(self._bodies)}".encode() + b"." * self.random.choice((0, 20, 90))


def hash_of(bodies: tuple[bytes, ...]) -> int:
    """Return a fingerprint that is the same in every run."""
    return sum(len(body) * 31 + body[-1] for body in bodies)
