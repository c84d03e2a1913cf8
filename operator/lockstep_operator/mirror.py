"""What the broker has, as it was seen last: read in bulk, and kept up by the operator's own calls.

Here belongs the operator's view of the broker, and the two guards over it. Never here: what is done about it. The
laws: names compare without regard to case, as in the broker; before the first reading nothing is known, not "nothing
is there"; after many queues were lost at once, none is made again before a while has passed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from lockstep.runtime.clock import Clock
from lockstep_operator.broker import Found

log = logging.getLogger(__name__)

_LOSS_SHARE = 0.2
_LOSS_LEAST = 5
_LOSS_PAUSE_MS = 300_000


class Mirror:
    """The queues of the broker."""

    def __init__(self, clock: Clock, *, recreates_at_once: bool) -> None:
        """Know nothing yet.

        Args:
            clock: Of the pause after a loss.
            recreates_at_once: Whether queues are made again however many were lost.
        """
        self._clock = clock
        self._recreates_at_once = recreates_at_once
        self._found: dict[tuple[str, str], Found] = {}
        # What was put or dropped, and as the how manieth change: a reading that began before says less of it.
        self._changed: dict[tuple[str, str], int] = {}
        self._changes = 0
        self._lost_until_ms = 0
        self.is_loaded = False

    def get(self, namespace: str, name: str) -> Found | None:
        """Return a queue; None = it is not there."""
        return self._found.get((namespace, name.lower()))

    def put(self, found: Found) -> None:
        """Remember a queue as it was seen just now."""
        key = (found.namespace, found.name.lower())
        self._found[key] = found
        self._change(key)

    def drop(self, namespace: str, name: str) -> None:
        """Remember that a queue is not there."""
        key = (namespace, name.lower())
        self._found.pop(key, None)
        self._change(key)

    def _change(self, key: tuple[str, str]) -> None:
        self._changes += 1
        self._changed[key] = self._changes

    def __iter__(self) -> Iterator[Found]:
        return iter(list(self._found.values()))

    def __len__(self) -> int:
        return len(self._found)

    def begin_reading(self) -> int:
        """Return what `load` needs to know of a reading of everything that begins now."""
        return self._changes

    def load(self, found: Iterable[Found], began: int) -> None:
        """Take a reading of everything in place of what was known, but for what became known since it began."""
        read = {(one.namespace, one.name.lower()): one for one in found}
        self._changed = {key: at for key, at in self._changed.items() if at > began}
        for key in self._changed:
            known = self._found.get(key)
            if known is None:
                read.pop(key, None)
            else:
                read[key] = known
        self._found = read
        self.is_loaded = True

    # --- losses ------------------------------------------------------------------------------------

    def judge_loss(self, gone: int, declared: int) -> None:
        """Tell how many queues that objects had are not in the broker any more; many of them start a pause.

        More than a fifth of them, and at least 5, are taken for a broker without its data: it may come back with it.
        """
        is_many = gone >= _LOSS_LEAST and gone > declared * _LOSS_SHARE
        if self._recreates_at_once or (is_many and self._lost_until_ms):
            return
        if is_many:
            self._lost_until_ms = self._clock.monotonic_ms() + _LOSS_PAUSE_MS
            log.warning("broker.bulk_loss", extra={"gone": gone, "declared": declared})
        elif gone == 0 or not self.is_in_loss:
            self._lost_until_ms = 0

    @property
    def is_in_loss(self) -> bool:
        """Whether nothing that was there before is to be made again yet."""
        return self.loss_left_ms() > 0

    def loss_left_ms(self) -> int:
        """Return for how many milliseconds that is so."""
        return max(self._lost_until_ms - self._clock.monotonic_ms(), 0)
