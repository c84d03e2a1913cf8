"""The network between processes: connections that are slow, break, and are cut without a word.

Here belongs what happens to a call and to its answer on the way, as gRPC over TCP has it: nothing comes twice by
itself, but what was asked on a connection that broke may have arrived, or arrive yet, and its callee learns of the
break a little later. Never here: what is asked (`channel`, `clients`). The law: a silent peer is noticed by pings,
within 4 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from lockstep.core.errors import LockstepError
from tests.sim.trial import Trial
from tests.simcluster.faults import Faults
from tests.simcluster.processes import AGAIN_MS, Outside, Process

PING_MS = 4000
_SLOW_MS = (300, 3000)
_GHOST_MS = (5, 2500)
_Result = TypeVar("_Result")


class Broken(Exception):
    """The connection broke, or the time was over; what was asked may have happened."""


class Network:
    """Where everybody is, and who cannot hear whom.

    Attributes:
        faults: What happens to calls now.
        cuts: Pairs of names that do not hear each other.
        alone: Who hears nobody.
        active: The calls under way.
    """

    def __init__(self, trial: Trial, outside: Outside) -> None:
        self.trial = trial
        self.outside = outside
        self.faults = Faults()
        self.cuts: set[frozenset[str]] = set()
        self.alone: set[str] = set()
        self.active: dict[Call[Any], None] = {}
        self._places: dict[str, Process] = {}

    def listen(self, address: str, process: Process) -> None:
        """Have calls to an address reach a process."""
        self._places[address] = process

    def at(self, address: str) -> Process | None:
        """Return who listens at an address."""
        return self._places.get(address)

    def is_cut(self, one: str, other: str) -> bool:
        """Whether two do not hear each other."""
        return not self.alone.isdisjoint((one, other)) or frozenset((one, other)) in self.cuts

    def went(self, process: Process) -> None:
        """Let everybody notice that a process is no more."""
        for call in list(self.active):
            if call.callee is process:
                self.outside.later(call.delay_ms(), call.break_off)
            elif call.caller is process:
                call.let_go()


class Call(Generic[_Result]):
    """One call on its way.

    Attributes:
        outcome: What its caller waits for.
        callee: Who serves it; None = it did not arrive.
    """

    def __init__(
        self,
        network: Network,
        caller: Process,
        address: str,
        serve: Callable[[Process], Awaitable[_Result]],
        *,
        prefix: str = "",
    ) -> None:
        self._network = network
        self.caller = caller
        self._address = address
        self._serve = serve
        self._prefix = prefix
        self.outcome: asyncio.Future[_Result] = network.outside.loop.create_future()
        self.callee: Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_over = False
        self._is_ghost = False
        self._loses_answer = False

    async def made(self, timeout_ms: float) -> _Result:
        """Make the call.

        Raises:
            Broken: No answer came.
            LockstepError: The callee refused.
        """
        self.begin()
        try:
            async with asyncio.timeout(timeout_ms):
                return await self.outcome
        except TimeoutError:
            raise Broken("in time") from None
        finally:
            self.let_go()

    def begin(self) -> None:
        """Send it."""
        self._network.active[self] = None
        later = self._network.outside.later
        later(PING_MS, self._ping)
        if self.strikes("lost"):
            later(self.delay_ms(), self.break_off)
            return
        self._loses_answer = self.strikes("reply_lost")
        if not self._prefix and self.strikes("ghost"):
            self._is_ghost = True
            later(self.delay_ms(), self.break_off)
            luck = self._network.trial.stream("ghosts")
            later(luck.uniform(*_GHOST_MS), self._arrive)
            return
        later(self.delay_ms(), self._arrive)

    def strikes(self, fault: str) -> bool:
        """Draw whether a fault happens to this call."""
        network, name = self._network, self._prefix + fault
        probability: float = getattr(network.faults, name)
        return network.trial.strike(self.caller.name, name, probability) is not None

    def delay_ms(self) -> float:
        """Draw how long something is on its way."""
        random = self._network.trial.stream(f"way of {self.caller.name}")
        if self._network.faults.slow and random.random() < self._network.faults.slow:
            self._network.trial.count("fault slow")
            return random.uniform(*_SLOW_MS)
        return random.uniform(0.3, 10)

    def is_cut(self) -> bool:
        """Whether caller and callee do not hear each other now."""
        return self._network.is_cut(self.caller.name, self._address)

    def _arrive(self) -> None:
        network = self._network
        if self._is_over and not self._is_ghost:
            return
        if self.is_cut():
            network.outside.later(AGAIN_MS, self._arrive)  # sent again until it gets through
            return
        callee = network.at(self._address)
        if callee is None or callee.is_dead:
            self.break_off()
            return
        self.callee = callee
        self._task = callee.begin(self._served(callee))
        self._task.add_done_callback(self._see_it_did_not_fail)
        if self._is_over:
            network.outside.later(self.delay_ms(), self._hang_up)

    async def _served(self, callee: Process) -> None:
        try:
            result = await self._serve(callee)
        except LockstepError as error:
            self._answer(error)
        else:
            self._answer(result)

    def _see_it_did_not_fail(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self._network.trial.check(error is None, "a call failed:", self._address, repr(error))

    def _answer(self, answer: _Result | LockstepError) -> None:
        network = self._network
        if self._loses_answer:
            network.outside.later(self.delay_ms(), self.break_off)
            return
        network.outside.later(self.delay_ms(), lambda: self._deliver(answer))

    def _deliver(self, answer: _Result | LockstepError) -> None:
        if self._is_over or self.outcome.done():
            return
        if self.is_cut():
            self._network.outside.later(AGAIN_MS, lambda: self._deliver(answer))
        elif isinstance(answer, LockstepError):
            self.outcome.set_exception(answer)
        else:
            self.outcome.set_result(answer)

    def _ping(self) -> None:
        if self._is_over or self.outcome.done():
            return
        is_silent = self.callee is not None and not self.callee.runs
        if self.is_cut() or is_silent:
            self.break_off()
        else:
            self._network.outside.later(PING_MS, self._ping)

    def break_off(self) -> None:
        """Let the connection break."""
        if not self.outcome.done():
            self.outcome.set_exception(Broken("broken"))
            self.outcome.exception()  # its caller may have gone
        self.let_go()

    def close(self) -> None:
        """Let the caller's side close the connection under the call."""
        self.outcome.cancel()
        self.let_go()

    def let_go(self) -> None:
        """Have nobody wait for the answer any more; the callee learns of it."""
        if self._is_over:
            return
        self._is_over = True
        self._network.active.pop(self, None)
        if self._task is not None and not self._task.done():
            self._network.outside.later(self.delay_ms(), self._hang_up)

    def _hang_up(self) -> None:
        if self._task is None or self._task.done():
            return
        if self.is_cut():
            self._network.outside.later(AGAIN_MS, self._hang_up)
        else:
            self._task.cancel()
