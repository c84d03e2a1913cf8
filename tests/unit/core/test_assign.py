"""Which node should own which partition: balanced, the same for all, and mostly the same tomorrow."""

from __future__ import annotations

from collections import Counter
from math import ceil
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from lockstep.core.placement import assign

NAMES = st.lists(
    st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12),
    min_size=1,
    max_size=12,
    unique=True,
)
PARTITIONS = st.integers(1, 64)


@given(NAMES, PARTITIONS)
def test_no_node_has_more_or_fewer_than_its_share(nodes: list[str], partitions: int) -> None:
    owned = Counter(assign(nodes, partitions))

    loads = [owned[node] for node in nodes]
    assert sum(loads) == partitions
    assert max(loads) <= ceil(partitions / len(nodes))
    assert min(loads) >= partitions // len(nodes)


@given(NAMES, PARTITIONS, st.randoms())
def test_all_who_know_the_same_nodes_agree(
    nodes: list[str], partitions: int, chance: Random
) -> None:
    shuffled = list(nodes)
    chance.shuffle(shuffled)

    assert assign(shuffled, partitions) == assign(nodes, partitions)
    assert assign(frozenset(nodes), partitions) == assign(nodes, partitions)


@given(NAMES, st.text("ABC", min_size=1, max_size=3), PARTITIONS)
def test_few_partitions_move_when_a_node_comes_or_goes(
    nodes: list[str], another: str, partitions: int
) -> None:
    fewer, more = assign(nodes, partitions), assign([*nodes, another], partitions)

    moved = sum(one != other for one, other in zip(fewer, more, strict=True))
    must_move = more.count(another)
    assert must_move <= moved <= 2 * ceil(partitions / (len(nodes) + 1)) + len(nodes)


def test_an_assignment_stays_with_the_release() -> None:
    """Nodes of two releases live together during an upgrade and must agree."""
    assert "".join(assign(["a", "b", "c"], 16)) == "bcabbccbbaacacab"


def test_without_nodes_nobody_owns_anything() -> None:
    assert assign([], 16) == ()
