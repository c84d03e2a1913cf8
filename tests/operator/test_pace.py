"""How fast queues are deleted."""

from __future__ import annotations

from lockstep.runtime.clock import ManualClock
from lockstep_operator.pace import Pace


def test_a_few_deletions_wait_for_nothing() -> None:
    pace = Pace(ManualClock())
    assert [pace.left_ms(f"uid-{n}", 100) for n in range(20)] == [0] * 20
    assert not pace.is_slow


def test_all_of_few_objects_go_at_once() -> None:
    pace = Pace(ManualClock())
    assert [pace.left_ms(f"uid-{n}", 20 - n) for n in range(20)] == [0] * 20


def test_most_of_many_objects_go_ten_in_a_second() -> None:
    clock = ManualClock()
    pace = Pace(clock)
    waits = [pace.left_ms(f"uid-{n}", 200) for n in range(200)]
    assert pace.is_slow
    slowed = [one for one in waits if one]
    assert slowed == [100 * (n + 1) for n in range(len(slowed))]
    assert len(slowed) > 100

    clock.advance(waits[-1] - 1)
    assert pace.left_ms("uid-199", 1) == 1


def test_who_asks_again_keeps_its_turn_and_is_counted_once() -> None:
    clock = ManualClock()
    pace = Pace(clock)
    for _ in range(100):
        assert pace.left_ms("uid-a", 60) == 0
    assert not pace.is_slow


def test_after_a_minute_it_is_over_although_nothing_more_is_deleted() -> None:
    clock = ManualClock()
    pace = Pace(clock)
    for number in range(60):
        pace.left_ms(f"uid-{number}", 60)
    was_slow = pace.is_slow
    clock.advance(120_000)
    assert (was_slow, pace.is_slow) == (True, False)
    assert pace.left_ms("uid-new", 60) == 0
