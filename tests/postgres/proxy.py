"""A way to a PostgreSQL server that can be cut, or blocked, at a chosen moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum
from pathlib import Path

_READ_BYTES = 65_536


class Fault(Enum):
    """What happens to the next question, to its answer, and to their connection."""

    LOST_QUESTION = "cut before the question arrives"
    HALF_A_QUESTION = "cut in the middle of the question"
    LOST_ANSWER = "cut between the question and its answer"
    NO_ANSWER = "the answer never comes, and nothing is cut"


class Proxy:
    """Passes bytes on.

    Attributes:
        port: Where it listens on 127.0.0.1.
        directions: Which side spoke, in order; a side that speaks twice in a row is named once.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._fault: Fault | None = None
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Task[None] | None] = set()
        self.port = 0
        self.directions: list[str] = []

    async def start(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def next(self, fault: Fault) -> None:
        """Let the next question meet a fault; then all goes well again."""
        self._fault = fault

    def cut_all(self) -> None:
        """Cut every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        """Cut every connection and listen no more."""
        assert self._server is not None
        self._server.close()
        self.cut_all()
        passing = [task for task in self._passing if task is not None]
        if passing:
            await asyncio.wait(passing)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._passing.add(asyncio.current_task())
        try:
            with suppress(ConnectionError, FileNotFoundError):
                there, answers = await self._to_server()
                self._writers |= {writer, answers}
                try:
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(self._ask(reader, answers, writer))
                        tasks.create_task(self._answer(there, writer, answers))
                finally:
                    self._writers -= {writer, answers}
                    answers.transport.abort()
        finally:
            writer.transport.abort()
            self._passing.discard(asyncio.current_task())

    async def _to_server(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self._socket))

    def _note(self, direction: str) -> None:
        if self.directions[-1:] != [direction]:
            self.directions.append(direction)

    async def _ask(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError):
            while data := await client.read(_READ_BYTES):
                self._note("question")
                if self._fault is Fault.LOST_QUESTION:
                    break
                if self._fault is Fault.HALF_A_QUESTION:
                    server.write(data[: len(data) // 2])
                    await server.drain()
                    break
                server.write(data)
                await server.drain()
        self._end(server, back)

    async def _answer(
        self,
        server: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        there: asyncio.StreamWriter,
    ) -> None:
        with suppress(ConnectionError):
            while data := await server.read(_READ_BYTES):
                self._note("answer")
                if self._fault is Fault.LOST_ANSWER:
                    break
                if self._fault is Fault.NO_ANSWER:
                    continue
                client.write(data)
                await client.drain()
        self._end(client, there)

    def _end(self, *writers: asyncio.StreamWriter) -> None:
        if self._fault is not Fault.NO_ANSWER:
            self._fault = None
        for writer in writers:
            writer.close()


@asynccontextmanager
async def running_proxy(socket: Path) -> AsyncIterator[Proxy]:
    """A proxy that ends with the block."""
    proxy = Proxy(socket)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
