"""`lockstep export`: what it prints is taken over by an operator as it is."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

import lockstep.aio as client
from lockstep.cli import manifests
from lockstep.cli.commands.export import Policy
from lockstep.client.queue_properties import (
    QueueProperties,
    queue_from_wire,
    settings_of,
    settings_to_wire,
)
from lockstep.core import entity
from lockstep.core.ids import EntityNumber
from lockstep.core.limits import DAY_MS, KIB, Limits
from lockstep.wire.definitions import given_settings, queue_message
from lockstep_operator import declared
from tests.client.command_line import COMMAND, ENVIRONMENT
from tests.operator.objects import body as object_of
from tests.operator.running import Site
from tests.operator.test_crds import spec as schema

LIMITS = Limits()
FIELDS = schema()["properties"]
Words = Mapping[str, Any]


def test_every_field_that_the_operator_reads_is_written_under_the_name_that_it_has_there() -> None:
    read = {**declared._SAME, **declared._DURATIONS}
    read |= {field: name for field, (name, _) in declared._CHOICES.items()}

    assert {field: name for field, (name, _) in manifests.FIELDS.items()} == read
    assert [one.value for one in Policy] == [one.value for one in declared.DeletionPolicy]
    assert f"{declared.GROUP}/{declared.VERSION}" == manifests.API_VERSION


# --- the way there and back, of any queue ------------------------------------------------------------

WHOLE = {"lock_duration_ms": (5, 300), "duplicate_detection_history_time_window_ms": (20, 604_800)}


def sizes(most: int) -> st.SearchStrategy[int]:
    return st.integers(1, most)


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "requires_session": st.booleans(),
        "placement": st.sampled_from(["single", "spread"]),
        "requires_duplicate_detection": st.booleans(),
        "max_delivery_count": sizes(2000),
        "max_size_in_megabytes": sizes(81_920),
        "max_message_size_in_kilobytes": sizes(LIMITS.message_bytes_max // KIB),
        "session_lock_extension": st.sampled_from(["on_receive", "off"]),
        "accept_next": st.sampled_from(["enabled", "disabled"]),
        "session_expiry": st.sampled_from(["whole_session", "per_message"]),
        "status": st.sampled_from(["active", "disabled", "send_disabled", "receive_disabled"]),
        "dead_lettering_on_message_expiration": st.booleans(),
        "release_on_disconnect": st.booleans(),
        "recall_on_abandon": st.booleans(),
        "user_metadata": st.text(st.characters(exclude_categories=["Cs"]), max_size=1024),
        "default_message_time_to_live_ms": st.integers(1_000, 30 * DAY_MS),
        "auto_delete_on_idle_ms": st.integers(300_000, 30 * DAY_MS),
        "session_state_idle_ttl_ms": st.integers(300_000, 30 * DAY_MS),
        **{
            name: st.integers(*seconds).map(lambda value: value * 1000)
            for name, seconds in WHOLE.items()
        },
    },
)


def made_with(settings: entity.QueueSettings) -> QueueProperties:
    """Return a queue with these settings, as a client reads it."""
    definition = entity.QueueDefinition("shop", "orders", EntityNumber(1), "u", 1, settings, 0, 0)
    return queue_from_wire(queue_message(definition))


def applied(body: Words) -> entity.QueueSettings:
    """Return the settings that a broker gives a queue which an operator makes follow an object."""
    found = declared.read_queue(object_of("orders", **body["spec"])).settings
    return entity.new_settings(given_settings(settings_to_wire(found)), LIMITS)


@given(SETTINGS, st.none() | sizes(64))
def test_any_queue_has_its_settings_again_when_its_object_is_applied(
    given: dict[str, Any], state_kib: int | None
) -> None:
    settings = entity.new_settings(given, LIMITS)
    if state_kib is not None and state_kib <= settings.max_message_size_in_kilobytes:
        settings = entity.new_settings(
            {**given, "max_session_state_size_in_kilobytes": state_kib}, LIMITS
        )
    queue = made_with(settings)

    made = manifests.manifest(queue, "orders", manifests.Form())
    body = yaml.safe_load(manifests.document(made))

    again = settings_of(made_with(applied(body)))
    unsaid = {manifests.FIELDS[field][0] for field in made.without}
    differs = {name for name, value in settings_of(queue).items() if again[name] != value}
    assert differs == unsaid
    check_form(body["spec"])


def check_form(spec: Words) -> None:
    """Fail where the schema has another form."""
    for name, value in spec.items():
        field = FIELDS[name]
        assert "enum" not in field or value in field["enum"], name
        assert "pattern" not in field or re.search(field["pattern"], value), (name, value)
        assert "default" not in field or name == "adoptionPolicy" or value != field["default"], name


# --- the command, a real broker, a real API server, a real operator ----------------------------------

QUEUES: Mapping[str, Words] = {
    "plain": {},
    "Orders/EU_1": {
        "requires_session": True,
        "lock_duration": timedelta(seconds=90),
        "max_delivery_count": 3,
        "session_lock_extension": "off",
        "session_state_idle_ttl": timedelta(days=7),
        "max_message_size_in_kilobytes": 256,
        "max_session_state_size_in_kilobytes": 64,
    },
    "jobs": {
        "requires_duplicate_detection": True,
        "duplicate_detection_history_time_window": timedelta(hours=36),
        "default_message_time_to_live": timedelta(days=1, hours=12, milliseconds=500),
        "dead_lettering_on_message_expiration": True,
        "auto_delete_on_idle": timedelta(days=400),
        "status": "send_disabled",
        "user_metadata": "Of: ann # é \U0001f600\n- \x85 'quoted' \"twice\"",
        "max_size_in_megabytes": 5,
    },
    "spread": {"placement": "spread", "release_on_disconnect": False},
    "in one": {},
}


async def exported(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    command = (*COMMAND, "--server", f"127.0.0.1:{site.server.port}", "export", *words)
    return await asyncio.to_thread(
        subprocess.run, command, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


def documents(done: subprocess.CompletedProcess[str]) -> list[Any]:
    return list(yaml.safe_load_all(done.stdout))


def texts(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the documents as they were printed: Kubernetes reads YAML by other rules than Python."""
    return done.stdout.split("---\n")[1:]


async def test_what_is_exported_is_adopted_without_any_change(site: Site) -> None:
    async with site.admin() as admin:
        for name, settings in QUEUES.items():
            await admin.create_queue(name, **settings)
        before = {one.name: one async for one in admin.list_queues()}
    async with site.client() as sending, sending.get_queue_sender("plain") as sender:
        await sender.send_messages(client.Message(b"kept"))
    running = await site.start()

    done = await exported(site, "--namespace", site.namespace)
    bodies = documents(done)

    assert done.returncode == 1  # for the queue that no object can name
    assert f"{site.namespace}/in one" in done.stderr
    assert {one["spec"].get("entityName", one["metadata"]["name"]) for one in bodies} == (
        QUEUES.keys() - {"in one"}
    )
    for body, text in zip(bodies, texts(done), strict=True):
        await site.kube.apply(body, text=text)
    for body in bodies:
        await site.ready(body["metadata"]["name"])
    async with site.admin() as admin:
        after = {one.name: one async for one in admin.list_queues()}
        held = await admin.get_queue_runtime_properties("plain")
    for name, queue in before.items():
        now = after[name]
        assert (now.uid, settings_of(now)) == (queue.uid, settings_of(queue)), name
        assert (now.manager is None) == (name == "in one")
    assert held.active_message_count == 1
    # One write of each queue says who keeps it from now on, and nothing is set back afterwards.
    assert await running.operator.compare()
    updates = await running.metric("lockstep_operator_broker_requests_total", rpc="UpdateQueue")
    assert updates == len(bodies)
    assert len(await site.events("Adopted")) >= 1
    assert await site.events("DriftCorrected") == []


async def test_what_is_kept_already_is_left_out_unless_it_is_asked_for(site: Site) -> None:
    await site.start()
    await site.declare("kept")
    await site.ready("kept")
    async with site.admin() as admin:
        await admin.create_queue("free")
    here = ("--namespace", site.namespace)

    free = documents(await exported(site, *here))
    everything = await exported(site, *here, "--managed", "--deletion-policy", "Retain")

    assert [one["metadata"]["name"] for one in free] == ["free"]
    found = {one["metadata"]["name"]: one["spec"] for one in documents(everything)}
    policies = {"adoptionPolicy": "IfUnowned", "deletionPolicy": "Retain"}
    assert found == {"free": policies, "kept": policies}
    assert f"# Kept already by lockstep-operator ({site.namespace}/kept)." in everything.stdout


async def test_all_namespaces_of_a_broker_are_exported_into_their_own(site: Site) -> None:
    other = await site.kube.make_namespace(f"{site.namespace}-other")
    for namespace in (site.namespace, other):
        async with client.AdministrationClient(
            f"127.0.0.1:{site.server.port}", namespace=namespace
        ) as admin:
            await admin.create_queue("orders")

    found = await exported(site, "--all-namespaces", "--json")

    items = yaml.safe_load(found.stdout)["items"]
    places = {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in items}
    assert places == {(site.namespace, "orders"), (other, "orders")}
    for item in items:
        await site.kube.create(item, dry_run=True)


async def test_where_all_objects_share_a_broker_namespace_they_go_where_they_are_told(
    site: Site,
) -> None:
    async with client.AdministrationClient(f"127.0.0.1:{site.server.port}") as admin:
        queue = await admin.create_queue("orders", max_delivery_count=7)
    await site.start(spec={"namespaceMapping": "Flat"})

    (body,) = documents(await exported(site, "--into", site.namespace))
    await site.kube.apply(body)
    await site.ready("orders")

    async with client.AdministrationClient(f"127.0.0.1:{site.server.port}") as admin:
        now = await admin.get_queue("orders")
    assert (now.uid, now.max_delivery_count) == (queue.uid, 7)
    assert now.manager is not None
    assert now.manager.source == f"{site.namespace}/orders"


async def test_options_that_do_not_go_together_are_refused(site: Site) -> None:
    for words in (
        ("--into", "shop", "--all-namespaces"),
        ("--into", "shop", "--namespace", "billing"),
        ("--into", "Not_a_name"),
        ("--broker", "Not_a_name"),
        ("--deletion-policy", "Keep"),
    ):
        done = await exported(site, *words)

        assert (done.returncode, done.stdout) == (2, ""), words
        assert "USAGE" in done.stderr
