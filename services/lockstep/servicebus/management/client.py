"""The blocking administration client under Azure's names.

Here belongs its shape. Never here: what settings mean. The law: it administers queues; all else is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, Never, Self

from lockstep import AdministrationClient
from lockstep.servicebus.exceptions import MessagingEntityNotFoundError, refuse, translating
from lockstep.servicebus.management.queue_properties import (
    QueueProperties,
    QueueRuntimeProperties,
    changes_of,
    properties_of,
    settings_of,
)
from lockstep.servicebus.options import Server, server_of_connection_string, server_of_namespace

LACKING: Final = frozenset(
    {
        f"{verb}_{what}"
        for what in ("topic", "subscription", "rule")
        for verb in ("create", "get", "update", "delete")
    }
    | {"list_topics", "list_topics_runtime_properties", "get_topic_runtime_properties"}
    | {"list_subscriptions", "list_subscriptions_runtime_properties", "list_rules"}
    | {"get_subscription_runtime_properties", "get_namespace_properties"}
)
"""The calls of Azure's client that Lockstep lacks."""


class ServiceBusAdministrationClient:
    """Creates, shows, changes and deletes queues; use it in a `with` block, or close it."""

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

    def create_queue(
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
            return properties_of(self._inner.create_queue(queue_name, **settings))

    def get_queue(self, queue_name: str) -> QueueProperties:
        """Return a queue with its settings.

        Raises:
            MessagingEntityNotFoundError: There is no such queue.
        """
        with translating():
            return properties_of(self._inner.get_queue(queue_name))

    def get_queue_runtime_properties(self, queue_name: str) -> QueueRuntimeProperties:
        """Return what a queue holds.

        Raises:
            MessagingEntityNotFoundError: There is no such queue.
        """
        with translating():
            queue = self._inner.get_queue(queue_name)
            return QueueRuntimeProperties(
                queue, self._inner.get_queue_runtime_properties(queue_name)
            )

    def update_queue(self, queue: QueueProperties | Mapping[str, Any], **kwargs: Any) -> None:
        """Change the settings in which `queue`, with `kwargs` over it, differs from what the queue has.

        Raises:
            MessagingEntityNotFoundError: There is no such queue.
            ServiceBusError: A setting is refused, or fixed at creation.
        """
        name = queue["name"]
        changes = changes_of(queue, kwargs, self.get_queue(name))
        if not changes:
            return
        with translating():
            self._inner.update_queue(name, **changes)

    def delete_queue(self, queue_name: str) -> None:
        """Delete a queue with all it holds.

        Raises:
            MessagingEntityNotFoundError: There is no such queue.
        """
        with translating():
            self._inner.delete_queue(queue_name)

    def list_queues(self) -> Iterator[QueueProperties]:
        """Give the queues in the order of their names."""
        with translating():
            for queue in self._inner.list_queues():
                yield properties_of(queue)

    def list_queues_runtime_properties(self) -> Iterator[QueueRuntimeProperties]:
        """Give what each queue holds, in the order of their names."""
        for queue in self.list_queues():
            try:
                runtime = self.get_queue_runtime_properties(queue.name)
            except MessagingEntityNotFoundError:
                continue  # deleted since it was listed
            yield runtime

    def close(self) -> None:
        """Close the connection."""
        with translating():
            self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Callable[..., Never]:
        return lacking(name)


def lacking(name: str) -> Callable[..., Never]:
    """Return what refuses a call that Lockstep lacks, when it is called.

    Raises:
        AttributeError: Azure has no such call either.
    """
    if name not in LACKING:
        raise AttributeError(f"'ServiceBusAdministrationClient' object has no attribute {name!r}")

    def refused(*_: object, **__: object) -> Never:
        refuse(name, "There are queues only.")

    return refused
