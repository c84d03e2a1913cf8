"""The end of a process, when something in it does not end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence

import pytest

from lockstep.cli.process import Process
from lockstep.runtime.config import ServerConfig
from lockstep.runtime.shutdown import ShutdownStep

HUNG_S = 20


class Stuck(Process):
    """A process with something in it that waits for ever, such as a database that does not answer."""

    is_cut = False

    async def prepare(self) -> None:
        pass

    async def start(self) -> None:
        self.run(self._wait_for_ever())

    async def _wait_for_ever(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.is_cut = True

    def stop_steps(self) -> Sequence[ShutdownStep]:
        async def wait_for_ever() -> None:
            await asyncio.Event().wait()

        return [ShutdownStep("drain", wait_for_ever)]

    def not_ready(self) -> Sequence[str]:
        return []


async def test_a_process_ends_when_its_time_is_over_whatever_still_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    process = Stuck(ServerConfig(shutdown_grace_ms=0, metrics_port=None, health_port=None))

    async with asyncio.timeout(HUNG_S):
        await process.serve(lambda _config: signal.raise_signal(signal.SIGTERM))

    assert process.is_cut
    assert "server.cut" in [record.message for record in caplog.records]
