"""A program is called for the messages of sessions: one call a session, in order, under a lock that holds."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from lockstep import ReceivedMessage
from lockstep.aio import ProcessorContext
from lockstep.errors import (
    ConnectionFailed,
    EntityNotFound,
    NoSessionAvailable,
    SessionLockLost,
    StoreRefused,
)
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.unit.client.answering import (
    AnsweringTransport,
    Failures,
    IdleTransport,
    aio_processor,
    blocking_processor,
)
from tests.unit.client.scripted import START_MS, Never, accepted, received, settled


def renewed(until_ms: int) -> messaging.RenewSessionLockResponse:
    response = messaging.RenewSessionLockResponse()
    response.locked_until.FromMilliseconds(START_MS + until_ms)
    return response


class Program:
    """Functions that note what they are called about."""

    def __init__(self, *raised: Exception | None) -> None:
        self.steps: list[str] = []
        self.failures = Failures()
        self.closed = asyncio.Event()
        self._raised = list(raised)

    async def on_message(self, message: ReceivedMessage, context: ProcessorContext) -> None:
        self.steps.append(f"{context.session.session_id}{message.sequence_number}")
        if self._raised and (error := self._raised.pop(0)) is not None:
            raise error

    async def on_opening(self, context: ProcessorContext) -> None:
        self.steps.append(f"open {context.session.session_id}")

    async def on_closing(self, context: ProcessorContext) -> None:
        self.steps.append(f"close {context.session.session_id}")
        self.closed.set()

    def processor(self, transport: AnsweringTransport, **asked: Any) -> Any:
        return aio_processor(
            transport,
            asked.pop("on_message", self.on_message),
            self.failures,
            sessions=True,
            on_session_opening=asked.pop("on_session_opening", self.on_opening),
            on_session_closing=self.on_closing,
            **({"workers": 1, "auto_complete": True} | asked),
        )


async def test_a_session_is_worked_on_in_order_and_given_back_when_it_is_idle() -> None:
    transport = AnsweringTransport(
        AcceptSession=[accepted("A")], ReceiveMessages=[received(1), received(2), received()]
    )
    program = Program()

    async with program.processor(transport, session_idle_timeout=7):
        await program.closed.wait()

    assert program.steps == ["open A", "A1", "A2", "close A"]
    assert transport.outcomes() == [("complete", 1), ("complete", 2)]
    assert transport.names()[:7] == [
        "AcceptSession",
        *["ReceiveMessages", "SettleMessages"] * 2,
        "ReceiveMessages",
        "ReleaseSession",
    ]
    receives = [c.request for c in transport.calls if c.name == "ReceiveMessages"]
    assert {(r.max_messages, r.max_wait.seconds) for r in receives} == {(1, 7)}
    assert program.failures == []


async def test_sessions_are_worked_on_side_by_side() -> None:
    transport = AnsweringTransport(
        AcceptSession=[accepted("A"), accepted("B"), accepted("C")],
        ReceiveMessages=[received(1), received(2), received(3)],
    )
    together = asyncio.Barrier(4)

    async def meet(message: ReceivedMessage, context: ProcessorContext) -> None:
        await together.wait()

    async with Program().processor(transport, on_message=meet, workers=3):
        await together.wait()

    assert sorted(transport.outcomes()) == [("complete", 1), ("complete", 2), ("complete", 3)]
    assert transport.names().count("ReleaseSession") == 3


async def test_the_state_is_at_hand() -> None:
    transport = AnsweringTransport(
        AcceptSession=[accepted("A", state=b"half")],
        ReceiveMessages=[received(1), received()],
        SetSessionState=[messaging.SetSessionStateResponse(version=2)],
    )
    program = Program()
    states: list[bytes | None] = []

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        states.append(context.session.state)
        await context.session.set_state("whole")

    async with program.processor(transport, on_message=work):
        await program.closed.wait()

    assert states == [b"half"]
    (written,) = [c.request.value for c in transport.calls if c.name == "SetSessionState"]
    assert written == b"whole"


async def test_a_call_that_raises_abandons_its_message_before_the_next_receive() -> None:
    transport = AnsweringTransport(
        AcceptSession=[accepted("A")], ReceiveMessages=[received(1), received(1), received()]
    )
    program = Program(KeyError("bug"))

    async with program.processor(transport):
        await program.closed.wait()

    assert program.steps == ["open A", "A1", "A1", "close A"]
    assert transport.outcomes() == [("abandon", 1), ("complete", 1)]
    (failure,) = program.failures
    assert (failure.source.value, failure.session_id) == ("handler", "A")


@pytest.mark.parametrize("raised", [None, KeyError("bug")])
async def test_after_a_message_that_could_not_be_settled_nothing_overtakes_it(
    raised: Exception | None,
) -> None:
    transport = AnsweringTransport(
        AcceptSession=[accepted("A")],
        ReceiveMessages=[received(1), received(2)],
        SettleMessages=[StoreRefused("no")],
    )
    program = Program(raised)

    async with program.processor(transport):
        await program.closed.wait()

    assert program.steps == ["open A", "A1", "close A"]
    assert "ReleaseSession" in transport.names()
    assert program.failures.kinds()[0] == ("settle", StoreRefused)
    assert len(transport.answers_to["ReceiveMessages"]) == 1


async def test_cli_6_the_call_is_told_when_the_lock_is_lost() -> None:
    transport = AnsweringTransport(
        AcceptSession=[accepted("A")],
        ReceiveMessages=[received(1)],
        RenewSessionLock=[SessionLockLost("taken")],
        ReleaseSession=[SessionLockLost("taken")],
    )
    program = Program()
    lost_ms: list[int] = []

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        await context.lock_lost.wait()
        lost_ms.append(transport.monotonic_ms())

    async with program.processor(transport, on_message=work):
        await transport.clock.advance_stepwise(30_000)
        await program.closed.wait()

    assert lost_ms == [30_000]
    assert program.failures.kinds() == [("renew", SessionLockLost)]
    assert program.failures[0].session_id == "A"
    assert transport.outcomes() == []


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ({"ReceiveMessages": [SessionLockLost("taken")]}, "receive"),
        (
            {
                "ReceiveMessages": [received(1)],
                "SettleMessages": [settled(n1="SESSION_LOCK_LOST")],
            },
            "settle",
        ),
    ],
)
async def test_a_loss_is_told_once_whoever_finds_it(answers: dict[str, Any], kind: str) -> None:
    transport = AnsweringTransport(AcceptSession=[accepted("A")], **answers)
    program = Program()

    async with program.processor(transport):
        await program.closed.wait()

    assert program.failures.kinds() == [(kind, SessionLockLost)]


async def test_cli_11_an_idle_queue_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    waiting = Never()
    transport = AnsweringTransport(
        AcceptSession=[NoSessionAvailable("idle"), NoSessionAvailable("idle"), waiting]
    )
    program = Program()

    async with program.processor(transport):
        await waiting.has_begun.wait()

    assert program.failures == []
    assert caplog.records == []
    assert transport.sleeps_ms == []


async def test_an_accept_that_fails_is_told_and_tried_again_after_a_pause() -> None:
    transport = AnsweringTransport(
        AcceptSession=[EntityNotFound("none"), accepted("A")], ReceiveMessages=[received()]
    )
    program = Program()

    async with program.processor(transport):
        await transport.clock.advance_stepwise(499)
        before = len(transport.calls)
        await transport.clock.advance_stepwise(1)
        await program.closed.wait()

    assert before == 1
    assert program.failures.kinds() == [("accept", EntityNotFound)]
    assert program.failures[0].session_id is None


async def test_an_opening_that_raises_gives_the_session_back() -> None:
    transport = AnsweringTransport(AcceptSession=[accepted("A")], ReceiveMessages=[received(1)])
    program = Program()

    def refuse(context: ProcessorContext) -> None:
        raise KeyError("bug")

    async with program.processor(transport, on_session_opening=refuse):
        await transport.clock.advance_stepwise(0)

    assert transport.names() == ["AcceptSession", "ReleaseSession"]
    assert program.failures.kinds() == [("handler", KeyError)]
    assert program.steps == []


async def test_a_receive_that_fails_gives_the_session_back() -> None:
    transport = AnsweringTransport(
        AcceptSession=[accepted("A")], ReceiveMessages=[StoreRefused("no")]
    )
    program = Program()

    async with program.processor(transport):
        await program.closed.wait()

    assert program.failures.kinds() == [("receive", StoreRefused)]
    assert "ReleaseSession" in transport.names()


async def test_a_session_that_could_not_be_given_back_is_told() -> None:
    transport = AnsweringTransport(
        AcceptSession=[accepted("A")],
        ReceiveMessages=[received()],
        ReleaseSession=[StoreRefused("no")],
    )
    program = Program()

    async with program.processor(transport):
        await program.closed.wait()

    assert program.failures.kinds() == [("close", StoreRefused)]


async def test_a_session_is_held_no_longer_than_its_lock_is_renewed() -> None:
    transport = AnsweringTransport(
        AcceptSession=[accepted("A")],
        ReceiveMessages=[received(1), received(2)],
        RenewSessionLock=[renewed(90_000)],
    )
    program = Program()

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        await transport.sleep(40_000)

    asked = {"on_message": work, "max_auto_lock_renewal_duration": 40}
    async with program.processor(transport, **asked):
        await transport.clock.advance_stepwise(40_000)
        await program.closed.wait()

    assert transport.outcomes() == [("complete", 1)]
    assert program.failures == []
    assert "ReleaseSession" in transport.names()


async def test_a_stop_waits_for_the_call_and_gives_the_session_back() -> None:
    transport = AnsweringTransport(
        AcceptSession=[accepted("A")], ReceiveMessages=[received(1), received(2)]
    )
    program = Program()
    begun = asyncio.Event()

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        begun.set()
        await context.stopping.wait()

    async with program.processor(transport, on_message=work):
        await begun.wait()

    assert program.steps == ["open A", "close A"]
    assert transport.outcomes() == [("complete", 1)]
    assert transport.names()[-1] == "ReleaseSession"


async def test_a_call_that_does_not_end_in_time_is_cancelled_before_the_session_is_free() -> None:
    transport = AnsweringTransport(AcceptSession=[accepted("A")], ReceiveMessages=[received(1)])
    program = Program()
    begun, cancelled_at = asyncio.Event(), []

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled_at.append(transport.names().count("ReleaseSession"))

    async with program.processor(transport, on_message=work, stop_timeout=0):
        await begun.wait()

    assert cancelled_at == [0]
    assert transport.outcomes() == [("abandon", 1)]
    assert transport.names()[-1] == "ReleaseSession"


async def test_a_stop_while_sessions_are_waited_for_leaves_none_locked() -> None:
    waiting = Never()
    transport = AnsweringTransport(AcceptSession=[waiting])

    async with Program().processor(transport):
        await waiting.has_begun.wait()

    assert transport.names() == ["AcceptSession", "CancelRequest"]


def test_threads_work_on_sessions_too() -> None:
    transport = IdleTransport(
        AcceptSession=[NoSessionAvailable("idle"), ConnectionFailed("down"), accepted("A")],
        ReceiveMessages=[received(1), received(2)],
    )
    numbers: list[int] = []
    seen = threading.Semaphore(0)
    failures = Failures()

    def work(message: ReceivedMessage, context: Any) -> None:
        assert context.session.session_id == "A"
        numbers.append(message.sequence_number)
        seen.release()

    asked = {"auto_complete": True, "session_idle_timeout": 0}
    with blocking_processor(transport, work, failures, sessions=True, **asked):
        assert seen.acquire(timeout=10)
        assert seen.acquire(timeout=10)

    assert numbers == [1, 2]
    assert transport.outcomes() == [("complete", 1), ("complete", 2)]
    assert transport.names().count("ReleaseSession") == 1
