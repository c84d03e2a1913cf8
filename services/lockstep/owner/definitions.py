"""Bringing definitions from the catalogue to every partition.

Here belongs what the owner of the catalogue owes the others (ADD-12). Never here: the catalogue itself (`core`). The
laws: a definition counts as changed only when every partition has it; they reach a partition in the order of their
revisions, one after the other, all partitions at once; a partition that was away is caught up when it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from lockstep.cluster.port import Answer
from lockstep.core.commands import (
    ApplyDefinition,
    ApplyDefinitions,
    ApplyDeletion,
    Command,
    ForgetDeletions,
    GetRevision,
    ListDefinitions,
)
from lockstep.core.errors import LockstepError
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.replies import Applied, Definitions
from lockstep.runtime.tasks import together

CATALOGUE = PartitionId(0)
_DELETIONS_KEPT = 64  # so that forgetting costs little
_AT_ONCE = 64  # changes in one commit of a partition

Call = Callable[[PartitionId, Command], Awaitable[Answer]]
EpochOf = Callable[[PartitionId], PartitionEpoch | None]


class DefinitionBringer:
    """Brings the catalogue's definitions to the partitions of the cluster, while it is owned here."""

    def __init__(self, partitions: Sequence[PartitionId], call: Call, epoch_of: EpochOf) -> None:
        """Reach partitions.

        Args:
            partitions: All of the cluster.
            call: Has a command carried out by whoever owns a partition.
            epoch_of: Under which epoch a partition is owned now, None = not known: then it is asked how far it is.
        """
        self._partitions = partitions
        self._call = call
        self._epoch_of = epoch_of
        # How far each partition was, and under which epoch; another owner may have opened an older state of it.
        self._known: dict[PartitionId, tuple[PartitionEpoch, int]] = {}
        self._turn = asyncio.Lock()
        # Of those who asked, the last one, and the last one whose turn is over: with that failure, or well.
        self._asked = 0
        self._brought = 0
        self._failure: LockstepError | None = None

    async def bring(self) -> None:
        """Apply to each partition what it has missed, all that the catalogue has when this is called included.

        One who calls while definitions are being brought shares the next turn with all others who did.

        Raises:
            LockstepError: Some partition could not be reached, or refused; the others have everything.
        """
        self._asked += 1
        own = self._asked
        async with self._turn:
            if self._brought < own:
                await self._bring_all()
            elif self._failure is not None:
                raise type(self._failure)(self._failure.message, details=self._failure.details)

    async def _bring_all(self) -> None:
        asked = self._asked
        try:
            await self._bring_now()
        except LockstepError as error:
            self._brought, self._failure = asked, error
            raise
        self._brought, self._failure = asked, None

    async def _bring_now(self) -> None:
        definitions = (await self._call(CATALOGUE, ListDefinitions())).reply
        assert isinstance(definitions, Definitions)
        changes: list[tuple[int, ApplyDefinition | ApplyDeletion]] = [
            (definition.revision, ApplyDefinition(definition)) for definition in definitions.queues
        ]
        changes += [
            (revision, ApplyDeletion(entity, revision)) for entity, revision in definitions.deleted
        ]
        changes.sort(key=lambda change: change[0])
        reached = await together([self._try(partition, changes) for partition in self._partitions])
        failures = [one for one in reached if isinstance(one, LockstepError)]
        if failures:
            raise failures[0]
        if len(definitions.deleted) > _DELETIONS_KEPT:
            lowest = min(one for one in reached if isinstance(one, int))
            await self._call(CATALOGUE, ForgetDeletions(lowest))

    async def _try(
        self, partition: PartitionId, changes: Sequence[tuple[int, ApplyDefinition | ApplyDeletion]]
    ) -> int | LockstepError:
        """Bring to one partition; one that cannot be reached keeps nothing from the others."""
        try:
            return await self._bring_to(partition, changes)
        except LockstepError as error:
            return error

    async def _bring_to(
        self, partition: PartitionId, changes: Sequence[tuple[int, ApplyDefinition | ApplyDeletion]]
    ) -> int:
        """Apply what a partition has missed, and return the revision it is at then."""
        epoch = self._epoch_of(partition)
        at = -1
        if epoch is not None and partition in self._known and self._known[partition][0] == epoch:
            at = self._known[partition][1]
        if at < 0:
            at = _revision(await self._call(partition, GetRevision()))
        missed = [command for revision, command in changes if revision > at]
        for first in range(0, len(missed), _AT_ONCE):
            command = _one_command(missed[first : first + _AT_ONCE])
            at = _revision(await self._call(partition, command))
        if epoch is not None:
            self._known[partition] = (epoch, at)
        return at


def _one_command(changes: Sequence[ApplyDefinition | ApplyDeletion]) -> Command:
    if len(changes) == 1:
        return changes[0]
    return ApplyDefinitions(
        tuple(one.definition for one in changes if isinstance(one, ApplyDefinition)),
        tuple((one.entity, one.revision) for one in changes if isinstance(one, ApplyDeletion)),
    )


def _revision(answer: Answer) -> int:
    assert isinstance(answer.reply, Applied)
    return answer.reply.revision
