"""The blocking client: where a program begins.

Here belongs what it can be asked for. Never here: what senders and receivers do. The law: one
address is enough, for messages and for administration.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from lockstep.client.blocking.administration import AdministrationClient
from lockstep.client.blocking.processor import OnError, OnMessage, OnSession, QueueProcessor
from lockstep.client.blocking.receiver import QueueReceiver
from lockstep.client.blocking.renewer import AutoLockRenewer
from lockstep.client.blocking.requester import QueueRequester
from lockstep.client.blocking.sender import QueueSender
from lockstep.client.blocking.stream import QueueStream
from lockstep.client.channel_blocking import BlockingTransport
from lockstep.client.connection import (
    Connection,
    RetryOptions,
    check_connection_string,
    new_connection,
)
from lockstep.client.message import Message
from lockstep.client.processing import Handlers, processor_options
from lockstep.client.received import ReceivedMessage
from lockstep.client.receiving import receiver_options
from lockstep.client.requesting import reply_of
from lockstep.client.sending import Sending
from lockstep.client.transport import run_to_completion
from lockstep.client.values import (
    NEXT_AVAILABLE_SESSION,
    NextAvailableSession,
    ReceiveMode,
    SubQueue,
)
from lockstep.runtime.ids import SystemIds


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

    def open_stream(
        self,
        queue: str,
        *,
        session_id: str | NextAvailableSession | None = None,
        credit: int = 16,
        max_wait_time: float | None = None,
        sub_queue: SubQueue | str | None = None,
        auto_lock_renewer: AutoLockRenewer | None = None,
        client_identifier: str | None = None,
    ) -> QueueStream:
        """Return a stream that delivers messages as they come, within a credit. Makes no call: entering it opens.

        It saves the round trip that each receive of a receiver takes. What waits in the program is locked already, and
        its lock runs: keep `credit` below what the program handles in half of the lock duration (PRE-3).

        Args:
            queue: The queue.
            session_id: The session to hold, or NEXT_AVAILABLE_SESSION; required on a session queue.
            credit: How many messages may be on their way or wait here, not handed out yet, from 1 to 4096; when half
                of it is used, asking for the next message tops it up. 1 = the next message is asked for when the
                program asks. 0 = nothing comes but by `add_credit`.
            max_wait_time: Seconds to wait for the next available session, and for the next message. None = for ever.
            sub_queue: SubQueue.DEAD_LETTER to receive what could not be processed.
            auto_lock_renewer: Keeps the session, or each message that was handed out, locked while it is worked on.
            client_identifier: How the receiver shows up in listings, at most 128 characters.

        Raises:
            ClientClosed: The client was closed.
            InvalidRequest, LimitExceeded, InvalidOperation: An option is refused.
            TypeError: An id is no text, or the credit no whole number.
        """
        self._connection.check_open()
        options = receiver_options(
            queue,
            session_id=session_id,
            max_wait_time=max_wait_time,
            receive_mode=ReceiveMode.PEEK_LOCK,
            sub_queue=sub_queue,
            client_identifier=client_identifier,
            prefetch_count=0,
        )
        return QueueStream(self._connection, options, auto_lock_renewer, credit)

    def get_queue_processor(  # noqa: PLR0913  # what a processor is asked for is one list
        self,
        queue: str,
        on_message: OnMessage,
        on_error: OnError | None = None,
        *,
        max_concurrent_calls: int = 1,
        auto_complete: bool = False,
        max_auto_lock_renewal_duration: float = 300,
        stop_timeout: float = 30,
        sub_queue: SubQueue | str | None = None,
        client_identifier: str | None = None,
    ) -> QueueProcessor:
        """Return what calls a function for each message of a plain queue. Makes no call; starting it receives.

        A message is abandoned when its call raises (CLI-2). Otherwise nothing is settled by itself: settle with
        `context.complete_message(message)` and the like, or say `auto_complete`.

        Args:
            queue: The queue.
            on_message: Called with each message and a ProcessorContext.
            on_error: Called with a ProcessingFailure for all that fails, what `on_message` raised too; the processor
                goes on. None = a warning is logged.
            max_concurrent_calls: How many calls there are at a time, each with one message, from 1 to 2048.
            auto_complete: Complete each message whose call returned.
            max_auto_lock_renewal_duration: Seconds for which the lock of a message is renewed while its call runs;
                it then runs out by itself, and `context.lock_lost` is set. 0 = no renewal.
            stop_timeout: Seconds that calls under way get to end when the processor is stopped.
            sub_queue: SubQueue.DEAD_LETTER to work on what could not be processed.
            client_identifier: How the receivers show up in listings, at most 128 characters.

        Raises:
            ClientClosed: The client was closed.
            InvalidRequest, LimitExceeded: An option is refused.
            TypeError: An option is of a wrong type, or a function is async.
        """
        self._connection.check_open()
        receiver = receiver_options(
            queue,
            session_id=None,
            max_wait_time=None,
            receive_mode=ReceiveMode.PEEK_LOCK,
            sub_queue=sub_queue,
            client_identifier=client_identifier,
            prefetch_count=0,
        )
        options = processor_options(
            workers=max_concurrent_calls,
            auto_complete=auto_complete,
            max_auto_lock_renewal_duration=max_auto_lock_renewal_duration,
            stop_timeout=stop_timeout,
        )
        return QueueProcessor(self._connection, receiver, options, Handlers(on_message, on_error))

    def get_session_processor(  # noqa: PLR0913  # what a processor is asked for is one list
        self,
        queue: str,
        on_message: OnMessage,
        on_error: OnError | None = None,
        on_session_opening: OnSession | None = None,
        on_session_closing: OnSession | None = None,
        *,
        max_concurrent_sessions: int = 8,
        session_idle_timeout: float = 60,
        auto_complete: bool = False,
        max_auto_lock_renewal_duration: float = 300,
        stop_timeout: float = 30,
        client_identifier: str | None = None,
    ) -> QueueProcessor:
        """Return what calls a function for each message of each session. Makes no call; starting it accepts.

        Within a session there is one call at a time, in order; sessions are worked on side by side. Settlement is
        as with `get_queue_processor`. A message that could not be settled ends the hold of its session, so that
        nothing overtakes it.

        Args:
            queue: The session queue.
            on_message: Called with each message and the ProcessorContext of its session.
            on_error: See `get_queue_processor`. That no session is available is no error (CLI-11).
            on_session_opening: Called with the ProcessorContext when a session was accepted; if it raises, the session
                is given back.
            on_session_closing: The same before a session is given back; `context.lock_lost` tells whether it was lost.
            max_concurrent_sessions: How many sessions are held at a time, from 1 to 2048.
            session_idle_timeout: Seconds without a message after which a session is given back, uncounted (CLI-5).
            auto_complete: Complete each message whose call returned.
            max_auto_lock_renewal_duration: Seconds for which a session is held, with its lock renewed. Then it is given
                back between two messages, so that others have their turn; where a call goes on for longer, the lock
                runs out by itself, and `context.lock_lost` is set. 0 = no renewal, and no such end.
            stop_timeout: Seconds that calls under way get to end when the processor is stopped.
            client_identifier: How the holder shows up in listings, at most 128 characters.

        Raises:
            ClientClosed: The client was closed.
            InvalidRequest, LimitExceeded: An option is refused.
            TypeError: An option is of a wrong type, or a function is async.
        """
        self._connection.check_open()
        receiver = receiver_options(
            queue,
            session_id=NEXT_AVAILABLE_SESSION,
            max_wait_time=None,
            receive_mode=ReceiveMode.PEEK_LOCK,
            sub_queue=None,
            client_identifier=client_identifier,
            prefetch_count=0,
        )
        options = processor_options(
            workers=max_concurrent_sessions,
            auto_complete=auto_complete,
            max_auto_lock_renewal_duration=max_auto_lock_renewal_duration,
            stop_timeout=stop_timeout,
            session_idle_timeout=session_idle_timeout,
        )
        handlers = Handlers(on_message, on_error, on_session_opening, on_session_closing)
        return QueueProcessor(self._connection, receiver, options, handlers)

    def get_requester(
        self,
        request_queue: str,
        reply_queue: str,
        *,
        session_id: str | None = None,
        client_identifier: str | None = None,
    ) -> QueueRequester:
        """Return what sends requests and waits for their answers. Makes no call; entering it accepts its session.

        Nothing may accept the next available session of the reply queue, or it would take the sessions of
        requesters (SES-56); a queue with `accept_next=AcceptNext.DISABLED` refuses that.

        Args:
            request_queue: Where requests go; a plain queue, or the requests carry a session id.
            reply_queue: The session queue that answers come to; many requesters may share it.
            session_id: The requester's own session, at most 128 characters; None = a new random one (SES-55).
            client_identifier: How the holder shows up in listings, at most 128 characters.

        Raises:
            ClientClosed: The client was closed.
            LimitExceeded: An id is longer than 128 characters.
            TypeError: An id is no text.
        """
        self._connection.check_open()
        reply = receiver_options(
            reply_queue,
            session_id=SystemIds().uid() if session_id is None else session_id,
            max_wait_time=None,
            receive_mode=ReceiveMode.PEEK_LOCK,
            sub_queue=None,
            client_identifier=client_identifier,
            prefetch_count=0,
        )
        return QueueRequester(self._connection, request_queue, reply)

    def reply_to(self, received: ReceivedMessage, message: Message) -> list[int]:
        """Send the answer to a received request where its sender waits for it; return its sequence number.

        Complete the request afterwards: a crash between the two answers it again, and the requester drops the second.

        Args:
            received: The request; it says the queue and the session of the answer.
            message: The answer. Where it has no correlation id, it gets the message id of the request.

        Raises:
            InvalidRequest: The request does not say where an answer should go.
            TypeError: One of them is no such message.
            LockstepError: As a send.
        """
        queue, answer = reply_of(received, message)
        sending = Sending(self._connection, queue)
        messages = sending.messages_of(answer)
        return run_to_completion(sending.send(messages, require_atomic=False, budget_ms=None))

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
