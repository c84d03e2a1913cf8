"""Fewer steps that fail alike."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from lockstep.runtime.clock import SystemClock
from tests.fuzz.broker import Fuzzed
from tests.fuzz.campaign import replay
from tests.fuzz.driver import Failure
from tests.fuzz.steps import Step

_TRIES_MAX = 400
_LOOK_FOR_MS = 90_000
_CLOSE_S = 10
_ALIKE_CHARS = 60


async def reduced(
    steps: Sequence[Step],
    effective: Sequence[Step],
    failure: Failure,
    make: Callable[[], Fuzzed],
) -> Sequence[Step] | None:
    """Return few of the steps that fail like the whole; None = not even the whole does again.

    Args:
        steps: All steps, the last of which failed.
        effective: Those of which a call succeeded, or that moved time, and the last one.
        failure: How.
        make: Makes a new broker, on a store of its own.
    """
    clock = SystemClock()
    ends_ms = clock.monotonic_ms() + _LOOK_FOR_MS
    tries = 0

    async def fails(some: Sequence[Step]) -> bool:
        nonlocal tries
        tries += 1
        return await _fails_alike(some, failure, make)

    def goes_on() -> bool:
        return tries < _TRIES_MAX and clock.monotonic_ms() < ends_ms

    if await fails(steps[-1:]):
        return steps[-1:]
    if await fails(effective):
        steps = effective
    elif not await fails(steps):
        return None
    size = len(steps) // 2
    while size and goes_on():
        start = 0
        while start < len(steps) - 1 and goes_on():
            fewer = [*steps[:start], *steps[min(start + size, len(steps) - 1) :]]
            if await fails(fewer):
                steps = fewer
            else:
                start += size
        size //= 2
    return steps


async def _fails_alike(steps: Sequence[Step], failure: Failure, make: Callable[[], Fuzzed]) -> bool:
    broker = make()
    await broker.open()
    try:
        await replay(steps, broker)
    except Failure as again:
        return _kind(again) == _kind(failure)
    finally:
        await closed(broker)
    return False


async def closed(broker: Fuzzed) -> None:
    """Close a broker that may be in any state; one that does not close is left alone."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_S):
            await broker.close()


def _kind(failure: Failure) -> tuple[str, str]:
    path = failure.call.path if failure.call is not None else ""
    return path, failure.text[:_ALIKE_CHARS]
