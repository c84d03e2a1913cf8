"""Sessions, as a program sees them through the asyncio client."""

from __future__ import annotations

import asyncio

import pytest

from lockstep.aio import NEXT_AVAILABLE_SESSION, LockstepClient, Message, SubQueue
from lockstep.errors import (
    ClientClosed,
    InvalidOperation,
    LimitExceeded,
    MessageSizeExceeded,
    NoSessionAvailable,
    SessionCannotBeLocked,
    SessionLockLost,
    StateConflict,
)
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.v1.request_pb2 import RequestId
from tests.client.calls import Q, create, numbered, send, session_receiver, texts
from tests.server.server_process import ServerProcess

MIB = 1024 * 1024


async def test_c01_a_session_that_another_holds_cannot_be_locked(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create(client, sessions=True)

    async with session_receiver(client):
        with pytest.raises(SessionCannotBeLocked):
            await session_receiver(other).__aenter__()


async def test_c05_no_free_session_in_time_is_a_typed_result(client: LockstepClient) -> None:
    await create(client, sessions=True)
    idle = client.get_queue_receiver(Q, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=0.1)

    with pytest.raises(NoSessionAvailable):
        await idle.receive_messages()


async def test_c07_a_closed_session_can_be_accepted_at_once(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create(client, sessions=True)
    async with session_receiver(client) as first:
        first_grant = first.session.grant

    async with session_receiver(other) as second:
        assert second.session.grant > first_grant


async def test_c08_a_session_is_received_in_order(client: LockstepClient) -> None:
    await create(client, sessions=True)
    await send(client, *numbered(30), session="s")

    async with session_receiver(client, max_wait_time=0) as receiver:
        seen = []
        async for message in receiver:
            seen.append(str(message))
            await receiver.complete_message(message)

    assert seen == numbered(30)


async def test_c11_the_holder_of_an_empty_session_gets_what_is_sent_later(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create(client, sessions=True)

    async with session_receiver(client) as holder:
        await send(other, "late", session="s")
        rival = other.get_queue_receiver(Q, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=0)
        with pytest.raises(NoSessionAvailable):
            await rival.receive_messages()
        assert texts(await holder.receive_messages(5, 5)) == ["late"]


async def test_c13_a_holder_that_expired_is_refused_everything(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create(client, sessions=True, lock_duration="PT5S")
    await send(client, "1", "2", session="s")
    async with session_receiver(client) as stale:
        first, second = await stale.receive_messages(2)
        next_one = other.get_queue_receiver(Q, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=30)
        async with next_one as holder:
            for refused in (
                stale.receive_messages(1, 0),
                stale.session.get_state(),
                stale.session.set_state(b"late"),
                stale.session.renew_lock(),
                stale.abandon_message(first),
                stale.dead_letter_message(second),
            ):
                with pytest.raises(SessionLockLost):
                    await refused
            again = await holder.receive_messages(2)
            assert (texts(again), [m.delivery_count for m in again]) == (["1", "2"], [1, 1])


async def test_c14_closing_gives_messages_back_uncounted(client: LockstepClient) -> None:
    await create(client, sessions=True)
    await send(client, "1", session="s")
    async with session_receiver(client) as receiver:
        await receiver.receive_messages()

    async with session_receiver(client) as receiver:
        (again,) = await receiver.receive_messages()

    assert (str(again), again.delivery_count) == ("1", 0)


async def test_c19_a_message_of_a_session_has_no_lock_to_renew(client: LockstepClient) -> None:
    await create(client, sessions=True)
    await send(client, "1", session="s")

    async with session_receiver(client) as receiver:
        (message,) = await receiver.receive_messages()
        with pytest.raises(TypeError):
            await receiver.renew_message_lock(message)

    assert message.lock_token is not None
    assert message.locked_until_utc is None


async def test_c22_an_abandoned_message_comes_again_first(client: LockstepClient) -> None:
    await create(client, sessions=True)
    await send(client, "1", "2", session="s")

    async with session_receiver(client) as receiver:
        (first,) = await receiver.receive_messages()
        await receiver.abandon_message(first)
        (again,) = await receiver.receive_messages()

    assert (again.sequence_number, again.delivery_count) == (first.sequence_number, 1)


async def test_c25_a_closed_receiver_refuses_in_the_client(client: LockstepClient) -> None:
    await create(client, sessions=True)
    await send(client, "1", session="s")
    async with session_receiver(client) as receiver:
        (message,) = await receiver.receive_messages()

    with pytest.raises(ClientClosed):
        await receiver.complete_message(message)
    with pytest.raises(ClientClosed):
        await receiver.receive_messages()


async def test_c26_each_session_has_exactly_its_messages(client: LockstepClient) -> None:
    await create(client, sessions=True)
    names = ["a" * length for length in range(1, 6)]
    for name in names:
        await send(client, name, session=name)

    for name in names:
        async with session_receiver(client, name) as receiver:
            assert texts(await receiver.receive_messages(5, 0)) == [name]


async def test_c28_a_session_id_has_at_most_128_characters(client: LockstepClient) -> None:
    await create(client, sessions=True)
    for refused in (
        lambda: Message("x", session_id="s" * 129),
        lambda: session_receiver(client, "s" * 129),
    ):
        with pytest.raises(LimitExceeded):
            refused()

    await send(client, "1", session="s" * 128)
    async with session_receiver(client, "s" * 128) as receiver:
        assert texts(await receiver.receive_messages()) == ["1"]


async def test_c29_iteration_goes_on_where_it_was_left(client: LockstepClient) -> None:
    await create(client, sessions=True)
    await send(client, *numbered(8), session="s")

    async with session_receiver(client, max_wait_time=0) as receiver:
        seen = []
        async for message in receiver:
            seen.append(str(message))
            if len(seen) == 5:
                break
        await receiver.session.renew_lock()
        seen += [str(message) async for message in receiver]

    assert seen == numbered(8)


async def test_c31_the_wrong_kind_of_receiver_is_refused_at_once(client: LockstepClient) -> None:
    await create(client, sessions=True)
    await client.get_administration_client().create_queue("plain")

    with pytest.raises(InvalidOperation):
        await client.get_queue_receiver(Q).receive_messages()
    with pytest.raises(InvalidOperation):
        await client.get_queue_receiver("plain", session_id="s").receive_messages()


async def test_c37_c38_the_state_is_set_read_and_cleared(client: LockstepClient) -> None:
    await create(client, sessions=True)

    async with session_receiver(client) as receiver:
        session = receiver.session
        states = [session.state, await session.get_state()]
        for value in ("first_state", b"", None):
            await session.set_state(value)
            states.append(await session.get_state())

    assert states == [None, None, b"first_state", b"", None]


async def test_the_next_holder_gets_the_state_with_the_session(client: LockstepClient) -> None:
    await create(client, sessions=True)
    async with session_receiver(client) as receiver:
        await receiver.session.set_state("half way")

    async with session_receiver(client) as receiver:
        assert receiver.session.state == b"half way"


async def test_add_7_a_holder_writes_on_top_of_the_version_that_it_inherited(
    client: LockstepClient,
) -> None:
    await create(client, sessions=True)
    async with session_receiver(client) as receiver:
        session = receiver.session
        assert session.state_version == 0
        first = await session.set_state("1", if_version=session.state_version)
        assert session.state_version == first

    async with session_receiver(client) as receiver:
        session = receiver.session
        assert session.state_version == first
        second = await session.set_state("2", if_version=session.state_version)
        turn = await receiver.commit_turn(state="3", if_version=session.state_version)

        assert first < second < turn.state_version == session.state_version


async def test_add_7_a_refused_write_leaves_the_version_until_the_state_is_read_again(
    client: LockstepClient,
) -> None:
    await create(client, sessions=True)
    async with session_receiver(client) as receiver:
        session = receiver.session
        written = await session.set_state("1")

        with pytest.raises(StateConflict):
            await session.set_state("2", if_version=0)
        with pytest.raises(StateConflict):
            await receiver.commit_turn(state="2", if_version=0)

        assert session.state_version == written
        assert (await session.get_state(), session.state_version) == (b"1", written)


async def test_add_7_reading_tells_the_version_of_a_write_whose_answer_was_lost(
    client: LockstepClient, shared_server: ServerProcess
) -> None:
    await create(client, sessions=True)
    async with session_receiver(client) as receiver:
        session = receiver.session
        lost = shared_server.stubs.messaging.SetSessionState(
            messaging.SetSessionStateRequest(
                namespace=session._held._connection.namespace,
                entity=Q,
                request_id=RequestId(client_id="lost", counter=1),
                session=session._held.lock,
                value=b"1",
            )
        )
        assert session.state_version == 0

        assert (await session.get_state(), session.state_version) == (b"1", lost.version)


async def test_c41_a_state_that_is_too_large_leaves_the_earlier_one(client: LockstepClient) -> None:
    await create(client, sessions=True)

    async with session_receiver(client) as receiver:
        await receiver.session.set_state(b"x" * MIB)
        with pytest.raises(MessageSizeExceeded):
            await receiver.session.set_state(b"y" * (MIB + 1))
        assert await receiver.session.get_state() == b"x" * MIB


async def test_c68_dead_letters_of_a_session_are_read_without_one(client: LockstepClient) -> None:
    await create(client, sessions=True)
    await send(client, *numbered(10), session="s")
    async with session_receiver(client) as receiver:
        bad = await receiver.receive_messages(10)
        assert not await receiver.dead_letter_messages(bad, reason="why", error_description="more")

    async with client.get_queue_receiver(Q, sub_queue=SubQueue.DEAD_LETTER) as dead:
        letters = await dead.receive_messages(20)

    assert texts(letters) == numbered(10)
    for letter in letters:
        assert letter.session_id == "s"
        assert (letter.dead_letter_reason, letter.dead_letter_error_description) == ("why", "more")
        assert letter.application_properties["DeadLetterReason"] == "why"
        assert Message.from_received(letter).application_properties == {}


async def test_closing_the_client_releases_its_sessions(
    address: str, other: LockstepClient
) -> None:
    await create(other, sessions=True)
    async with LockstepClient(address) as leaving:
        held = [session_receiver(leaving, name) for name in ("a", "b")]
        for receiver in held:
            await receiver.__aenter__()

    for name in ("a", "b"):
        async with session_receiver(other, name) as receiver:
            assert receiver.session.session_id == name


async def test_a_cancelled_accept_leaves_the_session_free(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create(client, sessions=True)
    waiting = client.get_queue_receiver(Q, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=30)
    async with asyncio.TaskGroup() as group:
        accepting = group.create_task(waiting.__aenter__())
        sending = group.create_task(_send_later(other))
        await asyncio.wait([sending])
        accepting.cancel()

    with_it = session_receiver(other) if accepting.cancelled() else waiting
    async with with_it as receiver:
        (message,) = await receiver.receive_messages()
    assert (str(message), message.delivery_count) == ("1", 0)


async def _send_later(client: LockstepClient) -> None:
    await send(client, "1", session="s")
