"""Connection strings and options in Azure's words."""

from __future__ import annotations

from typing import Any

import pytest

from lockstep import NEXT_AVAILABLE_SESSION as OUR_NEXT_AVAILABLE_SESSION
from lockstep.client.values import SubQueue
from lockstep.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusClient, parse_connection_string
from lockstep.servicebus.management import EntityStatus, QueueProperties
from lockstep.servicebus.management.queue_properties import changes_of, settings_of
from lockstep.servicebus.options import RECEIVE_WAIT_S

AZURE = "Endpoint=sb://127.0.0.1:7700/;SharedAccessKeyName=Root;SharedAccessKey=a+b/c=;EntityPath=orders"


def test_a_connection_string_of_azure_is_read() -> None:
    parts = parse_connection_string(AZURE)

    assert parts.fully_qualified_namespace == "127.0.0.1:7700"
    assert parts.endpoint == "sb://127.0.0.1:7700/"
    assert parts.entity_path == "orders"
    assert parts.shared_access_key == "a+b/c="


@pytest.mark.parametrize(
    "text",
    ["", "Endpoint", "SharedAccessKey=x", "Endpoint=amqps://h", "Endpoint=sb://h;Colour=red"],
)
def test_a_malformed_connection_string_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="onnection"):
        parse_connection_string(text)


def test_another_queue_than_that_of_the_connection_string_is_refused() -> None:
    with ServiceBusClient.from_connection_string(AZURE) as client:
        client.get_queue_sender("orders")

        with pytest.raises(ValueError, match="EntityPath"):
            client.get_queue_sender("others")


def test_a_namespace_and_a_credential_make_a_client_too() -> None:
    with ServiceBusClient("sb://127.0.0.1:7700/", object(), logging_enable=True) as client:
        assert client.fully_qualified_namespace == "127.0.0.1:7700"


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"http_proxy": {}}, NotImplementedError, "http_proxy"),
        ({"retry_mode": "fixed"}, NotImplementedError, "retry_mode"),
        ({"colour": "red"}, TypeError, "colour"),
        ({"retry_total": -1}, ValueError, "retry_total"),
    ],
)
def test_an_option_that_is_lacking_is_refused_by_name(
    options: dict[str, Any], error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=name):
        ServiceBusClient.from_connection_string(AZURE, **options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"prefetch_count": 10}, NotImplementedError),
        ({"sub_queue": "transferdeadletter"}, NotImplementedError),
        ({"sub_queue": "deadletter", "session_id": "s"}, ValueError),
        ({"sub_queue": "nonsense"}, ValueError),
        ({"receive_mode": "nonsense"}, ValueError),
        ({"max_wait_time": 0}, ValueError),
    ],
)
def test_a_receiver_that_cannot_be_is_refused_at_once(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with ServiceBusClient.from_connection_string(AZURE) as client, pytest.raises(error):
        client.get_queue_receiver("orders", **options)


def test_choices_may_be_given_by_their_values_in_any_case() -> None:
    with ServiceBusClient.from_connection_string(AZURE) as client:
        receiver = client.get_queue_receiver(
            "orders", sub_queue="DeadLetter", receive_mode="RECEIVEANDDELETE"
        )

        inner = receiver._plan.inner()

    assert inner["sub_queue"] is SubQueue.DEAD_LETTER
    assert not receiver._plan.is_peek_lock
    assert receiver.session is None
    assert str(receiver).endswith("entity: orders/$DeadLetterQueue")


def test_the_wait_for_the_next_session_ends_after_a_minute_when_nobody_says() -> None:
    with ServiceBusClient.from_connection_string(AZURE) as client:
        receiver = client.get_queue_receiver("orders", session_id=NEXT_AVAILABLE_SESSION)

        inner = receiver._plan.inner()

    assert inner["session_id"] is OUR_NEXT_AVAILABLE_SESSION
    assert inner["max_wait_time"] == RECEIVE_WAIT_S


@pytest.mark.parametrize(
    "name", ["get_topic_sender", "get_subscription_receiver", "list_subscription_sessions"]
)
def test_topics_are_refused_by_name(name: str) -> None:
    with (
        ServiceBusClient.from_connection_string(AZURE) as client,
        pytest.raises(NotImplementedError, match=name),
    ):
        getattr(client, name)("topic", subscription_name="s")


def test_never_is_left_out_of_the_settings_and_what_is_lacking_is_refused() -> None:
    assert settings_of({"default_message_time_to_live": "P10675199DT2H48M5.4775807S"}) == {}
    with pytest.raises(NotImplementedError, match="enable_partitioning"):
        settings_of({"enable_partitioning": True})
    with pytest.raises(TypeError, match="colour"):
        settings_of({"colour": "red"})


def test_only_what_differs_is_changed() -> None:
    current = QueueProperties("q", lock_duration="PT30S", max_delivery_count=5, status="Active")
    wanted = QueueProperties("q", lock_duration="PT30S", max_delivery_count=7)

    assert changes_of(wanted, {"user_metadata": "mine"}, current) == {
        "lock_duration": "PT30S",
        "max_delivery_count": 7,
        "user_metadata": "mine",
    }


def test_properties_are_read_and_written_by_attribute_or_by_name() -> None:
    queue = QueueProperties("q", max_delivery_count=5)
    queue["max_delivery_count"] = 6

    assert queue.max_delivery_count == 6
    assert queue["name"] == "q"
    assert "status" in queue
    assert queue == QueueProperties("q", max_delivery_count=6)
    assert EntityStatus("SendDisabled") is EntityStatus.SEND_DISABLED
    with pytest.raises(TypeError, match="colour"):
        QueueProperties("q", colour="red")
