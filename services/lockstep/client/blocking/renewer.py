"""Automatic renewal in the background of the blocking client.

Here belong its threads. Never here: when to renew (`renewal`). The law: no thread outlives `close`,
and one slow renewal does not hold up the others.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from lockstep.client.blocking.session import Session
from lockstep.client.received import ReceivedMessage
from lockstep.client.renewal import (
    KeptSession,
    Loss,
    OfReceiving,
    Renewal,
    check_renewable,
    kept_messages,
    log_failed_callback,
    log_loss,
)
from lockstep.client.transport import run_to_completion
from lockstep.client.values import seconds_to_ms
from lockstep.core.errors import InvalidOperation, LockstepError

LossCallback = Callable[[Any, LockstepError], None]
"""Called with the session or message, and why its lock is lost."""

_WORKERS = 4


@runtime_checkable
class JumpingTime(Protocol):
    """A transport whose time stands still until it is moved, as in `lockstep.testing`; most time passes by itself."""

    def wake_at(self, due_ms: int, wake: Callable[[], None], is_idle: Callable[[], bool]) -> None:
        """Call `wake` at `due_ms` of `monotonic_ms`, then let no time pass until `is_idle()`, both in any thread."""
        ...

    def rest(self) -> None:
        """Note that the calling thread has nothing to do, so that time need not wait for it."""
        ...

    def let_pass(self, delay_ms: int) -> None:
        """Move time by `delay_ms`, because something ends only then; do nothing while it is being moved anyway."""
        ...


@dataclass(order=True, slots=True)
class _Turn:
    """The next turn of one renewal; ordered by when it is due, then by when it was asked for."""

    due_ms: int
    number: int
    renewal: Renewal = field(compare=False)
    on_loss: LossCallback | None = field(compare=False)


class AutoLockRenewer:
    """Renews locks when half of their time is over, until settlement, close, or a maximum duration.

    Its threads start with the first registration; close it, or use it in a `with` block.
    """

    def __init__(
        self,
        max_lock_renewal_duration: float = 300,
        on_lock_renew_failure: LossCallback | None = None,
    ) -> None:
        """Be ready.

        Args:
            max_lock_renewal_duration: Seconds to renew each lock, from when it was registered; the lock
                then runs out by itself.
            on_lock_renew_failure: Called once for each lost lock, in a thread of the renewer, with what
                was registered and why it is lost. None = a warning is logged.
        """
        self._duration_ms = seconds_to_ms(max_lock_renewal_duration, "max_lock_renewal_duration")
        self._on_loss = on_lock_renew_failure
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        # All and only the renewals that sleep.
        self._turns: list[_Turn] = []
        # How many have their turn.
        self._taken = 0
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._workers: ThreadPoolExecutor | None = None

    def register(
        self,
        receiver: OfReceiving,
        renewable: Session | ReceivedMessage | Sequence[ReceivedMessage],
        max_lock_renewal_duration: float | None = None,
        on_lock_renew_failure: LossCallback | None = None,
    ) -> None:
        """Begin to renew a session, a message, or the messages of one receive together.

        Args:
            receiver: Where it came from.
            renewable: What to keep locked.
            max_lock_renewal_duration: Seconds; None = the renewer's.
            on_lock_renew_failure: None = the renewer's.

        Raises:
            InvalidRequest: There is no lock to renew: the receiver deletes what it receives (CLI-8).
            TypeError: It is no such thing; or a message of a session, whose lock governs.
            InvalidOperation: The renewer was closed.
        """
        self.check_running()
        receiving = receiver._receiving
        check_renewable(receiving.options.mode)
        duration_ms = self._duration_ms
        if max_lock_renewal_duration is not None:
            duration_ms = seconds_to_ms(max_lock_renewal_duration, "max_lock_renewal_duration")
        kept = (
            KeptSession(receiving, renewable._held, renewable)
            if isinstance(renewable, Session)
            else kept_messages(receiving, renewable)
        )
        renewal = Renewal(kept, receiving.transport, stop_after_ms=duration_ms)
        self._sleep(renewal, on_lock_renew_failure or self._on_loss)

    def check_running(self) -> None:
        """Refuse use after close.

        Raises:
            InvalidOperation: The renewer was closed; make another one.
        """
        if self._is_closed:
            raise InvalidOperation("This renewer was closed; make another one.")

    def close(self) -> None:
        """Stop renewing and wait for its threads; locks then run out by themselves. Twice is once."""
        with self._changed:
            self._is_closed = True
            self._turns.clear()
            self._changed.notify_all()
            thread, workers = self._thread, self._workers
        if thread is not None and workers is not None:
            thread.join()
            workers.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _sleep(self, renewal: Renewal, on_loss: LossCallback | None) -> None:
        """Put a renewal to sleep until its next turn."""
        due_ms = renewal.monotonic_ms() + renewal.delay_ms()
        with self._changed:
            if self._is_closed:
                return
            heapq.heappush(self._turns, _Turn(due_ms, next(self._numbers), renewal, on_loss))
            if self._thread is None:
                self._workers = ThreadPoolExecutor(_WORKERS, "lockstep-renewal")
                self._thread = threading.Thread(
                    target=self._run, args=(self._workers,), name="lockstep-renewer", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()
        if isinstance(renewal.transport, JumpingTime):
            renewal.transport.wake_at(due_ms, self._wake, self._is_idle)

    def _wake(self) -> None:
        """Look again whose turn is due."""
        with self._changed:
            self._changed.notify_all()

    def _is_idle(self) -> bool:
        """Whether no renewal has its turn, or should have it now."""
        with self._changed:
            first = self._turns[0] if self._turns else None
            return self._taken == 0 and (
                first is None or first.due_ms > first.renewal.monotonic_ms()
            )

    def _run(self, workers: ThreadPoolExecutor) -> None:
        """Wake renewals when their turns are due."""
        with self._changed:
            while not self._is_closed:
                if not self._turns:
                    self._changed.wait()
                    continue
                first = self._turns[0]
                wait_ms = first.due_ms - first.renewal.monotonic_ms()
                if wait_ms > 0:
                    self._changed.wait(wait_ms / 1000)
                    continue
                heapq.heappop(self._turns)
                self._taken += 1
                workers.submit(self._take, first)

    def _take(self, turn: _Turn) -> None:
        """Let a renewal have its turn, in a worker's thread."""
        try:
            for loss in run_to_completion(turn.renewal.turn()):
                _report(loss, turn.on_loss)
            if not turn.renewal.is_finished:
                self._sleep(turn.renewal, turn.on_loss)
        finally:
            if isinstance(turn.renewal.transport, JumpingTime):
                turn.renewal.transport.rest()
            with self._changed:
                self._taken -= 1


def _report(loss: Loss, on_loss: LossCallback | None) -> None:
    if on_loss is None:
        log_loss(loss)
        return
    try:
        on_loss(loss.renewable, loss.error)
    except Exception:  # noqa: BLE001  # the program's own code must not end the renewal of other locks
        log_failed_callback()
