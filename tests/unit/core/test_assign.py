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


@given(NAMES, PARTITIONS, st.data())
def test_a_partition_is_kept_from_the_nodes_that_shall_not_have_it(
    nodes: list[str], partitions: int, data: st.DataObject
) -> None:
    some = st.dictionaries(st.integers(0, partitions - 1), st.sets(st.sampled_from(nodes)))
    barred = data.draw(some)

    owners = assign(nodes, partitions, barred)

    assert len(owners) == partitions
    for partition, kept_away in barred.items():
        assert owners[partition] not in kept_away or kept_away == set(nodes)


@given(NAMES, PARTITIONS)
def test_a_node_that_shall_have_nothing_counts_like_one_that_is_gone(
    nodes: list[str], partitions: int
) -> None:
    barred = {partition: {"CUT OFF"} for partition in range(partitions)}

    owners = assign([*nodes, "CUT OFF"], partitions, barred)

    assert owners == assign(nodes, partitions)


@given(NAMES, PARTITIONS)
def test_what_nobody_shall_have_is_shared_out_as_ever(nodes: list[str], partitions: int) -> None:
    assert assign(nodes, partitions, dict.fromkeys(range(partitions), nodes)) == assign(
        nodes, partitions
    )


@given(st.integers(2, 6), st.integers(2, 4), st.integers(1, 32))
def test_what_is_kept_from_a_node_is_shared_by_the_others(
    others: int, databases: int, partitions: int
) -> None:
    """One of several databases is cut off from one node."""
    nodes = [f"n{number}" for number in range(others)]
    barred = {p: {"CUT OFF"} for p in range(0, partitions, databases)}

    owned = Counter(assign([*nodes, "CUT OFF"], partitions, barred))

    share = ceil(partitions / len(nodes))
    assert max(owned[node] for node in nodes) <= share
