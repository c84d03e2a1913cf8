"""A stop runs every step, in order and in time, and a second signal does not wait."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest

from lockstep.runtime.clock import ManualClock
from lockstep.runtime.shutdown import (
    ShutdownStep,
    StepOutcome,
    StopSignals,
    install_signal_handlers,
    run_shutdown,
)

DONE, FAILED, CUT = StepOutcome.DONE, StepOutcome.FAILED, StepOutcome.CUT


class Journal:
    """Steps that write down when they began and whether they were cancelled."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.lines: list[tuple[str, int]] = []

    def takes(self, name: str, delay_ms: int, share: int = 1) -> ShutdownStep:
        async def run() -> None:
            self.lines.append((name, self.clock.monotonic_ms()))
            try:
                await self.clock.sleep(delay_ms)
            except asyncio.CancelledError:
                self.lines.append((f"{name} cancelled", self.clock.monotonic_ms()))
                raise

        return ShutdownStep(name, run, share)

    def fails(self, name: str) -> ShutdownStep:
        async def run() -> None:
            self.lines.append((name, self.clock.monotonic_ms()))
            raise LookupError(name)

        return ShutdownStep(name, run)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def journal(clock: ManualClock) -> Journal:
    return Journal(clock)


async def finish(
    clock: ManualClock, stop: Awaitable[dict[str, StepOutcome]]
) -> dict[str, StepOutcome]:
    async with asyncio.TaskGroup() as tasks:

        async def wait() -> dict[str, StepOutcome]:
            return await stop

        running = tasks.create_task(wait())
        await clock.advance_stepwise(10_000)
        assert running.done()
    return running.result()


async def test_steps_run_one_after_the_other(clock: ManualClock, journal: Journal) -> None:
    steps = [journal.takes("refuse", 10), journal.takes("drain", 20), journal.takes("close", 0)]

    outcomes = await finish(clock, run_shutdown(steps, grace_ms=1000, clock=clock))

    assert outcomes == {"refuse": DONE, "drain": DONE, "close": DONE}
    assert journal.lines == [("refuse", 0), ("drain", 10), ("close", 30)]


async def test_step_that_takes_too_long_is_cut_and_the_next_one_runs(
    clock: ManualClock, journal: Journal
) -> None:
    steps = [journal.takes("drain", 9999, share=3), journal.takes("close", 10)]

    outcomes = await finish(clock, run_shutdown(steps, grace_ms=1000, clock=clock))

    assert outcomes == {"drain": CUT, "close": DONE}
    assert journal.lines == [("drain", 0), ("drain cancelled", 750), ("close", 750)]


async def test_time_that_a_step_does_not_use_the_next_ones_have(
    clock: ManualClock, journal: Journal
) -> None:
    steps = [journal.takes("refuse", 0), journal.takes("drain", 9999)]

    await finish(clock, run_shutdown(steps, grace_ms=1000, clock=clock))

    assert journal.lines[-1] == ("drain cancelled", 1000)


async def test_step_that_fails_does_not_keep_the_next_one_from_running(
    clock: ManualClock, journal: Journal
) -> None:
    steps = [journal.fails("drain"), journal.takes("close", 10)]

    outcomes = await finish(clock, run_shutdown(steps, grace_ms=1000, clock=clock))

    assert outcomes == {"drain": FAILED, "close": DONE}


async def test_no_time_at_all_still_gives_every_step_its_chance(
    clock: ManualClock, journal: Journal
) -> None:
    steps = [journal.takes("drain", 10), journal.takes("close", 0)]

    outcomes = await finish(clock, run_shutdown(steps, grace_ms=0, clock=clock))

    assert [name for name, _ in journal.lines] == ["drain", "drain cancelled", "close"]
    assert outcomes["drain"] is CUT


async def test_cancelled_stop_cancels_its_step(clock: ManualClock, journal: Journal) -> None:
    async with asyncio.TaskGroup() as tasks:
        stop = tasks.create_task(
            run_shutdown([journal.takes("drain", 10)], grace_ms=1000, clock=clock)
        )
        await clock.advance_stepwise(5)

        stop.cancel()

    assert stop.cancelled()
    assert journal.lines[-1] == ("drain cancelled", 5)
    assert clock.sleepers() == 0


async def test_stop_without_steps_ends_at_once(clock: ManualClock) -> None:
    assert await run_shutdown([], grace_ms=1000, clock=clock) == {}


class TestSignals:
    """Real signals, sent by this process to itself."""

    @pytest.fixture
    def exits(self) -> list[int]:
        return []

    async def stop_on_signals(
        self, send: Callable[[], None], exits: list[int], clock: ManualClock
    ) -> list[str]:
        stopped: list[str] = []
        signals = StopSignals(asyncio.get_running_loop(), stopped.append, exit_now=exits.append)
        signals.install()
        try:
            send()
            await clock.advance_stepwise(0)
        finally:
            signals.uninstall()
        return stopped

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_first_signal_asks_for_an_orderly_stop(
        self, number: signal.Signals, exits: list[int], clock: ManualClock
    ) -> None:
        stopped = await self.stop_on_signals(lambda: signal.raise_signal(number), exits, clock)

        assert stopped == [number.name]
        assert exits == []

    async def test_second_signal_ends_the_process_without_asking_the_loop(
        self, exits: list[int], clock: ManualClock
    ) -> None:
        def send_both() -> None:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert exits == [128 + signal.SIGINT]

        stopped = await self.stop_on_signals(send_both, exits, clock)

        assert stopped == ["SIGTERM"]

    def test_signal_after_the_loop_has_ended_ends_the_process(self, exits: list[int]) -> None:
        loop = asyncio.new_event_loop()
        loop.close()
        signals = StopSignals(loop, lambda _name: None, exit_now=exits.append)
        signals.install()

        signal.raise_signal(signal.SIGTERM)

        signals.uninstall()
        assert exits == [128 + signal.SIGTERM]

    async def test_uninstalled_handlers_leave_what_was_before(self) -> None:
        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

        signals = install_signal_handlers(asyncio.get_running_loop(), lambda _name: None)
        during = signal.getsignal(signal.SIGTERM)
        signals.uninstall()

        assert during not in before
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
