"""Receivers accept sessions and give them back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lockstep import (
    NEXT_AVAILABLE_SESSION,
    QueueReceiver,
    aio,
)
from lockstep.client.calls import RetryPolicy
from lockstep.client.transport import run_to_completion
from lockstep.errors import (
    ClientClosed,
    ConnectionFailed,
    InvalidOperation,
    InvalidRequest,
    LimitExceeded,
    NoSessionAvailable,
    OperationTimeout,
    RequestIdExpired,
    SessionCannotBeLocked,
    SessionLockLost,
)
from tests.unit.client.scripted import (
    After,
    Answer,
    Never,
    ScriptedTransport,
    accepted,
    connect,
    open_aio_receiver,
    open_receiver,
    options,
    received,
    released,
    undone,
)

NOTHING = received()
NOBODY_AFTER_60_S = After(60_000, NoSessionAvailable("idle"))


def test_entering_accepts_the_session_and_leaving_gives_it_back() -> None:
    receiver, transport = open_receiver(
        accepted("A", state=b"42"), received(1), released(), session_id="A"
    )

    with receiver:
        session = receiver.session
        receiver.receive_messages()

    assert (session.session_id, session.grant, session.state) == ("A", 7, b"42")
    assert transport.names() == ["AcceptSession", "ReceiveMessages", "ReleaseSession"]
    accept, receive, release = (call.request for call in transport.calls)
    assert (accept.session_id, accept.max_wait.ToMilliseconds()) == ("A", 0)
    assert accept.holder_client_id == "me"
    assert receive.session == release.session
    assert receive.session.lock_token == (7).to_bytes(8, "big") + bytes(8)
    assert transport.counters() == [1, 2, 3]


def test_the_first_call_accepts_the_session_too_and_only_once() -> None:
    receiver, transport = open_receiver(accepted(), NOTHING, NOTHING, released(), session_id="A")

    receiver.receive_messages(max_wait_time=0)
    receiver.receive_messages(max_wait_time=0)
    receiver.close()
    receiver.close()

    assert transport.names() == [
        "AcceptSession",
        "ReceiveMessages",
        "ReceiveMessages",
        "ReleaseSession",
    ]


def test_an_empty_session_id_is_a_session() -> None:
    receiver, transport = open_receiver(accepted(""), released(), session_id="")

    with receiver:
        pass

    assert transport.calls[0].request.HasField("session_id")


def test_the_next_available_session_is_asked_for_without_an_id() -> None:
    receiver, transport = open_receiver(
        accepted("B"), released(), session_id=NEXT_AVAILABLE_SESSION, max_wait_time=2.5
    )

    with receiver:
        assert receiver.session.session_id == "B"

    request = transport.calls[0].request
    assert not request.HasField("session_id")
    assert request.max_wait.ToMilliseconds() == 2500


def test_no_session_in_time_is_an_idle_queue_and_can_be_tried_again() -> None:
    receiver, transport = open_receiver(
        NoSessionAvailable("idle"),
        accepted("B"),
        released(),
        session_id=NEXT_AVAILABLE_SESSION,
        max_wait_time=0,
    )

    with pytest.raises(NoSessionAvailable):
        receiver.__enter__()
    with receiver:
        pass

    assert transport.sleeps_ms == []


def test_the_wait_for_a_session_is_kept_to_the_second() -> None:
    receiver, transport = open_receiver(
        NOBODY_AFTER_60_S,
        After(10_000, NoSessionAvailable("idle")),
        session_id=NEXT_AVAILABLE_SESSION,
        max_wait_time=70,
    )

    with pytest.raises(NoSessionAvailable):
        receiver.receive_messages()

    assert [c.request.max_wait.ToMilliseconds() for c in transport.calls] == [60_000, 10_000]


def test_without_a_wait_a_session_is_waited_for_for_ever() -> None:
    receiver, transport = open_receiver(
        *[NOBODY_AFTER_60_S] * 30, accepted("B"), released(), session_id=NEXT_AVAILABLE_SESSION
    )

    with receiver:
        assert receiver.session.session_id == "B"

    assert len(transport.calls) == 32


def test_a_session_that_is_held_by_another_is_refused_at_once() -> None:
    receiver, transport = open_receiver(SessionCannotBeLocked("held"), session_id="A")

    with pytest.raises(SessionCannotBeLocked):
        receiver.receive_messages()

    assert transport.names() == ["AcceptSession"]


def test_a_receive_moves_the_time_until_which_the_session_is_locked() -> None:
    receiver, _ = open_receiver(
        accepted(lock_ms=5_000), received(1, lock_ms=9_000), released(), session_id="A"
    )

    with receiver:
        before = receiver.session.locked_until_utc
        (message,) = receiver.receive_messages()
        after = receiver.session.locked_until_utc

    assert (after - before).total_seconds() == 4
    assert message.locked_until_utc is None


def test_a_receiver_without_session_has_none_to_show() -> None:
    plain, _ = open_receiver()
    early, _ = open_receiver(session_id="A")

    with pytest.raises(InvalidOperation, match="session_id"):
        _ = plain.session
    with pytest.raises(InvalidOperation, match="no session yet"):
        _ = early.session


def test_closing_a_session_that_is_lost_already_is_no_error() -> None:
    receiver, _ = open_receiver(accepted(), SessionLockLost("expired"), session_id="A")

    with receiver:
        pass


def test_closing_says_when_the_server_could_not_be_told() -> None:
    receiver, transport = open_receiver(
        accepted(), *[After(3_000, ConnectionFailed("down"))] * 3, session_id="A"
    )
    receiver.__enter__()

    with pytest.raises(ConnectionFailed):
        receiver.close()

    assert transport.passed_ms < 10_000


def test_a_receiver_that_was_forgotten_warns() -> None:
    receiver, _ = open_receiver(accepted("A"), session_id="A")
    receiver.__enter__()

    with pytest.warns(ResourceWarning, match="session 'A' of 'orders' was not closed"):
        del receiver


def test_closing_the_client_gives_back_what_a_forgotten_receiver_held() -> None:
    transport = ScriptedTransport(accepted("A"), released())
    connection = connect(transport)
    receiver = QueueReceiver(connection, options(session_id="A"), None)
    receiver.__enter__()
    with pytest.warns(ResourceWarning):
        del receiver

    run_to_completion(connection.close())

    assert transport.names() == ["AcceptSession", "ReleaseSession"]
    assert transport.calls[1].request.session.session_id == "A"


def test_what_a_forgotten_receiver_held_is_not_remembered_long_after_its_lock() -> None:
    transport = ScriptedTransport(accepted("A"), accepted("B", lock_ms=10**9), released())
    connection = connect(transport)
    forgotten = QueueReceiver(connection, options(session_id="A"), None)
    forgotten.__enter__()
    with pytest.warns(ResourceWarning):
        del forgotten
    transport.passed_ms += 3_600_000
    receiver = QueueReceiver(connection, options(session_id="B"), None)
    receiver.__enter__()

    run_to_completion(connection.close())

    assert transport.calls[-1].request.session.session_id == "B"
    assert transport.names().count("ReleaseSession") == 1


def test_a_receiver_whose_client_was_closed_is_closed_too() -> None:
    transport = ScriptedTransport(accepted("A"), released())
    connection = connect(transport)
    receiver = QueueReceiver(connection, options(session_id="A"), None)
    receiver.__enter__()

    run_to_completion(connection.close())
    receiver.close()

    assert transport.names().count("ReleaseSession") == 1
    del receiver  # and no warning


@pytest.mark.parametrize(
    ("count", "wait", "kind"),
    [
        (0, None, InvalidRequest),
        (-1, None, InvalidRequest),
        (65_537, None, InvalidRequest),
        ("1", None, TypeError),
        (1.5, None, TypeError),
        (True, None, TypeError),
        (None, None, TypeError),
        (1, -1, InvalidRequest),
        (1, float("nan"), InvalidRequest),
        (1, float("inf"), InvalidRequest),
        (1, "1", TypeError),
        (1, True, TypeError),
    ],
)
async def test_a_receive_with_a_wrong_argument_accepts_no_session(
    count: Any, wait: Any, kind: type[Exception]
) -> None:
    blocking, of_blocking = open_receiver(session_id=NEXT_AVAILABLE_SESSION)
    on_loop, of_loop = open_aio_receiver(session_id=NEXT_AVAILABLE_SESSION)

    with pytest.raises(kind, match=r"max_message_count|max_wait_time"):
        blocking.receive_messages(count, wait)
    with pytest.raises(kind, match=r"max_message_count|max_wait_time"):
        await on_loop.receive_messages(count, wait)

    assert of_blocking.calls == of_loop.calls == []


async def test_a_session_is_given_back_when_the_server_finds_its_first_receive_wrong() -> None:
    answers: list[Answer] = [accepted("A"), LimitExceeded("5000 are too many"), released()]
    again: list[Answer] = [accepted("B"), received(1), released()]
    blocking, of_blocking = open_receiver(*answers, *again, session_id=NEXT_AVAILABLE_SESSION)
    on_loop, of_loop = open_aio_receiver(*answers, *again, session_id=NEXT_AVAILABLE_SESSION)

    with pytest.raises(LimitExceeded):
        blocking.receive_messages(5000)
    with pytest.raises(LimitExceeded):
        await on_loop.receive_messages(5000)

    assert of_blocking.names() == ["AcceptSession", "ReceiveMessages", "ReleaseSession"]
    assert of_loop.names() == of_blocking.names()
    blocking.receive_messages()
    await on_loop.receive_messages()
    assert blocking.session.session_id == on_loop.session.session_id == "B"
    blocking.close()
    await on_loop.close()


def test_a_session_that_cannot_be_given_back_hides_no_error() -> None:
    receiver, _ = open_receiver(
        accepted("A"), LimitExceeded("x"), *[ConnectionFailed("down")] * 4, session_id="A"
    )

    with pytest.raises(LimitExceeded):
        receiver.receive_messages(5000)


def test_an_entered_receiver_keeps_its_session_whatever_a_receive_was_told() -> None:
    receiver, transport = open_receiver(
        accepted("A"), LimitExceeded("x"), received(1), released(), session_id="A"
    )

    with receiver:
        with pytest.raises(LimitExceeded):
            receiver.receive_messages(5000)
        receiver.receive_messages()

    assert transport.names().count("AcceptSession") == 1


def test_closing_the_client_gives_back_its_sessions() -> None:
    transport = ScriptedTransport(accepted(), released())
    connection = connect(transport)
    receiver = QueueReceiver(connection, options(session_id="A"), None)
    receiver.__enter__()

    run_to_completion(connection.close())

    assert transport.names() == ["AcceptSession", "ReleaseSession"]
    assert transport.is_closed
    with pytest.raises(ClientClosed):
        receiver.receive_messages()


def test_an_accept_that_timed_out_is_undone() -> None:
    transport = ScriptedTransport(OperationTimeout("x"), undone())
    connection = connect(transport, RetryPolicy(retries_max=0))
    receiver = QueueReceiver(connection, options(session_id=NEXT_AVAILABLE_SESSION), None)

    with pytest.raises(OperationTimeout):
        receiver.receive_messages()

    undo = transport.calls[1].request
    assert not undo.HasField("session_id")
    assert undo.request_id == transport.calls[0].request.request_id


async def test_a_cancelled_accept_is_undone_and_the_receiver_can_be_used_again() -> None:
    waiting = Never()
    receiver, transport = open_aio_receiver(
        waiting, undone(), accepted("B"), released(), session_id=NEXT_AVAILABLE_SESSION
    )

    async with asyncio.TaskGroup() as group:
        task = group.create_task(receiver.receive_messages())
        await waiting.has_begun.wait()
        task.cancel()
    async with receiver:
        assert receiver.session.session_id == "B"

    assert transport.names() == [
        "AcceptSession",
        "CancelRequest",
        "AcceptSession",
        "ReleaseSession",
    ]


async def test_two_tasks_cannot_open_one_receiver_at_once() -> None:
    waiting = Never()
    receiver, _ = open_aio_receiver(waiting, undone(), session_id="A")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(receiver.receive_messages())
        await waiting.has_begun.wait()
        with pytest.raises(InvalidOperation, match="being opened"):
            await receiver.receive_messages()
        task.cancel()


async def test_a_session_that_is_granted_while_its_receiver_closes_is_given_back() -> None:
    answers: list[Any] = []

    class ClosesMeanwhile(ScriptedTransport):
        async def call(self, method: Any, request: Any, *, timeout_ms: int) -> Any:
            if method.path.endswith("AcceptSession"):
                await receiver.close()
            return await super().call(method, request, timeout_ms=timeout_ms)

    transport = ClosesMeanwhile(accepted("A"), released(), *answers)
    receiver = aio.QueueReceiver(connect(transport), options(session_id="A"), None)

    with pytest.raises(ClientClosed):
        await receiver.receive_messages()

    assert transport.names() == ["AcceptSession", "ReleaseSession"]


async def test_a_session_that_is_granted_while_its_entered_receiver_closes_is_given_back() -> None:
    class ClosesMeanwhile(ScriptedTransport):
        async def call(self, method: Any, request: Any, *, timeout_ms: int) -> Any:
            if method.path.endswith("AcceptSession"):
                await receiver.close()
            return await super().call(method, request, timeout_ms=timeout_ms)

    transport = ClosesMeanwhile(accepted("A"), released())
    receiver = aio.QueueReceiver(connect(transport), options(session_id="A"), None)

    with pytest.raises(ClientClosed):
        await receiver.__aenter__()

    assert transport.names() == ["AcceptSession", "ReleaseSession"]


async def test_a_receive_that_its_own_receiver_ended_says_closed() -> None:
    class ClosesMeanwhile(ScriptedTransport):
        async def call(self, method: Any, request: Any, *, timeout_ms: int) -> Any:
            if method.path.endswith("ReceiveMessages"):
                await receiver.close()
            return await super().call(method, request, timeout_ms=timeout_ms)

    transport = ClosesMeanwhile(accepted("A"), released(), SessionLockLost("released"))
    receiver = aio.QueueReceiver(connect(transport), options(session_id="A"), None)

    with pytest.raises(ClientClosed):
        await receiver.receive_messages()


def test_the_wait_for_a_session_survives_an_outage() -> None:
    receiver, transport = open_receiver(
        NoSessionAvailable("idle"),
        *[After(100, ConnectionFailed("down"))] * 500,
        accepted("B"),
        released(),
        session_id=NEXT_AVAILABLE_SESSION,
    )

    with receiver:
        assert receiver.session.session_id == "B"

    assert transport.passed_ms > 300_000


def test_the_wait_for_a_session_begins_anew_when_an_outage_outlasts_the_servers_memory() -> None:
    receiver, transport = open_receiver(
        NoSessionAvailable("idle"),
        *[After(100, ConnectionFailed("down"))] * 100,
        RequestIdExpired("forgotten"),
        undone(),
        accepted("B"),
        released(),
        session_id=NEXT_AVAILABLE_SESSION,
    )

    with receiver:
        assert receiver.session.session_id == "B"

    assert len(set(transport.counters())) == 4


def test_a_forgotten_request_of_just_now_is_an_error() -> None:
    receiver, _ = open_receiver(RequestIdExpired("forgotten"), session_id=NEXT_AVAILABLE_SESSION)

    with pytest.raises(RequestIdExpired):
        receiver.receive_messages()
