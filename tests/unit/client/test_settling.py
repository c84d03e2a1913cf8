"""Settling tells, message by message, what was not settled; what is wrong here makes no call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lockstep import Message, QueueReceiver, ReceivedMessage, SubQueue
from lockstep.errors import (
    ClientClosed,
    InvalidOperation,
    LimitExceeded,
    LockstepError,
    MessageAlreadySettled,
    MessageLockLost,
    OperationTimeout,
    SessionLockLost,
)
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.unit.client.scripted import (
    START_MS,
    Answer,
    ScriptedTransport,
    accepted,
    connect,
    deleting,
    options,
    received,
    released,
    settled,
)


class Held:
    """A receiver that received messages 1, 2 and 3, and the calls it makes from then on."""

    def __init__(self, *answers: Answer, **kind: Any) -> None:
        begin: list[Answer] = [accepted()] if kind.get("session_id") is not None else []
        self.transport = ScriptedTransport(*begin, received(1, 2, 3), *answers)
        self.connection = connect(self.transport)
        self.receiver = QueueReceiver(self.connection, options(**kind), None)
        self.messages = self.receiver.receive_messages(3)
        self.transport.calls.clear()

    def settlement(self) -> messaging.Settlement:
        (call,) = self.transport.calls
        assert call.name == "SettleMessages"
        (settlement,) = call.request.settlements
        assert isinstance(settlement, messaging.Settlement)
        return settlement


def test_messages_of_a_plain_queue_are_named_by_their_tokens() -> None:
    held = Held(settled())

    assert held.receiver.complete_messages(held.messages) == []

    settlement = held.settlement()
    assert list(settlement.lock_tokens) == [m.lock_token for m in held.messages]
    assert not settlement.sequence_numbers
    assert not held.transport.calls[0].request.HasField("session")


def test_messages_of_a_session_are_named_by_number_under_the_sessions_token() -> None:
    held = Held(settled(), released(), session_id="A")

    with held.receiver:
        held.receiver.complete_messages(held.messages)

        settlement = held.settlement()
    assert list(settlement.sequence_numbers) == [1, 2, 3]
    assert not settlement.lock_tokens
    assert held.transport.calls[0].request.session.session_id == "A"


@pytest.mark.parametrize(
    ("settle", "outcome"),
    [
        (lambda r, m: r.complete_messages(m), "complete"),
        (lambda r, m: r.abandon_messages(m), "abandon"),
        (lambda r, m: r.release_messages(m), "release"),
        (lambda r, m: r.dead_letter_messages(m), "dead_letter"),
        (lambda r, m: r.complete_message(m[0]), "complete"),
        (lambda r, m: r.abandon_message(m[0]), "abandon"),
        (lambda r, m: r.release_message(m[0]), "release"),
        (lambda r, m: r.dead_letter_message(m[0]), "dead_letter"),
    ],
)
def test_each_way_to_settle_says_what_is_to_be_done(
    settle: Callable[[QueueReceiver, list[ReceivedMessage]], object], outcome: str
) -> None:
    held = Held(settled())

    settle(held.receiver, held.messages)

    assert held.settlement().WhichOneof("outcome") == outcome


def test_a_dead_letter_says_why() -> None:
    held = Held(settled())

    held.receiver.dead_letter_message(held.messages[0], reason="bad", error_description="so bad")

    dead_letter = held.settlement().dead_letter
    assert (dead_letter.reason, dead_letter.description) == ("bad", "so bad")


@pytest.mark.parametrize("what", ["reason", "error_description"])
def test_why_may_have_4096_characters(what: str) -> None:
    held = Held(settled())
    longest: dict[str, Any] = {what: "x" * 4096}
    too_long: dict[str, Any] = {what: "x" * 4097}

    with pytest.raises(LimitExceeded):
        held.receiver.dead_letter_message(held.messages[0], **too_long)

    held.receiver.dead_letter_message(held.messages[0], **longest)


def test_what_was_not_settled_is_told_message_by_message() -> None:
    held = Held(settled(n2="MESSAGE_LOCK_LOST"), settled())
    first, second, third = held.messages

    (failure,) = held.receiver.complete_messages(held.messages)

    assert failure.message is second
    assert (failure.reason, failure.description) == ("MESSAGE_LOCK_LOST", "gone")
    with pytest.raises(MessageAlreadySettled):
        held.receiver.complete_messages([first, third])
    held.receiver.complete_message(second)


def test_the_single_form_raises_what_the_plural_form_returns() -> None:
    held = Held(settled(n1="MESSAGE_LOCK_LOST"))

    with pytest.raises(MessageLockLost, match="gone"):
        held.receiver.complete_message(held.messages[0])


def test_a_message_is_settled_once() -> None:
    held = Held(settled())
    held.receiver.complete_message(held.messages[0])

    for settle in (held.receiver.complete_message, held.receiver.abandon_message):
        with pytest.raises(MessageAlreadySettled):
            settle(held.messages[0])
    with pytest.raises(ValueError, match="settled before"):
        held.receiver.dead_letter_message(held.messages[0])

    assert len(held.transport.calls) == 1


@pytest.mark.parametrize("error", [SessionLockLost("x"), KeyboardInterrupt()])
def test_a_settlement_that_failed_as_a_whole_may_be_tried_again(error: BaseException) -> None:
    held = Held(error, settled())

    with pytest.raises(type(error)):
        held.receiver.complete_messages(held.messages)

    assert held.receiver.complete_messages(held.messages) == []


def test_a_settlement_whose_answer_got_lost_is_repeated_with_its_id() -> None:
    held = Held(OperationTimeout("x"), settled())

    held.receiver.complete_messages(held.messages)

    assert held.transport.counters() == [2, 2]


def test_settling_nothing_makes_no_call() -> None:
    held = Held()

    assert held.receiver.complete_messages([]) == []
    assert held.transport.calls == []


def test_settling_on_a_closed_receiver_makes_no_call() -> None:
    held = Held()
    held.receiver.close()

    for settle in (held.receiver.complete_message, held.receiver.renew_message_lock):
        with pytest.raises(ClientClosed):
            settle(held.messages[0])

    assert held.transport.calls == []


def test_settling_after_receive_and_delete_makes_no_call() -> None:
    response = received(1)
    response.lock_token_prefix = b""
    response.ClearField("locked_until")
    transport = ScriptedTransport(response)
    receiver = QueueReceiver(connect(transport), deleting(), None)
    (message,) = receiver.receive_messages()

    with pytest.raises(InvalidOperation, match="receive-and-delete"):
        receiver.complete_message(message)
    with pytest.raises(InvalidOperation):
        receiver.renew_message_lock(message)

    assert message.lock_token is None
    assert message.locked_until_utc is None


def test_a_message_can_be_settled_by_another_receiver_of_its_queue() -> None:
    held = Held(settled())
    other = QueueReceiver(held.connection, options("ORDERS"), None)

    other.complete_message(held.messages[0])

    assert list(held.settlement().lock_tokens) == [held.messages[0].lock_token]


def test_a_message_of_an_earlier_grant_shows_that_grants_token() -> None:
    held = Held(released(), accepted(), SessionLockLost("stale"), released(), session_id="A")
    old = held.messages[0]
    held.receiver.close()

    with (
        QueueReceiver(held.connection, options(session_id="A"), None) as receiver,
        pytest.raises(SessionLockLost),
    ):
        receiver.complete_message(old)

    assert held.transport.calls[2].request.session is not None
    assert old._delivery.session == held.transport.calls[2].request.session


def test_messages_of_two_grants_are_not_settled_together() -> None:
    one = Held(accepted(), received(4), released(), released(), session_id="A")
    with QueueReceiver(one.connection, options(session_id="B"), None) as other, one.receiver:
        (message,) = other.receive_messages()

        with pytest.raises(InvalidOperation, match="several sessions"):
            other.complete_messages([message, one.messages[0]])


def test_a_message_of_another_queue_makes_no_call() -> None:
    held = Held()
    other = QueueReceiver(held.connection, options(sub_queue=SubQueue.DEAD_LETTER), None)

    with pytest.raises(InvalidOperation, match="came from 'orders'"):
        other.complete_message(held.messages[0])


def test_only_received_messages_can_be_settled() -> None:
    held = Held()

    with pytest.raises(TypeError):
        held.receiver.complete_message(Message())  # type: ignore[arg-type]


def test_a_lock_of_a_message_can_be_renewed() -> None:
    answer = messaging.RenewMessageLocksResponse()
    answer.locked_until.FromMilliseconds(START_MS + 99_000)
    held = Held(answer)

    until = held.receiver.renew_message_lock(held.messages[0])

    assert until.timestamp() * 1000 == START_MS + 99_000
    assert held.messages[0].locked_until_utc == until
    assert held.messages[1].locked_until_utc != until
    assert list(held.transport.calls[0].request.lock_tokens) == [held.messages[0].lock_token]


def test_a_lock_that_is_gone_cannot_be_renewed() -> None:
    answer = messaging.RenewMessageLocksResponse()
    answer.failures.add(sequence_number=1, reason="MESSAGE_LOCK_LOST", description="expired")
    held = Held(answer)
    before = held.messages[0].locked_until_utc

    with pytest.raises(MessageLockLost):
        held.receiver.renew_message_lock(held.messages[0])

    assert held.messages[0].locked_until_utc == before


def test_a_message_of_a_session_has_no_lock_of_its_own_to_renew() -> None:
    held = Held(released(), session_id="A")

    with held.receiver, pytest.raises(TypeError, match="session"):
        held.receiver.renew_message_lock(held.messages[0])


def test_every_failure_has_an_error_to_raise() -> None:
    held = Held(settled(n1="SESSION_LOCK_LOST", n2="OF_A_LATER_RELEASE"))

    failures = held.receiver.complete_messages(held.messages)

    assert [type(f.error) for f in failures] == [SessionLockLost, LockstepError]
