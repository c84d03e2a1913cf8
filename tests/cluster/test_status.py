"""What `lockstep cluster status` says of processes that run, stand still, or are away."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import grpc
import pytest

from lockstep import LockstepClient, Message
from lockstep.core.ids import PartitionId, partition_of
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1.admin_service_pb2_grpc import AdminServiceStub
from tests.cluster.command import run_lockstep
from tests.cluster.local import LocalCluster, local_cluster
from tests.etcd.etcd_process import free_ports
from tests.server.server_process import wait_until

LEASE_MS = 60_000  # a process that stands still keeps its partitions
PARTITIONS = 4
WAIT_MS = 30_000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    directory = tmp_path_factory.mktemp("status")
    with local_cluster(
        directory, owners=2, frontends=1, partitions=PARTITIONS, lease_ms=LEASE_MS
    ) as cluster:
        yield cluster


def frontend_of(cluster: LocalCluster) -> str:
    return f"127.0.0.1:{cluster.frontends[0].port}"


def partitions_of(status: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {one["partition"]: one for one in status["partitions"]}


def test_everything_that_lags_is_told(cluster: LocalCluster) -> None:
    frontend = frontend_of(cluster)
    with LockstepClient(frontend) as client:
        administration = client.get_administration_client()
        administration.create_queue("orders", requires_session=True)
        administration.create_queue("plain")
        sent = client.get_queue_sender("orders").send_messages(
            [Message("1", session_id="s"), Message("2", session_id="s")]
        )
        plain = client.get_queue_sender("plain").send_messages([Message("1")])

        status = cluster.status("--frontend", frontend)

    partitions = partitions_of(status)
    assert [one["state"] for one in partitions.values()] == ["open"] * PARTITIONS
    assert all(one["open_ms"] > 0 for one in partitions.values())
    assert {one["definitions_behind"] for one in partitions.values()} == {0}
    assert {one["definitions_revision"] for one in partitions.values()} == {
        status["catalogue_revision"]
    }
    home, plain_home = partition_of(sent[0]), partition_of(plain[0])
    assert partitions[home]["ready_sessions"] == 1
    assert partitions[plain_home]["ready_messages"] == 1
    assert sum(one["messages"] for one in partitions.values()) == 3
    for node in status["nodes"]:
        assert node["silent"] is None
        assert node["lease_renewed_s_ago"] + node["lease_left_s"] == LEASE_MS // 1000
        assert node["databases_cut_off"] == []
    (view,) = status["frontends"]
    assert (view["silent"], view["problem"], view["known_wrongly"]) == (None, None, [])
    assert view["heard_ms_ago"] >= 0


def test_a_front_end_tells_whoever_manages_it_who_owns_how_much(cluster: LocalCluster) -> None:
    with grpc.insecure_channel(frontend_of(cluster)) as channel:
        told = AdminServiceStub(channel).GetCluster(admin.GetClusterRequest(), timeout=10)

    assert told.release == version("lockstep-broker")
    assert (told.partitions_owned, told.partitions_total) == (PARTITIONS, PARTITIONS)
    assert sorted(node.partitions for node in told.nodes) == [PARTITIONS // 2, PARTITIONS // 2]
    names = sorted(owner.directory.name for owner in cluster.owners)
    assert [node.name for node in told.nodes] == names
    assert {(node.release, node.is_leaving) for node in told.nodes} == {(told.release, False)}


def test_a_process_that_stands_still_hides_nobody_else(cluster: LocalCluster) -> None:
    still = cluster.owner_of(PartitionId(1))
    name = still.directory.name
    still.pause()
    try:
        status = cluster.status("--frontend", frontend_of(cluster))
    finally:
        still.go_on()

    assert {one["name"]: one["silent"] is None for one in status["nodes"]} == {
        owner.directory.name: owner is not still for owner in cluster.owners
    }
    for one in status["partitions"]:
        assert one["state"] == (None if one["node"] == name else "open")
    assert status["without_owner"] == []


def test_the_age_of_a_lease_grows_between_its_renewals(cluster: LocalCluster) -> None:
    name = cluster.owners[0].directory.name

    wait_until(lambda: _renewed_s(cluster, name) >= 2, "it ages", within_ms=WAIT_MS)


def _renewed_s(cluster: LocalCluster, name: str) -> int:
    nodes = cluster.status()["nodes"]
    return next(int(one["lease_renewed_s_ago"]) for one in nodes if one["name"] == name)


def test_a_front_end_that_is_not_there_is_told_of(cluster: LocalCluster) -> None:
    (port,) = free_ports(1)

    (view,) = cluster.status("--frontend", f"127.0.0.1:{port}")["frontends"]

    assert view["silent"]


def test_people_see_a_table_of_each_kind(cluster: LocalCluster) -> None:
    done = run_lockstep(
        "cluster", "status", "--etcd", cluster.etcd.endpoint, "--partitions", str(PARTITIONS),
        "--frontend", frontend_of(cluster),
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    for heading in ("Lease renewed", "Definitions", "Partitions known wrongly"):
        assert heading.upper() in done.stdout.upper()
    assert done.stdout.count("current") == PARTITIONS


def test_a_look_at_too_few_partitions_fails(cluster: LocalCluster) -> None:
    done = run_lockstep(
        "cluster", "status", "--etcd", cluster.etcd.endpoint, "--partitions", str(PARTITIONS - 1)
    )

    assert done.returncode > 1
    assert "--partitions" in done.stderr
