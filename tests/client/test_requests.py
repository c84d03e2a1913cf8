"""Requests and their answers, as programs exchange them over a server (SES-54 to SES-56)."""

from __future__ import annotations

import asyncio
import threading

import pytest

from lockstep import LockstepClient as BlockingClient
from lockstep import Message
from lockstep import ProcessorContext as BlockingContext
from lockstep.aio import (
    NEXT_AVAILABLE_SESSION,
    AcceptNext,
    LockstepClient,
    ProcessorContext,
    ReceivedMessage,
)
from lockstep.errors import InvalidOperation, OperationTimeout
from tests.client.calls import Q, create

REPLIES = "replies"


async def create_both(client: LockstepClient) -> None:
    await create(client)
    admin = client.get_administration_client()
    await admin.create_queue(REPLIES, requires_session=True, accept_next=AcceptNext.DISABLED)


async def test_ses_54_many_requesters_get_their_own_answers(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create_both(client)

    async def respond(message: ReceivedMessage, context: ProcessorContext) -> None:
        await other.reply_to(message, Message(f"answer to {message}"))

    async def ask_all(name: str) -> list[str]:
        async with (
            client.get_requester(Q, REPLIES) as requester,
            asyncio.TaskGroup() as group,
        ):
            tasks = [
                group.create_task(requester.request(Message(f"{name}{n}"), timeout=20))
                for n in range(5)
            ]
        return [str(task.result()) for task in tasks]

    responder = other.get_queue_processor(Q, respond, max_concurrent_calls=3, auto_complete=True)
    async with responder, asyncio.TaskGroup() as group:
        asking = {name: group.create_task(ask_all(name)) for name in ("a", "b", "c")}
        await asyncio.wait(asking.values())

    for name, task in asking.items():
        assert task.result() == [f"answer to {name}{n}" for n in range(5)]
    admin = client.get_administration_client()
    for queue in (Q, REPLIES):
        assert (await admin.get_queue_runtime_properties(queue)).total_message_count == 0


async def test_ses_55_the_session_of_a_requester_is_held_before_it_asks(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create_both(client)

    async with client.get_requester(Q, REPLIES, session_id="mine") as requester:
        properties = await other.get_administration_client().get_session(REPLIES, "mine")
        with pytest.raises(OperationTimeout):
            await requester.request(Message("anybody there?"), timeout=0.2)

    assert requester.session_id == "mine"
    assert properties.holder_client_id
    async with other.get_queue_receiver(Q) as receiver:
        (request,) = await receiver.receive_messages()
    assert (request.reply_to, request.reply_to_session_id) == (REPLIES, "mine")


async def test_ses_56_nobody_takes_the_next_session_of_a_reply_queue(
    client: LockstepClient,
) -> None:
    await create_both(client)
    greedy = client.get_queue_receiver(REPLIES, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=0)

    with pytest.raises(InvalidOperation):
        await greedy.receive_messages()


def test_a_blocking_requester_gets_its_answer(blocking: BlockingClient) -> None:
    admin = blocking.get_administration_client()
    admin.create_queue(Q)
    admin.create_queue(REPLIES, requires_session=True)
    answers: dict[int, str] = {}

    def respond(message: ReceivedMessage, context: BlockingContext) -> None:
        blocking.reply_to(message, Message(f"answer to {message}"))
        context.complete_message(message)

    with (
        blocking.get_queue_processor(Q, respond),
        blocking.get_requester(Q, REPLIES) as requester,
    ):

        def ask(number: int) -> None:
            answers[number] = str(requester.request(Message(str(number)), timeout=20))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert answers == {n: f"answer to {n}" for n in range(4)}
