"""The broker that is fuzzed, as users run it: `lockstep serve` in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc.aio

from lockstep.runtime.clock import SystemClock
from tests.fuzz.broker import CALL_S, OPTIONS, Problem, resident_bytes
from tests.server.server_process import ServerProcess

_LOOK_EVERY_MS = 1
_BAD = ('"level": "error"', '"level": "warning"', "Traceback")
_SETTINGS = {
    "limits.requests_per_client_max": 200,
    "limits.body_cache_bytes_max": 8 * 1024 * 1024,
}


class ProcessBroker:
    """A broker in a process of its own."""

    waits_are_ended = True

    def __init__(self, directory: Path) -> None:
        self._server = ServerProcess(directory, settings=_SETTINGS)
        self._clock = SystemClock()

    async def open(self) -> None:
        """Start it; its store outlives it."""
        self._server.start()
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._server.port}", options=OPTIONS)

    async def close(self) -> None:
        """Stop it in order."""
        await self.channel.close()
        self._server.close()

    async def restart(self) -> None:
        """Stop it in order and start it on what it stored."""
        self.check()
        await self.channel.close()
        code = self._server.stop()
        if code != 0:
            raise Problem(f"the server ended with {code}: {self._server.last_log()[-2000:]}")
        await self.open()

    def now_ms(self) -> int:
        """Return its time."""
        return self._clock.now_ms()

    async def together(self, sends: Sequence[Callable[[], Any]]) -> list[Any]:
        """Send calls without waiting for answers between them, and return them."""
        return [send() for send in sends]

    async def advance(self, span_ms: int) -> None:
        """Do nothing: the clock of another process goes by itself."""

    async def until_waiting(self, calls: list[Any]) -> None:
        """Return when all these calls were answered, or ended by their deadlines."""
        ends_ms = self._clock.monotonic_ms() + CALL_S * 1000
        while not all(call.done() for call in calls):
            if self._clock.monotonic_ms() > ends_ms:
                raise Problem("a call outlives its deadline")
            await self._clock.sleep(_LOOK_EVERY_MS)

    def check(self) -> None:
        """Raise a Problem if the process ended, says that it does not serve, or complains in its log."""
        log = self._server.last_log()
        for bad in _BAD:
            if bad in log:
                raise Problem(f"the log complains: {log[log.index(bad) :][:3000]}")
        if not self._server.is_serving():
            raise Problem(f"the server does not serve: {log[-2000:]}")

    def resident_bytes(self) -> int:
        """Return the memory of the process."""
        return resident_bytes(str(self._server.pid))
