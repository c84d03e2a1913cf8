"""What a shell owes the core, in its simplest form: tick when due, step, commit, reply, wake.

Here belong stepping, waiting calls and the clock. Never here: what the tests ask for (`core_driver`).
Waiting calls are stepped again when they are woken or when the clock is turned; nobody really waits. After
every step all invariants are checked, after every refusal that nothing changed, and where it is cheap after
every commit that what is stored is what is known.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lockstep.core.changes import Change
from lockstep.core.commands import Accept, Cancel, Command, Receive, Tick
from lockstep.core.decision import Decision, Wake
from lockstep.core.errors import LockstepError, NoSessionAvailable, StoreUnavailable
from lockstep.core.ids import PartitionEpoch, PartitionId, SessionLock
from lockstep.core.invariants import check_partition
from lockstep.core.limits import Limits
from lockstep.core.partition import Partition
from lockstep.core.replies import Accepted, Delivered, NoneAvailable, Reply
from lockstep.core.snapshot import restore_partition
from lockstep.storage.port import PartitionStore
from tests.spec.picture import Opened, picture, restored_picture

START_MS = 1_700_000_000_000
PARTITION = PartitionId(0)


@dataclass(eq=False, slots=True)
class _Waiter:
    """A call that waits: its command, its last answer, until when, and where its reply goes."""

    command: Accept | Receive
    idle: NoneAvailable | Delivered
    until_ms: int
    reply: asyncio.Future[Accepted | Delivered]

    @property
    def lock(self) -> SessionLock | None:
        """The session whose holder waits."""
        return self.command.session if isinstance(self.command, Receive) else None

    @property
    def last_chance_ms(self) -> int:
        """When the holder's lock is about to end; 0 = no session is held."""
        return self.idle.locked_until_ms - 1 if isinstance(self.idle, Delivered) else 0

    def is_woken_by(self, wake: Wake) -> bool:
        """Whether the wake is meant for this call; the end of a whole queue is meant for all of its calls."""
        if wake.entity != self.idle.entity:
            return False
        if wake.lost and wake.session_id is None:
            return True
        is_dead = isinstance(self.command, Receive) and self.command.dead_letter
        session_id = self.lock.session_id if self.lock else None
        return (wake.session_id, wake.dead_letter) == (session_id, is_dead)


class Shell:
    """One partition on a store, with a clock that stands still until it is turned.

    Attributes:
        partition: The partition as it was opened last.
        store: The store as it was opened last.
        now_ms: The time.
    """

    def __init__(
        self, open_store: Callable[[], PartitionStore], limits: Limits, *, compare_always: bool
    ) -> None:
        """Prepare; `open` opens the partition.

        Args:
            open_store: Returns the store, anew after each restart.
            limits: The limits of the partition.
            compare_always: Compare with the store after every commit, not only at restarts.
        """
        self.store = open_store()
        self.now_ms = START_MS
        self.partition = Partition(PARTITION, limits, now_ms=START_MS)
        self._open_store = open_store
        self._limits = limits
        self._compare_always = compare_always
        self._opened = 0
        self._last_opening = Opened(0, 0)
        self._waiters: list[_Waiter] = []
        self._came = asyncio.Condition()
        self._is_failed_commit_stored: bool | None = None
        # One command at a time, its commit included, as an owner's actor does (design law 5).
        self._turn = asyncio.Lock()

    @property
    def epoch(self) -> PartitionEpoch:
        return PartitionEpoch(1, self._opened, 0)

    async def open(self) -> None:
        """Open the partition under a higher epoch, as its next owner."""
        self._opened += 1
        snapshot = await self.store.open(PARTITION, self.epoch)
        self.now_ms = max(self.now_ms, snapshot.partition.last_time_ms)
        self.partition = restore_partition(PARTITION, self._limits, snapshot, self.now_ms)
        grace_until_ms = self.now_ms + self._limits.outage_grace_ms
        self._last_opening = Opened(self.partition.last_grant, grace_until_ms)
        check_partition(self.partition)
        await self._tick_if_due()

    async def restart(self, after_ms: int) -> None:
        """Let the owner go without a farewell and open what is stored; waiting calls are made again.

        Args:
            after_ms: How much later; negative = the successor's clock is behind.
        """
        async with self._turn:
            snapshot = await self.store.open(PARTITION, self.epoch)
            assert restored_picture(self.partition, snapshot, self._last_opening) == picture(
                self.partition
            )
            await self.store.close(PARTITION)
            self.store = self._open_store()
            self.now_ms += after_ms
            await self.open()
            for waiter in list(self._waiters):
                await self._wake(await self._try_again(waiter))

    def fail_next_commit(self, *, is_stored: bool) -> None:
        """Let the next commit end without saying whether it was stored."""
        self._is_failed_commit_stored = is_stored

    # --- calls ---------------------------------------------------------------------------------

    async def call(self, command: Command) -> Reply:
        """Have a command carried out and return its committed reply."""
        async with self._turn:
            return await self._step(command)

    async def wait_for(self, command: Accept | Receive, wait_ms: int) -> Accepted | Delivered:
        """Have a command carried out, again and again until it finds something or the time is over."""
        async with self._turn:
            reply = await self._step(command)
            assert isinstance(reply, Accepted | NoneAvailable | Delivered)
            found = _found(reply)
            if found is not None:
                return found
            assert not isinstance(reply, Accepted)
            if not wait_ms:
                return _timed_out(reply)
            waiter = _Waiter(command, reply, self.now_ms + wait_ms, asyncio.Future())
            self._waiters.append(waiter)
        async with self._came:
            self._came.notify_all()
        try:
            return await waiter.reply
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            assert command.request is not None
            await self.call(Cancel(command.entity, command.request))
            raise

    async def parked(self, waiting: int) -> None:
        """Return when so many calls wait."""
        async with self._came:
            await self._came.wait_for(lambda: len(self._waiters) >= waiting)

    async def _step(self, command: Command) -> Reply:
        await self._tick_if_due()
        decision = await self._decide(command)
        await self._wake(decision.wake)
        return decision.reply

    async def _tick_if_due(self) -> None:
        if self.partition.is_due(self.now_ms):
            decision = await self._decide(Tick())
            assert not self.partition.is_due(self.now_ms), "a tick does all that is due"
            await self._wake(decision.wake)

    async def _decide(self, command: Command) -> Decision:
        before = picture(self.partition)
        try:
            decision = self.partition.step(command, self.now_ms)
        except LockstepError:
            assert picture(self.partition) == before, "raised means unchanged"
            raise
        check_partition(self.partition)
        if decision.changes:
            await self._commit(decision.changes)
        else:
            assert picture(self.partition) == before, "a change that is not stored"
        return decision

    async def _commit(self, changes: Sequence[Change]) -> None:
        if self._is_failed_commit_stored is not None:
            is_stored, self._is_failed_commit_stored = self._is_failed_commit_stored, None
            if is_stored:
                await self.store.commit(PARTITION, self.epoch, changes)
            await self.open()
            raise StoreUnavailable("The test made this commit fail.")
        await self.store.commit(PARTITION, self.epoch, changes)
        if self._compare_always:
            snapshot = await self.store.open(PARTITION, self.epoch)
            assert restored_picture(self.partition, snapshot, self._last_opening) == picture(
                self.partition
            )

    # --- waiting calls -------------------------------------------------------------------------

    async def advance(self, ms: int) -> None:
        """Turn the clock; what becomes due on the way happens at its time."""
        async with self._turn:
            end_ms = self.now_ms + ms
            while True:
                self.now_ms = min([end_ms, *self._stops()])
                await self._tick_if_due()
                await self._look_at_waiters()
                if self.now_ms == end_ms:
                    return

    def _stops(self) -> list[int]:
        deadline_ms = self.partition.next_deadline_ms
        stops = [] if deadline_ms is None else [deadline_ms]
        stops += [waiter.until_ms for waiter in self._waiters]
        chances = [waiter.last_chance_ms for waiter in self._waiters]
        return stops + [chance for chance in chances if chance > self.now_ms]

    async def _look_at_waiters(self) -> None:
        for waiter in list(self._waiters):
            if waiter.until_ms <= self.now_ms:
                self._time_out(waiter)
            elif waiter.last_chance_ms == self.now_ms:
                await self._wake(await self._try_again(waiter))

    async def _wake(self, wakes: Iterable[Wake]) -> None:
        """Try woken calls again, the longest waiting first; what that wakes comes after."""
        left = deque(wakes)
        while left:
            wake = left.popleft()
            for waiter in [w for w in self._waiters if w.is_woken_by(wake)]:
                left.extend(await self._try_again(waiter))

    async def _try_again(self, waiter: _Waiter) -> tuple[Wake, ...]:
        try:
            decision = await self._decide(waiter.command)
        except LockstepError as error:
            self._end(waiter, error)
            return ()
        reply = decision.reply
        assert isinstance(reply, Accepted | NoneAvailable | Delivered)
        found = _found(reply)
        if found is not None:
            self._end(waiter, found)
        else:
            assert not isinstance(reply, Accepted)
            waiter.idle = reply
        return decision.wake

    def _end(self, waiter: _Waiter, reply: Accepted | Delivered | LockstepError) -> None:
        self._waiters.remove(waiter)
        if waiter.reply.done():
            return  # its task was cancelled and will undo the call
        if isinstance(reply, LockstepError):
            waiter.reply.set_exception(reply)
        else:
            waiter.reply.set_result(reply)

    def _time_out(self, waiter: _Waiter) -> None:
        try:
            self._end(waiter, _timed_out(waiter.idle))
        except NoSessionAvailable as error:
            self._end(waiter, error)


def _found(reply: Accepted | NoneAvailable | Delivered) -> Accepted | Delivered | None:
    if isinstance(reply, Delivered):
        return reply if reply.sequences else None
    return reply if isinstance(reply, Accepted) else None


def _timed_out(idle: NoneAvailable | Delivered) -> Delivered:
    if isinstance(idle, NoneAvailable):
        raise NoSessionAvailable("No session became available in time.")
    return idle
