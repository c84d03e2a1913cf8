"""Queues of one namespace, or of all, page by page, and who keeps them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lockstep.core.ids import EntityKey
from lockstep.testing.server import CallFailed
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import entity_pb2
from tests.unit.frontend.cluster_rig import Cluster, running_cluster

NAMES = [("one", "b"), ("two", "a"), ("default", "c"), ("one", "a")]
SERVICE = "/lockstep.v1.AdminService/"


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running_cluster() as running:
        for namespace, name in NAMES:
            await running.create(EntityKey(namespace, name), requires_session=False)
        yield running


async def listed(cluster: Cluster, **asked: object) -> admin.ListQueuesResponse:
    request = admin.ListQueuesRequest(**asked)  # type: ignore[arg-type]
    answer = await cluster.serve(
        SERVICE + "ListQueues", request.SerializeToString(), timeout_ms=1_000
    )
    return admin.ListQueuesResponse.FromString(answer)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
async def test_all_namespaces_are_listed_page_by_page(cluster: Cluster, size: int) -> None:
    found: list[tuple[str, str]] = []
    token = ""
    while True:
        page = await listed(cluster, all_namespaces=True, page_size=size, page_token=token)
        assert len(page.queues) == len(page.runtimes) <= size
        found += [(queue.namespace, queue.name) for queue in page.queues]
        token = page.next_page_token
        if not token:
            break
    assert found == sorted(NAMES)


async def test_one_namespace_is_listed_by_name(cluster: Cluster) -> None:
    page = await listed(cluster, namespace="one")
    assert [queue.name for queue in page.queues] == ["a", "b"]


async def test_a_namespace_and_all_of_them_exclude_each_other(cluster: Cluster) -> None:
    with pytest.raises(CallFailed, match="all of them"):
        await listed(cluster, namespace="one", all_namespaces=True)


async def test_who_keeps_a_queue_is_told(cluster: Cluster) -> None:
    kept_by = entity_pb2.Manager(name="operator", source="shop/a", source_uid="u", generation=3)
    update = admin.UpdateQueueRequest(namespace="one", name="a", manager=kept_by)
    answer = await cluster.serve(
        SERVICE + "UpdateQueue", update.SerializeToString(), timeout_ms=1_000
    )
    assert admin.UpdateQueueResponse.FromString(answer).queue.manager == kept_by

    page = await listed(cluster, namespace="one")
    assert page.queues[0].manager == kept_by
    assert not page.queues[1].HasField("manager")

    delete = admin.DeleteQueueRequest(namespace="one", name="a", if_manager_uid="another")
    with pytest.raises(CallFailed):
        await cluster.serve(SERVICE + "DeleteQueue", delete.SerializeToString(), timeout_ms=1_000)
