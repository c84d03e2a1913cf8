"""Watches whether this process reaches its databases.

Here belong the probes, and what is concluded from them. Never here: what comes of it (`cluster.reach`). The laws: a
database is cut off only after it has given no answer at all for a set time, to a probe or to a partition; it is reached
again only after it has answered all probes for a while, longer each time that others had its partitions lately; and it
stays doubtful for longer than that, so that those that lost a database together take nothing from each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from lockstep.cluster.reach import Reach
from lockstep.core.errors import LockstepError
from lockstep.runtime.clock import Clock

log = logging.getLogger(__name__)

_PROBES_PER_SILENCE = 5
_TIMEOUTS_PER_SILENCE = 3  # a probe that hangs leaves time for another two
_HOLD_DOUBLINGS_MAX = 5
_DOUBTFUL_SILENCES = 2
_FORGIVEN_SILENCES = 60


class Databases(Protocol):
    """What is watched."""

    async def probe(self, database: int, *, timeout_ms: int) -> None:
        """Ask a database for a sign of life.

        Raises:
            LockstepError: It gave none, or it cannot be used from here.
        """

    def answered_ms(self, database: int) -> int:
        """Return when a database answered anything last, by the monotonic clock."""


class DatabaseReach:
    """What is concluded about one database.

    Attributes:
        is_cut_off: Others should have its partitions.
        is_doubtful: It failed a short time ago.
    """

    def __init__(self, silence_ms: int) -> None:
        """Trust it.

        Args:
            silence_ms: How long it may give no answer.
        """
        self._silence_ms = silence_ms
        self.is_cut_off = False
        self.is_doubtful = False
        self._good_since_ms: int | None = None  # None = the last probe failed, or there was none
        self._doublings = 0
        self._kept_away_ms: int | None = None  # when others had its partitions last

    def note_answer(self, now_ms: int, *, is_kept_away: bool) -> None:
        """Take in that a probe was answered.

        Args:
            now_ms: By the monotonic clock.
            is_kept_away: Whether others have its partitions meanwhile, because they reach it.
        """
        if self._good_since_ms is None:
            self._good_since_ms = now_ms
        if is_kept_away:
            self._kept_away_ms = now_ms
        good_ms = now_ms - self._good_since_ms
        if good_ms >= (self._silence_ms // 2) << (self._doublings if is_kept_away else 0):
            self.is_cut_off = False
        if good_ms >= self._silence_ms * _DOUBTFUL_SILENCES:
            self.is_doubtful = self.is_cut_off

    def note_failure(self, now_ms: int, *, silent_ms: int) -> None:
        """Take in that a probe failed.

        Args:
            now_ms: By the monotonic clock.
            silent_ms: For how long the database has not answered anything.
        """
        self._good_since_ms = None
        self.is_doubtful = True
        if self.is_cut_off or silent_ms < self._silence_ms:
            return
        before_ms = self._kept_away_ms
        is_again = before_ms is not None and (
            now_ms - before_ms < self._silence_ms * _FORGIVEN_SILENCES
        )
        self._doublings = min(self._doublings + 1, _HOLD_DOUBLINGS_MAX) if is_again else 0
        self.is_cut_off = True


class StoreWatch:
    """Watches the databases of a store, until cancelled."""

    def __init__(
        self,
        databases: Databases,
        count: int,
        clock: Clock,
        *,
        silence_ms: int,
        tell: Callable[[Reach], None],
        is_kept_away: Callable[[int], bool],
    ) -> None:
        """Prepare.

        Args:
            databases: What is watched.
            count: How many they are.
            clock: For pauses and durations.
            silence_ms: How long a database may give no answer before others should have its partitions.
            tell: Called with each change.
            is_kept_away: Whether others have the partitions of a database, because they reach it.
        """
        self._databases = databases
        self._clock = clock
        self._silence_ms = silence_ms
        self._tell = tell
        self._is_kept_away = is_kept_away
        self._each: Sequence[DatabaseReach] = [DatabaseReach(silence_ms) for _ in range(count)]
        self._told = Reach()

    async def run(self) -> None:
        """Probe every database again and again."""
        async with asyncio.TaskGroup() as tasks:
            for database in range(len(self._each)):
                tasks.create_task(self._watch(database))

    def not_ready(self) -> list[str]:
        """Return which databases are cut off."""
        return [
            f"database {database + 1} gives no answer here"
            for database in sorted(self._told.cut_off)
        ]

    async def _watch(self, database: int) -> None:
        while True:
            await self._clock.sleep(self._silence_ms // _PROBES_PER_SILENCE)
            await self._probe(database)
            self._conclude()

    async def _probe(self, database: int) -> None:
        one, clock = self._each[database], self._clock
        try:
            timeout_ms = self._silence_ms // _TIMEOUTS_PER_SILENCE
            await self._databases.probe(database, timeout_ms=timeout_ms)
        except LockstepError as error:
            now_ms = clock.monotonic_ms()
            was_cut_off = one.is_cut_off
            silent_ms = now_ms - self._databases.answered_ms(database)
            one.note_failure(now_ms, silent_ms=silent_ms)
            if one.is_cut_off and not was_cut_off:
                facts = {"database": database + 1, "reason": error.reason, "why": error.message}
                log.warning("database.cut_off", extra=facts)
            return
        was_cut_off = one.is_cut_off
        one.note_answer(clock.monotonic_ms(), is_kept_away=self._is_kept_away(database))
        if was_cut_off and not one.is_cut_off:
            log.info("database.reached", extra={"database": database + 1})

    def _conclude(self) -> None:
        reach = Reach(
            frozenset(n for n, one in enumerate(self._each) if one.is_cut_off),
            frozenset(n for n, one in enumerate(self._each) if one.is_doubtful),
        )
        if reach != self._told:
            self._told = reach
            self._tell(reach)
