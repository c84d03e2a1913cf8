"""Bringing definitions from the catalogue to every partition.

Here belongs what the owner of the catalogue owes the others (ADD-12). Never here: the catalogue itself (`core`). The
laws: a definition counts as changed only when every partition has it; they reach a partition in the order of their
revisions, and a partition that was away is caught up when it is back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from lockstep.cluster.port import Answer
from lockstep.core.commands import (
    ApplyDefinition,
    ApplyDeletion,
    Command,
    ForgetDeletions,
    GetRevision,
    ListDefinitions,
)
from lockstep.core.errors import LockstepError
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.replies import Applied, Definitions

CATALOGUE = PartitionId(0)
_DELETIONS_KEPT = 64  # so that forgetting costs little

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

    async def bring(self) -> None:
        """Apply to each partition what it has missed.

        Raises:
            LockstepError: Some partition could not be reached, or refused; the others have everything.
        """
        definitions = (await self._call(CATALOGUE, ListDefinitions())).reply
        assert isinstance(definitions, Definitions)
        changes: list[tuple[int, ApplyDefinition | ApplyDeletion]] = [
            (definition.revision, ApplyDefinition(definition)) for definition in definitions.queues
        ]
        changes += [
            (revision, ApplyDeletion(entity, revision)) for entity, revision in definitions.deleted
        ]
        changes.sort(key=lambda change: change[0])
        failure: LockstepError | None = None
        reached: list[int] = []
        for partition in self._partitions:
            try:
                reached.append(await self._bring_to(partition, changes))
            except LockstepError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        if len(definitions.deleted) > _DELETIONS_KEPT:
            await self._call(CATALOGUE, ForgetDeletions(min(reached)))

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
        for revision, command in changes:
            if revision > at:
                at = _revision(await self._call(partition, command))
        if epoch is not None:
            self._known[partition] = (epoch, at)
        return at


def _revision(answer: Answer) -> int:
    assert isinstance(answer.reply, Applied)
    return answer.reply.revision
