"""What a front end knows about owners, over a real etcd."""

from __future__ import annotations

import asyncio

import pytest

from lockstep.cli.cluster_processes import FrontendProcess
from lockstep.cluster.directory import EtcdDirectory
from lockstep.cluster.port import Directory, Member, OwnerChannel
from lockstep.core.errors import ClusterUnavailable, StoreRefused
from lockstep.core.ids import PartitionId
from lockstep.runtime.clock import SystemClock
from lockstep.runtime.config import load_config
from tests.etcd.cluster_rig import PARTITIONS, Channel, ClusterRig, until


def address_of(channel: OwnerChannel) -> str:
    assert isinstance(channel, Channel)
    return channel.address


async def test_it_is_a_directory(rig: ClusterRig) -> None:
    directory: Directory = rig.directory()

    assert directory.partitions == PARTITIONS


async def test_a_newer_format_ends_the_directory_of_this_release(rig: ClusterRig) -> None:
    await rig.client.create(f"{rig.prefix}partitions/00000", b'{"format":2}', lease=0)
    directory = EtcdDirectory(
        rig.client, SystemClock(), cluster=rig.cluster, partitions=1, connect=Channel
    )

    with pytest.raises(StoreRefused, match="upgrade this one"):
        await directory.run()


async def test_every_partition_leads_to_its_owner(rig: ClusterRig) -> None:
    nodes = {name: rig.node(name) for name in "ab"}
    directory = rig.directory()
    await rig.settled(*nodes.values())

    await until(directory, lambda: len(directory.placements()) == PARTITIONS, "all are known")
    for name, node in nodes.items():
        for partition, lease in node.ownership.grants.items():
            assert address_of(directory.owner_of(partition)) == f"{name}.test:7710"
            assert directory.placements()[partition].epoch == lease.epoch
    assert {name: node.release for name, node in directory.nodes().items()} == {
        "a": "1.0",
        "b": "1.0",
    }
    assert len(rig.channels) == 2
    members = {one.node: one for one in directory.members()}
    for name, node in nodes.items():
        assert members[name] == Member(name, "1.0", False, len(node.ownership.grants))
    assert sum(one.partitions for one in members.values()) == PARTITIONS


async def test_before_anything_is_known_callers_try_again(rig: ClusterRig) -> None:
    directory = rig.directory()

    with pytest.raises(ClusterUnavailable, match="not known yet"):
        directory.owner_of(PartitionId(0))


async def test_a_partition_without_an_owner_is_told_of(rig: ClusterRig) -> None:
    directory = rig.directory()
    await until(directory, lambda: directory.version, "the keys are read")

    with pytest.raises(ClusterUnavailable, match="Nobody owns partition 3") as nobody:
        directory.owner_of(PartitionId(3))

    assert nobody.value.reason == "CLUSTER_UNAVAILABLE"


async def test_a_connection_is_kept_while_partitions_are_where_it_leads(rig: ClusterRig) -> None:
    directory = rig.directory()
    node = rig.node("a")
    await until(directory, lambda: len(directory.placements()) == PARTITIONS, "all have owners")
    first = directory.owner_of(PartitionId(0))
    assert directory.owner_of(PartitionId(1)) is first

    node.ownership.leave()
    await until(directory, lambda: not directory.placements(), "nobody owns anything")

    assert isinstance(first, Channel)
    await until(directory, lambda: first.is_closed, "it is closed")
    await until(directory, lambda: directory.nodes()["a"].is_leaving, "it is told to leave")
    with pytest.raises(ClusterUnavailable):
        directory.owner_of(PartitionId(0))


async def test_a_front_end_without_etcd_counts_that_and_shows_no_lease() -> None:
    # Nothing listens on port 1.
    process = FrontendProcess(load_config(None, {"cluster.etcd_endpoints": "127.0.0.1:1"}))

    def errors(op: str) -> float:
        registry = process.metrics.registry
        return registry.get_sample_value("lockstep_etcd_errors_total", {"op": op}) or 0.0

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(process._directory.run())
        while not errors("list"):
            await process.clock.sleep(5)
        process._directory.stop()
    await process._etcd.close()

    value = process.metrics.registry.get_sample_value("lockstep_lease_remaining_seconds")
    assert value is None
