"""Streams with credit, as programs use them over a server (PRE-5, PRE-6, RACE-19)."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from lockstep import LockstepClient as BlockingClient
from lockstep import Message
from lockstep.aio import (
    NEXT_AVAILABLE_SESSION,
    AutoLockRenewer,
    LockstepClient,
    QueueStream,
    SubQueue,
)
from lockstep.errors import (
    ClientClosed,
    EntityNotFound,
    InvalidOperation,
    InvalidRequest,
    LockstepError,
    NoSessionAvailable,
    SessionCannotBeLocked,
    SessionLockLost,
    SettingNotAvailable,
    Unavailable,
)
from lockstep.testing import Broker
from tests.client.calls import Q, create, numbered, send, session_receiver, texts
from tests.server.server_process import ServerProcess


async def next_texts(stream: QueueStream, count: int) -> list[str]:
    """Return the bodies of the next messages, completing none."""
    found: list[str] = []
    while len(found) < count:
        message = await stream.receive_message(max_wait_time=20)
        assert message is not None
        found.append(str(message))
    return found


async def free(client: LockstepClient) -> list[str]:
    """Return what nobody holds of the plain queue."""
    async with client.get_queue_receiver(Q, max_wait_time=0) as receiver:
        return texts(await receiver.receive_messages(max_message_count=100))


@pytest.mark.parametrize("credit", [1, 2, 16])
async def test_a_session_comes_in_order_through_a_window(
    client: LockstepClient, credit: int
) -> None:
    await create(client, sessions=True)
    bodies = numbered(50)
    await send(client, *bodies, session="s")

    seen = []
    async with client.open_stream(
        Q, session_id=NEXT_AVAILABLE_SESSION, credit=credit, max_wait_time=10
    ) as stream:
        assert stream.session.session_id == "s"
        async for message in stream:
            seen.append(str(message))
            await stream.complete_message(message)
            if len(seen) == len(bodies):
                break
        await stream.session.set_state("done")

    assert seen == bodies
    async with session_receiver(client) as receiver:  # given back at once (SES-22)
        assert receiver.session.state == b"done"
        assert await receiver.receive_messages(max_wait_time=0) == []


async def test_a_stream_takes_what_comes_later(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create(client)
    async with client.open_stream(Q) as stream, asyncio.TaskGroup() as group:
        waiting = group.create_task(next_texts(stream, 3))
        await send(other, "1", "2", "3")

    assert waiting.result() == ["1", "2", "3"]


async def test_pre_5_no_more_is_held_than_the_window_allows(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create(client)
    await send(client, *numbered(10))
    async with client.open_stream(Q, credit=4) as stream:
        assert await next_texts(stream, 1) == ["1"]
        held = await free(other)

    assert held == numbered(6, first=5)


async def test_pre_5_a_stream_that_nobody_reads_holds_nothing(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create(client)
    await send(client, *numbered(3))
    async with client.open_stream(Q):
        assert await free(other) == numbered(3)


async def test_a_window_of_one_asks_for_a_message_when_the_program_does(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create(client)
    await send(client, "1", "2")
    async with client.open_stream(Q, credit=1) as stream:
        assert await next_texts(stream, 1) == ["1"]
        assert await free(other) == ["2"]


async def test_pre_6_credit_by_hand_ends_the_iteration_and_is_drained(
    client: LockstepClient,
) -> None:
    await create(client)
    await send(client, *numbered(5))
    async with client.open_stream(Q, credit=0) as stream:
        assert [str(message) async for message in stream] == []
        stream.add_credit(3)
        assert [str(message) async for message in stream] == numbered(3)

        stream.add_credit(5)
        assert await next_texts(stream, 1) == ["4"]
        returned = await stream.drain()
        later = [str(message) async for message in stream]
        assert (later, returned, stream.credit) == (["5"], 3, 0)
        await send(client, "6")
        assert await stream.receive_message() is None


async def test_wrong_uses_are_refused(client: LockstepClient) -> None:
    await create(client)
    for credit in (-1, 4097):
        with pytest.raises(InvalidRequest):
            client.open_stream(Q, credit=credit)
    with pytest.raises(TypeError):
        client.open_stream(Q, credit=True)
    by_hand = client.open_stream(Q, credit=0)
    with pytest.raises(InvalidOperation):
        by_hand.add_credit(1)
    async with by_hand:
        for credit in (0, 4097):
            with pytest.raises(InvalidRequest):
                by_hand.add_credit(credit)
        by_hand.add_credit(4096)
        with pytest.raises(InvalidRequest):
            by_hand.add_credit(1)
        with pytest.raises(InvalidOperation):
            by_hand.session.session_id  # noqa: B018  # reading it is the test
    async with client.open_stream(Q) as stream:
        with pytest.raises(InvalidOperation):
            stream.add_credit(1)
        with pytest.raises(InvalidOperation):
            await stream.drain()
    with pytest.raises(ClientClosed):
        await stream.receive_message()
    with pytest.raises(ClientClosed):
        by_hand.add_credit(1)


async def test_one_task_reads_at_a_time(client: LockstepClient) -> None:
    await create(client)
    async with client.open_stream(Q) as stream:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(stream.receive_message(max_wait_time=20))
            while stream.credit == 0:
                await asyncio.wait([first], timeout=0.01)
            with pytest.raises(InvalidOperation):
                await stream.receive_message()
            await send(client, "1")
        message = first.result()
    assert str(message) == "1"


async def test_errors_of_opening_are_typed(client: LockstepClient) -> None:
    with pytest.raises(EntityNotFound):
        await client.open_stream(Q).receive_message()
    await create(client, sessions=True)
    with pytest.raises(InvalidOperation):
        await client.open_stream(Q).receive_message(max_wait_time=5)
    with pytest.raises(NoSessionAvailable):
        async with client.open_stream(Q, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=0.1):
            pass
    async with client.open_stream(Q, session_id="s"):
        with pytest.raises(SessionCannotBeLocked):
            async with client.open_stream(Q, session_id="s"):
                pass


async def test_the_broker_of_tests_has_no_streams() -> None:
    async with Broker() as broker:
        client = broker.client()
        await create(client)
        with pytest.raises(SettingNotAvailable):
            await client.open_stream(Q).receive_message()


async def test_a_cancelled_wait_loses_neither_the_stream_nor_a_message(
    client: LockstepClient,
) -> None:
    await create(client)
    async with client.open_stream(Q) as stream:
        for number in numbered(20):
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(stream.receive_message())
                while stream.credit == 0:
                    await asyncio.wait([waiting], timeout=0.01)
                waiting.cancel()
            await send(client, number)
            assert await next_texts(stream, 1) == [number]


async def test_each_outcome_settles_what_a_stream_delivered(client: LockstepClient) -> None:
    await create(client)
    await send(client, "complete", "abandon", "release", "defer", "dead-letter", "renew")
    async with client.open_stream(Q, max_wait_time=0.3) as stream:
        by_body = {}
        for _ in range(6):
            message = await stream.receive_message()
            assert message is not None
            by_body[str(message)] = message
        assert await stream.complete_messages([by_body["complete"]]) == []
        await stream.abandon_message(by_body["abandon"])
        await stream.release_message(by_body["release"])
        await stream.defer_message(by_body["defer"])
        await stream.dead_letter_message(by_body["dead-letter"], reason="bad")
        await stream.renew_message_lock(by_body["renew"])
        again = {str(message): message.delivery_count async for message in stream}
    assert again == {"abandon": 1, "release": 0}

    async with client.open_stream(Q, sub_queue=SubQueue.DEAD_LETTER) as dead:
        letter = await dead.receive_message(max_wait_time=20)
        assert letter is not None
        assert letter.dead_letter_reason == "bad"


async def test_add_8_a_turn_is_committed_over_a_stream(client: LockstepClient) -> None:
    await create(client, sessions=True)
    await send(client, "1", session="s")
    async with client.open_stream(Q, session_id="s") as stream:
        message = await stream.receive_message()
        assert message is not None
        await stream.commit_turn(
            complete=[message], send=[Message("2", session_id="s")], state="one"
        )
        assert await next_texts(stream, 1) == ["2"]
        assert await stream.session.get_state() == b"one"


async def test_what_was_not_handed_out_is_given_back_without_a_count(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create(client)
    await send(client, *numbered(8))
    async with client.open_stream(Q, credit=8) as stream:
        message = await stream.receive_message()
        assert message is not None
        await stream.complete_message(message)

    async with other.get_queue_receiver(Q, max_wait_time=0) as receiver:
        rest = await receiver.receive_messages(max_message_count=100)
    assert texts(rest) == numbered(7, first=2)
    assert {message.delivery_count for message in rest} == {0}


async def test_a_client_that_is_closed_closes_its_streams(
    address: str, client: LockstepClient
) -> None:
    await create(client)
    admin = client.get_administration_client()
    await admin.create_queue("steps", requires_session=True)
    await send(client, *numbered(3))
    second = LockstepClient.from_connection_string(address)
    await second.open_stream(Q).receive_message()
    held = second.open_stream("steps", session_id="s")

    async def read() -> None:
        with pytest.raises(ClientClosed):
            await held.receive_message()

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(read())
        while held.credit == 0:
            await asyncio.wait([waiting], timeout=0.01)
        await second.close()

    assert await free(client) == ["2", "3"]
    async with client.get_queue_receiver("steps", session_id="s"):
        pass


async def test_a_renewer_keeps_the_session_of_a_stream(client: LockstepClient) -> None:
    await create(client, sessions=True, lock_duration="PT5S")
    await send(client, "1", session="s")
    async with (
        AutoLockRenewer() as renewer,
        client.open_stream(Q, session_id="s", auto_lock_renewer=renewer) as stream,
    ):
        message = await stream.receive_message()
        assert message is not None
        until = stream.session.locked_until_utc
        while stream.session.locked_until_utc == until:
            assert await stream.receive_message(max_wait_time=0.2) is None
        await stream.complete_message(message)


async def test_add_5_a_lost_session_is_told_by_its_reason_each_time(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create(client, sessions=True)
    async with client.open_stream(Q, session_id="s") as stream, asyncio.TaskGroup() as group:
        waiting = group.create_task(lost(stream))
        while stream.credit == 0:
            await asyncio.wait([waiting], timeout=0.01)
        await other.get_administration_client().break_session_lock(Q, "s")

        assert (await waiting).details["cause"] == "broken"
        assert (await lost(stream)).details["cause"] == "broken"


async def lost(stream: QueueStream) -> LockstepError:
    """Read until the stream says that its lock is lost."""
    with pytest.raises(SessionLockLost) as refused:
        await stream.receive_message(max_wait_time=20)
    return refused.value


async def test_race_19_a_session_outlives_its_broken_stream_and_another_one_goes_on(
    own_server: ServerProcess,
) -> None:
    async with LockstepClient(f"127.0.0.1:{own_server.port}") as client:
        await create(client, sessions=True)
        await send(client, "1", "2", session="s")
        async with client.open_stream(Q, session_id="s") as stream:
            message = await stream.receive_message()
            assert message is not None
            own_server.kill()
            own_server.start()
            assert str(await stream.receive_message()) == "2"  # it was here already
            with pytest.raises(Unavailable, match=r"broke: .*[.] Its session stays"):
                await stream.receive_message()
            await stream.complete_message(message)  # ADD-4: the lock is as it was

        async with client.open_stream(Q, session_id="s") as another:
            assert await next_texts(another, 1) == ["2"]


async def test_race_19_a_plain_stream_opens_again_by_itself(own_server: ServerProcess) -> None:
    async with LockstepClient(f"127.0.0.1:{own_server.port}") as client:
        await create(client)
        await send(client, "1")
        async with client.open_stream(Q) as stream:
            message = await stream.receive_message()
            assert message is not None
            own_server.kill()
            own_server.start()
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(next_texts(stream, 1))
                await send(client, "2")
            assert waiting.result() == ["2"]
            await stream.complete_message(message)


async def test_pre_7_credit_by_hand_is_not_counted_twice_when_a_stream_opens_again(
    own_server: ServerProcess,
) -> None:
    async with LockstepClient(f"127.0.0.1:{own_server.port}") as client:
        await create(client)
        await send(client, "1")
        async with client.open_stream(Q, credit=0) as stream:
            stream.add_credit(3)
            assert await next_texts(stream, 1) == ["1"]
            own_server.kill()
            own_server.start()
            await send(client, *numbered(4, first=2))
            assert [str(message) async for message in stream] == ["2", "3"]


def test_a_blocking_stream_does_the_same(blocking: BlockingClient) -> None:
    blocking.get_administration_client().create_queue(Q, requires_session=True)
    bodies = numbered(50)
    sender = blocking.get_queue_sender(Q)
    sender.send_messages([Message(body, session_id="s") for body in bodies])

    with blocking.open_stream(Q, session_id="s", max_wait_time=0.3) as stream:
        seen = []
        for message in stream:
            seen.append(str(message))
            stream.complete_message(message)
    assert seen == bodies
    with blocking.open_stream(Q, session_id="s", credit=0) as stream:
        stream.add_credit(2)
        assert stream.drain() == 2
        with pytest.raises(SessionCannotBeLocked), blocking.open_stream(Q, session_id="s"):
            pass


def test_a_blocking_client_that_is_closed_ends_the_wait_of_another_thread(
    blocking: BlockingClient, address: str
) -> None:
    blocking.get_administration_client().create_queue(Q)
    second = BlockingClient.from_connection_string(address)
    stream = second.open_stream(Q)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stream.receive_message)
        while stream.credit == 0:
            assert not waiting.done()
        second.close()
        with pytest.raises(ClientClosed):
            waiting.result(timeout=20)


async def test_bat_9_a_stream_that_is_given_up_while_it_opens_holds_no_session(
    client: LockstepClient,
) -> None:
    """Given up at many moments, one of which is that of the grant."""
    await create(client, sessions=True, lock_duration=timedelta(minutes=5))
    messages = [Message(str(number), session_id=str(number)) for number in range(40)]
    await client.get_queue_sender(Q).send_messages(messages)
    admin = client.get_administration_client()

    async def open_and_hold() -> None:
        async with client.open_stream(Q, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=10):
            await asyncio.Event().wait()

    for turn in range(40):
        async with asyncio.TaskGroup() as tasks:
            opening = tasks.create_task(open_and_hold())
            for _ in range(turn):
                await asyncio.to_thread(lambda: None)  # lets others run for a moment
            opening.cancel()

    async def is_free() -> bool:
        return (await admin.get_queue_runtime_properties(Q)).locked_session_count == 0

    while not await is_free():
        await asyncio.to_thread(lambda: None)
