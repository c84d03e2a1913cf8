"""An etcd for each process of a test run, and one of three members; a cluster of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from lockstep.cluster.endpoints import EtcdSettings
from tests.etcd.cluster_rig import ClusterRig, cluster
from tests.etcd.etcd_process import EtcdMembers, EtcdProcess

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def shared_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdProcess]:
    """One etcd that no test disturbs."""
    etcd = EtcdProcess(tmp_path_factory.mktemp("etcd")).start()
    yield etcd
    etcd.stop()


@pytest.fixture
def own_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdProcess]:
    """An etcd that a test may stop, pause or empty."""
    etcd = EtcdProcess(tmp_path_factory.mktemp("etcd")).start()
    yield etcd
    etcd.stop()


@pytest.fixture
def three_members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdMembers]:
    """An etcd of three members that a test may disturb."""
    members = EtcdMembers(tmp_path_factory.mktemp("etcd")).start()
    yield members
    members.stop()


@pytest.fixture
async def rig(shared_etcd: EtcdProcess) -> AsyncIterator[ClusterRig]:
    """A cluster over the shared etcd."""
    settings = EtcdSettings((shared_etcd.endpoint,))
    async with cluster(settings, f"test-{next(_numbers)}") as one:
        yield one
