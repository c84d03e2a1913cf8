"""Who owns what: claims, planned moves, crashes, names that are taken. Over a real etcd."""

from __future__ import annotations

import asyncio

from lockstep.core.ids import PartitionId
from lockstep.core.placement import assign
from tests.etcd.cluster_rig import PARTITIONS, ClusterRig

ALL = set(range(PARTITIONS))


async def test_one_node_owns_everything(rig: ClusterRig) -> None:
    node = rig.node("a")

    await node.owns(ALL)

    assert len({lease.epoch for lease in node.ownership.grants.values()}) == PARTITIONS


async def test_partitions_are_shared_as_the_assignment_says(rig: ClusterRig) -> None:
    nodes = {name: rig.node(name) for name in "abc"}

    await rig.settled(*nodes.values())

    desired = assign(["a", "b", "c"], PARTITIONS)
    assert {p: name for name, node in nodes.items() for p in node.granted} == dict(
        enumerate(desired)
    )


async def test_a_node_that_leaves_keeps_its_partitions_until_it_releases_them(
    rig: ClusterRig,
) -> None:
    leaving, staying = rig.node("a", hands_over=False), rig.node("b")
    await staying.until(lambda: staying.granted, "the other has some")
    await leaving.until(lambda: leaving.granted, "it has some")
    mine = leaving.granted

    leaving.ownership.leave()

    assert leaving.granted == mine
    assert set(leaving.ownership.unwanted) == mine
    partition = PartitionId(min(mine))
    old = leaving.ownership.grants[partition]
    await leaving.ownership.release(partition)
    assert not old.is_valid()
    await staying.until(lambda: partition in staying.granted, "it moves")
    assert staying.ownership.grants[partition].epoch > old.epoch
    assert leaving.granted == mine - {partition}


async def test_claims_race_and_one_wins(rig: ClusterRig) -> None:
    value = b"{}"
    key = f"{rig.prefix}partitions/00000"

    found = await asyncio.gather(*(rig.client.create(key, value, lease=0) for _ in range(50)))

    assert len({kv.create_revision for kv in found if kv is not None}) == 1
