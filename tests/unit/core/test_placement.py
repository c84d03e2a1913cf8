"""Where things live never changes with a release: these values are for ever."""

from __future__ import annotations

from collections import Counter

import pytest

from lockstep.core.ids import EntityKey
from lockstep.core.placement import partition_of_entity, partition_of_session

ORDERS = EntityKey("default", "orders")


@pytest.mark.parametrize(
    ("entity", "of_16", "of_7"),
    [
        (ORDERS, 11, 0),
        (EntityKey("default", "shop/orders"), 12, 4),
        (EntityKey("default", "ä"), 11, 6),
    ],
)
def test_an_entity_stays_where_it_is(entity: EntityKey, of_16: int, of_7: int) -> None:
    assert (partition_of_entity(entity, 16), partition_of_entity(entity, 7)) == (of_16, of_7)


@pytest.mark.parametrize(
    ("session_id", "of_16", "of_7"),
    [("", 9, 2), ("a", 4, 2), ("b", 8, 6), ("order-4711", 2, 3), ("😀", 12, 6)],
)
def test_a_session_stays_where_it_is(session_id: str, of_16: int, of_7: int) -> None:
    assert partition_of_session(ORDERS, session_id, 16) == of_16
    assert partition_of_session(ORDERS, session_id, 7) == of_7


def test_the_namespace_takes_part() -> None:
    other = EntityKey("other", "orders")

    assert partition_of_entity(other, 16) == 12
    assert partition_of_session(other, "a", 16) == 13


def test_one_partition_holds_everything() -> None:
    assert {partition_of_session(ORDERS, str(n), 1) for n in range(100)} == {0}


def test_sessions_are_spread_evenly() -> None:
    placed = Counter(partition_of_session(ORDERS, f"session-{n}", 16) for n in range(16_000))

    assert sorted(placed) == list(range(16))
    assert max(placed.values()) - min(placed.values()) < 200


def test_names_do_not_run_into_one_another() -> None:
    placed = {
        partition_of_session(EntityKey("a", "bc"), "d", 2**16),
        partition_of_session(EntityKey("ab", "c"), "d", 2**16),
        partition_of_session(EntityKey("a", "b"), "cd", 2**16),
    }

    assert len(placed) == 3
