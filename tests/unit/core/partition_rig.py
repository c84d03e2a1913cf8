"""A partition with queues, driven by commands without a store, for the unit tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from lockstep.core.changes import Change
from lockstep.core.commands import (
    Accept,
    ApplyDefinition,
    Command,
    CreateQueue,
    Outcome,
    Receive,
    Send,
    Settle,
    Settlement,
)
from lockstep.core.decision import Decision
from lockstep.core.entity import QueueDefinition, SettingValue
from lockstep.core.ids import (
    EntityKey,
    GrantNumber,
    PartitionEpoch,
    PartitionId,
    SessionId,
    SessionLock,
)
from lockstep.core.limits import Limits
from lockstep.core.partition import Partition
from lockstep.core.replies import Accepted, Catalogued, Delivered, Reply, Sent, Settled
from lockstep.core.snapshot import restore_partition
from lockstep.storage.memory import MemoryStore

SESSIONS = EntityKey("default", "sessions")
PLAIN = EntityKey("default", "plain")
_EPOCH = PartitionEpoch(0, 0, 0)
_Kind = TypeVar("_Kind")


class Rig:
    """Steps commands at a time that the test sets, and keeps what they changed."""

    def __init__(
        self, partition: int = 0, limits: Limits | None = None, *, partitions: int = 1
    ) -> None:
        self.partition = Partition(
            PartitionId(partition), limits or Limits(), now_ms=1_000, partitions=partitions
        )
        self.now_ms = 1_000
        self.store = MemoryStore()

    def decide(self, command: Command) -> Decision:
        """Step a command and store what it changed."""
        decision = self.partition.step(command, self.now_ms)
        self.store.apply(self.partition.partition, _EPOCH, decision.changes)
        return decision

    def step(self, command: Command, kind: type[_Kind]) -> _Kind:
        """Step a command and return its reply, which must be of this kind."""
        reply: Reply = self.decide(command).reply
        assert isinstance(reply, kind)
        return reply

    def create(self, key: EntityKey, **settings: SettingValue) -> QueueDefinition:
        """Enter a queue in the catalogue and apply it."""
        command = CreateQueue(key.namespace, key.name, settings, f"uid-{key.name}")
        definition = self.step(command, Catalogued).definition
        self.decide(ApplyDefinition(definition))
        return definition

    def send(self, key: EntityKey, *bodies: bytes, session: str | None = None) -> int:
        """Send a batch and return its first number."""
        return self.step(Send(key, bodies, (session,)), Sent).first_sequence

    def accept(self, session_id: str = "s") -> SessionLock:
        """Take a session of the session queue."""
        return self.step(Accept(SESSIONS, SessionId(session_id), "holder"), Accepted).session

    def receive(self, lock: SessionLock | None, maximum: int = 100) -> Delivered:
        """Receive under a lock, or without one from the plain queue."""
        key = PLAIN if lock is None else SESSIONS
        return self.step(Receive(key, False, lock, maximum), Delivered)

    def settle(
        self, lock: SessionLock | None, outcome: Outcome, grant: GrantNumber, numbers: Sequence[int]
    ) -> None:
        """Settle messages; all must be settled."""
        key = PLAIN if lock is None else SESSIONS
        settlement = Settlement(outcome, grant, numbers)
        settled = self.step(Settle(key, False, lock, (settlement,)), Settled)
        assert not settled.failures

    async def reopened(self, now_ms: int) -> Partition:
        """Return the partition that is stored, as its next owner opens it."""
        snapshot = await self.store.open(self.partition.partition, _EPOCH)
        was = self.partition
        return restore_partition(
            was.partition, was.limits, snapshot, now_ms, partitions=was.partitions
        )


def changes_of(decision: Decision, kind: type[_Kind]) -> list[_Kind]:
    """Return the changes of one kind."""
    changes: tuple[Change, ...] = decision.changes
    return [change for change in changes if isinstance(change, kind)]
