"""The asyncio administration client.

Here belongs its public shape. Never here: how it works (`administering`). The law: nothing is
decided here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self, Unpack

from lockstep.client.administering import Administering
from lockstep.client.channel_aio import AioTransport
from lockstep.client.connection import (
    Connection,
    RetryOptions,
    check_connection_string,
    new_connection,
)
from lockstep.client.queue_properties import (
    QueueProperties,
    QueueRuntimeProperties,
    QueueSettings,
    SessionProperties,
)


class AdministrationClient:
    """Creates, shows, changes and deletes queues.

    Use it as `async with AdministrationClient(...) as client:`, or close it. A program that has a `LockstepClient`
    gets one from its `get_administration_client`, over the same connection.
    """

    def __init__(
        self,
        address: str,
        *,
        namespace: str | None = None,
        retry_total: int = 3,
        retry_backoff_factor: float = 0.8,
        retry_backoff_max: float = 60,
        timeout: float = 60,
    ) -> None:
        """Make a client with a connection of its own; the first call connects.

        Args:
            address: `host:port`; the port is 7700 by default. Or a connection string:
                `Endpoint=lockstep://host:port;Namespace=orders`.
            namespace: The broker namespace; None = that of the connection string, or `default`.
            retry_total: How often a call that failed in passing is tried again; 0 = never.
            retry_backoff_factor: Seconds before the first retry, doubled with each one, with jitter.
            retry_backoff_max: Seconds of the longest pause between tries.
            timeout: Seconds that one try may take.

        Raises:
            InvalidRequest: The address or an option is refused.
        """
        options = RetryOptions(retry_total, retry_backoff_factor, retry_backoff_max, timeout)
        self._connection = new_connection(AioTransport, address, namespace, options)
        self._owns_connection = True
        self._administering = Administering(self._connection)

    @classmethod
    def from_connection_string(
        cls,
        connection_string: str,
        *,
        namespace: str | None = None,
        retry_total: int = 3,
        retry_backoff_factor: float = 0.8,
        retry_backoff_max: float = 60,
        timeout: float = 60,
    ) -> Self:
        """Make a client from `Endpoint=lockstep://host:port;Namespace=orders`; see the constructor.

        Raises:
            InvalidRequest: It is no connection string, or an option is refused.
        """
        check_connection_string(connection_string)
        return cls(
            connection_string,
            namespace=namespace,
            retry_total=retry_total,
            retry_backoff_factor=retry_backoff_factor,
            retry_backoff_max=retry_backoff_max,
            timeout=timeout,
        )

    @classmethod
    def _sharing(cls, connection: Connection) -> Self:
        """Return a client over a connection that another one closes."""
        shared = cls.__new__(cls)
        shared._connection = connection
        shared._owns_connection = False
        shared._administering = Administering(connection)
        return shared

    @property
    def namespace(self) -> str:
        """The broker namespace of every call."""
        return self._connection.namespace

    async def create_queue(self, name: str, **settings: Unpack[QueueSettings]) -> QueueProperties:
        """Create a queue and return it; it is ready for use then (ADD-12).

        Args:
            name: At most 260 characters, `/` allowed inside, none of `@ ? # *`.
            **settings: See `QueueSettings`; what is absent gets its default.

        Raises:
            EntityAlreadyExists: A queue of this name exists.
            InvalidRequest: The name or a setting is refused; the error says what would be accepted.
        """
        return await self._administering.create_queue(name, dict(settings))

    async def get_queue(self, name: str) -> QueueProperties:
        """Return a queue with all its settings.

        Raises:
            EntityNotFound: There is no such queue.
        """
        return (await self._administering.get_queue(name))[0]

    async def get_queue_runtime_properties(self, name: str) -> QueueRuntimeProperties:
        """Return what a queue holds at this moment.

        Raises:
            EntityNotFound: There is no such queue.
        """
        return (await self._administering.get_queue(name))[1]

    async def list_queues(self) -> AsyncIterator[QueueProperties]:
        """Give the queues of the namespace in the order of their names, page by page."""
        token, is_last = "", False
        while not is_last:
            page, token = await self._administering.list_queues(token)
            is_last = not token
            for queue, _ in page:
                yield queue

    async def list_queues_runtime_properties(self) -> AsyncIterator[QueueRuntimeProperties]:
        """Give what each queue of the namespace holds, in the order of their names, page by page."""
        token, is_last = "", False
        while not is_last:
            page, token = await self._administering.list_queues(token)
            is_last = not token
            for _, runtime in page:
                yield runtime

    async def update_queue(
        self, queue: QueueProperties | str, **changes: Unpack[QueueSettings]
    ) -> QueueProperties:
        """Change settings of a queue and return it as it is then.

        Args:
            queue: Properties, as read and then changed with `dataclasses.replace`; refused if the queue
                changed since. Or a name, to write the changes only, whatever the rest is.
            **changes: See `QueueSettings`; they go before those in the properties.

        Raises:
            EntityNotFound: There is no such queue.
            RevisionConflict: It changed since its properties were read; read them again.
            InvalidOperation: A setting is fixed at creation.
            InvalidRequest: A setting is refused, or there is nothing to change.
        """
        return await self._administering.update_queue(queue, dict(changes))

    async def delete_queue(self, name: str) -> None:
        """Delete a queue with all its messages, dead letters and session states.

        Raises:
            EntityNotFound: There is no such queue.
        """
        await self._administering.delete_queue(name)

    async def list_sessions(self, queue: str) -> AsyncIterator[SessionProperties]:
        """Give the sessions that have messages or a state, or are held, by id, page by page.

        Raises:
            EntityNotFound: There is no such queue.
            InvalidOperation: The queue has no sessions.
        """
        token, is_last = "", False
        while not is_last:
            page, token = await self._administering.list_sessions(queue, token)
            is_last = not token
            for session in page:
                yield session

    async def get_session(self, queue: str, session_id: str) -> SessionProperties:
        """Return one session; one that was never used is shown as empty.

        Raises:
            EntityNotFound: There is no such queue.
            InvalidOperation: The queue has no sessions.
        """
        return await self._administering.get_session(queue, session_id)

    async def break_session_lock(
        self, queue: str, session_id: str, *, requested_by: str = ""
    ) -> bool:
        """End the lock of a session at once, whoever holds it (ADD-5), and return whether somebody did.

        No delivery is counted; what the holder had in hand is back in its place. The holder's next call is refused and
        says who broke the lock.

        Args:
            queue: The queue.
            session_id: The session.
            requested_by: Who asks, for the holder to read; at most 128 characters.

        Raises:
            EntityNotFound: There is no such queue.
            LimitExceeded: A name is too long.
        """
        return await self._administering.break_session_lock(queue, session_id, requested_by)

    async def close(self) -> None:
        """Close the connection, unless it is that of a `LockstepClient`. A second close does nothing."""
        if self._owns_connection:
            await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
