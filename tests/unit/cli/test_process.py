"""What a process tells probes, and its end, also when something in it does not end."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import threading
from collections.abc import Callable, Sequence

import pytest

from lockstep.cli.process import Process
from lockstep.runtime.clock import ManualClock
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


class Probed(Process):
    """A process whose preparations end when a test says so, and whose clock a test turns."""

    def __init__(self, lame_duck_ms: int = 0) -> None:
        super().__init__(ServerConfig(metrics_port=None, health_port=0, lame_duck_ms=lame_duck_ms))
        self.turned = ManualClock()
        self.clock = self.turned
        self.prepares, self.prepared = asyncio.Event(), asyncio.Event()
        self.has_begun_to_stop = False

    async def prepare(self) -> None:
        self.prepares.set()
        await self.prepared.wait()

    async def start(self) -> None:
        self.set_ready()

    def stop_steps(self) -> Sequence[ShutdownStep]:
        self.has_begun_to_stop = True
        return []

    def not_ready(self) -> Sequence[str]:
        return []

    async def probe(self, path: str) -> tuple[int, list[str]]:
        return await asyncio.to_thread(self.probe_now, path)

    def probe_now(self, path: str) -> tuple[int, list[str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._ports["health_port"], timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())["reasons"]
        finally:
            connection.close()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Let the event loop turn until something is so."""
        async with asyncio.timeout(HUNG_S):
            while not is_so():
                await self.clock.sleep(0)


async def test_a_process_that_prepares_is_live_and_not_ready() -> None:
    process = Probed()
    async with asyncio.TaskGroup() as tasks:
        served = asyncio.Event()
        serving = tasks.create_task(process.serve(lambda _config: served.set()))
        await process.prepares.wait()

        assert await process.probe("/healthz") == (200, ["the server is starting"])
        assert await process.probe("/readyz") == (503, ["the server is starting"])

        process.prepared.set()
        await served.wait()
        assert await process.probe("/readyz") == (200, [])
        signal.raise_signal(signal.SIGTERM)
        await serving


async def test_a_process_whose_event_loop_stands_still_is_not_live() -> None:
    process = Probed()
    process.prepared.set()
    async with asyncio.TaskGroup() as tasks:
        served = asyncio.Event()
        serving = tasks.create_task(process.serve(lambda _config: served.set()))
        await served.wait()
        await process.until(lambda: process.turned.sleepers() > 0)
        process.turned.advance(1000)
        await process.until(lambda: process.turned.sleepers() > 0)
        assert (await process.probe("/healthz"))[0] == 200

        answers: list[tuple[int, list[str]]] = []

        def turn_and_ask() -> None:
            process.turned.advance(31_000)
            answers.append(process.probe_now("/healthz"))

        asking = threading.Thread(target=turn_and_ask)
        asking.start()
        asking.join(HUNG_S)  # what waits here is the event loop

        assert answers == [(503, ["the event loop stands still"])]
        signal.raise_signal(signal.SIGTERM)
        await serving


async def test_a_stopping_process_serves_on_for_its_lame_duck_time_and_says_not_ready() -> None:
    process = Probed(lame_duck_ms=8_000)
    process.prepared.set()
    async with asyncio.TaskGroup() as tasks:
        served = asyncio.Event()
        serving = tasks.create_task(process.serve(lambda _config: served.set()))
        await served.wait()

        signal.raise_signal(signal.SIGTERM)
        await process.until(lambda: process.turned.sleepers() > 1)

        assert await process.probe("/readyz") == (503, ["the server is stopping"])
        assert (await process.probe("/healthz"))[0] == 200
        process.turned.advance(7_999)
        assert not process.has_begun_to_stop
        process.turned.advance(1)
        await serving
        assert process.has_begun_to_stop
