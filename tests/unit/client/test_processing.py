"""A program is called for each message; what it raises costs that message a delivery, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from lockstep import FailureSource, ReceivedMessage
from lockstep.aio import ProcessorContext
from lockstep.client.receiving import Receiving
from lockstep.errors import (
    ClientClosed,
    EntityNotFound,
    InvalidOperation,
    InvalidRequest,
    MessageLockLost,
    SessionLockLost,
)
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.unit.client.answering import (
    AnsweringTransport,
    Failures,
    IdleTransport,
    aio_processor,
    blocking_processor,
    told,
)
from tests.unit.client.scripted import START_MS, Never, connect, options, received, settled


def renewed(until_ms: int) -> messaging.RenewMessageLocksResponse:
    response = messaging.RenewMessageLocksResponse()
    response.locked_until.FromMilliseconds(START_MS + until_ms)
    return response


class Seen:
    """An on_message that keeps what came, and says when the last of it did."""

    def __init__(self, count: int, *raised: Exception | None) -> None:
        self.numbers: list[int] = []
        self.all = asyncio.Event()
        self._count = count
        self._raised = list(raised)

    async def __call__(self, message: ReceivedMessage, context: ProcessorContext) -> None:
        self.numbers.append(message.sequence_number)
        if len(self.numbers) == self._count:
            self.all.set()
        if self._raised and (error := self._raised.pop(0)) is not None:
            raise error


async def test_nothing_is_settled_by_itself() -> None:
    transport = AnsweringTransport(ReceiveMessages=[received(1), received(2)])
    seen = Seen(2)

    async with aio_processor(transport, seen):
        await seen.all.wait()

    assert seen.numbers == [1, 2]
    assert transport.outcomes() == []


async def test_a_message_whose_call_returned_is_completed_where_that_was_asked_for() -> None:
    transport = AnsweringTransport(ReceiveMessages=[received(1)])
    seen = Seen(1)

    async with aio_processor(transport, seen, auto_complete=True):
        await seen.all.wait()

    assert transport.outcomes() == [("complete", 1)]


@pytest.mark.parametrize("auto_complete", [False, True])
async def test_what_the_program_settled_is_left_alone(auto_complete: bool) -> None:
    transport = AnsweringTransport(ReceiveMessages=[received(n) for n in (1, 2, 3, 4)])
    seen = Seen(4)

    async def settle(message: ReceivedMessage, context: ProcessorContext) -> None:
        match message.sequence_number:
            case 1:
                await context.complete_message(message)
            case 2:
                await context.release_message(message)
            case 3:
                await context.dead_letter_message(message, reason="bad")
            case _:
                await context.abandon_message(message)
        await seen(message, context)

    async with aio_processor(transport, settle, auto_complete=auto_complete):
        await seen.all.wait()

    outcomes = [("complete", 1), ("release", 2), ("dead_letter", 3), ("abandon", 4)]
    assert transport.outcomes() == outcomes


async def test_cli_2_a_call_that_raises_abandons_its_message_and_is_told() -> None:
    transport = AnsweringTransport(ReceiveMessages=[received(1), received(2)])
    seen, failures = Seen(2, KeyError("bug")), Failures()

    async with aio_processor(transport, seen, failures, auto_complete=True):
        await seen.all.wait()

    assert transport.outcomes() == [("abandon", 1), ("complete", 2)]
    (failure,) = failures
    assert (failure.source, type(failure.error)) == (FailureSource.HANDLER, KeyError)
    assert (failure.queue, failure.session_id) == ("orders", None)
    assert failure.message is not None
    assert failure.message.sequence_number == 1


async def test_a_call_whose_own_task_was_cancelled_ends_no_worker() -> None:
    transport = AnsweringTransport(ReceiveMessages=[received(1), received(2)])
    seen, failures = Seen(1), Failures()

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        if message.sequence_number == 1:
            raise asyncio.CancelledError
        await seen(message, context)

    async with aio_processor(transport, work, failures, auto_complete=True):
        await seen.all.wait()

    assert transport.outcomes() == [("abandon", 1), ("complete", 2)]
    assert failures.kinds() == [("handler", RuntimeError)]


async def test_two_stops_at_once_are_one() -> None:
    waiting = Never()
    transport = AnsweringTransport(ReceiveMessages=[waiting])
    processor = aio_processor(transport, Seen(1))
    await processor.start()
    await waiting.has_begun.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(processor.stop())

    assert not processor.is_running
    assert transport.names() == ["ReceiveMessages", "CancelRequest"]


async def test_an_on_error_that_raises_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    transport = AnsweringTransport(ReceiveMessages=[received(1), received(2)])
    seen = Seen(2, KeyError("bug"))

    async def on_error(_: object) -> None:
        raise ValueError("another bug")

    async with aio_processor(transport, seen, on_error, auto_complete=True):
        await seen.all.wait()

    assert transport.outcomes() == [("abandon", 1), ("complete", 2)]
    assert [r.message for r in caplog.records] == ["client.processor_callback_failed"]


async def test_without_an_on_error_failures_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    transport = AnsweringTransport(
        ReceiveMessages=[received(1)], SettleMessages=[settled(n1="MESSAGE_LOCK_LOST")]
    )
    seen = Seen(1, KeyError("bug"))

    async with aio_processor(transport, seen):
        await seen.all.wait()

    assert [(r.levelno, vars(r)["source"], vars(r)["reason"]) for r in caplog.records] == [
        (logging.WARNING, "settle", "MESSAGE_LOCK_LOST"),
        (logging.WARNING, "handler", "KeyError"),
    ]


async def test_so_many_calls_run_side_by_side() -> None:
    transport = AnsweringTransport(ReceiveMessages=[received(n) for n in range(1, 6)])
    together = asyncio.Barrier(3)
    running, most = 0, 0

    async def meet(message: ReceivedMessage, context: ProcessorContext) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if message.sequence_number <= 3:
            await together.wait()
        running -= 1

    async with aio_processor(transport, meet, workers=3):
        await transport.clock.advance_stepwise(0)

    assert most == 3


async def test_a_receive_that_fails_is_told_and_tried_again_after_longer_and_longer_pauses() -> (
    None
):
    gone = [EntityNotFound("no such queue")] * 3
    transport = AnsweringTransport(ReceiveMessages=[*gone, received(1), *gone[:1]])
    seen, failures = Seen(1), Failures()
    tried_ms: list[int] = []

    async with aio_processor(transport, seen, failures):
        for _ in range(9):
            await transport.clock.advance_stepwise(500)
            tried_ms.append(len(failures))

    assert tried_ms == [2, 2, 3, 3, 3, 3, 4, 4, 4]
    assert failures.kinds() == [("receive", EntityNotFound)] * 4
    assert seen.numbers == [1]


async def test_the_lock_is_renewed_while_the_call_runs_and_no_longer() -> None:
    transport = AnsweringTransport(
        ReceiveMessages=[received(1)], RenewMessageLocks=[renewed(90_000), renewed(120_000)]
    )
    done = asyncio.Event()

    async with aio_processor(transport, lambda *_: done.wait(), auto_complete=True):
        await transport.clock.advance_stepwise(60_000)
        done.set()
        await transport.clock.advance_stepwise(600_000)

    assert transport.names().count("RenewMessageLocks") == 2
    assert transport.outcomes() == [("complete", 1)]


async def test_after_the_ceiling_the_lock_runs_out_and_the_call_is_told() -> None:
    transport = AnsweringTransport(
        ReceiveMessages=[received(1)], RenewMessageLocks=[renewed(90_000)]
    )
    failures = Failures()
    lost_ms: list[int] = []

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        await context.lock_lost.wait()
        lost_ms.append(transport.monotonic_ms())

    processor = aio_processor(
        transport, work, failures, auto_complete=True, max_auto_lock_renewal_duration=40
    )
    async with processor:
        await transport.clock.advance_stepwise(90_000)

    assert lost_ms == [90_000]
    assert failures.kinds() == [("renew", MessageLockLost)]
    assert transport.outcomes() == []


async def test_a_stop_ends_a_waiting_receive_at_once_and_takes_nothing() -> None:
    waiting = Never()
    transport = AnsweringTransport(ReceiveMessages=[waiting])

    async with aio_processor(transport, Seen(1)):
        await waiting.has_begun.wait()

    assert transport.names() == ["ReceiveMessages", "CancelRequest"]


async def test_what_was_received_and_not_begun_is_released() -> None:
    transport = AnsweringTransport()
    seen = Seen(1)
    processor = aio_processor(transport, seen)

    def answer(_: Any) -> messaging.ReceiveMessagesResponse:
        assert processor._crew is not None
        processor._crew.stopping.set()
        return received(1)

    transport.answers_to["ReceiveMessages"].append(answer)
    await processor.start()
    await transport.clock.advance_stepwise(0)
    await processor.stop()

    assert seen.numbers == []
    assert transport.outcomes() == [("release", 1)]


async def test_a_stop_lets_the_running_call_end() -> None:
    transport = AnsweringTransport(ReceiveMessages=[received(1)])
    begun = asyncio.Event()

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        begun.set()
        await context.stopping.wait()

    processor = aio_processor(transport, work, auto_complete=True)
    await processor.start()
    await begun.wait()
    await processor.stop()

    assert transport.outcomes() == [("complete", 1)]
    assert not processor.is_running


async def test_a_call_that_does_not_end_in_time_is_cancelled_and_its_message_abandoned() -> None:
    transport = AnsweringTransport(ReceiveMessages=[received(1)])
    begun, failures = asyncio.Event(), Failures()

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with aio_processor(transport, work, failures, auto_complete=True, stop_timeout=0):
        await begun.wait()

    assert transport.outcomes() == [("abandon", 1)]
    assert failures == []


async def test_a_function_of_the_program_cannot_stop_the_processor_and_wait_for_itself() -> None:
    transport = AnsweringTransport(ReceiveMessages=[received(1)])
    told_it, failures = asyncio.Event(), Failures()

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        told_it.set()
        await processor.stop()

    processor = aio_processor(transport, work, failures)
    async with processor:
        await told_it.wait()
        assert processor.is_running

    assert failures.kinds() == [("handler", InvalidOperation)]


async def test_a_processor_starts_again_after_a_stop_and_not_before() -> None:
    transport = AnsweringTransport(ReceiveMessages=[received(1)])
    seen = Seen(1)
    processor = aio_processor(transport, seen)
    await processor.stop()

    await processor.start()
    with pytest.raises(InvalidOperation):
        await processor.start()
    await processor.stop()
    transport.answers_to["ReceiveMessages"].append(received(1))
    async with processor:
        await seen.all.wait()

    assert seen.numbers


async def test_a_closed_client_ends_the_work() -> None:
    transport = AnsweringTransport(ReceiveMessages=[ClientClosed("closed")])
    failures = Failures()
    processor = aio_processor(transport, Seen(1), failures)

    async with processor:
        await transport.clock.advance_stepwise(0)
    await processor._connection.close()

    assert failures == []
    assert transport.names() == ["ReceiveMessages"]
    with pytest.raises(ClientClosed):
        await processor.start()


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"workers": 0}, InvalidRequest),
        ({"workers": 2_049}, InvalidRequest),
        ({"workers": True}, TypeError),
        ({"max_auto_lock_renewal_duration": -1}, InvalidRequest),
        ({"stop_timeout": "5"}, TypeError),
        ({"session_idle_timeout": float("inf")}, InvalidRequest),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(
    asked: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        told(**asked)


def test_there_is_no_session_on_a_plain_queue() -> None:
    receiving = Receiving(connect(AnsweringTransport()), options())
    context = ProcessorContext(receiving, None, asyncio.Event())

    with pytest.raises(InvalidOperation):
        _ = context.session


def test_threads_call_the_program_and_settle() -> None:
    transport = IdleTransport(ReceiveMessages=[received(1), received(2), received(3)])
    seen = threading.Semaphore(0)
    failures = Failures()

    def work(message: ReceivedMessage, context: Any) -> None:
        seen.release()
        if message.sequence_number == 1:
            raise KeyError("bug")
        if message.sequence_number == 2:
            context.complete_message(message)
        if message.sequence_number == 3:
            raise SystemExit

    with blocking_processor(transport, work, failures, auto_complete=True, workers=2):
        for _ in range(3):
            assert seen.acquire(timeout=10)

    assert sorted(transport.outcomes()) == [("abandon", 1), ("abandon", 3), ("complete", 2)]
    assert {error for _, error in failures.kinds()} == {KeyError, RuntimeError}


def test_threads_refuse_an_async_function_that_would_never_run() -> None:
    transport = IdleTransport(ReceiveMessages=[received(1)])
    failed = threading.Event()
    failures = Failures()

    async def of_another_client() -> None: ...

    def on_error(failure: Any) -> None:
        failures(failure)
        failed.set()

    with blocking_processor(transport, lambda *_: of_another_client(), on_error):
        assert failed.wait(10)

    assert failures.kinds() == [("handler", TypeError)]
    assert transport.outcomes() == [("abandon", 1)]


def test_a_thread_that_does_not_end_in_time_goes_on_and_keeps_its_message() -> None:
    transport = IdleTransport(ReceiveMessages=[received(1)])
    begun, may_end = threading.Event(), threading.Event()

    def work(message: ReceivedMessage, context: Any) -> None:
        begun.set()
        assert may_end.wait(10)

    processor = blocking_processor(transport, work, auto_complete=True, stop_timeout=0)
    processor.start()
    assert processor._crew is not None
    (worker,) = processor._crew._workers
    assert begun.wait(10)
    stopping = threading.Thread(target=processor.stop)
    stopping.start()
    stopping.join(10)
    assert transport.outcomes() == []
    may_end.set()
    worker.join(10)

    assert not stopping.is_alive()
    assert transport.outcomes() == [("complete", 1)]


def test_a_loss_is_told_to_a_thread_once() -> None:
    transport = IdleTransport(
        ReceiveMessages=[received(1, lock_ms=0)], RenewMessageLocks=[SessionLockLost("gone")] * 3
    )
    failures = Failures()
    lost = threading.Event()

    def work(message: ReceivedMessage, context: Any) -> None:
        transport.clock.advance(500)
        assert context.lock_lost.wait(10)
        lost.set()

    with blocking_processor(transport, work, failures, auto_complete=True):
        assert lost.wait(10)

    assert failures.kinds() == [("renew", SessionLockLost)]
    assert transport.outcomes() == []


def test_a_thread_of_the_processor_cannot_stop_it() -> None:
    transport = IdleTransport(ReceiveMessages=[received(1)])
    failures, failed = Failures(), threading.Event()

    def on_error(failure: Any) -> None:
        failures(failure)
        failed.set()

    def work(message: ReceivedMessage, context: Any) -> None:
        processor.stop()

    processor = blocking_processor(transport, work, on_error)
    with processor:
        assert failed.wait(10)
        with pytest.raises(InvalidOperation):
            processor.start()

    assert failures.kinds() == [("handler", InvalidOperation)]
