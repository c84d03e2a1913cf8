"""Waits that are cut when a front end stops, and those that are not."""

from __future__ import annotations

import asyncio

import pytest

from lockstep.core.errors import ShuttingDown
from lockstep.frontend.waits import Waits


class Call:
    """A call that lasts until it is answered.

    Attributes:
        was_cut: Whether it was cancelled meanwhile.
    """

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.was_cut = False

    async def __call__(self) -> str:
        self.has_begun.set()
        try:
            return await self.answer
        except asyncio.CancelledError:
            self.was_cut = True
            raise


async def test_a_wait_ends_with_its_answer() -> None:
    waits, call = Waits(), Call()
    call.answer.set_result("here")

    assert await waits.wait(call) == "here"
    waits.send_away()  # nobody is left


async def test_all_who_wait_are_sent_away() -> None:
    waits, waiting = Waits(), [Call(), Call()]
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_refusal(waits, call)) for call in waiting]
        for call in waiting:
            await call.has_begun.wait()

        waits.send_away()

    assert [task.result() for task in running] == ["SHUTTING_DOWN"] * 2
    assert all(call.was_cut for call in waiting)


async def _refusal(waits: Waits, call: Call) -> str:
    with pytest.raises(ShuttingDown) as refused:
        await waits.wait(call)
    return refused.value.reason


async def test_nobody_waits_any_more_afterwards() -> None:
    waits, call = Waits(), Call()
    waits.send_away()

    with pytest.raises(ShuttingDown):
        await waits.wait(call)

    assert not call.has_begun.is_set()


async def test_an_answer_that_is_there_is_given_before_the_end() -> None:
    """Otherwise what it locked would have to be undone."""
    waits, call = Waits(), Call()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(waits.wait(call))
        await call.has_begun.wait()

        call.answer.set_result("here")
        waits.send_away()

    assert running.result() == "here"


async def test_a_caller_that_goes_is_not_told_of_a_stop() -> None:
    waits, call = Waits(), Call()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(waits.wait(call))
        await call.has_begun.wait()

        running.cancel()

    assert running.cancelled()
    assert call.was_cut


async def test_a_call_that_takes_too_long_by_itself_says_so() -> None:
    async def fail() -> None:
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        await Waits().wait(fail)
