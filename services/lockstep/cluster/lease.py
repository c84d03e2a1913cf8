"""The node's lease at etcd: kept on a thread of its own, valid by our clock for less time than by etcd's.

Here belong the arithmetic of validity and the thread. Never here: what is owned under the lease
(`ownership`), or a connection. The laws: a lease is valid from the moment its renewal was *sent* for its
time to live, less a margin, so it ends here before etcd can give its keys to anybody; what has ended once
is never valid again, whatever etcd says later; a new lease has another id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import TypeVar

from lockstep.cluster.registry import LeaseCalls, LeaseExchange
from lockstep.core.errors import ClusterUnavailable, InvalidRequest
from lockstep.runtime.clock import Clock

log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

TTL_MS = 10_000
MARGIN = 0.1
"""Clocks differ by a few parts in a million; the rest is for a machine whose clock is being mended."""

# Five renewals in a lifetime: an outage of almost all of it goes unnoticed, and a lost answer costs little.
_RENEWALS_PER_TTL = 5
_RETRIES_PER_TTL = 20


class LeaseLife:
    """One lease at etcd, from its grant to its end. Safe in every thread."""

    def __init__(self, lease: int, clock: Clock, *, valid_until_ms: int) -> None:
        self.id = lease
        self._clock = clock
        self._lock = threading.Lock()
        self._valid_until_ms = valid_until_ms
        self._is_over = False

    def is_valid(self) -> bool:
        """Whether the lease still holds. Once it did not, it never does again."""
        with self._lock:
            return self._left_ms() > 0

    @property
    def left_ms(self) -> int:
        """For how long it is valid without another renewal, in ms; 0 = it is over."""
        with self._lock:
            return self._left_ms()

    def extend(self, valid_until_ms: int) -> bool:
        """Count a renewal, and return whether it came before the end."""
        with self._lock:
            if self._left_ms() == 0:
                return False
            self._valid_until_ms = max(self._valid_until_ms, valid_until_ms)
            return True

    def _left_ms(self) -> int:
        if not self._is_over:
            left_ms = self._valid_until_ms - self._clock.monotonic_ms()
            if left_ms > 0:
                return left_ms
            self._is_over = True
        return 0

    def end(self) -> None:
        """Let it be over."""
        with self._lock:
            self._is_over = True


class NodeLease:
    """Keeps the node's lease, one life after the other, on a thread.

    `step` is all that the thread does, again and again; a test may call it instead of `start`. `exchange` is the same
    over calls that take their time without a thread.
    """

    def __init__(
        self,
        calls: LeaseCalls,
        clock: Clock,
        *,
        ttl_ms: int = TTL_MS,
        margin: float = MARGIN,
    ) -> None:
        """Set what holds for every life.

        Args:
            calls: How to reach etcd.
            clock: Whose monotonic time counts; it must go on in a suspend.
            ttl_ms: How long etcd keeps the keys of a node that is silent, in ms, 2 s or more (etcd's least).
            margin: Which part of that the node does not count on.

        Raises:
            InvalidRequest: A value is out of range.
        """
        if ttl_ms < 2_000:
            raise InvalidRequest(f"The time to live of a lease is {ttl_ms} ms; 2000 is the least.")
        if not 0 < margin < 1:
            raise InvalidRequest(f"The margin of a lease is {margin}; it must be between 0 and 1.")
        self._calls = _Blocking(calls)
        self._clock = clock
        self._ttl_ms = ttl_ms
        self._margin = margin
        self._life: LeaseLife | None = None
        self._to_revoke: int | None = None
        self._is_cut_off = False
        self._problem: ClusterUnavailable | None = None  # of the last exchange
        self._stop = threading.Event()
        self._ended = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._tell: Callable[[], None] = lambda: None
        self._failure: Exception | None = None

    @property
    def current(self) -> LeaseLife | None:
        """The life that is valid now; None = there is none."""
        life = self._life
        return life if life is not None and life.is_valid() else None

    def why_none(self) -> ClusterUnavailable | None:
        """Return why nothing can be owned, as an answer to calls; None = there is a lease."""
        if self.current is not None:
            return None
        problem = self._problem
        why = "it is being asked for." if problem is None else problem.message
        return ClusterUnavailable(
            f"The owner has no lease at etcd: {why}",
            details={} if problem is None else problem.details,
        )

    @property
    def ttl_ms(self) -> int:
        """The time to live that was asked for, in ms."""
        return self._ttl_ms

    @property
    def failure(self) -> Exception | None:
        """The bug that ended the thread; None = it has not failed."""
        return self._failure

    # --- life ------------------------------------------------------------------------------------

    def start(self, tell: Callable[[], None]) -> None:
        """Start the thread.

        Args:
            tell: Called in the event loop that runs now, after a life has begun or ended.
        """
        loop = asyncio.get_running_loop()
        self._tell = lambda: _call_in(loop, tell)
        self._thread = threading.Thread(
            target=self._run, args=(loop,), name="lockstep-lease", daemon=True
        )
        self._thread.start()

    async def stop(self) -> None:
        """End the current life at once, then have etcd forget it, if etcd answers."""
        self._stop.set()
        life = self._life
        if life is not None:
            life.end()
        if self._thread is not None:
            await self._ended.wait()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while not self._stop.is_set():
                self._stop.wait(self.step() / 1000)
            _at_once(self.resign(self._calls))
        except Exception as error:
            # The top of the thread: the failure is raised where the lease is used.
            log.exception("lease.failed")
            self._failure = error
        finally:
            if self._life is not None:
                self._life.end()
            self._tell()
            _call_in(loop, self._ended.set)

    async def resign(self, calls: LeaseExchange) -> None:
        """End the current life at once, then have etcd forget it, if etcd answers."""
        life = self._life
        if life is None:
            return
        life.end()
        try:
            await calls.revoke(life.id, timeout_ms=self._timeout_ms)
        except ClusterUnavailable as error:
            # The lease ends by itself, as after a crash.
            log.warning("lease.not_revoked", extra={"reason": error.reason, **error.details})

    # --- one exchange ----------------------------------------------------------------------------

    def step(self) -> int:
        """Renew the lease, or make another one, and return after how many ms to do so again."""
        return _at_once(self.exchange(self._calls))

    async def exchange(self, calls: LeaseExchange) -> int:
        """As `step`, over calls that may give way."""
        sent_ms = self._clock.monotonic_ms()
        try:
            if self.current is None:
                self._end_life()
                await self._begin_life(calls, sent_ms)
            else:
                await self._renew(calls, sent_ms)
        except ClusterUnavailable as error:
            if not self._is_cut_off:
                log.warning("lease.not_renewed", extra={"reason": error.reason, **error.details})
            self._is_cut_off = True
            self._problem = error
            return self._ttl_ms // _RETRIES_PER_TTL
        self._is_cut_off = False
        self._problem = None
        next_ms = sent_ms + self._ttl_ms // _RENEWALS_PER_TTL
        return max(next_ms - self._clock.monotonic_ms(), 0)

    async def _begin_life(self, calls: LeaseExchange, sent_ms: int) -> None:
        await self._revoke(calls)
        lease, ttl_ms = await calls.grant(self._ttl_ms, timeout_ms=self._timeout_ms)
        life = LeaseLife(lease, self._clock, valid_until_ms=self._valid_until_ms(sent_ms, ttl_ms))
        self._life = life
        log.info("lease.granted", extra={"lease": f"{lease:x}", "ttl_ms": ttl_ms})
        self._tell()

    async def _renew(self, calls: LeaseExchange, sent_ms: int) -> None:
        life = self._life
        assert life is not None
        ttl_ms = await calls.keep_alive(life.id, timeout_ms=self._timeout_ms)
        if ttl_ms == 0 or not life.extend(self._valid_until_ms(sent_ms, ttl_ms)):
            self._end_life()
            await self._begin_life(calls, self._clock.monotonic_ms())

    def _end_life(self) -> None:
        """Let the life be over for good. etcd may keep its keys for longer: they are revoked later."""
        life = self._life
        if life is None:
            return
        life.end()
        self._life = None
        self._to_revoke = life.id
        log.warning("lease.ended", extra={"lease": f"{life.id:x}"})
        self._tell()

    async def _revoke(self, calls: LeaseExchange) -> None:
        """Delete the keys of the last life, so that nobody waits for the end of its time."""
        if self._to_revoke is not None:
            await calls.revoke(self._to_revoke, timeout_ms=self._timeout_ms)
            self._to_revoke = None

    def _valid_until_ms(self, sent_ms: int, ttl_ms: int) -> int:
        return sent_ms + int(ttl_ms * (1 - self._margin))

    @property
    def _timeout_ms(self) -> int:
        """How long one endpoint may take; several may be asked within one lifetime."""
        return self._ttl_ms // _RENEWALS_PER_TTL


class _Blocking:
    """A `LeaseExchange` over calls that block their thread."""

    def __init__(self, calls: LeaseCalls) -> None:
        self._calls = calls

    async def grant(self, ttl_ms: int, *, timeout_ms: int) -> tuple[int, int]:
        return self._calls.grant(ttl_ms, timeout_ms=timeout_ms)

    async def keep_alive(self, lease: int, *, timeout_ms: int) -> int:
        return self._calls.keep_alive(lease, timeout_ms=timeout_ms)

    async def revoke(self, lease: int, *, timeout_ms: int) -> None:
        self._calls.revoke(lease, timeout_ms=timeout_ms)


def _at_once(what: Coroutine[None, None, _Result]) -> _Result:
    """Return the result of what never gives way."""
    try:
        what.send(None)
    except StopIteration as end:
        result: _Result = end.value
        return result
    raise AssertionError("a call of the lease's thread gave way")


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Call something in an event loop, unless that has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function)
