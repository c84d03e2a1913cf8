"""The endpoints of etcd: where they are, who we are to them, and which one is in use.

Here belong the settings, TLS, the token of a user, and what an error of gRPC means. Never here: a call
(`etcd`). The laws: an endpoint that does not answer is left for the next one; an error says which endpoint
it was and what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import grpc
import grpc.aio

from lockstep.cluster.keys import check_address
from lockstep.core.errors import ClusterUnavailable, InvalidRequest

_Code = grpc.StatusCode

_CHANNEL_OPTIONS = (
    # An endpoint that comes back is found at once: gRPC's own pause would grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A connection that died without a word is found out. etcd ends connections that ask more often than
    # every 5 s (--grpc-keepalive-min-time). Without the last of the three, an answer may take a minute
    # (test_a_connection_that_dies_without_a_word_is_found_out).
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The lease has a connection of its own.
    ("grpc.use_local_subchannel_pool", 1),
    # etcd is never behind the proxy that a process uses for the world outside.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)
# Another endpoint may do better. Not so for what is wrong with the request or its user.
ELSEWHERE = frozenset({
    _Code.UNAVAILABLE, _Code.DEADLINE_EXCEEDED, _Code.UNKNOWN, _Code.INTERNAL, _Code.CANCELLED,
    _Code.RESOURCE_EXHAUSTED, _Code.ABORTED,
})  # fmt: skip
# etcd says INVALID_ARGUMENT too, when users were changed since the token was made.
ASKS_FOR_TOKEN = frozenset({_Code.UNAUTHENTICATED, _Code.INVALID_ARGUMENT})


@dataclass(frozen=True, slots=True)
class EtcdTls:
    """How to trust etcd, and how to be trusted; PEM files.

    Attributes:
        ca_file: The authorities that sign etcd's certificates; None = those of the system.
        certificate_file: The certificate of this process; None = etcd asks for none.
        key_file: Its private key.
    """

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """Where etcd is and who we are.

    Attributes:
        endpoints: host:port of each member, tried in this order.
        tls: None = plaintext.
        user: For etcd's role-based access; None = without.
        password: Of the user.
        call_timeout_ms: How long one endpoint may take for one call, in ms.
    """

    endpoints: tuple[str, ...]
    tls: EtcdTls | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    call_timeout_ms: int = 2_000

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise InvalidRequest("etcd needs at least one endpoint, as host:port.")
        for endpoint in self.endpoints:
            check_address(endpoint)
        if (self.user is None) != (self.password is None):
            raise InvalidRequest("etcd needs both a user and a password, or neither.")
        if self.call_timeout_ms < 1:
            raise InvalidRequest("The time limit of a call to etcd must be 1 ms or more.")


class Link(Protocol):
    """The way to one endpoint."""

    @property
    def endpoint(self) -> str:
        """Its host:port."""

    @property
    def channel(self) -> Any:
        """Its channel, asyncio or blocking."""


LinkT = TypeVar("LinkT", bound=Link)
OpenChannel = Callable[[str, grpc.ChannelCredentials | None], Any]


class Endpoints(Generic[LinkT]):
    """The links to all endpoints, and which of them is in use; for one event loop, or one thread."""

    def __init__(
        self,
        settings: EtcdSettings,
        open_channel: OpenChannel,
        make_link: Callable[[str, Any], LinkT],
    ) -> None:
        """Read the files of TLS; nothing is connected yet.

        Args:
            settings: Where etcd is and who we are.
            open_channel: `open_aio_channel` or `open_channel`.
            make_link: Makes a link of an endpoint and its channel.

        Raises:
            InvalidRequest: A file cannot be read.
        """
        self.settings = settings
        self.token: str | None = None
        self._open_channel = open_channel
        self._make_link = make_link
        self._credentials = None if settings.tls is None else _credentials(settings.tls)
        self._links: dict[str, LinkT] = {}
        self._at = 0

    def link(self) -> LinkT:
        """Return the endpoint in use, with a channel to it."""
        endpoint = self.settings.endpoints[self._at]
        link = self._links.get(endpoint)
        if link is None:
            channel = self._open_channel(endpoint, self._credentials)
            link = self._links[endpoint] = self._make_link(endpoint, channel)
        return link

    def turn_from(self, link: LinkT) -> None:
        """Use the next endpoint, unless somebody has turned from this one already."""
        if self.settings.endpoints[self._at] == link.endpoint:
            self._at = (self._at + 1) % len(self.settings.endpoints)

    def take_all(self) -> list[Any]:
        """Return all open channels and forget them."""
        channels = [link.channel for link in self._links.values()]
        self._links.clear()
        return channels

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with each call."""
        return () if self.token is None else (("token", self.token),)

    def needs_token(self) -> bool:
        """Whether to ask for a token before a call."""
        return self.settings.user is not None and self.token is None

    def may_need_another_token(self, error: Any, used: str | None) -> bool:
        """Forget a token that was refused, and return whether a call is to be made again with another."""
        if self.settings.user is None or error.code() not in ASKS_FOR_TOKEN:
            return False
        if self.token == used:
            self.token = None
        return True

    def problem(self, link: LinkT, error: Any) -> ClusterUnavailable:
        """Return what a failed call means, and leave an endpoint that does not answer."""
        code = error.code()
        if code in ELSEWHERE:
            self.turn_from(link)
        return self.problem_of(link, code, error.details())

    def problem_of(
        self, link: LinkT, code: grpc.StatusCode, told: str | None
    ) -> ClusterUnavailable:
        """Return what an answer of an endpoint means."""
        return _problem(link.endpoint, self.settings.user, code, told)


def _problem(
    endpoint: str, user: str | None, code: grpc.StatusCode, told: str | None
) -> ClusterUnavailable:
    if code in ASKS_FOR_TOKEN:
        advice = "refuses this user" if user is not None else "wants a user"
        advice += "; check user and password of etcd"
    elif code is _Code.PERMISSION_DENIED:
        advice = f"does not let user {user!r} do this; grant its role readwrite on the prefix of the cluster"
    elif code in ELSEWHERE:
        advice = "does not answer; check that it runs, its address, TLS and the network between"
    else:
        advice = "refuses a call"
    return ClusterUnavailable(
        f"etcd at {endpoint} {advice} ({code.name}: {told}). It is tried again.",
        details={"endpoint": endpoint, "grpc_code": code.name},
    )


def _credentials(tls: EtcdTls) -> grpc.ChannelCredentials:
    if (tls.certificate_file is None) != (tls.key_file is None):
        raise InvalidRequest(
            "TLS to etcd needs both a certificate and its private key, or neither."
        )
    return grpc.ssl_channel_credentials(
        root_certificates=_pem(tls.ca_file),
        private_key=_pem(tls.key_file),
        certificate_chain=_pem(tls.certificate_file),
    )


def _pem(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(
            f"The file {path} for TLS to etcd cannot be read: {error.strerror}."
        ) from error


def open_aio_channel(endpoint: str, credentials: grpc.ChannelCredentials | None) -> Any:
    """Open a channel for the event loop that runs now."""
    if credentials is None:
        return grpc.aio.insecure_channel(endpoint, options=_CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(endpoint, credentials, options=_CHANNEL_OPTIONS)


def open_channel(endpoint: str, credentials: grpc.ChannelCredentials | None) -> Any:
    """Open a channel for threads that wait."""
    if credentials is None:
        return grpc.insecure_channel(endpoint, options=_CHANNEL_OPTIONS)
    return grpc.secure_channel(endpoint, credentials, options=_CHANNEL_OPTIONS)
