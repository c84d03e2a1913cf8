"""Who shall not have the partitions of a database that it does not reach."""

from __future__ import annotations

import pytest

from lockstep.cluster.reach import STEADY, Reach, barred

CUT_OFF = Reach(cut_off=frozenset({0}), doubtful=frozenset({0}))
DOUBTFUL = Reach(doubtful=frozenset({0}))


@pytest.mark.parametrize(
    ("reach", "kept_away"),
    [
        ({"a": STEADY, "b": STEADY}, set()),
        ({"a": CUT_OFF, "b": STEADY}, {"a"}),
        ({"a": CUT_OFF, "b": STEADY, "c": CUT_OFF}, {"a", "c"}),
        ({"a": CUT_OFF, "b": STEADY, "c": DOUBTFUL}, {"a"}),
        ({"a": DOUBTFUL, "b": STEADY}, set()),
    ],
)
def test_a_node_that_is_cut_off_is_kept_away_while_another_one_is_steady(
    reach: dict[str, Reach], kept_away: set[str]
) -> None:
    found = barred(reach, databases=1, partitions=2)

    assert found == ({0: kept_away, 1: kept_away} if kept_away else {})


@pytest.mark.parametrize(
    "reach",
    [
        {"a": CUT_OFF},
        {"a": CUT_OFF, "b": CUT_OFF},
        {"a": CUT_OFF, "b": DOUBTFUL},
        {},
    ],
)
def test_an_outage_for_all_keeps_nobody_away(reach: dict[str, Reach]) -> None:
    """Also in the moment in which some have noticed it and others have not, or have it behind them."""
    assert barred(reach, databases=1, partitions=4) == {}


def test_only_the_partitions_of_that_database_are_kept_from_the_node() -> None:
    second = Reach(cut_off=frozenset({1}), doubtful=frozenset({1}))

    found = barred({"a": second, "b": DOUBTFUL}, databases=3, partitions=8)

    assert found == {1: {"a"}, 4: {"a"}, 7: {"a"}}
