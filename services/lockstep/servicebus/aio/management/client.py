"""The asyncio administration client under Azure's names.

Here belongs its shape. Never here: what settings mean. The law: it administers queues; all else is refused by name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from typing import Any, Never, Self

from lockstep.aio import AdministrationClient
from lockstep.servicebus.exceptions import MessagingEntityNotFoundError, translating
from lockstep.servicebus.management.client import lacking
from lockstep.servicebus.management.queue_properties import (
    QueueProperties,
    QueueRuntimeProperties,
    changes_of,
    properties_of,
    settings_of,
)
from lockstep.servicebus.options import Server, server_of_connection_string, server_of_namespace


class ServiceBusAdministrationClient:
    """Creates, shows, changes and deletes queues; use it in an `async with` block, or close it."""

    def __init__(
        self, fully_qualified_namespace: str, credential: object = None, **kwargs: Any
    ) -> None:
        """Make a client of `host:port`; credentials and options of Azure's HTTP client have no effect."""
        del credential
        self._connect(server_of_namespace(fully_qualified_namespace, kwargs))

    @classmethod
    def from_connection_string(cls, conn_str: str, **kwargs: Any) -> Self:
        """Make a client from `Endpoint=sb://host:port;Namespace=orders`.

        Raises:
            ValueError: It is malformed.
        """
        client = cls.__new__(cls)
        client._connect(server_of_connection_string(conn_str))
        return client

    def _connect(self, server: Server) -> None:
        self.fully_qualified_namespace = server.host
        with translating():
            self._inner = AdministrationClient(server.host, namespace=server.broker_namespace)

    async def create_queue(
        self,
        queue_name: str,
        *,
        auto_delete_on_idle: timedelta | str | None = None,
        dead_lettering_on_message_expiration: bool | None = None,
        default_message_time_to_live: timedelta | str | None = None,
        duplicate_detection_history_time_window: timedelta | str | None = None,
        lock_duration: timedelta | str | None = None,
        max_delivery_count: int | None = None,
        requires_duplicate_detection: bool | None = None,
        requires_session: bool | None = None,
        **kwargs: Any,
    ) -> QueueProperties:
        """Create a queue; `kwargs` are the other settings of azure-servicebus.

        Raises:
            MessagingEntityAlreadyExistsError: There is a queue of this name.
            NotImplementedError: A setting that Lockstep lacks.
            ServiceBusError: The name or a setting is refused.
        """
        settings = settings_of({
            "auto_delete_on_idle": auto_delete_on_idle,
            "dead_lettering_on_message_expiration": dead_lettering_on_message_expiration,
            "default_message_time_to_live": default_message_time_to_live,
            "duplicate_detection_history_time_window": duplicate_detection_history_time_window,
            "lock_duration": lock_duration,
            "max_delivery_count": max_delivery_count,
            "requires_duplicate_detection": requires_duplicate_detection,
            "requires_session": requires_session,
            **kwargs,
        })  # fmt: skip
        with translating():
            return properties_of(await self._inner.create_queue(queue_name, **settings))

    async def get_queue(self, queue_name: str) -> QueueProperties:
        """Return a queue with its settings.

        Raises:
            MessagingEntityNotFoundError: There is no such queue.
        """
        with translating():
            return properties_of(await self._inner.get_queue(queue_name))

    async def get_queue_runtime_properties(self, queue_name: str) -> QueueRuntimeProperties:
        """Return what a queue holds.

        Raises:
            MessagingEntityNotFoundError: There is no such queue.
        """
        with translating():
            queue = await self._inner.get_queue(queue_name)
            return QueueRuntimeProperties(
                queue, await self._inner.get_queue_runtime_properties(queue_name)
            )

    async def update_queue(self, queue: QueueProperties | Mapping[str, Any], **kwargs: Any) -> None:
        """Change the settings in which `queue`, with `kwargs` over it, differs from what the queue has.

        Raises:
            MessagingEntityNotFoundError: There is no such queue.
            ServiceBusError: A setting is refused, or fixed at creation.
        """
        name = queue["name"]
        changes = changes_of(queue, kwargs, await self.get_queue(name))
        if not changes:
            return
        with translating():
            await self._inner.update_queue(name, **changes)

    async def delete_queue(self, queue_name: str) -> None:
        """Delete a queue with all it holds.

        Raises:
            MessagingEntityNotFoundError: There is no such queue.
        """
        with translating():
            await self._inner.delete_queue(queue_name)

    async def list_queues(self) -> AsyncIterator[QueueProperties]:
        """Give the queues in the order of their names."""
        with translating():
            async for queue in self._inner.list_queues():
                yield properties_of(queue)

    async def list_queues_runtime_properties(self) -> AsyncIterator[QueueRuntimeProperties]:
        """Give what each queue holds, in the order of their names."""
        async for queue in self.list_queues():
            try:
                runtime = await self.get_queue_runtime_properties(queue.name)
            except MessagingEntityNotFoundError:
                continue  # deleted since it was listed
            yield runtime

    async def close(self) -> None:
        """Close the connection."""
        with translating():
            await self._inner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __getattr__(self, name: str) -> Callable[..., Never]:
        return lacking(name)
