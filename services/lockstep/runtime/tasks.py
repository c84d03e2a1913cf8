"""Waiting for several calls at once, and for long work beside the event loop.

Here belongs what a task group does not say by itself: one error for callers. Never here: what is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from lockstep.core.errors import LockstepError

_Result = TypeVar("_Result")


async def together(calls: Sequence[Awaitable[_Result]]) -> list[_Result]:
    """Wait for all at once and return their results in order; what the first failed one raised is raised."""
    if len(calls) == 1:
        return [await calls[0]]

    async def one(call: Awaitable[_Result]) -> _Result:
        return await call

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(call)) for call in calls]
    except* LockstepError as errors:
        raise _first(errors) from None
    return [task.result() for task in tasks]


def _first(group: BaseExceptionGroup[LockstepError]) -> LockstepError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


class Beside(Protocol):
    """How long work is done: `at_once`, or `in_a_thread`."""

    async def __call__(self, work: Callable[[], _Result]) -> _Result:
        """Do work and return its result, or raise what it raises."""


async def at_once(work: Callable[[], _Result]) -> _Result:
    """Do work here; everything else waits. For tests, in which one thing happens after the other."""
    return work()


async def in_a_thread(work: Callable[[], _Result]) -> _Result:
    """Do work in a thread of its own, while others are served. Nobody else may use what it works on."""
    return await asyncio.to_thread(work)
