"""Operators as processes are: their lease, their restarts, a broker that does not answer, their probes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import lockstep.aio as client
from lockstep.runtime.clock import SystemClock
from lockstep_operator.kube import Kube
from lockstep_operator.releasing import release_finalizers
from lockstep_operator.settings import settings_from
from tests.kube.api_server import ApiServer
from tests.kube.client import LEASE, NAMESPACE, KubeClient
from tests.operator.running import Site, condition, new_site, until
from tests.server.server_process import ServerProcess


async def test_one_of_two_works_and_the_other_follows_when_it_ends(site: Site) -> None:
    first = await site.start()
    second = await site.start(leads=False)
    await site.declare("orders")
    await site.ready("orders")

    async def is_ready() -> bool:
        return await second.probe("/ready") == (200, "ok")

    await until(is_ready, "the second one has listed the objects")
    assert await second.metric("lockstep_operator_leader") == 0
    assert await second.metric("lockstep_operator_reconciles_total") == 0

    await first.end()
    await until(second.is_leader, "the second one works")

    await site.declare("others")
    await site.ready("others")
    lease = await site.kube.get(LEASE, "lockstep-operator", site.namespace)
    assert lease["spec"]["leaseTransitions"] == 1


async def test_who_lost_the_lease_ends(site: Site) -> None:
    first = await site.start()
    lease = await site.kube.get(LEASE, "lockstep-operator", site.namespace)
    taken = {"spec": {**lease["spec"], "holderIdentity": "another"}}

    await site.kube.patch(LEASE, "lockstep-operator", site.namespace, taken)

    async def ended() -> bool:
        return first.task.done()

    await until(ended, "the first one ended")
    assert "lease was lost" in str(first.task.exception().exceptions[0])  # type: ignore[union-attr]


async def test_a_restart_writes_nothing(site: Site) -> None:
    first = await site.start()
    for number in range(5):
        await site.declare(f"q{number}")
    for number in range(5):
        await site.ready(f"q{number}")
    await first.end()

    second = await site.start()
    assert await second.operator.compare()
    await site.declare("new")
    await site.ready("new")

    writes = await second.metric("lockstep_operator_kube_requests_total", target="status")
    finalizers = await second.metric(
        "lockstep_operator_kube_requests_total", target="object", verb="patch"
    )
    told_of_the_broker = 2
    assert finalizers == 1
    assert writes <= 1 + told_of_the_broker
    assert await second.metric("lockstep_operator_broker_requests_total", rpc="UpdateQueue") == 0


async def test_what_was_declared_before_the_start_is_made_and_no_outage_is_told(
    site: Site,
) -> None:
    first = await site.start()
    await first.end()
    for number in range(8):
        await site.declare(f"q{number}")

    running = await site.start()
    for number in range(8):
        await site.ready(f"q{number}")

    assert await site.events("BrokerUnavailable") == []
    patches = await running.metric("lockstep_operator_kube_requests_total", verb="patch")
    told_of_the_broker = 3
    assert patches <= 8 * 2 + told_of_the_broker


async def test_what_changed_while_no_operator_worked_is_noticed(site: Site) -> None:
    first = await site.start(spec={"defaultDeletionPolicy": "Retain"})
    await site.declare("paused")
    await site.declare("kept")
    await site.ready("kept")
    await site.ready("paused")
    await site.edit("paused", {"metadata": {"annotations": {"lockstep.dev/paused": "true"}}})
    await site.told("paused", "Reconciling", "True", "Paused")
    await first.end()

    await site.edit("paused", {"metadata": {"annotations": {"lockstep.dev/paused": None}}})
    await site.start(spec={"defaultDeletionPolicy": "DeleteIfEmpty"})

    async def is_noticed() -> bool:
        paused, kept = await site.queue("paused"), await site.queue("kept")
        assert paused is not None
        assert kept is not None
        return (
            condition(paused, "Reconciling") is None
            and kept["metadata"].get("finalizers") == ["lockstep.dev/entity"]
            and kept["status"]["effective"]["deletionPolicy"] == "DeleteIfEmpty"
        )

    await until(is_noticed, "the changes are noticed")


async def test_while_the_broker_is_away_only_what_waits_for_it_says_so(site: Site) -> None:
    running = await site.start()
    await site.declare("old")
    before = await site.ready("old")

    site.server.kill()
    await site.declare("new")
    body = await site.told("new", "Ready", "Unknown", "BrokerUnavailable")
    assert condition(body, "Reconciling")
    assert await running.metric("lockstep_operator_broker_circuit_open") in (0, 1)
    assert (await running.probe("/live"))[0] == 200
    after = await site.queue("old")
    assert after is not None
    assert after["status"]["conditions"] == before["status"]["conditions"]

    await asyncio.to_thread(site.server.start)
    await site.ready("new")


async def test_an_operator_that_starts_while_the_broker_is_away_waits_for_it(site: Site) -> None:
    site.server.kill()
    await site.start()
    await site.declare("orders")
    await site.told("orders", "Ready", "Unknown", "BrokerUnavailable")

    await asyncio.to_thread(site.server.start)

    await site.ready("orders")


async def test_many_lost_queues_are_not_made_again_at_once(site: Site) -> None:
    running = await site.start()
    for number in range(6):
        await site.declare(f"q{number}")
    for number in range(6):
        await site.ready(f"q{number}")
    async with site.admin() as admin:
        for number in range(6):
            await admin.delete_queue(f"q{number}")

    assert await running.operator.compare()
    await site.told("q0", "Ready", "False", "EntityMissing")
    async with site.admin() as admin:
        assert [one.name async for one in admin.list_queues()] == []

    # What was never there is made all the same.
    await site.declare("new")
    await site.ready("new")


async def test_finalizers_are_taken_out_before_the_operator_goes_for_good(site: Site) -> None:
    first = await site.start()
    names = ["orders", *(f"q{number}" for number in range(40))]  # more than are released at a time
    for name in names:
        await site.declare(name)
    for name in names:
        await site.ready(name)
    await first.end()
    settings = settings_from(
        {
            "broker": {
                "namespace": site.namespace,
                "spec": {"adminEndpoint": f"127.0.0.1:{site.server.port}"},
            }
        }
    )

    async with Kube(site.login, clock=SystemClock()) as kube:
        assert await release_finalizers(kube, settings) == len(names)

    for name in names:
        body = await site.queue(name)
        assert body is not None
        assert "finalizers" not in body["metadata"]
    await site.delete("orders")
    await site.gone("orders")
    async with site.admin() as admin:
        assert (await admin.get_queue("orders")).name == "orders"


async def test_finalizers_of_another_release_whose_broker_has_the_same_name_stay(
    site: Site, kube: KubeClient, kube_api_server: ApiServer, server: ServerProcess
) -> None:
    elsewhere = await kube.make_namespace(f"{site.namespace}-other")
    other = await new_site(kube, elsewhere, kube_api_server, server)
    try:
        for one in (site, other):
            await one.start()
            await one.declare("orders")
            await one.ready("orders")
        settings = settings_from(
            {"broker": {"namespace": site.namespace, "spec": {"adminEndpoint": "127.0.0.1:1"}}}
        )
        await site.close()

        async with Kube(site.login, clock=SystemClock()) as talking:
            assert await release_finalizers(talking, settings) == 1

        theirs = await other.queue("orders")
        assert theirs is not None
        assert theirs["metadata"]["finalizers"] == ["lockstep.dev/entity"]
    finally:
        await other.close()


async def test_with_a_list_of_namespaces_it_needs_no_rights_elsewhere(
    kube: KubeClient, kube_namespace: str, kube_api_server: ApiServer, server: ServerProcess
) -> None:
    other = await kube.make_namespace(f"{kube_namespace}-watched")
    watches = [kube_namespace, other]
    home = await new_site(kube, kube_namespace, kube_api_server, server, watches=watches)
    watched = replace(home, namespace=other)
    try:
        await home.start(watchNamespaces=watches)
        for site in (home, watched):
            await site.declare("orders")
            await site.ready("orders")

        # Who must not see namespaces finds out that one goes when a queue is not empty.
        async with watched.client() as talking, talking.get_queue_sender("orders") as sender:
            await sender.send_messages(client.Message(b"1"))
        await watched.delete("orders")
        await watched.told("orders", "DeletionBlocked", "True", "NotEmpty")
        await kube.delete(NAMESPACE, other)
        await watched.edit("orders", {"metadata": {"annotations": {"touched": "yes"}}})
        await watched.gone("orders")
    finally:
        await home.close()
