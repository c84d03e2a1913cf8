"""What is known of the broker: readings that take a while, and queues that were lost."""

from __future__ import annotations

from lockstep.runtime.clock import ManualClock
from lockstep_operator.broker import Figures, Found
from lockstep_operator.mirror import Mirror
from lockstep_operator.plan import Entity

PAUSE_MS = 300_000


def found(name: str, uid: str = "entity-1") -> Found:
    return Found("shop", name, Entity(uid, 1, {}), Figures())


def mirror(clock: ManualClock | None = None, *, recreates_at_once: bool = False) -> Mirror:
    return Mirror(clock or ManualClock(), recreates_at_once=recreates_at_once)


def test_names_compare_without_regard_to_case() -> None:
    known = mirror()
    known.put(found("Orders"))
    assert known.get("shop", "orders") == found("Orders")
    known.drop("shop", "ORDERS")
    assert known.get("shop", "orders") is None


def test_what_was_done_while_everything_was_read_counts_more_than_the_reading() -> None:
    known = mirror()
    known.put(found("deleted"))
    began = known.begin_reading()
    known.put(found("made"))
    known.drop("shop", "deleted")

    known.load([found("deleted"), found("old")], began)

    assert known.get("shop", "made") == found("made")
    assert known.get("shop", "deleted") is None
    assert known.get("shop", "old") == found("old")


def test_the_next_reading_counts_more_than_what_was_done_before_it() -> None:
    known = mirror()
    first = known.begin_reading()
    known.put(found("made"))
    known.load([], first)
    known.load([], known.begin_reading())
    assert known.get("shop", "made") is None


def test_of_two_readings_at_once_neither_takes_back_what_was_done_meanwhile() -> None:
    known = mirror()
    first = known.begin_reading()
    known.put(found("made"))
    second = known.begin_reading()
    known.load([found("made")], second)
    known.load([], first)
    known.put(found("other"))
    assert known.get("shop", "other") == found("other")
    assert known.is_loaded


def test_many_lost_queues_start_a_pause_and_few_do_not() -> None:
    clock = ManualClock()
    known = mirror(clock)
    known.judge_loss(4, 4)
    assert not known.is_in_loss
    known.judge_loss(20, 100)
    assert not known.is_in_loss
    known.judge_loss(21, 100)
    assert known.loss_left_ms() == PAUSE_MS


def test_a_pause_ends_and_is_not_made_longer_by_the_same_loss() -> None:
    clock = ManualClock()
    known = mirror(clock)
    known.judge_loss(50, 100)
    clock.advance(PAUSE_MS)
    known.judge_loss(50, 100)
    assert not known.is_in_loss


def test_a_pause_ends_when_everything_is_there_again() -> None:
    known = mirror()
    known.judge_loss(50, 100)
    known.judge_loss(0, 100)
    assert not known.is_in_loss


def test_a_later_loss_starts_a_pause_although_one_queue_stayed_lost() -> None:
    """An object that is paused never has its queue made again."""
    clock = ManualClock()
    known = mirror(clock)
    known.judge_loss(50, 100)
    clock.advance(PAUSE_MS)
    known.judge_loss(1, 100)
    known.judge_loss(60, 100)
    assert known.is_in_loss


def test_the_pause_may_be_turned_off() -> None:
    known = mirror(recreates_at_once=True)
    known.judge_loss(100, 100)
    assert not known.is_in_loss
