"""What clients and receivers are asked to be, in Azure's words, checked and put into ours.

Here belong the options that both clients share. Never here: calls. The law: an option that would change what a program
sees, and that Lockstep lacks, is refused by name; one that only tunes Azure's own machinery is taken without effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from lockstep.client.values import NEXT_AVAILABLE_SESSION as OUR_NEXT_AVAILABLE_SESSION
from lockstep.client.values import NextAvailableSession as OurNextAvailableSession
from lockstep.client.values import ReceiveMode, SubQueue
from lockstep.runtime.ids import SystemIds
from lockstep.servicebus.connection_string import parse_connection_string
from lockstep.servicebus.constants import (
    NEXT_AVAILABLE_SESSION,
    NextAvailableSession,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
)
from lockstep.servicebus.exceptions import refuse

RECEIVE_WAIT_S: Final = 60.0
"""How long a receive, and an accept of the next available session, wait when nobody says."""
_WITHOUT_EFFECT: Final = frozenset(
    {"logging_enable", "transport_type", "uamqp_transport", "user_agent"}
)
_LACKING: Final = frozenset(
    {"connection_verify", "custom_endpoint_address", "http_proxy", "ssl_context"}
)
_KNOWN: Final = _WITHOUT_EFFECT | _LACKING | {"entity_name", "try_timeout"}
_TRY_TIMEOUT_S: Final = 60.0

RetryMode = Literal["exponential", "fixed"]


class InnerOptions(TypedDict):
    """The options of our client that are set here."""

    namespace: str | None
    retry_total: int
    retry_backoff_factor: float
    retry_backoff_max: float
    timeout: float


class InnerReceiverOptions(TypedDict):
    """The options of our receivers that are set here."""

    session_id: str | OurNextAvailableSession | None
    max_wait_time: float | None
    receive_mode: ReceiveMode
    sub_queue: SubQueue | None
    client_identifier: str


@dataclass(frozen=True, slots=True)
class Server:
    """Where a client connects to.

    Attributes:
        host: `host` or `host:port`.
        broker_namespace: None = `default`.
        entity_path: The only queue that may be used; None = any.
    """

    host: str
    broker_namespace: str | None = None
    entity_path: str | None = None

    def check_queue(self, queue_name: str) -> None:
        """Refuse another queue than that of the connection string.

        Raises:
            ValueError: It is another one.
        """
        if self.entity_path and queue_name != self.entity_path:
            raise ValueError(
                "The queue name provided does not match the EntityPath in the connection string used to construct"
                " the ServiceBusClient."
            )


def server_of_connection_string(conn_str: str) -> Server:
    """Return where a connection string leads to.

    Raises:
        ValueError: It is malformed.
    """
    parts = parse_connection_string(conn_str)
    return Server(parts.fully_qualified_namespace, parts.broker_namespace, parts.entity_path)


def server_of_namespace(fully_qualified_namespace: str, options: Mapping[str, Any]) -> Server:
    """Return the server of a client that was given a name, as Azure's constructor takes it."""
    host = fully_qualified_namespace.strip()
    for scheme in ("sb://", "lockstep://"):
        host = host.removeprefix(scheme)
    return Server(host.rstrip("/"), None, options.get("entity_name"))


def inner_options(
    server: Server,
    *,
    retry_total: int,
    retry_backoff_factor: float,
    retry_backoff_max: float,
    retry_mode: str,
    options: Mapping[str, Any],
) -> InnerOptions:
    """Return the options of our client.

    Raises:
        NotImplementedError: An option that Lockstep lacks was given.
        TypeError: There is no such option.
    """
    unknown = options.keys() - _KNOWN
    if unknown:
        raise TypeError(f"ServiceBusClient has no option {', '.join(sorted(unknown))}.")
    for name in sorted(_LACKING):
        if options.get(name) is not None:
            refuse(name, "Calls are neither encrypted nor sent through a proxy in this release.")
    if retry_mode != "exponential":
        refuse(f"retry_mode {retry_mode!r}", "Pauses between tries double each time.")
    return InnerOptions(
        namespace=server.broker_namespace,
        retry_total=retry_total,
        retry_backoff_factor=retry_backoff_factor,
        retry_backoff_max=retry_backoff_max,
        timeout=options.get("try_timeout") or _TRY_TIMEOUT_S,
    )


@dataclass(frozen=True, slots=True)
class ReceiverPlan:
    """What a receiver was asked to be.

    Attributes:
        queue_name: The queue.
        wanted_session: The session to hold, or the next available one; None = no session.
        mode: Whether messages are locked or gone when they were received.
        has_sub_queue: Whether it receives from the dead-letter store.
        max_wait_s: How long the iteration waits for the next message; None = for ever.
        client_identifier: How it shows up in listings.
    """

    queue_name: str
    wanted_session: str | NextAvailableSession | None
    mode: ServiceBusReceiveMode
    has_sub_queue: bool
    max_wait_s: float | None
    client_identifier: str

    @property
    def session_id(self) -> str | None:
        """The session that was named."""
        return self.wanted_session if isinstance(self.wanted_session, str) else None

    @property
    def is_peek_lock(self) -> bool:
        """Whether messages are locked."""
        return self.mode is ServiceBusReceiveMode.PEEK_LOCK

    @property
    def entity_path(self) -> str:
        """The queue, or its dead-letter store."""
        return self.queue_name + ("/$DeadLetterQueue" if self.has_sub_queue else "")

    def inner(self) -> InnerReceiverOptions:
        """Return the options of our receiver."""
        is_next = self.wanted_session is NEXT_AVAILABLE_SESSION
        # Azure ends a wait for the next available session after about a minute when nobody says.
        wait_s = RECEIVE_WAIT_S if is_next and self.max_wait_s is None else self.max_wait_s
        return InnerReceiverOptions(
            session_id=OUR_NEXT_AVAILABLE_SESSION if is_next else self.session_id,
            max_wait_time=wait_s,
            receive_mode=ReceiveMode.parse(self.mode.value),
            sub_queue=SubQueue.DEAD_LETTER if self.has_sub_queue else None,
            client_identifier=self.client_identifier,
        )


def plan_receiver(
    queue_name: str,
    *,
    client_identifier: str | None,
    session_id: str | NextAvailableSession | None,
    sub_queue: ServiceBusSubQueue | str | None,
    receive_mode: ServiceBusReceiveMode | str,
    max_wait_time: float | None,
    prefetch_count: int,
    has_renewer: bool,
) -> ReceiverPlan:
    """Return what a receiver is asked to be, checked.

    Raises:
        ValueError: A choice is unknown, or options exclude each other.
        NotImplementedError: Prefetching or the transfer dead-letter store.
    """
    mode = ServiceBusReceiveMode(receive_mode)
    sub = None if sub_queue is None else ServiceBusSubQueue(sub_queue)
    if sub is ServiceBusSubQueue.TRANSFER_DEAD_LETTER:
        refuse("transfer dead-letter queue", "Nothing is forwarded, so nothing fails to be.")
    if sub is not None and session_id is not None:
        raise ValueError(
            "session_id and sub_queue can not be specified simultaneously. To connect to the sub queue of a"
            " sessionful queue, please set sub_queue only as sub_queue does not support session."
        )
    if prefetch_count:
        refuse("prefetch_count", "Leave it at 0 and receive more messages at a time.")
    if max_wait_time is not None:
        check_timeout(max_wait_time, "max_wait_time")
    if has_renewer and mode is ServiceBusReceiveMode.RECEIVE_AND_DELETE and session_id is None:
        raise ValueError("In RECEIVE_AND_DELETE mode nothing is locked, so nothing can be renewed.")
    return ReceiverPlan(
        queue_name=queue_name,
        wanted_session=session_id,
        mode=mode,
        has_sub_queue=sub is not None,
        max_wait_s=max_wait_time,
        client_identifier=client_identifier or new_identifier("SBReceiver"),
    )


def check_timeout(seconds: float | None, name: str = "timeout") -> None:
    """Refuse a time that is not positive.

    Raises:
        ValueError: It is zero or less.
    """
    if seconds is not None and seconds <= 0:
        raise ValueError(f"The {name} must be greater than 0.")


def new_identifier(kind: str) -> str:
    """Return a new name for a sender or receiver."""
    return f"{kind}-{SystemIds().client_id()}"
