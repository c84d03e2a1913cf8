"""Where a client connects to, and what all its parts share.

Here belong reading an address and the open connection. Never here: gRPC channels. The law: what was
opened through a connection is closed with it, sessions first, so that they are free at once.
"""

from __future__ import annotations

import platform
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from lockstep.client.calls import Caller, RetryPolicy
from lockstep.client.transport import Transport
from lockstep.client.values import seconds_to_ms
from lockstep.core.errors import ClientClosed, InvalidRequest
from lockstep.core.limits import ID_CHARS_MAX, MINUTE_MS
from lockstep.runtime.clock import Clock, SystemClock
from lockstep.runtime.ids import SystemIds

DEFAULT_PORT: Final = 7700
DEFAULT_NAMESPACE: Final = "default"
_SCHEME: Final = "lockstep://"
_GRPC_SCHEMES: Final = ("unix:", "unix-abstract:", "vsock:", "dns:", "ipv4:", "ipv6:")
_PORT_MAX: Final = 65_535
_KEYS: Final = ("endpoint", "namespace")
_CLOCKS_APART_MS: Final = 5 * MINUTE_MS


@dataclass(frozen=True, slots=True)
class Address:
    """Where a client connects to.

    Attributes:
        target: The server, as gRPC names it: `host:port`.
        namespace: The broker namespace; None = the text did not say.
    """

    target: str
    namespace: str | None


def parse_address(text: str) -> Address:
    """Read `host`, `host:port` or `Endpoint=lockstep://host:port;Namespace=orders`; the port is 7700 by default.

    Raises:
        InvalidRequest: It is neither; the text says what would be.
    """
    if "=" not in text:
        return Address(_target(text), None)
    parts: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        key, separator, value = part.partition("=")
        key = key.strip().lower()
        if not separator or key not in _KEYS or key in parts:
            raise InvalidRequest(
                f"A connection string has the parts Endpoint and Namespace, once each, as in"
                f" 'Endpoint=lockstep://127.0.0.1:7700;Namespace=orders'; '{part}' does not fit.",
                details={"observed": part},
            )
        parts[key] = value.strip()
    if not parts.get("endpoint"):
        raise InvalidRequest(
            "A connection string must have the part Endpoint=lockstep://host:port."
        )
    return Address(_target(parts["endpoint"]), parts.get("namespace"))


def check_connection_string(text: str) -> None:
    """Refuse what is no connection string.

    Raises:
        InvalidRequest: It is a plain address, or nothing.
    """
    if "=" not in text:
        raise InvalidRequest(
            f"'{text}' is no connection string; write Endpoint=lockstep://host:port;Namespace=orders.",
            details={"observed": text},
        )


def _target(endpoint: str) -> str:
    target = endpoint.strip()
    if target.lower().startswith(_SCHEME):
        target = target[len(_SCHEME) :].strip()
    if "://" in target:
        raise InvalidRequest(
            f"'{endpoint}' is not an address of Lockstep; write host:port or lockstep://host:port.",
            details={"observed": endpoint},
        )
    if target.lower().startswith(_GRPC_SCHEMES):
        return target
    target = target.rstrip("/")
    if not target:
        raise InvalidRequest("The address is empty; write host:port, for example 127.0.0.1:7700.")
    if target.startswith("["):
        host, bracket, rest = target.partition("]")
        host, colon, port = host + bracket, rest[:1], rest[1:]
        is_whole = bracket == "]" and colon in ("", ":")
    else:
        host, colon, port = target.partition(":")
        is_whole = bool(host) and ":" not in port
    if not is_whole:
        raise InvalidRequest(
            f"'{endpoint}' is not an address; write host:port, for example 127.0.0.1:7700, or [::1]:7700 for IPv6.",
            details={"observed": endpoint},
        )
    if not colon:
        return f"{host}:{DEFAULT_PORT}"
    # Five digits at most, because int() reads no number of thousands of them.
    is_number = port.isascii() and port.isdigit() and len(port) <= len(str(_PORT_MAX))
    if not (is_number and 1 <= int(port) <= _PORT_MAX):
        raise InvalidRequest(
            f"The port of the address '{endpoint}' must be a number from 1 to {_PORT_MAX}; it is '{port}'. Write"
            f" host:port, for example 127.0.0.1:7700, or leave :port out for {DEFAULT_PORT}.",
            details={"observed": endpoint},
        )
    return target


class Held(Protocol):
    """Something that is locked at the server until it is given back."""

    locked_until_ms: int

    async def release(self) -> None:
        """Give it back at once."""
        ...


class Connection:
    """One client's way to the server, shared by its senders and receivers."""

    def __init__(
        self, transport: Transport, calls: Caller, *, namespace: str, holder_name: str
    ) -> None:
        """Share these.

        Args:
            transport: Time and the channel.
            calls: Makes calls, with retries.
            namespace: The broker namespace of every call.
            holder_name: How receivers show up in listings unless they have a name of their own.
        """
        self.transport = transport
        self.calls = calls
        self.namespace = namespace
        self.holder_name = holder_name
        self._is_closed = False
        # All and only what is locked and not given back. What is held, not who holds it: a receiver that a program
        # forgot leaves its session locked, and must not live as long as its client.
        self._held: set[Held] = set()
        # Those of `_held` whose receiver is gone. Garbage collection appends, in whatever thread it runs.
        self._forgotten: deque[Held] = deque()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    def check_open(self) -> None:
        """Refuse use after close.

        Raises:
            ClientClosed: The client was closed; make another one.
        """
        if self._is_closed:
            raise ClientClosed("This client was closed; make another one.")

    def add_held(self, held: Held) -> None:
        """Remember what must be given back before the channel is closed."""
        now_ms = self.transport.now_ms()
        while self._forgotten and self._forgotten[0].locked_until_ms + _CLOCKS_APART_MS < now_ms:
            self._held.discard(self._forgotten.popleft())  # its lock ran out; nobody can renew it
        self._held.add(held)

    def remove_held(self, held: Held) -> None:
        """Forget what was given back."""
        self._held.discard(held)

    def note_forgotten(self, held: Held) -> None:
        """Note that nobody is left to give this back but the connection itself."""
        self._forgotten.append(held)

    async def close(self) -> None:
        """Give back all held sessions, then close the channel. A second close does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            for held in list(self._held):
                await held.release()
        finally:
            await self.transport.close()


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """How calls are tried, in the units that programs write.

    Attributes:
        retry_total: Tries after the first one; 0 = none.
        retry_backoff_factor: Seconds before the first retry; doubled with each one.
        retry_backoff_max: Seconds of the longest pause.
        timeout: Seconds that one try may take, besides the waiting that was asked for.
    """

    retry_total: int
    retry_backoff_factor: float
    retry_backoff_max: float
    timeout: float

    def to_policy(self) -> RetryPolicy:
        """Return the policy that is meant.

        Raises:
            InvalidRequest: A value is negative, or there is no time for a try.
        """
        if self.retry_total < 0 or self.timeout <= 0:
            raise InvalidRequest(
                f"retry_total must be 0 or more and timeout more than 0; {self.retry_total} and {self.timeout}"
                " were given."
            )
        return RetryPolicy(
            retries_max=self.retry_total,
            backoff_ms=seconds_to_ms(self.retry_backoff_factor, "retry_backoff_factor"),
            backoff_ms_max=seconds_to_ms(self.retry_backoff_max, "retry_backoff_max"),
            timeout_ms=seconds_to_ms(self.timeout, "timeout"),
        )


def new_connection(
    make_transport: Callable[[str, str, Clock], Transport],
    address: str,
    namespace: str | None,
    options: RetryOptions,
) -> Connection:
    """Return a connection that opens with its first call.

    Args:
        make_transport: Makes a transport to (target, client id, clock).
        address: `host:port` or a connection string.
        namespace: The broker namespace; None = that of the connection string, or "default".
        options: How calls are tried.

    Raises:
        InvalidRequest: The address or an option is refused.
    """
    parsed = parse_address(address)
    policy = options.to_policy()
    client_id = SystemIds().client_id()
    transport = make_transport(parsed.target, client_id, SystemClock())
    return Connection(
        transport,
        Caller(transport, policy, client_id=client_id, server=parsed.target),
        namespace=namespace or parsed.namespace or DEFAULT_NAMESPACE,
        holder_name=f"{platform.node()[: ID_CHARS_MAX - 9]}-{client_id[:8]}",
    )
