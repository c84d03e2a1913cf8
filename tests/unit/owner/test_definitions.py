"""Definitions on their way to all partitions: together, in order, and none twice (ADD-12)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from lockstep.cluster.port import Answer
from lockstep.core.commands import (
    ApplyDefinition,
    ApplyDefinitions,
    ApplyDeletion,
    Command,
    CreateQueue,
    DeleteQueue,
    ForgetDeletions,
    ListDefinitions,
)
from lockstep.core.errors import ClusterUnavailable
from lockstep.core.ids import EntityKey, PartitionEpoch, PartitionId
from lockstep.owner.definitions import CATALOGUE, DefinitionBringer
from tests.unit.core.partition_rig import Rig

PARTITIONS = [PartitionId(number) for number in range(3)]
FAR = PARTITIONS[2]


class Owners:
    """Real partitions, each behind a way that takes its time.

    Attributes:
        rigs: The partitions.
        sent: What each was sent.
        away: Which cannot be reached.
        called: Set when a call has come, once the catalogue was listed.
        goes_on: Lets those calls through.
    """

    def __init__(self) -> None:
        self.rigs = {number: Rig(number, partitions=len(PARTITIONS)) for number in PARTITIONS}
        self.sent: list[tuple[PartitionId, Command]] = []
        self.away: set[PartitionId] = set()
        self.called = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        epoch = PartitionEpoch(0, 1, 0)
        self.bringer = DefinitionBringer(PARTITIONS, self.call, lambda _partition: epoch)
        self._uids = 0

    async def call(self, partition: PartitionId, command: Command) -> Answer:
        self.sent.append((partition, command))
        if not isinstance(command, ListDefinitions):
            self.called.set()
            await self.goes_on.wait()
        if partition in self.away:
            raise ClusterUnavailable(f"Nobody owns partition {partition} now. Try again.")
        return Answer(self.rigs[partition].decide(command).reply)

    def define(self, name: str) -> None:
        self._uids += 1
        self.rigs[CATALOGUE].step(CreateQueue("default", name, {}, f"uid {self._uids}"), object)

    def delete(self, name: str) -> None:
        self.rigs[CATALOGUE].step(DeleteQueue(EntityKey("default", name)), object)

    def names(self, partition: PartitionId) -> set[str]:
        return {key.name for key in self.rigs[partition].partition.queues}

    def sent_to(self, partition: PartitionId, *kinds: type[Command]) -> list[Command]:
        return [one for where, one in self.sent if where == partition and isinstance(one, kinds)]


async def test_those_who_ask_while_others_are_served_share_the_next_turn() -> None:
    owners = Owners()
    owners.define("first")
    owners.goes_on.clear()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(owners.bringer.bring())
        await owners.called.wait()
        for number in range(20):
            owners.define(f"q{number}")
            tasks.create_task(owners.bringer.bring())
        owners.goes_on.set()

    assert len(owners.sent_to(CATALOGUE, ListDefinitions)) == 2
    applied = owners.sent_to(FAR, ApplyDefinition, ApplyDefinitions)
    assert len(applied) <= 2
    assert owners.names(FAR) == {"first", *(f"q{number}" for number in range(20))}


async def test_no_answer_comes_before_every_partition_has_what_was_there_before() -> None:
    owners = Owners()
    owners.goes_on.clear()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(owners.bringer.bring())
        await owners.called.wait()
        # The first turn has asked the catalogue already.
        owners.define("late")
        second = tasks.create_task(owners.bringer.bring())
        owners.goes_on.set()
        await second
        assert all("late" in owners.names(partition) for partition in PARTITIONS)


async def test_many_changes_come_in_the_order_of_their_revisions() -> None:
    owners = Owners()
    for number in range(150):
        owners.define(f"q{number}")
    for number in range(0, 150, 3):
        owners.delete(f"q{number}")
    owners.define("q0")

    await owners.bringer.bring()

    expected = {"q0", *(f"q{number}" for number in range(150) if number % 3)}
    assert [owners.names(partition) for partition in PARTITIONS] == [expected] * 3
    assert len(owners.sent_to(FAR, ApplyDefinitions, ApplyDefinition, ApplyDeletion)) == 3
    revisions = {owners.rigs[partition].partition.last_revision for partition in PARTITIONS}
    assert len(revisions) == 1


async def test_deletions_are_kept_until_the_last_partition_has_them() -> None:
    owners = Owners()
    owners.away = {FAR}
    for number in range(70):
        owners.define(f"q{number}")
        owners.delete(f"q{number}")
    with pytest.raises(ClusterUnavailable):
        await owners.bringer.bring()
    assert not owners.sent_to(CATALOGUE, ForgetDeletions)

    owners.away = set()
    await owners.bringer.bring()
    assert owners.sent_to(CATALOGUE, ForgetDeletions)


async def _outcome(owners: Owners) -> type[Exception] | None:
    try:
        await owners.bringer.bring()
    except ClusterUnavailable as error:
        return type(error)
    return None


async def test_one_partition_that_is_away_keeps_nothing_from_the_others_and_is_told_to_all() -> (
    None
):
    owners = Owners()
    owners.define("first")
    owners.away = {PARTITIONS[1]}
    owners.goes_on.clear()
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(_outcome(owners)) for _ in range(10)]
        await owners.called.wait()
        owners.goes_on.set()

    assert {one.result() for one in asking} == {ClusterUnavailable}
    assert len(owners.sent_to(CATALOGUE, ListDefinitions)) <= 2
    assert owners.names(FAR) == {"first"}


async def test_who_gives_up_in_its_turn_leaves_it_to_the_next() -> None:
    owners = Owners()
    owners.define("first")
    owners.goes_on.clear()
    async with asyncio.TaskGroup() as tasks:
        giving_up = tasks.create_task(owners.bringer.bring())
        await owners.called.wait()
        tasks.create_task(owners.bringer.bring())
        giving_up.cancel()
        owners.goes_on.set()

    assert giving_up.cancelled()
    assert owners.names(FAR) == {"first"}


def test_what_is_older_than_what_a_partition_has_does_nothing() -> None:
    rig = Rig()
    rig.step(CreateQueue("default", "orders", {}, "uid"), object)
    assert rig.partition.catalogue is not None
    old = rig.partition.catalogue.queues[EntityKey("default", "orders")]
    new = replace(old, revision=old.revision + 5)
    other = Rig(1, partitions=2)
    other.step(ApplyDefinition(new), object)

    decision = other.decide(ApplyDefinitions((old,), ((old.number, old.revision + 1),)))

    assert not decision.changes
    assert other.partition.last_revision == new.revision
