"""Nodes that come count together after a while; nodes that go stop counting at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lockstep.cluster.settling import SettledNodes

SETTLE_MS = 200
A, AB, ABC = frozenset("a"), frozenset("ab"), frozenset("abc")
NOBODY: frozenset[str] = frozenset()


def test_a_node_counts_after_a_while() -> None:
    nodes = SettledNodes(SETTLE_MS)

    assert nodes.look(A, 1_000) == NOBODY
    assert nodes.due_ms == 1_200
    assert nodes.look(A, 1_199) == NOBODY
    assert nodes.look(A, 1_200) == A
    assert nodes.due_ms is None


def test_nodes_that_come_one_after_the_other_count_together() -> None:
    nodes = SettledNodes(SETTLE_MS)
    nodes.look(A, 0)
    nodes.look(AB, 150)

    assert nodes.look(ABC, 300) == NOBODY
    assert nodes.look(ABC, 500) == ABC


def test_nodes_that_keep_coming_do_not_hold_up_the_others_for_ever() -> None:
    nodes = SettledNodes(SETTLE_MS)
    present = [frozenset(f"n{n}" for n in range(count + 1)) for count in range(8)]

    counted = [len(nodes.look(present[n], n * 150)) for n in range(8)]

    assert counted == [0, 0, 0, 0, 0, 0, 0, 8]  # at 1050 ms, the first look after five waits


def test_a_node_that_goes_stops_counting_at_once() -> None:
    nodes = SettledNodes(SETTLE_MS)
    nodes.look(AB, 0)
    nodes.look(AB, 200)

    assert nodes.look(A, 201) == A


def test_a_node_that_goes_while_another_waits_stops_counting_at_once() -> None:
    nodes = SettledNodes(SETTLE_MS)
    nodes.look(AB, 0)
    nodes.look(AB, 200)
    nodes.look(ABC, 300)

    assert nodes.look(frozenset("ac"), 400) == A
    assert nodes.look(frozenset("ac"), 500) == frozenset("ac")


def test_a_node_that_goes_before_it_counted_leaves_nothing_to_wait_for() -> None:
    nodes = SettledNodes(SETTLE_MS)
    nodes.look(A, 0)

    assert nodes.look(NOBODY, 100) == NOBODY
    assert nodes.due_ms is None


def test_without_a_wait_all_count_at_once() -> None:
    assert SettledNodes(0).look(AB, 5) == AB


@given(st.lists(st.tuples(st.integers(0, 500), st.frozensets(st.sampled_from("abcd"))), min_size=1))
def test_only_those_who_are_there_count_and_all_do_in_the_end(
    looks: list[tuple[int, frozenset[str]]],
) -> None:
    nodes = SettledNodes(SETTLE_MS)
    now_ms = 0
    for delay_ms, present in looks:
        now_ms += delay_ms
        assert nodes.look(present, now_ms) <= present

    assert nodes.look(present, now_ms + 5 * SETTLE_MS) == present
