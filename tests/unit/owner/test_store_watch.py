"""When a database counts as cut off, and when it is trusted again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lockstep.cluster.reach import STEADY, Reach
from lockstep.core.errors import StoreUnavailable
from lockstep.owner.store_watch import DatabaseReach, StoreWatch
from lockstep.runtime.clock import ManualClock

SILENCE_MS = 10_000
EVERY_MS = SILENCE_MS // 5
CUT_OFF = Reach(cut_off=frozenset({1}), doubtful=frozenset({1}))
DOUBTFUL = Reach(doubtful=frozenset({1}))


class SwitchedDatabases:
    """Two databases that answer, or do not.

    Attributes:
        silent: Those whose probes fail.
        other_answers: Those that answer something else all the same.
    """

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._answered_ms = [0, 0]
        self.silent: set[int] = set()
        self.other_answers: set[int] = set()

    async def probe(self, database: int, *, timeout_ms: int) -> None:
        assert 0 < timeout_ms < SILENCE_MS
        if database in self.silent:
            raise StoreUnavailable("silent for the test")
        self._answered_ms[database] = self._clock.monotonic_ms()

    def answered_ms(self, database: int) -> int:
        if database in self.other_answers:
            return self._clock.monotonic_ms()
        return self._answered_ms[database]


class Watched:
    """A watch on a clock that stands still."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.databases = SwitchedDatabases(self.clock)
        self.told: list[Reach] = []
        self.watch = StoreWatch(
            self.databases,
            2,
            self.clock,
            silence_ms=SILENCE_MS,
            tell=self.told.append,
            is_kept_away=lambda _database: True,
        )

    @property
    def reach(self) -> Reach:
        """What was told last."""
        return self.told[-1] if self.told else STEADY

    async def pass_time(self, ms: int) -> None:
        await self.clock.advance_stepwise(ms)


@asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    rig = Watched()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(rig.watch.run())
        await rig.pass_time(EVERY_MS)
        yield rig
        running.cancel()


async def test_databases_that_answer_are_nothing_to_tell_of() -> None:
    async with watched() as rig:
        await rig.pass_time(10 * SILENCE_MS)

        assert rig.told == []
        assert rig.watch.not_ready() == []


async def test_a_database_that_fails_is_doubtful_and_after_the_silence_cut_off() -> None:
    async with watched() as rig:
        rig.databases.silent = {1}

        await rig.pass_time(SILENCE_MS - EVERY_MS)
        assert rig.told == [DOUBTFUL]
        await rig.pass_time(EVERY_MS)

        assert rig.told == [DOUBTFUL, CUT_OFF]
        assert rig.watch.not_ready() == ["database 2 gives no answer here"]


async def test_a_database_that_answers_partitions_is_not_cut_off() -> None:
    """Its last connection for a probe may be refused, because it has no more of them."""
    async with watched() as rig:
        rig.databases.silent, rig.databases.other_answers = {1}, {1}

        await rig.pass_time(5 * SILENCE_MS)

        assert rig.told == [DOUBTFUL]


async def test_a_short_outage_cuts_nothing_off_and_is_forgotten() -> None:
    async with watched() as rig:
        rig.databases.silent = {1}
        await rig.pass_time(SILENCE_MS - EVERY_MS)
        rig.databases.silent = set()

        await rig.pass_time(3 * SILENCE_MS)

        assert rig.told == [DOUBTFUL, STEADY]


async def test_a_database_that_is_back_is_trusted_in_two_steps() -> None:
    """Doubtful for longer than it is cut off: who lost it together takes nothing from the others."""
    async with watched() as rig:
        rig.databases.silent = {1}
        await rig.pass_time(2 * SILENCE_MS)
        rig.databases.silent = set()

        await rig.pass_time(EVERY_MS)
        assert rig.reach == CUT_OFF
        await rig.pass_time(SILENCE_MS)
        assert rig.reach == DOUBTFUL
        await rig.pass_time(2 * SILENCE_MS)

        assert rig.told == [DOUBTFUL, CUT_OFF, DOUBTFUL, STEADY]


def good_ms_until_trusted(
    database: DatabaseReach, now_ms: int, *, is_kept_away: bool = True
) -> int:
    """Return for how long a database must answer until it is not cut off any more."""
    for good_ms in range(0, 100 * SILENCE_MS, 100):
        database.note_answer(now_ms + good_ms, is_kept_away=is_kept_away)
        if not database.is_cut_off:
            return good_ms
    raise AssertionError("never")


def test_a_database_that_is_cut_off_again_and_again_is_trusted_later_each_time() -> None:
    database, now_ms, waits = DatabaseReach(SILENCE_MS), 0, []
    for _ in range(8):
        database.note_failure(now_ms, silent_ms=SILENCE_MS)
        waits.append(good_ms_until_trusted(database, now_ms))
        now_ms += waits[-1] + SILENCE_MS

    assert waits == [SILENCE_MS // 2 << min(n, 5) for n in range(8)]


def test_outages_for_all_make_nobody_wait_longer() -> None:
    """Else the one that was cut off before would lose its partitions when all are back."""
    database = DatabaseReach(SILENCE_MS)
    database.note_failure(0, silent_ms=SILENCE_MS)
    good_ms_until_trusted(database, 0)
    database.note_failure(2 * SILENCE_MS, silent_ms=SILENCE_MS)

    waited_ms = good_ms_until_trusted(database, 2 * SILENCE_MS, is_kept_away=False)

    assert waited_ms == SILENCE_MS // 2


def test_an_old_outage_is_forgiven() -> None:
    database = DatabaseReach(SILENCE_MS)
    database.note_failure(0, silent_ms=SILENCE_MS)
    first_ms = good_ms_until_trusted(database, 0)

    later_ms = 100 * SILENCE_MS
    database.note_failure(later_ms, silent_ms=SILENCE_MS)

    assert good_ms_until_trusted(database, later_ms) == first_ms


def test_one_failed_probe_begins_the_trust_anew() -> None:
    database = DatabaseReach(SILENCE_MS)
    database.note_failure(0, silent_ms=SILENCE_MS)
    database.note_answer(1_000, is_kept_away=True)
    database.note_failure(4_000, silent_ms=3_000)

    database.note_answer(6_100, is_kept_away=True)

    assert database.is_cut_off
