"""Proxies between named pairs of processes, which delay, hold, mute and cut what goes through them.

All proxies of a run live in one thread with an event loop of its own, so that neither a test that waits nor its load
slows them.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lockstep.runtime.clock import SystemClock

_CHUNK_BYTES = 65_536
_START_S = 10
_Result = TypeVar("_Result")
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class TcpPlace:
    host: str
    port: int

    async def dial(self) -> Stream:
        return await asyncio.open_connection(self.host, self.port)

    async def listen(self, serve: Callable[..., Coroutine[Any, Any, None]]) -> asyncio.Server:
        return await asyncio.start_server(serve, self.host, self.port)


@dataclass(frozen=True, slots=True)
class SocketPlace:
    path: Path

    async def dial(self) -> Stream:
        return await asyncio.open_unix_connection(self.path)

    async def listen(self, serve: Callable[..., Coroutine[Any, Any, None]]) -> asyncio.Server:
        return await asyncio.start_unix_server(serve, self.path)


Place = TcpPlace | SocketPlace


@dataclass(slots=True, eq=False)
class _Direction:
    """One of the two ways through a proxy."""

    delay_ms: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()


class Proxy:
    """Passes bytes between whoever connects to `at` and `to`. Its methods may be called from any thread."""

    def __init__(self, name: str, at: Place, to: Place, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self._at = at
        self._to = to
        self._loop = loop
        self._forth = _Direction()
        self._back = _Direction()
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._clock = SystemClock()
        self._server: asyncio.Server | None = None

    # --- faults ----------------------------------------------------------------------------------

    def cut(self) -> None:
        """Break all connections, and every new one, until `heal`."""
        self._do(lambda: self._set(is_cut=True))

    def reset(self) -> None:
        """Break all connections once."""
        self._do(self._abort)

    def hold(self) -> None:
        """Pass nothing on until `heal`; what was held is passed on then."""
        self._do(lambda: self._close(self._forth, self._back))

    def mute(self) -> None:
        """Pass no answer on until `heal`: what is asked is done, and nobody hears of it."""
        self._do(lambda: self._close(self._back))

    def delay(self, ms: int) -> None:
        """Pass everything on this much later, both ways."""
        self._do(lambda: self._set(delay_ms=ms))

    def lose(self) -> None:
        """Break all connections with what is held on them, then heal."""
        self._do(self._lose)

    def heal(self) -> None:
        """Pass everything on again."""
        self._do(self._set)

    def _set(self, *, is_cut: bool = False, delay_ms: int = 0) -> None:
        self._is_cut = is_cut
        for direction in (self._forth, self._back):
            direction.delay_ms = delay_ms
            direction.open.set()
        if is_cut:
            self._abort()

    def _lose(self) -> None:
        self._abort()
        self._set()

    def _close(self, *directions: _Direction) -> None:
        for direction in directions:
            direction.open.clear()

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _do(self, action: Callable[[], object]) -> None:
        async def act() -> None:
            action()

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(_START_S)

    # --- passing ---------------------------------------------------------------------------------

    async def start(self) -> None:
        self._server = await self._at.listen(self._serve)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            their_reader, their_writer = await self._to.dial()
        except OSError:
            writer.transport.abort()
            return
        both = {writer, their_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, their_writer, self._forth))
                tasks.create_task(self._pass(their_reader, writer, self._back))
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Direction
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if way.delay_ms:
                    await self._clock.sleep(way.delay_ms)
                await way.open.wait()
                if writer.transport.is_closing():
                    break
                writer.write(data)
                await writer.drain()
        writer.transport.close()


class Proxies:
    """The thread of all proxies of a run."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()
        self._by_name: dict[str, Proxy] = {}

    def add(self, name: str, at: Place, to: Place) -> Proxy:
        """Listen, and return what can disturb the link."""
        proxy = self._by_name[name] = Proxy(name, at, to, self._loop)
        self._wait(proxy.start())
        return proxy

    def __getitem__(self, name: str) -> Proxy:
        return self._by_name[name]

    def __iter__(self) -> Iterator[Proxy]:
        return iter(self._by_name.values())

    def heal(self) -> None:
        for proxy in self:
            proxy.heal()

    def _wait(self, doing: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result(_START_S)

    def close(self) -> None:
        """End all connections and the thread."""
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_S)
        self._loop.close()

    async def _end(self) -> None:
        for proxy in self:
            await proxy.stop()
        ours = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not ours]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
