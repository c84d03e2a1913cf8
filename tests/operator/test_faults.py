"""An operator whose API server fails: what is declared comes about all the same."""

from __future__ import annotations

import random
from typing import Any

from tests.kube.client import BROKER, QUEUE
from tests.operator.proxy import FaultyProxy
from tests.operator.running import Site, condition, until

_QUEUES = 12
_CHANGES = 60


async def test_what_is_declared_comes_about_although_requests_fail(site: Site) -> None:
    chance = random.Random(7)
    proxy = FaultyProxy(site.api, seed=7, rate=0.25)
    declared: dict[str, int] = {}
    async with proxy.listening() as url:
        site.url = url
        running = await site.start()
        for _ in range(_CHANGES):
            name = f"q{chance.randrange(_QUEUES)}"
            if name in declared and chance.random() < 0.3:
                await site.delete(name)
                await site.gone(name)
                del declared[name]
            else:
                declared[name] = chance.randrange(1, 100)
                await site.declare(name, maxDeliveryCount=declared[name])
        for name in declared:
            await site.ready(name)
        # The watch may have begun late, after refusals, and have told of little yet.
        while not proxy.injected["watch_broken"]:
            declared["q0"] = chance.randrange(1, 100)
            await site.declare("q0", maxDeliveryCount=declared["q0"])
            await site.ready("q0")

        proxy.stop_failing()
        await running.end()

    async with site.admin() as admin:
        found = {one.name: one.max_delivery_count async for one in admin.list_queues()}
    assert found == declared
    # Each fault was met, or the test would say nothing of it.
    assert set(proxy.injected) == {"409", "429", "500", "late", "answer_lost", "watch_broken"}


async def test_a_broker_object_that_was_refused_once_is_made_soon(site: Site) -> None:
    """Every queue waits for it."""
    proxy = FaultyProxy(site.api, seed=7, rate=0)
    async with proxy.listening() as url:
        site.url = url
        proxy.refuse("PATCH", "/brokers/", times=1)
        await site.start()
        await site.declare("orders")
        await site.ready("orders")
    assert proxy.injected == {"refused": 1}


async def test_a_broker_object_whose_spec_is_refused_again_and_again_says_so(site: Site) -> None:
    first = await site.start()
    await site.declare("orders")
    await site.ready("orders")
    await first.end()
    proxy = FaultyProxy(site.api, seed=7, rate=0)
    async with proxy.listening() as url:
        site.url = url
        # Its status is a request to another path.
        proxy.refuse("PATCH", "/brokers/default", times=1_000, but="/status")
        await site.start()

        async def is_told() -> bool:
            found = await site.kube.get(BROKER, "default", site.namespace)
            told = condition(found, "Degraded")
            return told is not None and told["reason"] == "SpecRefused"

        await until(is_told, "the Broker says so")
        proxy.refuse("PATCH", "/brokers/default", times=0)

        async def is_well() -> bool:
            found = await site.kube.get(BROKER, "default", site.namespace)
            return (condition(found, "Degraded") or {}).get("status") == "False"

        await until(is_well, "the Broker says that it is over")


async def test_a_broker_object_that_somebody_deleted_is_made_again(site: Site) -> None:
    await site.start()
    await site.declare("orders")
    await site.ready("orders")
    before = await site.kube.get(BROKER, "default", site.namespace)

    await site.kube.delete(BROKER, "default", site.namespace)

    async def is_new() -> bool:
        found = await site.kube.list_all(BROKER, site.namespace)
        return any(one["metadata"]["uid"] != before["metadata"]["uid"] for one in found)

    await until(is_new, "the Broker is there again")


async def test_a_user_and_the_operator_may_write_at_the_same_time(site: Site) -> None:
    """The finalizer is added to the object as it is, not as it was."""
    await site.start()
    await site.declare("orders")
    for count in range(1, 20):
        await site.declare("orders", maxDeliveryCount=count)
        await site.edit("orders", {"metadata": {"labels": {"turn": str(count)}}})
    body = await site.ready("orders")

    assert body["metadata"]["labels"] == {"turn": "19"}
    assert body["metadata"]["finalizers"] == ["lockstep.dev/entity"]
    assert body["status"]["effective"]["maxDeliveryCount"] == 19


async def test_a_status_that_was_wiped_out_is_told_again(site: Site) -> None:
    await site.start()
    await site.declare("orders")
    await site.ready("orders")

    wiped: dict[str, Any] = {"status": None}
    await site.kube.patch(QUEUE, "orders", site.namespace, wiped, subresource="status")

    await site.ready("orders")
