"""The order of looks: priorities, retries, and what is put in while it is worked on."""

from __future__ import annotations

import asyncio

from lockstep.runtime.clock import ManualClock
from lockstep_operator.work_queue import Priority, WorkQueue


async def taken(work: WorkQueue[str]) -> list[str]:
    """Take out and end everything that waits."""
    found = []
    while work.depth(Priority.USER) or work.depth(Priority.RESYNC):
        key, _ = await work.get()
        work.done(key)
        found.append(key)
    return found


async def after(clock: ManualClock, work: WorkQueue[str], delay_ms: int) -> list[str]:
    """Let time pass, and take out what waits then."""
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(work.keep_time())
        await clock.advance_stepwise(delay_ms)
        keeping.cancel()
    return await taken(work)


async def test_each_object_waits_once_and_users_come_first() -> None:
    work: WorkQueue[str] = WorkQueue(ManualClock())
    for key in ("a", "b", "c"):
        work.put(key, Priority.RESYNC)
    work.put("c")
    work.put("c", Priority.RESYNC)
    work.put("d")
    assert await taken(work) == ["c", "d", "a", "b"]


async def test_what_is_put_in_while_it_is_worked_on_comes_once_more_and_not_before() -> None:
    work: WorkQueue[str] = WorkQueue(ManualClock())
    work.put("a")
    key, _ = await work.get()
    work.put("a", Priority.RESYNC)
    work.put("a")
    assert work.depth(Priority.USER) == 0
    work.done(key)
    assert await work.get() == ("a", Priority.USER)
    work.done("a")
    assert await taken(work) == []


async def test_who_waits_for_work_is_woken() -> None:
    work: WorkQueue[str] = WorkQueue(ManualClock())
    async with asyncio.TaskGroup() as group:
        getting = [group.create_task(work.get()) for _ in range(2)]
        await ManualClock().advance_stepwise(0)
        work.put("a")
        work.put("b")
    assert sorted(one.result()[0] for one in getting) == ["a", "b"]


async def test_failures_are_tried_again_later_and_later_but_within_five_minutes() -> None:
    clock = ManualClock()
    work: WorkQueue[str] = WorkQueue(clock)
    for number in range(12):
        delay_ms = work.retry("a")
        most = min(1_000 << number, 300_000)
        assert most // 2 <= delay_ms < most
        assert await after(clock, work, delay_ms + 200) == ["a"]
    work.succeeded("a")
    assert work.retry("a") < 1_000


async def test_of_several_delays_the_shortest_counts_and_only_once() -> None:
    clock = ManualClock()
    work: WorkQueue[str] = WorkQueue(clock)
    work.put_after("a", 60_000)
    work.put_after("a", 1_000)
    work.put_after("a", 30_000)
    assert await after(clock, work, 1_200) == ["a"]
    assert await after(clock, work, 120_000) == []


async def test_success_ends_what_was_to_be_tried_again() -> None:
    clock = ManualClock()
    work: WorkQueue[str] = WorkQueue(clock)
    work.retry("a", least_ms=30_000)
    work.succeeded("a")
    assert await after(clock, work, 60_000) == []


async def test_what_is_forgotten_is_not_looked_at() -> None:
    clock = ManualClock()
    work: WorkQueue[str] = WorkQueue(clock)
    for key in ("works", "waits", "later"):
        work.put(key)
    work.put_after("later", 1_000)
    key, _ = await work.get()
    work.put(key)
    for one in ("waits", "works", "later"):
        work.forget(one)
    work.done(key)
    assert await after(clock, work, 5_000) == []


async def test_how_long_the_first_one_waits_is_told() -> None:
    clock = ManualClock()
    work: WorkQueue[str] = WorkQueue(clock)
    assert work.oldest_ms() == 0
    work.put("a", Priority.RESYNC)
    clock.advance(3_000)
    work.put("b")
    clock.advance(1_000)
    assert work.oldest_ms() == 4_000
