"""A send that nobody waited for never vanishes silently (SND-2)."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings

import pytest

from lockstep.aio import Message, PendingSend, QueueSender, UnawaitedSendWarning
from lockstep.client.sending import Sending
from lockstep.errors import ClientClosed, EntityNotFound
from tests.unit.client.scripted import Answer, Never, ScriptedTransport, connect, sent


def open_sender(*answers: Answer) -> tuple[QueueSender, ScriptedTransport]:
    transport = ScriptedTransport(*answers)
    return QueueSender(Sending(connect(transport), "orders")), transport


async def test_an_awaited_send_gives_the_sequence_numbers() -> None:
    sender, _ = open_sender(sent(1, 2))

    assert await sender.send_messages([Message("a"), Message("b")]) == [1, 2]


async def test_a_send_can_be_a_task() -> None:
    sender, _ = open_sender(sent(1), sent(2), sent(3))

    async with asyncio.TaskGroup() as group:
        task = group.create_task(sender.send_messages(Message()))
    gathered = await asyncio.gather(
        sender.send_messages(Message()), sender.send_messages(Message())
    )

    assert task.result() == [1]
    assert list(gathered) == [[2], [3]]


async def test_a_failed_send_raises_where_it_is_awaited() -> None:
    sender, _ = open_sender(EntityNotFound("x"))

    with pytest.raises(EntityNotFound):
        await sender.send_messages(Message())


async def test_what_can_be_checked_here_is_raised_before_anything_is_awaited() -> None:
    sender, _ = open_sender()
    await sender.close()

    with pytest.raises(ClientClosed):
        sender.send_messages(Message())


async def test_a_send_that_was_never_awaited_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sender, transport = open_sender()

    with pytest.warns(UnawaitedSendWarning) as caught:
        sender.send_messages([Message(), Message()])

    assert transport.calls == []
    (warning,) = caught
    assert "2 message(s) to queue 'orders' was never awaited" in str(warning.message)
    assert warning.filename == __file__
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert (record.message, vars(record)["queue"], vars(record)["messages"]) == (
        "client.send_dropped",
        "orders",
        2,
    )


async def test_a_program_sees_the_warning_without_asking_for_it() -> None:
    sender, _ = open_sender()

    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        for category in (
            DeprecationWarning,
            PendingDeprecationWarning,
            ImportWarning,
            ResourceWarning,
        ):
            warnings.simplefilter("ignore", category)  # Python's own defaults
        for _ in range(2):
            sender.send_messages(Message())
            gc.collect()

    assert [warning.category for warning in caught] == [UnawaitedSendWarning] * 2


async def test_a_send_that_is_dropped_midway_is_reported() -> None:
    waiting = Never()
    sender, _ = open_sender(waiting)
    pending = sender.send_messages(Message())
    pending.send(None)

    with pytest.warns(UnawaitedSendWarning, match="was dropped before its outcome was known"):
        pending.close()


async def test_a_send_that_is_dropped_inside_another_coroutine_is_reported() -> None:
    sender, _ = open_sender(Never())

    async def work() -> None:
        await sender.send_messages(Message())

    coroutine = work()
    coroutine.send(None)

    with pytest.warns(UnawaitedSendWarning, match="dropped"):
        coroutine.close()


async def test_a_cancelled_send_says_so_to_its_task_and_needs_no_warning() -> None:
    waiting = Never()
    sender, _ = open_sender(waiting)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(sender.send_messages(Message()))
        await waiting.has_begun.wait()
        task.cancel()

    assert task.cancelled()
    gc.collect()


async def test_a_send_that_was_awaited_is_not_reported() -> None:
    sender, _ = open_sender(sent(1), EntityNotFound("x"))

    await sender.send_messages(Message())
    pending: PendingSend = sender.send_messages(Message())
    with pytest.raises(EntityNotFound):
        await pending

    del pending
    gc.collect()
