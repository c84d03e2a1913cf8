"""Nobody takes part in another cluster than its database's. Over a real etcd."""

from __future__ import annotations

import pytest

from lockstep.cluster.directory import EtcdDirectory
from lockstep.cluster.identity import Identity
from lockstep.cluster.keys import KeyLayout, write_identity
from lockstep.core.errors import StoreRefused
from lockstep.runtime.clock import SystemClock
from tests.etcd.cluster_rig import PARTITIONS, Channel, ClusterRig

ALL = set(range(PARTITIONS))


async def test_the_first_owner_says_which_cluster_it_is_and_others_agree(rig: ClusterRig) -> None:
    first = rig.node("a", cluster_id="one")
    await first.owns(ALL)
    second = rig.node("b", cluster_id="one")

    await rig.settled(first, second)
    assert "cluster" in await rig.keys()


async def test_an_owner_of_another_database_is_refused_and_takes_nothing(rig: ClusterRig) -> None:
    ours = rig.node("a", cluster_id="one")
    await ours.owns(ALL)
    held = dict(ours.ownership.grants)

    stranger = rig.node("z", cluster_id="two")
    with pytest.raises(StoreRefused, match=r"another cluster.*cluster\.name"):
        await stranger.outcome()

    assert stranger.leases_seen == set()
    assert "nodes/z" not in await rig.keys()
    assert dict(ours.ownership.grants) == held


async def test_who_was_first_stays_when_its_owners_have_gone(rig: ClusterRig) -> None:
    ours = rig.node("a", cluster_id="one")
    await ours.owns(ALL)
    await ours.stop()

    with pytest.raises(StoreRefused):
        await rig.node("z", cluster_id="two").outcome()
    again = rig.node("b", cluster_id="one")
    await again.owns(ALL)


async def test_another_number_of_partitions_is_refused(rig: ClusterRig) -> None:
    await rig.node("a", cluster_id="one").owns(ALL)

    with pytest.raises(StoreRefused, match=f"--partitions {PARTITIONS}"):
        await rig.node("b", cluster_id="one", partitions=PARTITIONS + 1).outcome()


async def test_a_front_end_with_another_number_of_partitions_is_refused(rig: ClusterRig) -> None:
    layout = KeyLayout(rig.cluster)
    await rig.client.create(
        layout.identity, write_identity(Identity("one", PARTITIONS + 2)), lease=0
    )
    directory = EtcdDirectory(
        rig.client, SystemClock(), cluster=rig.cluster, partitions=PARTITIONS, connect=Channel
    )

    with pytest.raises(StoreRefused, match=f"--partitions {PARTITIONS + 2}"):
        await directory.run()


async def test_an_etcd_without_its_data_hears_again_which_cluster_it_is(rig: ClusterRig) -> None:
    node = rig.node("a", cluster_id="one")
    await node.owns(ALL)
    (kept,) = [
        item
        for item in (await rig.client.list_prefix(rig.prefix)).items
        if item.key.endswith("/cluster")
    ]
    await rig.client.delete(kept.key, create_revision=kept.create_revision)

    clock = SystemClock()
    for _ in range(1_000):
        if "cluster" in await rig.keys():
            break
        await clock.sleep(5)
    assert "cluster" in await rig.keys()
    assert node.granted == ALL
