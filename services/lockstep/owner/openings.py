"""Openings of partitions that failed: when to try again, and what callers and people are told meanwhile.

Here belongs what is remembered of them. Never here: the opening itself (`supervisor`). The laws: the pause between two
openings doubles up to a cap, also when a partition was released and granted again between them; the log has one line
when a trouble begins or becomes another, then one a minute; nobody is told a cause that is over.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from lockstep.core.errors import ClusterUnavailable, Fenced, LockstepError, Moved, StoreUnavailable
from lockstep.core.ids import PartitionId
from lockstep.runtime.clock import Clock

log = logging.getLogger(__name__)

PAUSE_MS: Final = 200
PAUSE_MAX_MS: Final = 2_500
"""With the 2 s within which a new generation is noticed, and the opening, everything goes on within 5 s."""
WARN_EVERY_MS: Final = 60_000
_FORGET_MS = 10_000  # after a partition was given back: longer than a pause and another claim
_DOUBLINGS_MAX = 8
_REPEATED = 2  # one refusal may come of a claim that was overtaken; the next claim was newer
NEXT_GENERATION: Final = (
    "If etcd has lost its data or was restored from a backup, run: lockstep cluster next-generation"
)


@dataclass(slots=True, eq=False)
class _Trouble:
    """Why a partition is not open.

    Attributes:
        error: The last one.
        noted_ms: When that was, by the monotonic clock.
        failures: How many openings failed in a row.
        fences: How many of the last ones failed because the store knows of a later owner.
        warned: What was logged last: the reason, and whether it had repeated; None = nothing.
        warned_ms: When that was.
    """

    error: LockstepError
    noted_ms: int
    failures: int = 0
    fences: int = 0
    warned: tuple[str, bool] | None = None
    warned_ms: int = 0

    @property
    def is_fenced_for_good(self) -> bool:
        """Whether no claim helps, as far as can be told from here."""
        return self.fences >= _REPEATED

    @property
    def why(self) -> str:
        """The cause, and what to do about it."""
        if self.is_fenced_for_good:
            return f"{self.error.message} {NEXT_GENERATION}"
        return self.error.message


class Openings:
    """What is remembered of the openings of all partitions of a process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._troubles: dict[PartitionId, _Trouble] = {}

    def note_lost(self, number: PartitionId, error: LockstepError) -> None:
        """Remember why an open partition was dropped, until it is open again."""
        if isinstance(error, StoreUnavailable):
            self._troubles[number] = _Trouble(error, self._clock.monotonic_ms())

    def note_failure(self, number: PartitionId, error: LockstepError) -> int:
        """Remember why an opening failed, and return how many ms to wait before the next one."""
        now_ms = self._clock.monotonic_ms()
        trouble = self._troubles.get(number)
        if trouble is None or now_ms - trouble.noted_ms > WARN_EVERY_MS:
            trouble = self._troubles[number] = _Trouble(error, now_ms)
        trouble.error, trouble.noted_ms = error, now_ms
        trouble.failures += 1
        trouble.fences = trouble.fences + 1 if isinstance(error, Fenced) else 0
        self._warn(number, trouble)
        return min(PAUSE_MS << min(trouble.failures - 1, _DOUBLINGS_MAX), PAUSE_MAX_MS)

    def note_opened(self, number: PartitionId) -> None:
        """Forget what was, because the partition is open."""
        self._troubles.pop(number, None)

    def why_closed(self, number: PartitionId, *, is_owned: bool) -> str:
        """Return why the last opening failed; empty = none has failed."""
        trouble = self._current(number, is_owned=is_owned)
        return "" if trouble is None else trouble.why

    def refusal(self, number: PartitionId, *, is_owned: bool) -> LockstepError | None:
        """Return what a call to a partition that is not open is answered; None = no opening has failed.

        Nothing was done by a call that is refused so.
        """
        trouble = self._current(number, is_owned=is_owned)
        if trouble is None:
            return None
        text = f"Partition {number} is not open: {trouble.why}"
        details = {"partition": str(number)}
        if trouble.is_fenced_for_good:
            return ClusterUnavailable(text, details=details)
        if isinstance(trouble.error, StoreUnavailable):
            return StoreUnavailable(text, details=details)
        return Moved(text, details=details)

    def _current(self, number: PartitionId, *, is_owned: bool) -> _Trouble | None:
        """Return what keeps a partition closed; after it was given back only until it may be owned elsewhere."""
        trouble = self._troubles.get(number)
        if trouble is None or is_owned:
            return trouble
        is_fresh = self._clock.monotonic_ms() - trouble.noted_ms <= _FORGET_MS
        return trouble if is_fresh else None

    def _warn(self, number: PartitionId, trouble: _Trouble) -> None:
        facts = (trouble.error.reason, trouble.is_fenced_for_good)
        is_news = trouble.warned != facts
        if not is_news and trouble.noted_ms - trouble.warned_ms < WARN_EVERY_MS:
            return
        trouble.warned, trouble.warned_ms = facts, trouble.noted_ms
        log.warning(
            "partition.not_opened",
            extra={
                "partition": number,
                "reason": trouble.error.reason,
                "why": trouble.why,
                "failures": trouble.failures,
            },
        )
