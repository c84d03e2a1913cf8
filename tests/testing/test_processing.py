"""What a function of a program may do with a message that a processor gave it: all that a receiver can (CLI-2)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from lockstep import LockstepClient as BlockingClient
from lockstep import ProcessorContext as BlockingContext
from lockstep import SubQueue
from lockstep.aio import LockstepClient, Message, ProcessorContext, ReceivedMessage
from lockstep.errors import InvalidOperation, StateConflict
from lockstep.testing import BlockingBroker, Broker

MINUTE = timedelta(minutes=1)
LATER = {"why": "later"}


@pytest.fixture
def broker() -> Iterator[BlockingBroker]:
    with BlockingBroker() as broker:
        yield broker


async def queue_of(client: LockstepClient, *bodies: str, session: str | None = None) -> None:
    administration = client.get_administration_client()
    await administration.create_queue("jobs", requires_session=session is not None)
    messages = [Message(body, session_id=session) for body in bodies]
    await client.get_queue_sender("jobs").send_messages(messages)


def blocking_queue_of(client: BlockingClient, *bodies: str, session: str | None = None) -> None:
    administration = client.get_administration_client()
    administration.create_queue("jobs", requires_session=session is not None)
    messages = [Message(body, session_id=session) for body in bodies]
    client.get_queue_sender("jobs").send_messages(messages)


# --- asyncio -----------------------------------------------------------------------------------------


async def test_add_6_a_message_is_abandoned_with_a_delay_and_properties(
    lockstep_broker: Broker,
) -> None:
    client = lockstep_broker.client()
    await queue_of(client, "1")
    seen: list[tuple[int, object]] = []

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        seen.append((message.delivery_count, message.application_properties.get("why")))
        if message.delivery_count:
            await context.complete_message(message)
        else:
            await context.abandon_message(message, properties=LATER, delay=MINUTE)

    async with client.get_queue_processor("jobs", work):
        await lockstep_broker.advance(59)
        before = list(seen)
        await lockstep_broker.advance(1)

    assert before == [(0, None)]
    assert seen == [(0, None), (1, "later")]


async def test_def_1_a_message_of_a_session_is_set_aside_and_asked_for(
    lockstep_broker: Broker,
) -> None:
    client = lockstep_broker.client()
    await queue_of(client, "part", "whole", session="A")
    done: list[str] = []
    aside: list[int] = []

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        if str(message) == "part":
            await context.defer_message(message, properties=LATER)
            aside.append(message.sequence_number)
            return
        (part,) = await context.receive_deferred_messages(aside)
        done.extend([str(part.application_properties["why"]), str(part), str(message)])
        await context.complete_message(part)

    async with client.get_session_processor("jobs", work, auto_complete=True):
        await lockstep_broker.advance(1)

    assert done == ["later", "part", "whole"]
    queue = await client.get_administration_client().get_queue_runtime_properties("jobs")
    assert queue.total_message_count == 0


async def test_add_8_a_turn_is_committed_by_the_function_that_took_it(
    lockstep_broker: Broker,
) -> None:
    client = lockstep_broker.client()
    await queue_of(client, "pay", session="A")
    steps: list[tuple[str, bytes | None]] = []

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        steps.append((str(message), await context.session.get_state()))
        if str(message) == "pay":
            ship = Message("ship", session_id="A")
            turn = await context.commit_turn(complete=[message], send=[ship], state="paid")
            with pytest.raises(StateConflict):
                await context.commit_turn(state="again", if_version=turn.state_version - 1)
        else:
            await context.commit_turn(complete=[message], state=None)

    async with client.get_session_processor("jobs", work, auto_complete=True):
        await lockstep_broker.advance(1)

    assert steps == [("pay", None), ("ship", b"paid")]
    queue = await client.get_administration_client().get_queue_runtime_properties("jobs")
    assert (queue.total_message_count, queue.session_count) == (0, 0)


async def test_msg_8_a_dead_letter_gets_its_properties(lockstep_broker: Broker) -> None:
    client = lockstep_broker.client()
    await queue_of(client, "1")

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        await context.dead_letter_message(message, reason="bad", properties=LATER)

    async with client.get_queue_processor("jobs", work):
        await lockstep_broker.advance(1)

    (dead,) = await client.get_queue_receiver(
        "jobs", sub_queue=SubQueue.DEAD_LETTER
    ).receive_messages()
    assert (dead.dead_letter_reason, dead.application_properties["why"]) == ("bad", "later")


async def test_on_a_plain_queue_there_is_no_turn_and_nothing_is_asked_for(
    lockstep_broker: Broker,
) -> None:
    """A message that was asked for would have a lock that nobody renews."""
    client = lockstep_broker.client()
    await queue_of(client, "1")
    refused: list[type[Exception]] = []

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        for call in (
            context.commit_turn(complete=[message]),
            context.receive_deferred_messages([1]),
        ):
            with pytest.raises(InvalidOperation, match="plain queue") as error:
                await call
            refused.append(error.type)

    async with client.get_queue_processor("jobs", work, auto_complete=True):
        await lockstep_broker.advance(1)

    assert refused == [InvalidOperation] * 2


# --- blocking ----------------------------------------------------------------------------------------


def test_add_6_threads_abandon_with_a_delay_and_properties(broker: BlockingBroker) -> None:
    client = broker.client()
    blocking_queue_of(client, "1")
    seen: list[tuple[int, object]] = []

    def work(message: ReceivedMessage, context: BlockingContext) -> None:
        seen.append((message.delivery_count, message.application_properties.get("why")))
        if message.delivery_count:
            context.dead_letter_message(message, reason="bad", properties={"why": "bad"})
        else:
            context.abandon_message(message, properties=LATER, delay=MINUTE)

    with client.get_queue_processor("jobs", work):
        broker.wait_for_calls(1)
        broker.clock.advance(59)
        before = list(seen)
        broker.clock.advance(1)
        broker.wait_for_calls(1)

    assert before == [(0, None)]
    assert seen == [(0, None), (1, "later")]
    (dead,) = client.get_queue_receiver("jobs", sub_queue=SubQueue.DEAD_LETTER).receive_messages()
    assert dead.application_properties["why"] == "bad"


def test_def_1_add_8_threads_defer_ask_and_commit_turns(broker: BlockingBroker) -> None:
    client = broker.client()
    blocking_queue_of(client, "part", "whole", session="A")
    aside: list[int] = []

    def work(message: ReceivedMessage, context: BlockingContext) -> None:
        if str(message) == "part":
            context.defer_message(message, properties=LATER)
            aside.append(message.sequence_number)
            return
        parts = context.receive_deferred_messages(aside)
        done = Message(f"done {parts[0]}", session_id="B")
        context.commit_turn(complete=[*parts, message], send=[done], state="done")

    with client.get_session_processor("jobs", work, max_concurrent_sessions=1):
        broker.wait_for_calls(1)

    sessions = list(client.get_administration_client().list_sessions("jobs"))
    assert [(one.session_id, one.active_message_count) for one in sessions] == [("A", 0), ("B", 1)]
    with client.get_queue_receiver("jobs", session_id="A") as receiver:
        assert receiver.session.state == b"done"


def test_threads_take_no_turn_on_a_plain_queue(broker: BlockingBroker) -> None:
    client = broker.client()
    blocking_queue_of(client, "1")
    refused: list[type[Exception]] = []

    def work(message: ReceivedMessage, context: BlockingContext) -> None:
        with pytest.raises(InvalidOperation, match="plain queue") as error:
            context.commit_turn(complete=[message])
        refused.append(error.type)
        with pytest.raises(InvalidOperation, match="plain queue") as error:
            context.receive_deferred_messages([1])
        refused.append(error.type)

    with client.get_queue_processor("jobs", work, auto_complete=True):
        broker.wait_for_calls(1)

    assert refused == [InvalidOperation] * 2
