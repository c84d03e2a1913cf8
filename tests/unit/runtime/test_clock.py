"""The clocks keep their promises: order of waking, no way back, no lost sleeper."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from lockstep.runtime.clock import Clock, ManualClock, SteadyClock, SystemClock

START_MS = 1_000_000


def machine_time_ms() -> int:
    return time.time_ns() // 1_000_000  # noqa: TID251 - what the clock under test must agree with


async def run_ready_tasks() -> None:
    for _ in range(5):
        await SystemClock().sleep(0)


def test_system_clock_tells_the_time_of_day_in_ms() -> None:
    before_ms = machine_time_ms()

    now_ms = SystemClock().now_ms()

    assert before_ms <= now_ms <= machine_time_ms()


def test_system_clock_never_goes_back() -> None:
    clock: Clock = SystemClock()

    readings = [clock.monotonic_ms() for _ in range(100)]

    assert readings == sorted(readings)


def test_system_clock_falls_back_when_the_machine_refuses_boottime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_clock: int) -> int:
        raise OSError("no such clock")

    monkeypatch.setattr(time, "clock_gettime_ns", refuse)

    assert SystemClock().monotonic_ms() > 0


def test_system_clock_falls_back_when_the_machine_does_not_know_boottime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)

    assert SystemClock().monotonic_ms() > 0


async def test_system_clock_sleep_of_nothing_lets_others_run() -> None:
    ran: list[str] = []

    async with asyncio.TaskGroup() as tasks:
        other = asyncio.get_running_loop().call_soon(ran.append, "other")
        await tasks.create_task(SystemClock().sleep(-5))

    assert ran == ["other"]
    assert not other.cancelled()


async def test_sleepers_wake_by_deadline_then_by_arrival() -> None:
    clock = ManualClock(START_MS)
    woken: list[str] = []

    async def sleeper(name: str, delay_ms: int) -> None:
        await clock.sleep(delay_ms)
        woken.append(name)

    async with asyncio.TaskGroup() as tasks:
        for name, delay_ms in (("late", 30), ("first", 10), ("second", 10), ("zeroth", 5)):
            tasks.create_task(sleeper(name, delay_ms))
        await run_ready_tasks()

        clock.advance(30)

    assert woken == ["zeroth", "first", "second", "late"]


async def test_sleeper_stays_asleep_until_its_very_millisecond() -> None:
    clock = ManualClock(START_MS)

    async with asyncio.TaskGroup() as tasks:
        sleeper = tasks.create_task(clock.sleep(10))
        await run_ready_tasks()
        clock.advance(9)
        await run_ready_tasks()
        early = sleeper.done()
        clock.advance(1)

    assert not early
    assert clock.now_ms() == START_MS + 10
    assert clock.monotonic_ms() == 10


async def test_manual_sleep_of_nothing_returns_without_an_advance() -> None:
    clock = ManualClock(START_MS)

    await clock.sleep(0)

    assert clock.sleepers() == 0


async def test_cancelled_sleeper_is_forgotten() -> None:
    clock = ManualClock(START_MS)

    async with asyncio.TaskGroup() as tasks:
        cancelled = tasks.create_task(clock.sleep(10))
        tasks.create_task(clock.sleep(20))
        await run_ready_tasks()
        cancelled.cancel()
        await run_ready_tasks()
        left = clock.sleepers(), clock.next_deadline_ms()
        clock.advance(20)

    assert left == (1, 20)
    assert clock.next_deadline_ms() is None


async def test_sleeper_cancelled_after_its_wake_up_ends_cancelled() -> None:
    clock = ManualClock(START_MS)
    async with asyncio.TaskGroup() as tasks:
        sleeper = tasks.create_task(clock.sleep(10))
        await run_ready_tasks()

        clock.advance(10)
        sleeper.cancel()

    assert sleeper.cancelled()


async def test_stepwise_advance_lets_a_periodic_task_see_every_deadline() -> None:
    clock = ManualClock(START_MS)
    ticks: list[int] = []

    async def tick() -> None:
        for _ in range(3):
            await clock.sleep(10)
            ticks.append(clock.monotonic_ms())

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(tick())

        await clock.advance_stepwise(35)

    assert ticks == [10, 20, 30]
    assert clock.monotonic_ms() == 35


async def test_another_thread_may_advance_the_clock() -> None:
    clock = ManualClock(START_MS)

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(clock.sleep(10))
        await run_ready_tasks()
        thread = threading.Thread(target=clock.advance, args=(10,))
        thread.start()

    thread.join()
    assert clock.sleepers() == 0


def test_sleeper_of_an_ended_loop_does_not_disturb_the_others() -> None:
    clock = ManualClock(START_MS)
    loop = asyncio.new_event_loop()
    abandoned = loop.create_task(clock.sleep(10))
    loop.run_until_complete(SystemClock().sleep(0))
    sleeping = clock.sleepers()
    loop.close()

    clock.advance(10)

    assert (sleeping, clock.sleepers()) == (1, 0)
    assert not abandoned.done()


def test_manual_clock_refuses_to_go_back() -> None:
    clock = ManualClock(START_MS)

    with pytest.raises(ValueError, match="-1 ms"):
        clock.advance(-1)

    assert clock.now_ms() == START_MS


def test_steady_clock_starts_at_the_last_stored_time_when_the_wall_clock_is_behind() -> None:
    clock = ManualClock(START_MS)

    steady = SteadyClock(clock, START_MS + 500)

    assert steady.now_ms() == START_MS + 500


def test_steady_clock_starts_at_the_wall_clock_when_that_is_ahead() -> None:
    steady = SteadyClock(ManualClock(START_MS), START_MS - 500)

    assert steady.now_ms() == START_MS


@pytest.mark.parametrize("wall_ms", [0, START_MS * 10])
def test_steady_clock_ignores_a_wall_clock_that_is_set(wall_ms: int) -> None:
    clock = ManualClock(START_MS)
    steady = SteadyClock(clock, 0)

    clock.set_wall_clock(wall_ms)
    clock.advance(7)

    assert steady.now_ms() == START_MS + 7


async def test_steady_clock_sleeps_and_measures_on_the_clock_below() -> None:
    clock = ManualClock(START_MS)
    steady: Clock = SteadyClock(clock, 0)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(steady.sleep(10))
        await run_ready_tasks()
        clock.advance(10)

    assert steady.monotonic_ms() == 10
