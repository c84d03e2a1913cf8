"""The in-process broker with the blocking client and threads, used as a test of a user's program would."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest

from lockstep import (
    NEXT_AVAILABLE_SESSION,
    AutoLockRenewer,
    LockstepClient,
    Message,
    ProcessorContext,
    QueueReceiver,
    ReceivedMessage,
)
from lockstep.errors import (
    ClientClosed,
    EntityNotFound,
    LockstepError,
    NoSessionAvailable,
    SessionLockLost,
)
from lockstep.testing import BlockingBroker
from lockstep.testing.blocking_transport import BlockingInProcessTransport

HOUR_S = 3600


@pytest.fixture
def broker(lockstep_blocking_broker: BlockingBroker) -> BlockingBroker:
    return lockstep_blocking_broker


@contextmanager
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def sessions_queue(client: LockstepClient, *sessions: str) -> None:
    client.get_administration_client().create_queue("orders", requires_session=True)
    for session in sessions:
        client.get_queue_sender("orders").send_messages(Message(session, session_id=session))


def plain_queue(client: LockstepClient, *bodies: str) -> None:
    client.get_administration_client().create_queue("jobs", max_delivery_count=2)
    for body in bodies:
        client.get_queue_sender("jobs").send_messages(Message(body))


def next_session(client: LockstepClient, wait_s: float) -> QueueReceiver:
    return client.get_queue_receiver(
        "orders", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=wait_s
    )


def test_a_session_lock_that_ran_out_goes_to_the_next_receiver(broker: BlockingBroker) -> None:
    client = broker.client()
    sessions_queue(client, "A")
    with next_session(client, 0) as slow:
        (message,) = slow.receive_messages()

        broker.clock.advance(60)

        with next_session(client, 0) as quick:
            (again,) = quick.receive_messages()
            assert again.delivery_count == 1
            with pytest.raises(SessionLockLost):
                slow.complete_message(message)


def test_a_thread_that_waits_for_a_session_is_woken_by_a_send(broker: BlockingBroker) -> None:
    client = broker.client()
    sessions_queue(client)
    with threads() as pool:
        accept = pool.submit(next_session(client, HOUR_S).__enter__)
        broker.wait_for_calls()
        broker.clock.advance(10)
        before = broker.clock.now()

        client.get_queue_sender("orders").send_messages(Message("hello", session_id="B"))

        with accept.result() as receiver:
            assert receiver.session.session_id == "B"
        assert broker.clock.now() == before


def test_a_thread_that_waits_in_vain_is_told_so_at_its_time(broker: BlockingBroker) -> None:
    client = broker.client()
    sessions_queue(client)
    began = broker.clock.now()

    def accept() -> datetime:
        with pytest.raises(NoSessionAvailable):
            next_session(client, 90).__enter__()
        return broker.clock.now()

    with threads() as pool:
        ended = pool.submit(accept)
        broker.wait_for_calls()
        broker.clock.advance(HOUR_S)

        assert ended.result() == began + timedelta(seconds=90)


def test_renewal_keeps_two_sessions_for_as_long_as_it_is_asked_to(broker: BlockingBroker) -> None:
    client = broker.client()
    sessions_queue(client, "A", "B")
    lost: list[LockstepError] = []

    with (
        next_session(client, 0) as one,
        next_session(client, 0) as other,
        AutoLockRenewer(HOUR_S, lambda _, error: lost.append(error)) as renewer,
    ):
        for receiver in (one, other):
            renewer.register(receiver, receiver.session)
        broker.clock.advance(HOUR_S)
        assert lost == []
        messages = [receiver.receive_messages()[0] for receiver in (one, other)]
        assert [message.delivery_count for message in messages] == [0, 0]
        broker.clock.advance(HOUR_S)

        assert [type(error) for error in lost] == [SessionLockLost] * 2


def test_time_does_not_run_past_an_alarm_that_is_being_set(broker: BlockingBroker) -> None:
    client = broker.client()
    plain_queue(client)  # a call connects
    transport = client.get_queue_receiver("jobs")._receiving.transport
    assert isinstance(transport, BlockingInProcessTransport)
    due_ms = transport.monotonic_ms() + 10_000
    rang_ms: list[int] = []

    def set_alarm() -> None:
        transport.wake_at(due_ms, lambda: rang_ms.append(transport.monotonic_ms()), lambda: True)

    worker = threading.Thread(target=set_alarm)

    def is_idle() -> bool:
        """Begin to set the alarm when time is about to go on; whoever sets it works until it is set."""
        if not worker.ident:
            worker.start()
            worker.join(0.2)  # it may not end here: the broker, which sets the alarm, is asking
        return not worker.is_alive()

    transport.wake_at(due_ms + 10_000, lambda: None, is_idle)
    broker.clock.advance(20)

    assert rang_ms == [due_ms]


def test_a_scheduled_message_comes_at_its_time_to_a_waiting_thread(broker: BlockingBroker) -> None:
    client = broker.client()
    plain_queue(client)
    due = broker.clock.now() + timedelta(minutes=15)
    client.get_queue_sender("jobs").schedule_messages(Message("remind"), due)

    def receive() -> tuple[bytes | None, datetime]:
        (message,) = client.get_queue_receiver("jobs").receive_messages(max_wait_time=1800)
        return message.body, broker.clock.now()

    with threads() as pool:
        received = pool.submit(receive)
        broker.wait_for_calls()
        broker.clock.advance(HOUR_S)

        assert received.result() == (b"remind", due)


def test_a_message_is_a_dead_letter_after_the_most_deliveries(broker: BlockingBroker) -> None:
    client = broker.client()
    plain_queue(client, "poison")
    receiver = client.get_queue_receiver("jobs")
    for _ in range(2):
        assert receiver.receive_messages(max_wait_time=0)
        broker.clock.advance(HOUR_S)

    assert receiver.receive_messages(max_wait_time=0) == []

    dead = client.get_queue_receiver("jobs", sub_queue="deadletter")
    (message,) = dead.receive_messages(max_wait_time=0)
    assert message.dead_letter_reason == "MaxDeliveryCountExceeded"


def test_two_threads_compete_and_each_session_has_one_holder(broker: BlockingBroker) -> None:
    sessions_queue(broker.client(), "A", "B", "C")
    handled: list[tuple[str, datetime]] = []
    began = broker.clock.now()

    def work() -> None:
        client = broker.client()
        while True:
            try:
                with next_session(client, 60) as receiver:
                    for message in receiver.receive_messages(10, max_wait_time=0):
                        broker.clock.sleep(20)
                        receiver.complete_message(message)
                        handled.append((receiver.session.session_id, broker.clock.now()))
            except NoSessionAvailable:
                return

    with threads() as pool:
        workers = [pool.submit(work) for _ in range(2)]
        while len(handled) < 3:
            broker.clock.advance(1)
        broker.clock.advance(HOUR_S)
        for worker in workers:
            worker.result()

    assert sorted(name for name, _ in handled) == ["A", "B", "C"]
    assert handled[2][1] - began >= timedelta(seconds=40)


def test_an_error_arrives_with_its_class_and_its_text(broker: BlockingBroker) -> None:
    with pytest.raises(EntityNotFound, match="default/nothing"):
        broker.client().get_queue_sender("nothing").send_messages(Message("hello"))


def test_brokers_share_nothing() -> None:
    with BlockingBroker() as one, BlockingBroker() as other:
        plain_queue(one.client(), "hello")
        before = other.clock.now()
        one.clock.advance(HOUR_S)

        assert other.clock.now() == before
        with pytest.raises(EntityNotFound):
            other.client().get_queue_receiver("jobs").receive_messages()


def test_closing_a_client_ends_the_waiting_calls_of_other_threads(broker: BlockingBroker) -> None:
    client = broker.client()
    plain_queue(client)

    def receive() -> None:
        with pytest.raises(ClientClosed):
            client.get_queue_receiver("jobs").receive_messages()

    with threads() as pool:
        receiving = pool.submit(receive)
        broker.wait_for_calls()
        client.close()

        receiving.result()


def test_leaving_the_block_ends_the_thread_of_the_broker() -> None:
    with BlockingBroker() as broker:
        client = broker.client()
        plain_queue(client)
        assert [t.name for t in threading.enumerate()].count("lockstep-broker") >= 1

    assert broker._thread is not None
    assert not broker._thread.is_alive()
    with pytest.raises(ClientClosed):
        client.get_queue_sender("jobs")
    with pytest.raises(RuntimeError, match="does not run"):
        broker.clock.advance(1)


def test_a_wait_for_a_clock_that_nobody_moves_ends_with_an_explanation() -> None:
    with BlockingBroker(patience=0.05) as broker:
        client = broker.client()
        plain_queue(client)

        with pytest.raises(RuntimeError, match="virtual clock stands still"):
            client.get_queue_receiver("jobs").receive_messages(max_wait_time=5)


def test_a_processor_works_in_virtual_time_and_can_be_stopped(broker: BlockingBroker) -> None:
    client = broker.client()
    sessions_queue(client, "A", "B")
    handled: list[str] = []

    def handle(message: ReceivedMessage, _: ProcessorContext) -> None:
        broker.clock.sleep(200)  # more than three lock durations
        handled.append(str(message.session_id))

    with client.get_session_processor(
        "orders", handle, max_concurrent_sessions=2, auto_complete=True
    ):
        broker.wait_for_calls(2)
        broker.clock.advance(300)

    assert sorted(handled) == ["A", "B"]
    orders = client.get_administration_client().get_queue_runtime_properties("orders")
    assert orders.total_message_count == 0
