"""An answer comes to who asked: the session is accepted first, and the correlation id says whose it is."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from lockstep import Message, QueueRequester, aio
from lockstep.client.requesting import reply_of
from lockstep.client.transport import Method, RequestT, ResponseT
from lockstep.errors import (
    ClientClosed,
    InvalidOperation,
    InvalidRequest,
    OperationTimeout,
    SessionCannotBeLocked,
    SessionLockLost,
    StoreRefused,
)
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.unit.client.answering import AnsweringTransport
from tests.unit.client.scripted import (
    Never,
    accepted,
    connect,
    open_receiver,
    options,
    received,
    sent,
)


def answers(*keys: str) -> messaging.ReceiveMessagesResponse:
    response = received(*range(1, len(keys) + 1))
    for message, key in zip(response.messages, keys, strict=True):
        message.correlation_id = key
    return response


def requester(transport: AnsweringTransport) -> aio.QueueRequester:
    return aio.QueueRequester(connect(transport), "orders", options("replies", session_id="mine"))


def ask(key: str) -> Message:
    return Message("how much?", message_id=key)


async def test_cli_12_the_session_is_accepted_before_anything_is_sent() -> None:
    transport = AnsweringTransport(
        AcceptSession=[accepted("mine")], SendMessages=[sent(1)], ReceiveMessages=[answers("q1")]
    )

    async with requester(transport) as asking:
        answer = await asking.request(ask("q1"))

    assert transport.names() == [
        "AcceptSession",
        "SendMessages",
        "ReceiveMessages",
        "SettleMessages",
        "ReleaseSession",
    ]
    assert transport.calls[0].request.session_id == "mine"
    (wire,) = transport.calls[1].request.messages
    assert (wire.reply_to, wire.reply_to_session_id) == ("replies", "mine")
    assert (wire.message_id, wire.body) == ("q1", b"how much?")
    assert answer.correlation_id == "q1"
    assert transport.outcomes() == [("complete", 1)]


async def test_a_request_without_a_message_id_gets_one_of_its_own() -> None:
    def answer(_: Any) -> messaging.ReceiveMessagesResponse:
        return answers(transport.calls[1].request.messages[0].message_id)

    transport = AnsweringTransport(
        AcceptSession=[accepted("mine")], SendMessages=[sent(1)], ReceiveMessages=[answer]
    )
    message = Message("how much?")

    async with requester(transport) as asking:
        reply = await asking.request(message)

    assert reply.correlation_id
    assert message.message_id is None


class Unhurried(AnsweringTransport):
    """Lets other tasks run before each call."""

    async def call(
        self, method: Method[RequestT, ResponseT], request: RequestT, *, timeout_ms: int
    ) -> ResponseT:
        await self.clock.sleep(0)
        return await super().call(method, request, timeout_ms=timeout_ms)


async def test_tasks_share_a_requester_and_each_gets_its_own_answer() -> None:
    transport = Unhurried(
        AcceptSession=[accepted("mine")],
        SendMessages=[sent(1), sent(2), sent(3)],
        ReceiveMessages=[answers("q3", "nobody's", "q2"), answers("q1")],
    )

    async with requester(transport) as asking, asyncio.TaskGroup() as group:
        keys = ["q1", "q2", "q3"]
        tasks = [group.create_task(asking.request(ask(key))) for key in keys]

    assert [task.result().correlation_id for task in tasks] == keys
    assert len(transport.outcomes()) == 4


async def test_when_the_one_who_receives_is_cancelled_another_takes_over() -> None:
    waiting = Never()
    transport = AnsweringTransport(
        AcceptSession=[accepted("mine")],
        SendMessages=[sent(1), sent(2)],
        ReceiveMessages=[waiting, answers("q2")],
    )

    async with requester(transport) as asking, asyncio.TaskGroup() as group:
        first = group.create_task(asking.request(ask("q1")))
        await waiting.has_begun.wait()
        second = group.create_task(asking.request(ask("q2")))
        await transport.clock.advance_stepwise(0)
        first.cancel()
        answer = await second

    assert answer.correlation_id == "q2"
    assert first.cancelled()


async def test_an_answer_that_does_not_come_is_a_timeout_and_is_thrown_away_later() -> None:
    def nothing(_: Any) -> messaging.ReceiveMessagesResponse:
        transport.clock.advance(5_000)
        return received()

    transport = AnsweringTransport(
        AcceptSession=[accepted("mine")],
        SendMessages=[sent(1), sent(2)],
        ReceiveMessages=[nothing, answers("q1", "q2")],
    )

    async with requester(transport) as asking:
        with pytest.raises(OperationTimeout, match="q1"):
            await asking.request(ask("q1"), timeout=5)
        answer = await asking.request(ask("q2"))

    assert transport.calls[2].request.max_wait.seconds == 5
    assert answer.correlation_id == "q2"
    assert transport.outcomes() == [("complete", 1), ("complete", 2)]


async def test_a_session_that_was_lost_is_accepted_again() -> None:
    transport = AnsweringTransport(
        AcceptSession=[accepted("mine"), accepted("mine")],
        SendMessages=[sent(1)],
        ReceiveMessages=[SessionLockLost("ran out"), answers("q1")],
        ReleaseSession=[SessionLockLost("ran out")],
    )

    async with requester(transport) as asking:
        answer = await asking.request(ask("q1"))

    assert answer.correlation_id == "q1"
    assert transport.names().count("AcceptSession") == 2
    assert transport.names()[-1] == "ReleaseSession"


async def test_a_session_that_somebody_took_is_told_and_tried_again_by_the_next() -> None:
    transport = AnsweringTransport(
        AcceptSession=[accepted("mine"), SessionCannotBeLocked("held"), accepted("mine")],
        SendMessages=[sent(1), sent(2)],
        ReceiveMessages=[SessionLockLost("ran out"), answers("q2")],
    )

    async with requester(transport) as asking:
        with pytest.raises(SessionCannotBeLocked):
            await asking.request(ask("q1"))
        answer = await asking.request(ask("q2"))

    assert answer.correlation_id == "q2"


async def test_an_answer_in_hand_is_returned_even_if_it_could_not_be_removed() -> None:
    transport = AnsweringTransport(
        AcceptSession=[accepted("mine")],
        SendMessages=[sent(1)],
        ReceiveMessages=[answers("q1")],
        SettleMessages=[StoreRefused("no")],
    )

    async with requester(transport) as asking:
        assert (await asking.request(ask("q1"))).correlation_id == "q1"


async def test_two_requests_of_one_message_id_would_mix_their_answers() -> None:
    waiting = Never()
    transport = AnsweringTransport(
        AcceptSession=[accepted("mine")], SendMessages=[sent(1)], ReceiveMessages=[waiting]
    )

    async with requester(transport) as asking, asyncio.TaskGroup() as group:
        first = group.create_task(asking.request(ask("q1")))
        await waiting.has_begun.wait()
        with pytest.raises(InvalidOperation, match="q1"):
            await asking.request(ask("q1"))
        first.cancel()


async def test_the_session_stays_locked_while_nobody_asks() -> None:
    def renew(_: Any) -> messaging.RenewSessionLockResponse:
        response = messaging.RenewSessionLockResponse()
        response.locked_until.FromMilliseconds(transport.now_ms() + 60_000)
        return response

    transport = AnsweringTransport(AcceptSession=[accepted("mine")], RenewSessionLock=[renew] * 20)

    async with requester(transport):
        await transport.clock.advance_stepwise(600_000)

    assert transport.names().count("RenewSessionLock") == 20


async def test_a_requester_is_entered_first_and_not_used_after_close() -> None:
    transport = AnsweringTransport(AcceptSession=[accepted("mine")])
    asking = requester(transport)

    with pytest.raises(InvalidOperation):
        await asking.request(ask("q1"))
    async with asking:
        assert asking.session_id == "mine"
        with pytest.raises(TypeError):
            await asking.request("text")  # type: ignore[arg-type]
    with pytest.raises(ClientClosed):
        await asking.request(ask("q1"))
    await asking.close()

    assert transport.names() == ["AcceptSession", "ReleaseSession"]


async def test_a_session_that_cannot_be_accepted_leaves_nothing_behind() -> None:
    transport = AnsweringTransport(AcceptSession=[SessionCannotBeLocked("held")])

    with pytest.raises(SessionCannotBeLocked):
        await requester(transport).__aenter__()

    assert transport.clock.sleepers() == 0


def test_threads_share_a_requester() -> None:
    answered = threading.Barrier(2, timeout=10)

    def both(_: Any) -> messaging.ReceiveMessagesResponse:
        answered.wait()
        return answers("q1", "q2")

    def store(_: Any) -> messaging.SendMessagesResponse:
        answered.wait()
        return sent(2)

    transport = AnsweringTransport(
        AcceptSession=[accepted("mine")], SendMessages=[sent(1), store], ReceiveMessages=[both]
    )
    replies: dict[str, str | None] = {}

    def work(asking: QueueRequester, key: str) -> None:
        replies[key] = asking.request(ask(key)).correlation_id

    connection = connect(transport)
    with QueueRequester(connection, "orders", options("replies", session_id="mine")) as asking:
        first = threading.Thread(target=work, args=(asking, "q1"))
        first.start()
        while len(transport.calls) < 3:
            first.join(0.001)
        second = threading.Thread(target=work, args=(asking, "q2"))
        second.start()
        for thread in (first, second):
            thread.join(10)

    assert replies == {"q1": "q1", "q2": "q2"}


def request_of(**properties: Any) -> Any:
    response = received(1)
    for name, value in properties.items():
        setattr(response.messages[0], name, value)
    receiver, _ = open_receiver(response)
    return receiver.receive_messages()[0]


def test_an_answer_is_addressed_to_who_asked() -> None:
    request = request_of(message_id="q1", reply_to="replies", reply_to_session_id="mine")
    message = Message("42", subject="price")

    queue, answer = reply_of(request, message)

    assert queue == "replies"
    assert (answer.session_id, answer.correlation_id) == ("mine", "q1")
    assert (answer.body, answer.subject) == (b"42", "price")
    assert message.session_id is None


def test_an_answer_keeps_a_correlation_id_of_its_own_and_needs_no_session() -> None:
    request = request_of(message_id="q1", reply_to="replies")

    _, answer = reply_of(request, Message("42", correlation_id="other"))

    assert (answer.session_id, answer.correlation_id) == (None, "other")


def test_what_expects_no_answer_gets_none() -> None:
    with pytest.raises(InvalidRequest, match="reply_to"):
        reply_of(request_of(message_id="q1"), Message("42"))
    with pytest.raises(TypeError):
        reply_of(Message("q"), Message("42"))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        reply_of(request_of(reply_to="replies"), "42")  # type: ignore[arg-type]
