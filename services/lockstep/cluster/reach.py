"""Which databases a node reaches, and who shall not have their partitions because of it.

Here belong pure functions and values. Never here: how a node finds out (`owner.store_watch`), or how partitions are
shared out (`core.placement`). The law: a partition is kept from a node only while another one reaches its database
steadily; when nobody does, everybody keeps what it has, so an outage of PostgreSQL moves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Reach:
    """How well one node reaches the databases, by their numbers.

    Attributes:
        cut_off: Those that it has not reached for so long that others should have their partitions.
        doubtful: Those that it has failed to reach a short time ago; all that are cut off are among them.
    """

    cut_off: frozenset[int] = frozenset()
    doubtful: frozenset[int] = frozenset()


STEADY: Final = Reach()
"""That of a node that reaches everything."""


def barred(
    reach: Mapping[str, Reach], *, databases: int, partitions: int
) -> dict[int, frozenset[str]]:
    """Return for each partition which nodes shall not have it; a partition that anybody may have is left out.

    Args:
        reach: Of all nodes that count, by name.
        databases: How many there are; partition n is in number n modulo that.
        partitions: How many there are.
    """
    found: dict[int, frozenset[str]] = {}
    for database in range(databases):
        cut_off = frozenset(name for name, one in reach.items() if database in one.cut_off)
        if cut_off and any(database not in one.doubtful for one in reach.values()):
            found |= dict.fromkeys(range(database, partitions, databases), cut_off)
    return found
