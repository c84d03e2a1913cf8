"""Locks are renewed at half of their time, until settlement, close or a maximum; a loss is told once."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from lockstep import AutoLockRenewer, QueueReceiver, aio
from lockstep.client.renewal import KeptSession, Loss, Renewal, kept_messages
from lockstep.client.transport import run_to_completion
from lockstep.errors import (
    ConnectionFailed,
    EntityNotFound,
    InvalidOperation,
    InvalidRequest,
    MessageLockLost,
    OperationTimeout,
    SessionLockLost,
)
from lockstep.runtime.clock import ManualClock
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.unit.client.scripted import (
    START_MS,
    After,
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


def renewed_session(until_ms: int) -> messaging.RenewSessionLockResponse:
    response = messaging.RenewSessionLockResponse()
    response.locked_until.FromMilliseconds(START_MS + until_ms)
    return response


def renewed(until_ms: int, *lost: int) -> messaging.RenewMessageLocksResponse:
    response = messaging.RenewMessageLocksResponse()
    response.locked_until.FromMilliseconds(START_MS + until_ms)
    for number in lost:
        response.failures.add(
            sequence_number=number, reason="MESSAGE_LOCK_LOST", description="gone"
        )
    return response


class Kept:
    """Messages 1 and 2 of a plain queue, locked for 60 s, and their renewal."""

    def __init__(self, *answers: Answer, stop_after_ms: int = 300_000) -> None:
        self.transport = ScriptedTransport(received(1, 2), *answers)
        self.receiver = QueueReceiver(connect(self.transport), options(), None)
        self.messages = self.receiver.receive_messages(2)
        self.transport.calls.clear()
        kept = kept_messages(self.receiver._receiving, self.messages)
        self.renewal = Renewal(kept, self.transport, stop_after_ms=stop_after_ms)

    def turn(self) -> list[Loss]:
        self.transport.passed_ms += self.renewal.delay_ms()
        return run_to_completion(self.renewal.turn())


def test_a_lock_is_renewed_when_half_of_its_time_is_over() -> None:
    kept = Kept(renewed(90_000), renewed(120_000))

    first_ms = kept.renewal.delay_ms()
    kept.turn()
    second_ms = kept.renewal.delay_ms()
    kept.turn()

    assert (first_ms, second_ms) == (30_000, 30_000)
    assert [list(c.request.lock_tokens) for c in kept.transport.calls] == [
        [m.lock_token for m in kept.messages]
    ] * 2
    assert not kept.renewal.is_finished


def test_a_settled_message_is_never_renewed() -> None:
    kept = Kept(settled(), renewed(90_000), settled())
    first, second = kept.messages

    kept.receiver.complete_message(first)
    kept.turn()
    kept.receiver.complete_message(second)
    kept.turn()

    assert kept.transport.names() == ["SettleMessages", "RenewMessageLocks", "SettleMessages"]
    assert list(kept.transport.calls[1].request.lock_tokens) == [second.lock_token]
    assert kept.renewal.is_finished
    assert kept.renewal.delay_ms() == 0


def test_closing_the_receiver_ends_renewal_without_a_loss() -> None:
    kept = Kept()
    kept.receiver.close()

    assert kept.turn() == []
    assert kept.renewal.is_finished


def test_giving_a_session_back_ends_its_renewal_without_a_call_or_a_loss() -> None:
    transport = ScriptedTransport(accepted("A"), released())
    receiver = QueueReceiver(connect(transport), options(session_id="A"), None)
    with receiver:
        receiving = receiver._receiving
        held = run_to_completion(receiving.open())
        assert held is not None
        renewal = Renewal(KeptSession(receiving, held, receiver), transport, stop_after_ms=300_000)

    assert run_to_completion(renewal.turn()) == []
    assert renewal.is_finished
    assert transport.names() == ["AcceptSession", "ReleaseSession"]


def test_a_lost_lock_is_told_once_and_the_others_are_kept() -> None:
    kept = Kept(renewed(90_000, 1), renewed(120_000))

    (loss,) = kept.turn()
    assert kept.turn() == []

    assert loss.renewable is kept.messages[0]
    assert type(loss.error) is MessageLockLost
    assert list(kept.transport.calls[1].request.lock_tokens) == [kept.messages[1].lock_token]


def test_an_error_that_will_not_pass_loses_all() -> None:
    error = EntityNotFound("deleted")
    kept = Kept(error)

    assert kept.turn() == [Loss(message, error) for message in kept.messages]
    assert kept.renewal.is_finished


def test_an_error_that_may_pass_is_tried_again_until_the_lock_has_run_out() -> None:
    kept = Kept(*[After(5_000, ConnectionFailed("down"))] * 40)

    losses: list[Loss] = []
    while not kept.renewal.is_finished:
        losses += kept.turn()

    assert [loss.renewable for loss in losses] == kept.messages
    assert type(losses[0].error) is ConnectionFailed
    assert kept.transport.passed_ms >= 60_000
    assert kept.transport.passed_ms < 70_000


def test_an_error_that_passed_is_no_loss() -> None:
    kept = Kept(*[OperationTimeout("x")] * 4, renewed(150_000))

    assert kept.turn() == []
    assert kept.turn() == []

    assert kept.messages[0].locked_until_utc is not None
    assert kept.messages[0].locked_until_utc.timestamp() * 1000 == START_MS + 150_000


def test_after_the_maximum_a_lock_runs_out_and_that_is_told() -> None:
    kept = Kept(renewed(90_000), stop_after_ms=40_000)

    turns: list[tuple[int, int]] = []
    losses: list[Loss] = []
    while not kept.renewal.is_finished:
        losses += kept.turn()
        turns.append((kept.transport.passed_ms, len(losses)))

    assert turns == [(30_000, 0), (40_000, 0), (90_000, 2)]
    assert kept.transport.names() == ["RenewMessageLocks"]
    assert type(losses[0].error) is MessageLockLost
    assert "stopped as configured" in losses[0].error.message


def test_a_message_that_is_settled_after_the_maximum_is_no_loss() -> None:
    kept = Kept(settled(), stop_after_ms=0)
    kept.receiver.complete_messages(kept.messages)

    assert kept.turn() == []
    assert kept.renewal.is_finished


def test_a_clock_that_runs_ahead_renews_often_but_not_without_pause() -> None:
    kept = Kept(*[renewed(-5_000)] * 3)
    kept.transport.passed_ms = 70_000

    for _ in range(3):
        assert kept.renewal.delay_ms() == 500
        assert kept.turn() == []


def test_what_holds_no_lock_cannot_be_registered() -> None:
    transport = ScriptedTransport(received(1))
    keyless = QueueReceiver(connect(transport), deleting(), None)
    (message,) = keyless.receive_messages()
    unlocked = received(1)
    unlocked.lock_token_prefix = b""
    plain = QueueReceiver(connect(ScriptedTransport(unlocked)), options(), None)

    with AutoLockRenewer() as renewer:
        with pytest.raises(InvalidRequest, match="receive-and-delete"):
            renewer.register(keyless, message)
        with pytest.raises(InvalidRequest):
            QueueReceiver(connect(transport), deleting(), renewer)
        with pytest.raises(InvalidRequest):
            renewer.register(plain, plain.receive_messages())
        with pytest.raises(InvalidRequest):
            renewer.register(plain, [])
        with pytest.raises(TypeError):
            renewer.register(plain, ["text"])  # type: ignore[list-item]


def test_a_message_of_a_session_is_not_renewed_by_itself() -> None:
    transport = ScriptedTransport(accepted(), received(1), released())
    with QueueReceiver(connect(transport), options(session_id="A"), None) as receiver:
        (message,) = receiver.receive_messages()

        with AutoLockRenewer() as renewer, pytest.raises(TypeError, match="session"):
            renewer.register(receiver, message)


def test_a_closed_renewer_refuses_before_anything_is_locked() -> None:
    renewer = AutoLockRenewer()
    renewer.close()
    renewer.close()
    transport = ScriptedTransport()
    receiver = QueueReceiver(connect(transport), options(session_id="A"), renewer)

    with pytest.raises(InvalidOperation):
        receiver.receive_messages()

    assert transport.calls == []


def test_threads_renew_sessions_and_messages() -> None:
    both = threading.Barrier(3, timeout=10)

    def answer_session(_: Any) -> messaging.RenewSessionLockResponse:
        both.wait()
        return renewed_session(600_000)

    def answer_message(_: Any) -> messaging.RenewMessageLocksResponse:
        both.wait()
        return renewed(600_000)

    one = ScriptedTransport(accepted(), answer_session, released())
    other = ScriptedTransport(received(1), received(2), answer_message)
    with (
        AutoLockRenewer() as renewer,
        QueueReceiver(connect(one), options(session_id="A"), renewer),
    ):
        plain = QueueReceiver(connect(other), options(), renewer)
        plain.receive_messages()
        one.passed_ms = other.passed_ms = 30_000
        plain.receive_messages()  # a registration wakes the scheduler, which sees the new time
        both.wait()

    assert one.names() == ["AcceptSession", "RenewSessionLock", "ReleaseSession"]
    assert other.names().count("RenewMessageLocks") == 1


def test_a_thread_tells_a_loss_and_survives_a_callback_that_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = threading.Semaphore(0)
    losses: list[tuple[Any, Exception]] = []

    def on_loss(renewable: Any, error: Exception) -> None:
        losses.append((renewable, error))
        told.release()
        raise ValueError("the program's bug")

    transport = ScriptedTransport(received(1, 2), received(3), renewed(0, 1, 2))
    with AutoLockRenewer(on_lock_renew_failure=on_loss) as renewer:
        receiver = QueueReceiver(connect(transport), options(), renewer)
        messages = receiver.receive_messages(2)
        transport.passed_ms = 30_000
        receiver.receive_messages()
        assert told.acquire(timeout=10)
        assert told.acquire(timeout=10)

    assert [renewable for renewable, _ in losses] == messages
    assert {type(error) for _, error in losses} == {MessageLockLost}
    assert [r.message for r in caplog.records] == ["client.lock_renew_callback_failed"] * 2


class OnManualClock(ScriptedTransport):
    """A scripted transport whose time is a manual clock's."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__(*answers)
        self.clock = ManualClock(START_MS)

    async def sleep(self, delay_ms: int) -> None:
        await self.clock.sleep(delay_ms)

    def now_ms(self) -> int:
        return self.clock.now_ms()

    def monotonic_ms(self) -> int:
        return self.clock.monotonic_ms()


async def test_tasks_renew_a_session_until_it_is_lost() -> None:
    lost = asyncio.Event()
    losses: list[tuple[Any, Exception]] = []

    async def on_loss(renewable: Any, error: Exception) -> None:
        losses.append((renewable, error))
        lost.set()

    transport = OnManualClock(
        accepted(), renewed_session(90_000), SessionLockLost("taken"), released()
    )
    async with (
        aio.AutoLockRenewer(on_lock_renew_failure=on_loss) as renewer,
        aio.QueueReceiver(connect(transport), options(session_id="A"), renewer) as receiver,
    ):
        await transport.clock.advance_stepwise(60_000)
        await lost.wait()
        session = receiver.session

    ((renewable, error),) = losses
    assert renewable is session
    assert type(error) is SessionLockLost
    assert transport.names() == [
        "AcceptSession",
        "RenewSessionLock",
        "RenewSessionLock",
        "ReleaseSession",
    ]


async def test_a_receive_that_moved_the_sessions_lock_delays_its_renewal() -> None:
    """CLI-7, SES-23: half of the time counts from the receive at 20 s, which moved the lock to 80 s."""
    transport = OnManualClock(
        accepted(), received(1, lock_ms=80_000), renewed_session(110_000), released()
    )
    async with (
        aio.AutoLockRenewer() as renewer,
        aio.QueueReceiver(connect(transport), options(session_id="A"), renewer) as receiver,
    ):
        await transport.clock.advance_stepwise(20_000)
        await receiver.receive_messages()
        await transport.clock.advance_stepwise(29_000)
        before = transport.names()
        await transport.clock.advance_stepwise(1_000)

    assert before == ["AcceptSession", "ReceiveMessages"]
    assert transport.names()[2:] == ["RenewSessionLock", "ReleaseSession"]


async def test_a_receive_right_after_the_accept_lets_no_turn_be_skipped() -> None:
    """CLI-7: 30 s after the receive at 1 s, not 45 s after it."""
    transport = OnManualClock(
        accepted(), received(1, lock_ms=61_000), renewed_session(91_000), released()
    )
    async with (
        aio.AutoLockRenewer() as renewer,
        aio.QueueReceiver(connect(transport), options(session_id="A"), renewer) as receiver,
    ):
        await transport.clock.advance_stepwise(1_000)
        await receiver.receive_messages()
        await transport.clock.advance_stepwise(29_000)
        before = transport.names()
        await transport.clock.advance_stepwise(1_000)

    assert before == ["AcceptSession", "ReceiveMessages"]
    assert transport.names()[2:] == ["RenewSessionLock", "ReleaseSession"]


async def test_leaving_the_renewer_ends_its_tasks_at_once() -> None:
    transport = OnManualClock(received(1))
    async with aio.AutoLockRenewer() as renewer:
        receiver = aio.QueueReceiver(connect(transport), options(), renewer)
        await receiver.receive_messages()
        await transport.clock.advance_stepwise(0)
        assert transport.clock.sleepers() == 1

    assert transport.clock.sleepers() == 0
    with pytest.raises(InvalidOperation):
        await receiver.receive_messages()


async def test_an_error_in_the_block_of_the_renewer_comes_out_as_it_is() -> None:
    transport = OnManualClock(received(1))

    async def work() -> None:
        async with aio.AutoLockRenewer() as renewer:
            await aio.QueueReceiver(connect(transport), options(), renewer).receive_messages()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await work()

    assert transport.clock.sleepers() == 0


async def test_without_a_callback_a_loss_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    transport = OnManualClock(received(1), renewed(0, 1))
    async with aio.AutoLockRenewer() as renewer:
        receiver = aio.QueueReceiver(connect(transport), options(), renewer)
        await receiver.receive_messages()
        await transport.clock.advance_stepwise(30_000)

    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.WARNING, "client.lock_lost")
    assert vars(record)["reason"] == "MESSAGE_LOCK_LOST"


async def test_a_renewer_is_used_in_its_block_only() -> None:
    transport = OnManualClock()
    receiver = aio.QueueReceiver(connect(transport), options(), aio.AutoLockRenewer())

    with pytest.raises(InvalidOperation, match="async with"):
        await receiver.receive_messages()
