"""Settings go out and come back by their names; lists come page by page."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any, get_type_hints

import pytest
from google.protobuf.duration_pb2 import Duration

from lockstep import (
    AcceptNext,
    AdministrationClient,
    EntityStatus,
    LockstepClient,
    Placement,
    QueueManager,
    QueueProperties,
    QueueSettings,
    SessionExpiry,
    SessionLockExtension,
    aio,
)
from lockstep.client.queue_properties import settings_to_wire
from lockstep.errors import (
    ClientClosed,
    EntityAlreadyExists,
    EntityNotFound,
    InternalError,
    InvalidRequest,
    OperationTimeout,
    RevisionConflict,
)
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import entity_pb2
from tests.unit.client.scripted import Answer, ScriptedTransport, connect

NAMES = [field.name for field in entity_pb2.QueueSettings.DESCRIPTOR.fields]


def administer(*answers: Answer) -> tuple[AdministrationClient, ScriptedTransport]:
    transport = ScriptedTransport(*answers)
    return AdministrationClient._sharing(connect(transport)), transport


def queue(name: str = "orders", **changed: Any) -> entity_pb2.Queue:
    settings = settings_to_wire(
        {
            "lock_duration": "PT1M",
            "max_delivery_count": 10,
            "requires_session": True,
            "max_size_in_megabytes": 1024,
            "max_message_size_in_kilobytes": 1024,
            "max_session_state_size_in_kilobytes": 1024,
            "placement": "spread",
            "session_lock_extension": "on_receive",
            "accept_next": "enabled",
            "user_metadata": "",
            "status": "active",
            "session_expiry": "whole_session",
            **changed,
        }
    )
    found = entity_pb2.Queue(namespace="shop", name=name, settings=settings, uid="u", revision=4)
    found.create_time.FromMilliseconds(1_000)
    found.update_time.FromMilliseconds(2_500)
    return found


def test_every_setting_of_the_protos_can_be_written_and_read() -> None:
    assert list(get_type_hints(QueueSettings)) == NAMES
    fields = [field.name for field in dataclasses.fields(QueueProperties)]
    assert [name for name in fields if name in NAMES] == NAMES


def test_a_queue_is_created_with_what_was_given_and_nothing_else() -> None:
    administration, transport = administer(admin.CreateQueueResponse(queue=queue()))

    created = administration.create_queue(
        "orders", requires_session=True, lock_duration=timedelta(seconds=90), placement=None
    )

    (call,) = transport.calls
    assert (call.request.namespace, call.request.name) == ("shop", "orders")
    assert call.request.settings == entity_pb2.QueueSettings(
        requires_session=True, lock_duration=Duration(seconds=90)
    )
    assert call.request.request_id.counter == 1
    assert created.requires_session is True
    assert created.placement is Placement.SPREAD


def test_a_queue_shows_all_its_settings() -> None:
    administration, _ = administer(
        admin.GetQueueResponse(
            queue=queue(
                default_message_time_to_live="P14D",
                session_lock_extension="off",
                accept_next="disabled",
                status="send_disabled",
                session_expiry="per_message",
            )
        )
    )

    found = administration.get_queue("orders")

    assert (found.name, found.namespace, found.uid, found.revision) == ("orders", "shop", "u", 4)
    assert found.created_at_utc == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert found.updated_at_utc == datetime(1970, 1, 1, 0, 0, 2, 500_000, tzinfo=UTC)
    assert found.lock_duration == timedelta(minutes=1)
    assert found.default_message_time_to_live == timedelta(days=14)
    assert found.auto_delete_on_idle is None
    assert found.session_lock_extension is SessionLockExtension.OFF
    assert found.accept_next is AcceptNext.DISABLED
    assert found.status is EntityStatus.SEND_DISABLED
    assert found.session_expiry is SessionExpiry.PER_MESSAGE


def test_a_choice_of_a_later_release_asks_for_a_newer_client() -> None:
    found = queue()
    found.settings.placement = 99  # type: ignore[assignment]
    administration, _ = administer(admin.GetQueueResponse(queue=found))

    with pytest.raises(InternalError, match="newer client"):
        administration.get_queue("orders")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT5S", 5),
        ("PT1M30S", 90),
        ("PT0.5S", 0.5),
        ("P1DT1H", 90_000),
        ("pt2h", 7_200),
        ("P7D", 604_800),
    ],
)
def test_a_duration_may_be_iso_8601(text: str, seconds: float) -> None:
    wire = settings_to_wire({"lock_duration": text})

    assert wire.lock_duration.ToTimedelta().total_seconds() == seconds


@pytest.mark.parametrize(
    "settings",
    [
        {"lock_duration": "60s"},
        {"lock_duration": "P"},
        {"lock_duration": "PT"},
        {"lock_duration": "P99999999999D"},
        {"lock_duration": 60},
        {"placement": "everywhere"},
        {"placement": 1},
        {"max_delivery_count": 2**40},
    ],
)
def test_a_setting_that_cannot_be_is_refused_here(settings: dict[str, Any]) -> None:
    administration, transport = administer()

    with pytest.raises(InvalidRequest):
        administration.create_queue("orders", **settings)

    assert transport.calls == []


@pytest.mark.parametrize("settings", [{"lock_time": 1}, {"max_delivery_count": "ten"}])
def test_a_setting_of_a_wrong_name_or_type_is_a_type_error(settings: dict[str, Any]) -> None:
    administration, _ = administer()

    with pytest.raises(TypeError):
        administration.create_queue("orders", **settings)


def test_a_create_whose_answer_got_lost_is_repeated_with_its_id() -> None:
    administration, transport = administer(
        OperationTimeout("x"), admin.CreateQueueResponse(queue=queue())
    )

    administration.create_queue("orders")

    assert transport.counters() == [1, 1]


@pytest.mark.parametrize("error", [EntityAlreadyExists("x"), InvalidRequest("x")])
def test_what_the_server_refuses_is_raised(error: EntityAlreadyExists) -> None:
    administration, _ = administer(error)

    with pytest.raises(type(error)):
        administration.create_queue("orders")


def test_an_update_by_name_writes_the_changes_only() -> None:
    administration, transport = administer(admin.UpdateQueueResponse(queue=queue()))

    administration.update_queue("orders", max_delivery_count=5)

    (call,) = transport.calls
    assert call.request.settings == entity_pb2.QueueSettings(max_delivery_count=5)
    assert call.request.if_revision == 0


def test_an_update_of_properties_writes_all_if_nobody_changed_them() -> None:
    administration, transport = administer(
        admin.GetQueueResponse(queue=queue()), admin.UpdateQueueResponse(queue=queue())
    )

    found = dataclasses.replace(administration.get_queue("orders"), max_delivery_count=5)
    administration.update_queue(found, user_metadata="mine")

    request = transport.calls[1].request
    assert request.if_revision == 4
    assert (request.name, request.settings.max_delivery_count) == ("orders", 5)
    assert request.settings.user_metadata == "mine"
    assert request.settings.placement == entity_pb2.PLACEMENT_SPREAD
    assert not request.settings.HasField("default_message_time_to_live")


def test_an_update_that_somebody_forestalled_is_refused() -> None:
    administration, _ = administer(RevisionConflict("x"))

    with pytest.raises(RevisionConflict):
        administration.update_queue("orders", max_delivery_count=5)


def test_an_update_of_nothing_is_refused() -> None:
    administration, transport = administer()

    with pytest.raises(InvalidRequest):
        administration.update_queue("orders")

    assert transport.calls == []


def test_a_queue_is_deleted_by_name() -> None:
    administration, transport = administer(admin.DeleteQueueResponse(), EntityNotFound("x"))

    administration.delete_queue("orders")
    with pytest.raises(EntityNotFound):
        administration.delete_queue("orders")

    assert transport.counters() == [1, 2]


def test_what_a_queue_holds_is_shown() -> None:
    runtime = entity_pb2.QueueRuntime(
        active_messages=1,
        locked_messages=2,
        scheduled_messages=3,
        dead_letter_messages=4,
        total_messages=5,
        size_bytes=6,
        sessions=7,
        locked_sessions=8,
        deferred_messages=9,
        delayed_messages=10,
    )
    runtime.access_time.FromMilliseconds(11)
    administration, _ = administer(admin.GetQueueResponse(queue=queue(), runtime=runtime))

    shown = administration.get_queue_runtime_properties("orders")

    accessed = datetime(1970, 1, 1, 0, 0, 0, 11_000, tzinfo=UTC)
    assert dataclasses.astuple(shown) == ("orders", 1, 2, 9, 3, 4, 5, 6, 7, 8, 10, accessed)


def pages() -> list[Answer]:
    empty = entity_pb2.QueueRuntime()
    return [
        admin.ListQueuesResponse(
            queues=[queue("a"), queue("b")], runtimes=[empty] * 2, next_page_token="t"
        ),
        admin.ListQueuesResponse(next_page_token="u"),
        admin.ListQueuesResponse(queues=[queue("c")], runtimes=[empty]),
    ]


def test_queues_are_listed_page_by_page_as_they_are_asked_for() -> None:
    administration, transport = administer(*pages())

    listed = administration.list_queues()
    assert next(listed).name == "a"
    assert len(transport.calls) == 1

    assert [found.name for found in listed] == ["b", "c"]
    assert [call.request.page_token for call in transport.calls] == ["", "t", "u"]


def test_runtime_properties_are_listed_likewise() -> None:
    administration, _ = administer(*pages())

    assert [r.name for r in administration.list_queues_runtime_properties()] == ["a", "b", "c"]


def test_queues_of_all_namespaces_are_listed_with_who_keeps_them() -> None:
    kept = queue("b")
    kept.manager.CopyFrom(
        entity_pb2.Manager(name="operator", source="shop/b", source_uid="u", generation=3)
    )
    page = admin.ListQueuesResponse(
        queues=[queue("a"), kept], runtimes=[entity_pb2.QueueRuntime()] * 2
    )
    administration, transport = administer(page)

    found = list(administration.list_queues(all_namespaces=True))

    assert [one.manager for one in found] == [None, QueueManager("operator", "shop/b", "u", 3)]
    (call,) = transport.calls
    assert (call.request.all_namespaces, call.request.namespace) == (True, "")


async def test_lists_work_the_same_in_asyncio() -> None:
    administration = aio.AdministrationClient._sharing(connect(ScriptedTransport(*pages())))

    async with administration:
        assert [found.name async for found in administration.list_queues()] == ["a", "b", "c"]


@pytest.mark.parametrize("kind", [AdministrationClient, aio.AdministrationClient])
@pytest.mark.parametrize(
    ("address", "options", "namespace"),
    [
        ("broker.example", {}, "default"),
        ("broker.example:7700", {"namespace": "shop"}, "shop"),
        ("Endpoint=lockstep://broker.example;Namespace=orders", {}, "orders"),
    ],
)
def test_an_administration_client_is_made_as_a_client_is(
    kind: Any, address: str, options: dict[str, Any], namespace: str
) -> None:
    assert kind(address, **options).namespace == namespace


@pytest.mark.parametrize("kind", [AdministrationClient, aio.AdministrationClient])
def test_an_administration_client_is_made_from_a_connection_string(kind: Any) -> None:
    text = "Endpoint=lockstep://broker.example;Namespace=orders"

    assert kind.from_connection_string(text).namespace == "orders"
    with pytest.raises(InvalidRequest):
        kind.from_connection_string("broker.example:7700")
    with pytest.raises(InvalidRequest):
        kind("broker.example:abc")


async def test_an_administration_client_of_its_own_closes_its_connection() -> None:
    with AdministrationClient("127.0.0.1:1") as blocking:
        pass
    async with aio.AdministrationClient("127.0.0.1:1") as on_loop:
        pass

    with pytest.raises(ClientClosed):
        blocking.get_queue("orders")
    with pytest.raises(ClientClosed):
        await on_loop.get_queue("orders")


async def test_the_administration_of_a_client_leaves_its_connection_open() -> None:
    client, on_loop = LockstepClient("127.0.0.1:1"), aio.LockstepClient("127.0.0.1:1")

    with client.get_administration_client():
        pass
    async with on_loop.get_administration_client():
        pass

    client.get_queue_sender("orders")
    on_loop.get_queue_sender("orders")
    client.close()
    await on_loop.close()
