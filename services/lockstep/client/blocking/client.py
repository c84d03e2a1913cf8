"""The blocking client: where a program begins.

Here belongs what it can be asked for. Never here: what senders and receivers do. The law: one
address is enough, for messages and for administration.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from lockstep.client.blocking.administration import AdministrationClient
from lockstep.client.blocking.receiver import QueueReceiver
from lockstep.client.blocking.renewer import AutoLockRenewer
from lockstep.client.blocking.sender import QueueSender
from lockstep.client.channel_blocking import BlockingTransport
from lockstep.client.connection import (
    Connection,
    RetryOptions,
    check_connection_string,
    new_connection,
)
from lockstep.client.receiving import receiver_options
from lockstep.client.sending import Sending
from lockstep.client.transport import run_to_completion
from lockstep.client.values import NextAvailableSession, ReceiveMode, SubQueue


class LockstepClient:
    """A blocking client of one server. Threads may share it.

    The first call connects. Use it as `with LockstepClient(...) as client:`, or close it: what
    its receivers hold is then given back at once.
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
        """Make a client.

        Args:
            address: `host:port`; the port is 7700 by default. Or a connection string:
                `Endpoint=lockstep://host:port;Namespace=orders`.
            namespace: The broker namespace; None = that of the connection string, or `default`.
            retry_total: How often a call that failed in passing is tried again; 0 = never.
            retry_backoff_factor: Seconds before the first retry, doubled with each one, with jitter.
            retry_backoff_max: Seconds of the longest pause between tries.
            timeout: Seconds that one try may take, besides the waiting that was asked for.

        Raises:
            InvalidRequest: The address or an option is refused.
        """
        options = RetryOptions(retry_total, retry_backoff_factor, retry_backoff_max, timeout)
        self._connection = new_connection(BlockingTransport, address, namespace, options)

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
    def _over(cls, connection: Connection) -> Self:
        """Return a client over a connection that was made elsewhere; closing the client closes it."""
        client = cls.__new__(cls)
        client._connection = connection
        return client

    @property
    def namespace(self) -> str:
        """The broker namespace of every call."""
        return self._connection.namespace

    def get_queue_sender(self, queue: str) -> QueueSender:
        """Return a sender to a queue. Makes no call.

        Raises:
            ClientClosed: The client was closed.
        """
        self._connection.check_open()
        return QueueSender(Sending(self._connection, queue))

    def get_queue_receiver(
        self,
        queue: str,
        *,
        session_id: str | NextAvailableSession | None = None,
        max_wait_time: float | None = None,
        receive_mode: ReceiveMode | str = ReceiveMode.PEEK_LOCK,
        sub_queue: SubQueue | str | None = None,
        auto_lock_renewer: AutoLockRenewer | None = None,
        client_identifier: str | None = None,
        prefetch_count: int = 0,
    ) -> QueueReceiver:
        """Return a receiver. Makes no call: entering it, or its first call, accepts the session.

        Args:
            queue: The queue.
            session_id: The session to hold, or NEXT_AVAILABLE_SESSION; required on a session queue.
            max_wait_time: Seconds to wait for the next available session, for the first message of a
                receive, and for the next message when iterating. None = for ever, but 60 s in a receive.
            receive_mode: ReceiveMode.PEEK_LOCK: messages are locked until they are settled.
                RECEIVE_AND_DELETE: they are gone when they were delivered (RCV-1).
            sub_queue: SubQueue.DEAD_LETTER to receive what could not be processed.
            auto_lock_renewer: Keeps the session, or each message, locked while it is worked on.
            client_identifier: How the receiver shows up in listings, at most 128 characters.
            prefetch_count: 0; there is no prefetching (PRE-4).

        Raises:
            ClientClosed: The client was closed.
            InvalidRequest, LimitExceeded, InvalidOperation, SettingNotAvailable: An option is refused.
            TypeError: An id is no text.
        """
        self._connection.check_open()
        options = receiver_options(
            queue,
            session_id=session_id,
            max_wait_time=max_wait_time,
            receive_mode=receive_mode,
            sub_queue=sub_queue,
            client_identifier=client_identifier,
            prefetch_count=prefetch_count,
        )
        return QueueReceiver(self._connection, options, auto_lock_renewer)

    def get_administration_client(self) -> AdministrationClient:
        """Return what creates, shows, changes and deletes queues, over this client's connection. Makes no call.

        Raises:
            ClientClosed: The client was closed.
        """
        self._connection.check_open()
        return AdministrationClient._sharing(self._connection)

    def close(self) -> None:
        """Give back all held sessions and close the connection. A second close does nothing.

        Raises:
            LockstepError: The server could not be told of a session; its lock runs out by itself.
        """
        run_to_completion(self._connection.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
