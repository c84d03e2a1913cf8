"""The heap of times to look again."""

from __future__ import annotations

from lockstep.core.deadlines import DeadlineHeap, Subject

A, B, C = (Subject("session", 1, name, 1) for name in "abc")


def test_nothing_waits_at_first() -> None:
    heap = DeadlineHeap()

    assert heap.next_ms is None
    assert heap.pop_due(10**15) == []


def test_the_earliest_comes_first_whatever_the_order_they_were_set() -> None:
    heap = DeadlineHeap()
    heap.add(300, C)
    heap.add(100, A)
    heap.add(200, B)

    assert heap.next_ms == 100
    assert heap.pop_due(300) == [A, B, C]
    assert heap.next_ms is None


def test_what_is_due_is_taken_at_its_time_and_not_before() -> None:
    heap = DeadlineHeap()
    heap.add(100, A)
    heap.add(101, B)

    assert heap.pop_due(99) == []
    assert heap.pop_due(100) == [A]
    assert heap.next_ms == 101


def test_equal_times_keep_the_order_they_were_set() -> None:
    heap = DeadlineHeap()
    for subject in (B, A, C, A):
        heap.add(100, subject)

    assert heap.pop_due(100) == [B, A, C, A]


def test_what_is_due_is_taken_in_parts_when_it_is_bounded() -> None:
    heap = DeadlineHeap()
    for subject in (A, B, C):
        heap.add(100, subject)

    assert heap.pop_due(100, 2) == [A, B]
    assert heap.next_ms == 100
    assert heap.pop_due(100, 2) == [C]
    assert heap.next_ms is None
