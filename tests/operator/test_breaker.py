"""When the broker is called, and when only a probe calls it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lockstep.core.errors import (
    ClusterUnavailable,
    ConnectionFailed,
    EntityNotEmpty,
    LockstepError,
    ServerBusy,
)
from lockstep.runtime.clock import ManualClock
from lockstep_operator.breaker import Breaker
from lockstep_operator.conditions import Reason


class Broker:
    """Answers probes, or does not.

    Attributes:
        error: What a probe meets; None = an answer.
        probed_at: When it was probed, in seconds.
        answered_at: When it was found to answer again, in seconds.
    """

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.error: LockstepError | None = None
        self.probed_at: list[int] = []
        self.answered_at: list[int] = []

    async def probe(self) -> None:
        self.probed_at.append(self.clock.monotonic_ms() // 1000)
        if self.error is not None:
            raise self.error

    async def answered(self) -> None:
        self.answered_at.append(self.clock.monotonic_ms() // 1000)


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[ManualClock, Broker, Breaker]]:
    clock = ManualClock()
    broker = Broker(clock)
    breaker = Breaker(clock, broker.probe)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(breaker.watch(broker.answered))
        yield clock, broker, breaker
        watching.cancel()


async def test_answers_that_refuse_leave_it_closed() -> None:
    async with watched() as (_, _, breaker):
        breaker.failed(EntityNotEmpty("it is not empty"))
        breaker.failed(ServerBusy("later"))
        assert not breaker.is_open


async def test_while_it_is_open_one_probe_asks_less_and_less_often() -> None:
    async with watched() as (clock, broker, breaker):
        broker.error = ConnectionFailed("nobody listens")
        breaker.failed(broker.error)
        await clock.advance_stepwise(120_000)
        assert broker.probed_at == [2, 6, 14, 30, 60, 90, 120]
        assert breaker.is_open
        assert breaker.open_for_ms() == 120_000

        broker.error = None
        await clock.advance_stepwise(30_000)
        assert broker.answered_at == [150]
        assert not breaker.is_open


async def test_it_says_which_part_does_not_answer() -> None:
    async with watched() as (_, _, breaker):
        breaker.failed(ClusterUnavailable("etcd has no leader"))
        assert breaker.reason is Reason.METADATA_STORE_UNAVAILABLE
        assert breaker.message == "etcd has no leader"


async def test_a_broker_that_answers_probes_only_is_not_called_by_all_again_and_again() -> None:
    async with watched() as (clock, broker, breaker):
        for _ in range(600):
            breaker.failed(ConnectionFailed("updates are not answered"))
            await clock.advance_stepwise(1_000)
        assert len(broker.answered_at) <= 30

        await clock.advance_stepwise(200_000)
        breaker.failed(ConnectionFailed("a restart"))
        began = clock.monotonic_ms() // 1000
        await clock.advance_stepwise(3_000)
        assert broker.answered_at[-1] == began + 2
