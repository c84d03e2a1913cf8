"""Where a look at messages goes on, as an opaque text (ADD-1).

Here belongs the cursor's form. Never here: the order of messages (`frontend.browsing`). The law: a cursor names for
each partition the next sequence number to look at, so what stays put is neither skipped nor shown again.
"""

from __future__ import annotations

from collections.abc import Mapping

from lockstep.core.errors import InvalidRequest
from lockstep.core.ids import NUMBER_MAX, PartitionId, partition_of, sequence_base

_FORM = "1."


def cursor_text(positions: Mapping[PartitionId, int]) -> str:
    """Return a cursor; a partition that is not named, or is at its beginning, is looked at from the beginning."""
    begun = (number for p, number in sorted(positions.items()) if number > sequence_base(p))
    return _FORM + "-".join(f"{number:x}" for number in begun)


def cursor_positions(text: str, partitions: int) -> dict[PartitionId, int]:
    """Return what `cursor_text` was made of.

    Raises:
        InvalidRequest: It is no cursor of this cluster.
    """
    positions: dict[PartitionId, int] = {}
    if not text.startswith(_FORM):
        raise _no_cursor()
    for part in text.removeprefix(_FORM).split("-") if text != _FORM else ():
        try:
            number = int(part, 16)
        except ValueError as error:
            raise _no_cursor() from error
        partition = partition_of(number)
        if not 0 < number <= NUMBER_MAX or partition >= partitions or partition in positions:
            raise _no_cursor()
        positions[partition] = number
    return positions


def _no_cursor() -> InvalidRequest:
    return InvalidRequest(
        "This cursor is not one of ours. Send the one of the last response as it came, or none."
    )
