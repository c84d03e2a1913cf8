"""A cluster tells KEDA of a queue what all its owners hold of it together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.local import LocalCluster, local_cluster
from tests.server import calls
from tests.server.keda import Keda

PARTITIONS = 4


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    directory = tmp_path_factory.mktemp("scaling")
    with local_cluster(directory, owners=2, frontends=1, partitions=PARTITIONS) as cluster:
        yield cluster


def test_p_15_sessions_of_all_owners_count_once_each(cluster: LocalCluster) -> None:
    stubs = cluster.frontends[0].stubs
    calls.create(stubs, "orders", requires_session=True)
    of_one, of_five = Keda(stubs, entity="orders"), Keda(stubs, entity="orders", sessionsPerPod="5")
    for session in range(13):
        calls.send(stubs, "orders", *[b"x"] * 10, session=f"s{session}")

    held = calls.accept(stubs, "orders").session

    assert (of_one.pods(), of_five.pods()) == (13, 3)
    calls.release(stubs, "orders", held)


def test_p_15_620_messages_of_one_session_are_work_for_one_pod(cluster: LocalCluster) -> None:
    stubs = cluster.frontends[0].stubs
    calls.create(stubs, "one", requires_session=True)
    calls.send(stubs, "one", *[b"x"] * 620, session="s")

    assert Keda(stubs, entity="one").pods() == 1
