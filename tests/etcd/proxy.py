"""A wire between a client and etcd that a test can cut, or let go silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CHUNK_BYTES = 65_536


class _Connection:
    """Both ends of one connection through the wire."""

    def __init__(self, writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.passes = asyncio.Event()
        self.passes.set()


class Wire:
    """Listens on loopback and passes bytes on to one etcd; for one event loop."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._is_cut = False

    @property
    def endpoint(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def connections(self) -> int:
        return len(self._connections)

    def cut(self) -> None:
        """Break all connections, and every one that comes."""
        self._is_cut = True
        for connection in self._connections:
            _abort(connection)

    def mend(self) -> None:
        """Let connections through again."""
        self._is_cut = False

    def silence(self) -> None:
        """Let nothing pass on the connections that are there now, without ending them; others will work."""
        for connection in self._connections:
            connection.passes.clear()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    async def _accept(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        if self._is_cut:
            near.transport.abort()
            return
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            near.transport.abort()
            return
        connection = _Connection((near, far))
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pass(connection, near_reader, far))
                tasks.create_task(_pass(connection, far_reader, near))
        finally:
            _abort(connection)
            self._connections.discard(connection)


def _abort(connection: _Connection) -> None:
    connection.passes.set()
    for writer in connection.writers:
        writer.transport.abort()


async def _pass(
    connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while data := await reader.read(_CHUNK_BYTES):
            await connection.passes.wait()
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # the connection broke: so does its other half
    _abort(connection)


@asynccontextmanager
async def wire_to(port: int) -> AsyncIterator[Wire]:
    """Give a wire to a port of this machine."""
    wire = Wire(port)
    await wire.open()
    try:
        yield wire
    finally:
        await wire.close()
