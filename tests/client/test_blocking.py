"""The blocking client against a real server: the same promises, and several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from lockstep import (
    NEXT_AVAILABLE_SESSION,
    AdministrationClient,
    AutoLockRenewer,
    LockstepClient,
    Message,
    MessageState,
    ReceiveMode,
    SubQueue,
)
from lockstep.errors import (
    ClientClosed,
    EntityAlreadyExists,
    InvalidOperation,
    InvalidRequest,
    MessageAlreadySettled,
    MessageLockLost,
    NoSessionAvailable,
    SessionCannotBeLocked,
)
from tests.client.calls import tomorrow

Q = "orders"


def test_a_session_is_worked_off_in_order_with_its_state(blocking: LockstepClient) -> None:
    blocking.get_administration_client().create_queue(Q, requires_session=True)
    sent = [str(number) for number in range(20)]
    blocking.get_queue_sender(Q).send_messages([Message(b, session_id="s") for b in sent])

    with blocking.get_queue_receiver(
        Q, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=0
    ) as receiver:
        seen = []
        for message in receiver:
            seen.append(str(message))
            receiver.complete_message(message)
        version = receiver.session.set_state("done", if_version=receiver.session.state_version)

    assert seen == sent
    with blocking.get_queue_receiver(Q, session_id="s") as receiver:
        assert (receiver.session.state, receiver.session.state_version) == (b"done", version)


def test_queues_are_administered_over_a_connection_of_its_own(
    blocking: LockstepClient, address: str
) -> None:
    with AdministrationClient(address) as administration:
        administration.create_queue(Q, requires_session=True)

    assert blocking.get_administration_client().get_queue(Q).requires_session


def test_errors_are_typed(blocking: LockstepClient) -> None:
    admin = blocking.get_administration_client()
    admin.create_queue(Q, requires_session=True)
    with pytest.raises(EntityAlreadyExists):
        admin.create_queue(Q)

    with blocking.get_queue_receiver(Q, session_id="s"):
        with pytest.raises(SessionCannotBeLocked):
            blocking.get_queue_receiver(Q, session_id="s").receive_messages()
        with pytest.raises(NoSessionAvailable):
            blocking.get_queue_receiver(
                Q, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=0.1
            ).receive_messages()


def test_settling_twice_and_after_close_is_refused_here(blocking: LockstepClient) -> None:
    blocking.get_administration_client().create_queue(Q)
    blocking.get_queue_sender(Q).send_messages([Message("1"), Message("2")])
    with blocking.get_queue_receiver(Q) as receiver:
        first, second = receiver.receive_messages(2)
        receiver.dead_letter_message(first, reason="why")
        with pytest.raises(MessageAlreadySettled):
            receiver.complete_message(first)

    with pytest.raises(ClientClosed):
        receiver.complete_message(second)
    with blocking.get_queue_receiver(Q, sub_queue=SubQueue.DEAD_LETTER) as dead:
        assert [m.dead_letter_reason for m in dead.receive_messages(5)] == ["why"]


def test_c02_a_session_is_received_for_good_and_settling_is_a_local_error(
    blocking: LockstepClient,
) -> None:
    blocking.get_administration_client().create_queue(Q, requires_session=True)
    blocking.get_queue_sender(Q).send_messages([Message(str(n), session_id="s") for n in range(10)])

    with blocking.get_queue_receiver(
        Q, session_id="s", receive_mode=ReceiveMode.RECEIVE_AND_DELETE, max_wait_time=0
    ) as receiver:
        got = receiver.receive_messages(4) + receiver.receive_messages(100)
        with pytest.raises(InvalidOperation, match="has no lock"):
            receiver.complete_message(got[0])
        assert receiver.receive_messages(1) == []

    assert [str(message) for message in got] == [str(n) for n in range(10)]
    assert {message.lock_token for message in got} == {None}
    assert blocking.get_administration_client().get_queue_runtime_properties(Q).size_in_bytes == 0


def test_a_plain_address_is_no_connection_string(blocking: LockstepClient) -> None:
    assert blocking.namespace.startswith("client-")
    with pytest.raises(InvalidRequest):
        LockstepClient.from_connection_string("127.0.0.1:7700")


def test_threads_share_a_client_and_get_each_message_once(blocking: LockstepClient) -> None:
    blocking.get_administration_client().create_queue(Q, requires_session=True)
    sent = {f"s{n}": [f"{n}-{i}" for i in range(15)] for n in range(6)}
    sender = blocking.get_queue_sender(Q)

    def produce(name: str) -> None:
        for body in sent[name]:
            sender.send_messages(Message(body, session_id=name))

    def consume() -> dict[str, list[str]]:
        seen: dict[str, list[str]] = {}
        while True:
            receiver = blocking.get_queue_receiver(
                Q, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=0.2
            )
            try:
                with receiver:
                    for message in receiver:
                        seen.setdefault(receiver.session.session_id, []).append(str(message))
                        receiver.complete_message(message)
            except NoSessionAvailable:
                return seen

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(produce, sent))
        parts = [work.result() for work in [threads.submit(consume) for _ in range(3)]]

    # A session may have been worked off in turns, each of them in order.
    together: dict[str, list[str]] = {}
    for part in parts:
        for name, bodies in part.items():
            together.setdefault(name, []).extend(bodies)
            assert bodies == [body for body in sent[name] if body in bodies]
    assert {name: sorted(bodies) for name, bodies in together.items()} == {
        name: sorted(bodies) for name, bodies in sent.items()
    }


def test_the_renewer_keeps_a_lock_beyond_its_time(blocking: LockstepClient) -> None:
    blocking.get_administration_client().create_queue(Q, lock_duration="PT5S")
    blocking.get_queue_sender(Q).send_messages([Message("kept"), Message("lost")])

    with (
        AutoLockRenewer() as renewer,
        blocking.get_queue_receiver(Q, auto_lock_renewer=renewer) as receiver,
        blocking.get_queue_receiver(Q) as other,
    ):
        (kept,) = receiver.receive_messages()
        (lost,) = other.receive_messages()
        # What comes is the message that nobody renews, when its lock ran out, and no other.
        (again,) = other.receive_messages(2, 30)
        receiver.complete_message(kept)
        with pytest.raises(MessageLockLost):
            other.complete_message(lost)

    assert (str(again), again.delivery_count) == ("lost", 1)


def test_sch_2_a_look_tells_what_is_scheduled(blocking: LockstepClient) -> None:
    blocking.get_administration_client().create_queue(Q)
    sender = blocking.get_queue_sender(Q)
    sender.send_messages(Message("now"))
    sender.schedule_messages(Message("later"), tomorrow())

    looked = blocking.get_queue_receiver(Q).peek_messages(10)

    assert [(str(message), message.state) for message in looked] == [
        ("now", MessageState.ACTIVE),
        ("later", MessageState.SCHEDULED),
    ]
