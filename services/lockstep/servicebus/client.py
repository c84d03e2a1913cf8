"""The blocking client under Azure's names: where a program begins.

Here belongs what it can be asked for. Never here: what senders and receivers do. The law: a program written for
azure-servicebus needs no other change than its import and its connection string.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Never, Self

from lockstep import LockstepClient
from lockstep.servicebus.constants import (
    NextAvailableSession,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
)
from lockstep.servicebus.exceptions import refuse, translating
from lockstep.servicebus.options import (
    Server,
    check_timeout,
    inner_options,
    new_identifier,
    plan_receiver,
    server_of_connection_string,
    server_of_namespace,
)
from lockstep.servicebus.receiver import ServiceBusReceiver
from lockstep.servicebus.renewer import AutoLockRenewer
from lockstep.servicebus.sender import ServiceBusSender

_NO_TOPICS = "Send to a queue for each reader."


class ServiceBusClient:
    """A client of one server; use it in a `with` block, or close it."""

    def __init__(
        self,
        fully_qualified_namespace: str,
        credential: object = None,
        *,
        retry_total: int = 3,
        retry_backoff_factor: float = 0.8,
        retry_backoff_max: float = 120,
        retry_mode: str = "exponential",
        **kwargs: Any,
    ) -> None:
        """Make a client of `host:port`.

        Args:
            fully_qualified_namespace: The server.
            credential: Taken without effect; this release knows no credentials.
            retry_total: How often a call that failed in passing is tried again.
            retry_backoff_factor: Seconds before the first retry, doubled with each one.
            retry_backoff_max: Seconds of the longest pause between tries.
            retry_mode: Only "exponential".
            **kwargs: `try_timeout`: seconds of one try. Others of azure-servicebus have no effect, or are refused.

        Raises:
            ValueError: An option is refused.
            NotImplementedError: Lockstep lacks an option.
        """
        del credential
        self._connect(
            server_of_namespace(fully_qualified_namespace, kwargs),
            retry_total=retry_total,
            retry_backoff_factor=retry_backoff_factor,
            retry_backoff_max=retry_backoff_max,
            retry_mode=retry_mode,
            options=kwargs,
        )

    @classmethod
    def from_connection_string(
        cls,
        conn_str: str,
        *,
        retry_total: int = 3,
        retry_backoff_factor: float = 0.8,
        retry_backoff_max: float = 120,
        retry_mode: str = "exponential",
        **kwargs: Any,
    ) -> Self:
        """Make a client from `Endpoint=sb://host:port;Namespace=orders`; see the constructor."""
        client = cls.__new__(cls)
        client._connect(
            server_of_connection_string(conn_str),
            retry_total=retry_total,
            retry_backoff_factor=retry_backoff_factor,
            retry_backoff_max=retry_backoff_max,
            retry_mode=retry_mode,
            options=kwargs,
        )
        return client

    def _connect(self, server: Server, **options: Any) -> None:
        self._server = server
        with translating():
            self._inner = LockstepClient(server.host, **inner_options(server, **options))

    @property
    def fully_qualified_namespace(self) -> str:
        """The server."""
        return self._server.host

    def get_queue_sender(
        self,
        queue_name: str,
        *,
        client_identifier: str | None = None,
        socket_timeout: float | None = None,
    ) -> ServiceBusSender:
        """Return a sender to a queue. `socket_timeout` is taken without effect.

        Raises:
            ValueError: It is not the queue of the connection string, or the client was closed.
        """
        del socket_timeout
        self._server.check_queue(queue_name)
        with translating():
            inner = self._inner.get_queue_sender(queue_name)
        return ServiceBusSender(inner, queue_name, client_identifier or new_identifier("SBSender"))

    def get_queue_receiver(
        self,
        queue_name: str,
        *,
        client_identifier: str | None = None,
        socket_timeout: float | None = None,
        session_id: str | NextAvailableSession | None = None,
        sub_queue: ServiceBusSubQueue | str | None = None,
        receive_mode: ServiceBusReceiveMode | str = ServiceBusReceiveMode.PEEK_LOCK,
        max_wait_time: float | None = None,
        auto_lock_renewer: AutoLockRenewer | None = None,
        prefetch_count: int = 0,
    ) -> ServiceBusReceiver:
        """Return a receiver; the options are those of azure-servicebus. `socket_timeout` is taken without effect.

        Raises:
            ValueError: An option is refused, or the client was closed.
            NotImplementedError: Prefetching, or the transfer dead-letter store.
        """
        del socket_timeout
        self._server.check_queue(queue_name)
        plan = plan_receiver(
            queue_name,
            client_identifier=client_identifier,
            session_id=session_id,
            sub_queue=sub_queue,
            receive_mode=receive_mode,
            max_wait_time=max_wait_time,
            prefetch_count=prefetch_count,
            has_renewer=auto_lock_renewer is not None,
        )
        with translating():
            inner = self._inner.get_queue_receiver(queue_name, **plan.inner())
        return ServiceBusReceiver(inner, plan, auto_lock_renewer)

    def list_queue_sessions(
        self,
        queue_name: str,
        *,
        state_updated_after: datetime | None = None,
        timeout: float | None = None,
    ) -> Iterator[str]:
        """Give the ids of the sessions that have messages or a state. `timeout` is taken without effect.

        Args:
            queue_name: The queue.
            state_updated_after: Only sessions whose state was written then or later.
            timeout: Without effect.

        Raises:
            MessagingEntityNotFoundError: There is no such queue.
        """
        check_timeout(timeout)
        self._server.check_queue(queue_name)
        return self._session_ids(queue_name, state_updated_after)

    def _session_ids(self, queue_name: str, updated_since: datetime | None) -> Iterator[str]:
        with translating():
            found = self._inner.get_administration_client().list_sessions(
                queue_name, state_updated_since=updated_since
            )
            for session in found:
                if session.active_message_count or session.state_size_in_bytes is not None:
                    yield session.session_id

    def get_topic_sender(self, topic_name: str, **kwargs: Any) -> Never:
        """Not there."""
        refuse("get_topic_sender", _NO_TOPICS)

    def get_subscription_receiver(
        self, topic_name: str, subscription_name: str, **kwargs: Any
    ) -> Never:
        """Not there."""
        refuse("get_subscription_receiver", _NO_TOPICS)

    def list_subscription_sessions(
        self, topic_name: str, subscription_name: str, **kwargs: Any
    ) -> Never:
        """Not there."""
        refuse("list_subscription_sessions", _NO_TOPICS)

    def close(self) -> None:
        """Give back all held sessions and close the connection."""
        with translating():
            self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
