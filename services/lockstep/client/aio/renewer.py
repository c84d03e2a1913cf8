"""Automatic renewal in the background of the asyncio client.

Here belong its tasks. Never here: when to renew (`renewal`). The law: every task belongs to the
renewer's `async with` block and ends with it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

from lockstep.client.aio.session import Session
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
from lockstep.client.values import seconds_to_ms
from lockstep.core.errors import InvalidOperation, LockstepError

LossCallback = Callable[[Any, LockstepError], Awaitable[None] | None]
"""Called with the session or message, and why its lock is lost."""


class AutoLockRenewer:
    """Renews locks when half of their time is over, until settlement, close, or a maximum duration.

    Use it as `async with AutoLockRenewer() as renewer:` around the receivers that it serves.
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
            on_lock_renew_failure: Called once for each lost lock, with what was registered and why it is
                lost; it may be async. None = a warning is logged.
        """
        self._duration_ms = seconds_to_ms(max_lock_renewal_duration, "max_lock_renewal_duration")
        self._on_loss = on_lock_renew_failure
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()

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
            InvalidOperation: The renewer was not entered with `async with`, or was left.
        """
        self.check_running()
        assert self._group is not None
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
        on_loss = on_lock_renew_failure or self._on_loss
        task = self._group.create_task(_keep(renewal, receiving.transport.sleep, on_loss))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def check_running(self) -> None:
        """Refuse use outside of `async with`.

        Raises:
            InvalidOperation: The renewer was not entered, or was left.
        """
        if self._group is None:
            raise InvalidOperation(
                "The renewer is not running; use it as `async with AutoLockRenewer() as renewer:`."
            )

    async def close(self) -> None:
        """Stop renewing; locks then run out by themselves. A second close does nothing."""
        group, self._group = self._group, None
        if group is None:
            return
        for task in self._tasks:
            task.cancel()
        # What the block raised is not the group's affair: it would come out wrapped in an ExceptionGroup.
        await group.__aexit__(None, None, None)

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def _keep(
    renewal: Renewal, sleep: Callable[[int], Awaitable[None]], on_loss: LossCallback | None
) -> None:
    while not renewal.is_finished:
        await sleep(renewal.delay_ms())
        for loss in await renewal.turn():
            await _report(loss, on_loss)


async def _report(loss: Loss, on_loss: LossCallback | None) -> None:
    if on_loss is None:
        log_loss(loss)
        return
    try:
        result = on_loss(loss.renewable, loss.error)
        if inspect.isawaitable(result):
            await result
    except Exception:  # noqa: BLE001  # the program's own code must not end the renewal of other locks
        log_failed_callback()
