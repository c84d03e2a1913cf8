"""What the programs of `test_programs` do not go through, against a running server."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from lockstep.client.blocking.administration import AdministrationClient
from lockstep.servicebus import (
    NEXT_AVAILABLE_SESSION,
    AutoLockRenewer,
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusMessageState,
)
from lockstep.servicebus.aio import AutoLockRenewer as AioRenewer
from lockstep.servicebus.aio import ServiceBusClient as AioClient
from lockstep.servicebus.exceptions import (
    AutoLockRenewFailed,
    MessageNotFoundError,
    MessagingEntityDisabledError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceBusError,
    SessionLockLostError,
)
from lockstep.servicebus.management import EntityStatus, ServiceBusAdministrationClient
from tests.client.calls import tomorrow
from tests.server.server_process import ServerProcess

Q = "orders"


def break_lock(server: ServerProcess, connection_string: str, session: str) -> None:
    namespace = connection_string.rpartition("Namespace=")[2]
    with AdministrationClient(f"127.0.0.1:{server.port}", namespace=namespace) as admin:
        admin.break_session_lock(Q, session)


def test_a_lost_session_is_an_error_of_azure(
    server: ServerProcess,
    connection_string: str,
    admin: ServiceBusAdministrationClient,
    client: ServiceBusClient,
) -> None:
    admin.create_queue(Q, requires_session=True)
    client.get_queue_sender(Q).send_messages(ServiceBusMessage("x", session_id="s"))
    with client.get_queue_receiver(Q, session_id="s") as receiver:
        [message] = receiver.receive_messages()
        break_lock(server, connection_string, "s")

        with pytest.raises(SessionLockLostError):
            receiver.complete_message(message)
        assert receiver.session is not None
        with pytest.raises(SessionLockLostError):
            receiver.session.set_state(b"late")


@pytest.mark.slow
def test_the_renewer_tells_of_a_lost_lock_once(
    server: ServerProcess,
    connection_string: str,
    admin: ServiceBusAdministrationClient,
    client: ServiceBusClient,
) -> None:
    admin.create_queue(Q, requires_session=True, lock_duration=timedelta(seconds=5))
    told: list[object] = []
    was_told = threading.Event()

    def on_failure(renewable: object, error: Exception | None) -> None:
        told.extend([renewable, error])
        was_told.set()

    with (
        AutoLockRenewer(on_lock_renew_failure=on_failure) as renewer,
        client.get_queue_receiver(Q, session_id="s", auto_lock_renewer=renewer) as receiver,
    ):
        break_lock(server, connection_string, "s")
        assert was_told.wait(10)

    session = receiver.session
    assert session is not None
    assert told == [session, session.auto_renew_error]
    assert isinstance(session.auto_renew_error, AutoLockRenewFailed)


@pytest.mark.slow
async def test_the_asyncio_renewer_works_without_being_entered(
    connection_string: str, admin: ServiceBusAdministrationClient
) -> None:
    admin.create_queue("plain", lock_duration=timedelta(seconds=5))
    renewer = AioRenewer()
    async with AioClient.from_connection_string(connection_string) as client:
        await client.get_queue_sender("plain").send_messages(ServiceBusMessage("x"))
        async with client.get_queue_receiver("plain", auto_lock_renewer=renewer) as receiver:
            [message] = await receiver.receive_messages(max_wait_time=5)
            untils = [message.locked_until_utc]

            async with client.get_queue_receiver("plain") as other:
                assert await other.receive_messages(max_wait_time=6) == []

            untils.append(message.locked_until_utc)
            await receiver.complete_message(message)
            untils.append(message.locked_until_utc)
    first, renewed, settled = untils
    assert first is not None
    assert renewed is not None
    assert first < renewed
    assert settled is None
    await renewer.close()
    with pytest.raises(ServiceBusError):
        renewer.register(receiver, message)


def test_a_wrong_thing_is_not_renewed(
    admin: ServiceBusAdministrationClient, client: ServiceBusClient
) -> None:
    admin.create_queue(Q, requires_session=True)
    client.get_queue_sender(Q).send_messages(ServiceBusMessage("x", session_id="s"))
    with AutoLockRenewer() as renewer, client.get_queue_receiver(Q, session_id="s") as receiver:
        [message] = receiver.receive_messages()

        with pytest.raises(ValueError, match="locked by itself"):
            renewer.register(receiver, message)
        with pytest.raises(TypeError):
            renewer.register(receiver, "message")  # type: ignore[arg-type]  # a program without types
        with pytest.raises(TypeError, match="session"):
            receiver.renew_message_lock(message)


def test_what_was_only_looked_at_or_taken_for_good_cannot_be_settled(
    admin: ServiceBusAdministrationClient, client: ServiceBusClient
) -> None:
    admin.create_queue("plain")
    client.get_queue_sender("plain").send_messages(ServiceBusMessage("x"))

    with client.get_queue_receiver("plain") as receiver:
        [peeked] = receiver.peek_messages()
        with pytest.raises(ValueError, match="peeked"):
            receiver.complete_message(peeked)
    with client.get_queue_receiver("plain", receive_mode="receiveanddelete") as receiver:
        [taken] = receiver.receive_messages(max_wait_time=5)
        with pytest.raises(ValueError, match="RECEIVE_AND_DELETE"):
            receiver.complete_message(taken)
        assert taken.lock_token is None


def test_a_peeked_message_says_whether_it_is_scheduled(
    admin: ServiceBusAdministrationClient, client: ServiceBusClient
) -> None:
    admin.create_queue("plain")
    sender = client.get_queue_sender("plain")
    sender.send_messages(ServiceBusMessage("now"))
    sender.schedule_messages(ServiceBusMessage("later"), tomorrow())

    peeked = client.get_queue_receiver("plain").peek_messages(10)

    assert [message.state for message in peeked] == [
        ServiceBusMessageState.ACTIVE,
        ServiceBusMessageState.SCHEDULED,
    ]


def test_a_deferred_message_is_received_by_its_number(
    admin: ServiceBusAdministrationClient, client: ServiceBusClient
) -> None:
    admin.create_queue(Q, requires_session=True)
    client.get_queue_sender(Q).send_messages(ServiceBusMessage("x", session_id="s"))
    with client.get_queue_receiver(Q, session_id="s") as receiver:
        [message] = receiver.receive_messages()
        receiver.defer_message(message)

        [deferred] = receiver.receive_deferred_messages(message.sequence_number)

        assert (str(deferred), deferred.state) == ("x", ServiceBusMessageState.DEFERRED)
        receiver.complete_message(deferred)
        with pytest.raises(MessageNotFoundError):
            receiver.receive_deferred_messages([message.sequence_number])


def test_what_was_closed_refuses_with_a_value_error(
    admin: ServiceBusAdministrationClient, client: ServiceBusClient
) -> None:
    admin.create_queue("plain")
    sender = client.get_queue_sender("plain")
    receiver = client.get_queue_receiver("plain")
    sender.close()
    receiver.close()

    with pytest.raises(ValueError, match="closed"):
        sender.send_messages(ServiceBusMessage("x"))
    with pytest.raises(ValueError, match="closed"):
        receiver.receive_messages()


def test_nothing_is_asked_for_without_a_count_and_a_bad_one_is_refused(
    admin: ServiceBusAdministrationClient, client: ServiceBusClient
) -> None:
    admin.create_queue("plain")
    with client.get_queue_receiver("plain") as receiver:
        assert receiver.receive_messages(max_message_count=None) == []
        with pytest.raises(ValueError, match="max_message_count"):
            receiver.receive_messages(0)
        with pytest.raises(ValueError, match="max_wait_time"):
            receiver.receive_messages(1, max_wait_time=0)


def test_an_empty_send_does_nothing_and_an_unknown_number_is_not_cancelled(
    admin: ServiceBusAdministrationClient, client: ServiceBusClient
) -> None:
    admin.create_queue("plain")
    with client.get_queue_sender("plain") as sender:
        sender.send_messages([])
        sender.send_messages(sender.create_message_batch())

        with pytest.raises(MessageNotFoundError):
            sender.cancel_scheduled_messages(12345)


def test_sessions_are_listed_by_their_ids(
    admin: ServiceBusAdministrationClient, client: ServiceBusClient
) -> None:
    admin.create_queue(Q, requires_session=True)
    client.get_queue_sender(Q).send_messages(
        [ServiceBusMessage("x", session_id=session) for session in ("b", "a")]
    )
    with client.get_queue_receiver(Q, session_id="empty"):
        assert list(client.list_queue_sessions(Q)) == ["a", "b"]


def test_c44_sessions_are_listed_by_when_their_state_was_set(
    admin: ServiceBusAdministrationClient, client: ServiceBusClient
) -> None:
    admin.create_queue(Q, requires_session=True)
    client.get_queue_sender(Q).send_messages(ServiceBusMessage("x", session_id="no state"))
    with client.get_queue_receiver(Q, session_id="with state") as receiver:
        assert receiver.session is not None
        receiver.session.set_state("x")
    long_ago, far_off = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)

    assert list(client.list_queue_sessions(Q, state_updated_after=long_ago)) == ["with state"]
    assert list(client.list_queue_sessions(Q, state_updated_after=far_off)) == []


def test_a_time_of_a_queue_is_taken_back_by_never(admin: ServiceBusAdministrationClient) -> None:
    never = "P10675199DT2H48M5.4775807S"
    queue = admin.create_queue(
        "plain", default_message_time_to_live="P1D", auto_delete_on_idle="PT1H"
    )

    admin.update_queue(queue, default_message_time_to_live=never)

    changed = admin.get_queue("plain")
    assert changed.default_message_time_to_live is None
    assert changed.auto_delete_on_idle == timedelta(hours=1)


def test_the_session_of_a_receiver_is_accepted_when_it_is_needed(
    admin: ServiceBusAdministrationClient, client: ServiceBusClient
) -> None:
    admin.create_queue(Q, requires_session=True)
    client.get_queue_sender(Q).send_messages(ServiceBusMessage("x", session_id="s"))
    receiver = client.get_queue_receiver(Q, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=5)
    session = receiver.session
    assert session is not None
    ids = [session.session_id]

    assert session.get_state() is None

    ids.append(session.session_id)
    assert ids == [None, "s"]
    assert session.locked_until_utc is not None
    receiver.close()


def test_queues_are_administered_with_azures_names(
    admin: ServiceBusAdministrationClient, client: ServiceBusClient
) -> None:
    queue = admin.create_queue("plain", max_delivery_count=4, user_metadata="mine")
    assert (queue.status, queue.user_metadata) == (EntityStatus.ACTIVE, "mine")
    client.get_queue_sender("plain").send_messages(ServiceBusMessage("x"))
    with pytest.raises(ResourceExistsError):
        admin.create_queue("plain")

    queue.status = "SendDisabled"
    admin.update_queue(queue, lock_duration="PT10S")

    changed = admin.get_queue("plain")
    assert changed.status is EntityStatus.SEND_DISABLED
    assert changed.lock_duration == timedelta(seconds=10)
    with pytest.raises(MessagingEntityDisabledError):
        client.get_queue_sender("plain").send_messages(ServiceBusMessage("x"))
    [runtime] = admin.list_queues_runtime_properties()
    assert (runtime.name, runtime.active_message_count, runtime.total_message_count) == (
        "plain",
        1,
        1,
    )
    assert runtime.created_at_utc <= runtime.updated_at_utc
    admin.delete_queue("plain")
    with pytest.raises(ResourceNotFoundError):
        admin.get_queue("plain")


def test_topics_are_refused_by_name(admin: ServiceBusAdministrationClient) -> None:
    with pytest.raises(NotImplementedError, match="create_topic"):
        admin.create_topic("t")
    assert not hasattr(admin, "create_colour")
