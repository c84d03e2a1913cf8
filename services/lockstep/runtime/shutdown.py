"""An orderly stop that ends in time.

Here belong the steps of a stop under one deadline, and what SIGTERM and SIGINT do. Never here: what
the steps are (the `main` modules know). The law: every step is given a chance, in order, and a step
that fails or takes too long never keeps a later one from running.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from lockstep.runtime.clock import Clock

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StepOutcome(enum.Enum):
    """How a step of a stop ended."""

    DONE = "done"
    FAILED = "failed"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class ShutdownStep:
    """One step of a stop.

    Attributes:
        name: What it does, as `drain_partitions`, for the log.
        run: Starts it. It must end soon after it is cancelled.
        share: Its part of the time, relative to the shares of the steps after it.
    """

    name: str
    run: Callable[[], Awaitable[None]]
    share: int = 1


async def run_shutdown(
    steps: Sequence[ShutdownStep], *, grace_ms: int, clock: Clock
) -> dict[str, StepOutcome]:
    """Run the steps one after the other and end within `grace_ms`.

    A step gets its share of the time that is left, so what one does not use the next ones have. A
    step that takes longer is cancelled; one that fails is logged; the next one runs in any case.

    Returns:
        How each step ended, by name, in order.
    """
    ends_ms = clock.monotonic_ms() + grace_ms
    outcomes: dict[str, StepOutcome] = {}
    for index, step in enumerate(steps):
        started_ms = clock.monotonic_ms()
        shares = sum(one.share for one in steps[index:])
        allowed_ms = max(ends_ms - started_ms, 0) * step.share // shares
        outcomes[step.name] = await _run_step(step, allowed_ms, clock)
        facts = {
            "step": step.name,
            "outcome": outcomes[step.name].value,
            "allowed_ms": allowed_ms,
            "took_ms": clock.monotonic_ms() - started_ms,
        }
        if outcomes[step.name] is StepOutcome.DONE:
            log.info("shutdown.step_ended", extra=facts)
        else:
            log.warning("shutdown.step_ended", extra=facts)
    return outcomes


async def _run_step(step: ShutdownStep, allowed_ms: int, clock: Clock) -> StepOutcome:
    """Run one step until it ends or its time is over."""
    outcome = StepOutcome.CUT

    async def attempt() -> None:
        nonlocal outcome
        try:
            await step.run()
            outcome = StepOutcome.DONE
        except Exception:
            # The top of the step's task: a failed step must not keep the next one from running.
            log.exception("shutdown.step_failed", extra={"step": step.name})
            outcome = StepOutcome.FAILED
        finally:
            alarm.cancel()

    async def cut() -> None:
        await clock.sleep(allowed_ms)
        running.cancel()

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(attempt())
        alarm = tasks.create_task(cut())
    return outcome


class StopSignals:
    """What SIGTERM and SIGINT do: the first asks for an orderly stop, the second ends the process.

    The second one works even if the event loop hangs, since it does not go through the loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stop: Callable[[str], object],
        *,
        exit_now: Callable[[int], object] = os._exit,
    ) -> None:
        """Prepare; `install` makes it so.

        Args:
            loop: Where `stop` is called.
            stop: Begins the orderly stop; it gets the name of the signal and is called once.
            exit_now: Ends the process with an exit status, at once and without any clean-up.
        """
        self._loop = loop
        self._stop = stop
        self._exit_now = exit_now
        self._is_stopping = False
        self._previous: dict[signal.Signals, object] = {}

    def install(self) -> None:
        """Handle both signals from now on. Only the main thread may call it."""
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._receive)

    def uninstall(self) -> None:
        """Put back what handled the signals before `install`."""
        while self._previous:
            number, previous = self._previous.popitem()
            signal.signal(number, previous)  # type: ignore[arg-type] # what signal.signal returned

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        """Run in the main thread between two instructions of whatever runs there: so no log, no lock."""
        if self._is_stopping or self._loop.is_closed():
            self._exit_now(128 + number)  # the shell's status of a process that a signal ended
            return
        self._is_stopping = True
        self._loop.call_soon_threadsafe(self._stop, signal.Signals(number).name)


def install_signal_handlers(
    loop: asyncio.AbstractEventLoop, stop: Callable[[str], object]
) -> StopSignals:
    """Call `stop` on `loop` at the first SIGTERM or SIGINT; end the process at the second.

    Returns:
        The installed handlers; `uninstall` them when the server has stopped.
    """
    signals = StopSignals(loop, stop)
    signals.install()
    return signals
