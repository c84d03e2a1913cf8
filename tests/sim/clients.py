"""What every simulated client is made of, and the senders.

A client asks, times out, asks again with the same request id, gives up, cancels, or forgets. It never
believes more than it was told.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, fields, replace

from lockstep.cluster.port import Answer
from lockstep.core.commands import Cancel, CancelScheduled, Command
from lockstep.core.errors import LockstepError, Moved, Unavailable
from lockstep.core.ids import EntityKey, PartitionId, RequestId, partition_of
from lockstep.core.placement import partition_of_entity, partition_of_session
from lockstep.core.replies import Sent
from tests.sim.cluster import PARTITIONS, START_MS
from tests.sim.ledger import Ledger
from tests.sim.letters import Letters
from tests.sim.network import Network, NoReply
from tests.sim.trial import Trial
from tests.sim.virtual_time import sleep_ms

ORDERS = EntityKey("default", "orders")  # with sessions, over all partitions
JOBS = EntityKey("default", "jobs")  # without
EXTRA = EntityKey("default", "extra")  # made, changed and deleted during the run
SESSIONS = ("orderly-1", "orderly-2", "s1", "s2", "s3")
_RETRY_MS = (20, 400)
_REUSED_AT_MOST = 3  # calls back
_IMPATIENT = 0.4  # of the calls that are tried once


class GaveUp(Exception):
    """The client does not know whether its call had an effect, and asks no more."""


@dataclass(slots=True)
class World:
    """What the clients of one run share.

    Attributes:
        trial: The run.
        network: The way to the owners.
        ledger: What is stored.
        extra_has_sessions: Whether the extra queue was last made with sessions.
        is_calm: Whether everybody must come to an end.
        has_ttls: Whether messages expire in this run.
        scheduled: The numbers of scheduled messages that somebody was told.
        deferred: The numbers that receivers wrote down, by queue, session and store.
    """

    trial: Trial
    network: Network
    ledger: Ledger
    extra_has_sessions: bool = False
    is_calm: bool = False
    has_ttls: bool = False
    scheduled: list[tuple[EntityKey, int]] = field(default_factory=list)
    deferred: dict[tuple[EntityKey, str | None, bool], list[int]] = field(default_factory=dict)


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
        self.random = world.trial.stream(name)
        self.name = name
        self._counter = itertools.count(1)
        self._last = 0

    def request(self) -> RequestId:
        """Return the id of a new call; a client that lost its memory returns that of an earlier one."""
        faults = self.world.network.faults
        luck = self.trial.strike(self.name, "reused", faults.reused) if self._last else None
        if luck is not None:
            return RequestId(self.name, max(1, self._last - luck.randrange(_REUSED_AT_MOST)))
        self._last = next(self._counter)
        return RequestId(self.name, self._last)

    def now_ms(self) -> int:
        """Return the time of day of a client whose clock is right."""
        return START_MS + int(self.trial.loop.time())

    def chance(self, probability: float) -> bool:
        """Draw: whether something of this probability happens."""
        return self.random.random() < probability

    async def ask(
        self, partition: PartitionId, command: Command, *, wait_ms: int = 0, tries: int = 5
    ) -> Answer:
        """Have a command carried out, asking again with the same id as long as it makes sense.

        Raises:
            GaveUp: Whether it had an effect is not known, or this run does without such calls.
            LockstepError: It was refused.
        """
        name = type(command).__name__
        if name in self.trial.scenario.without:
            raise GaveUp
        command = with_fingerprint(command)
        self.world.ledger.referee.memory.note_command(command)
        self.trial.count(f"command {name}")
        timeout_ms: float = wait_ms + self.random.choice((60, 400, 2500))
        if tries == 1 and self.chance(_IMPATIENT):
            timeout_ms = self.random.uniform(1, 30)
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
        memory = self.world.ledger.referee.memory
        memory.cancelled.add((request.client_id, request.counter))
        try:
            await self.ask(partition, Cancel(entity, request))
        except (GaveUp, LockstepError):
            return

    async def pause(self, least_ms: float, most_ms: float) -> None:
        """Wait for a while."""
        await sleep_ms(self.random.uniform(least_ms, most_ms))


def with_fingerprint(command: Command) -> Command:
    """Return a command with the hash of what it asks; one without a request id needs none."""
    if not any(field.name == "fingerprint" for field in fields(command)):
        return command
    return replace(command, fingerprint=zlib.crc32(repr(command).encode()))  # type: ignore[arg-type]  # it has one


class Sender(Client):
    """Sends batches, of one session or of several that live together, and to queues without sessions."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self._letters = Letters(self)

    async def run(self) -> None:
        """Send until the calm."""
        turns: Sequence[Callable[[], Awaitable[None]]] = (self._send, self._cancel_scheduled)
        while not self.world.is_calm:
            try:
                await self.random.choices(turns, (5, 1))[0]()
            except (GaveUp, LockstepError) as error:
                self.trial.note(self.name, "failed with", type(error).__name__)
            await self.pause(50, 2500)

    async def _send(self) -> None:
        entity = self.random.choices((ORDERS, JOBS, EXTRA), (6, 3, 1))[0]
        count = self.random.choice((1, 1, 2, 3, 5))
        has_sessions = entity == ORDERS or (entity == EXTRA and self.world.extra_has_sessions)
        ids, partition = self._destination(entity, count, has_sessions=has_sessions)
        send = self._letters.send(entity, ids, count, self.request())
        answer = await self.ask(partition, send, tries=self.random.choice((1, 4, 8)))
        assert isinstance(answer.reply, Sent)
        told = zip(answer.reply.numbers, send.due_ms, strict=False)
        self.world.scheduled.extend((entity, number) for number, due in told if due)

    async def _cancel_scheduled(self) -> None:
        """Take back messages that are scheduled; sometimes one of them is not, or not any more."""
        if not self.world.scheduled:
            return
        entity, first = self.random.choice(self.world.scheduled)
        home = partition_of(first)
        near = [n for e, n in self.world.scheduled if e == entity and partition_of(n) == home]
        wanted = {first, *self.random.sample(near, k=min(len(near), self.random.randint(0, 2)))}
        if self.chance(0.15):
            wanted.add(first + 1)
        cancel = CancelScheduled(entity, sorted(wanted), self.request())
        try:
            await self.ask(home, cancel, tries=6)
        finally:
            known = {(entity, number) for number in wanted}
            if self.chance(0.7):
                self.world.scheduled = [s for s in self.world.scheduled if s not in known]

    def _destination(
        self, entity: EntityKey, count: int, *, has_sessions: bool
    ) -> tuple[tuple[str | None, ...], PartitionId]:
        if not has_sessions:
            return (None,), home_of(entity, None)
        first = self.random.choice(SESSIONS)
        partition = home_of(entity, first)
        if self.chance(0.6):
            return (first,), partition
        near = [s for s in SESSIONS if home_of(entity, s) == partition]
        return tuple(self.random.choice(near) for _ in range(count)), partition
