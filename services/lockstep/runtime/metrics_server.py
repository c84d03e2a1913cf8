"""The HTTP server for scrapes and probes.

Here belongs `/metrics`, `/metrics/entities`, `/healthz` and `/readyz` on a thread of their own, so
that a busy event loop does not make a process look dead. Never here: an API for users. The law: a
request changes nothing, and an answer never waits longer than its source lets it.
"""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lockstep.core.errors import InvalidRequest
from lockstep.runtime.metrics import Metrics

log = logging.getLogger(__name__)

_IDLE_CONNECTION_S = 10
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Health:
    """How the process is.

    Attributes:
        is_live: Whether it can go on; if not, a restart is the cure.
        is_ready: Whether it should get requests now.
        reasons: Why not, one sentence each; shown to whoever asks.
    """

    is_live: bool
    is_ready: bool
    reasons: tuple[str, ...] = ()


HealthSource = Callable[[], Health]
_Answer = tuple[HTTPStatus, str, bytes]


class MetricsServer:
    """A running server; it listens from construction until `close`."""

    def __init__(self, server: _Server) -> None:
        """Take a bound server and start its thread."""
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="metrics-server",
            daemon=True,
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on, also when any port was asked for."""
        return self._server.server_port

    def close(self) -> None:
        """Stop listening and wait for the thread; a second call does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def serve_metrics(
    host: str, port: int, metrics: Metrics | None, health: HealthSource
) -> MetricsServer:
    """Start the server on a daemon thread.

    Args:
        host: The address to listen on, IPv4, IPv6 or a name.
        port: The port; 0 = any free one.
        metrics: What to show; None = only the probes, as on the health port.
        health: Asked at each probe, on the server's threads; it must not block. If it raises, the
            probe fails.

    Raises:
        InvalidRequest: The address cannot be listened on. Change it in the configuration.
    """
    server_class = _ServerV6 if ":" in host else _Server
    try:
        server = server_class((host, port), metrics, health)
    except OSError as error:
        raise InvalidRequest(
            f"Cannot listen on {host} port {port} for metrics and probes: {error.strerror or error}. "
            "Stop what uses the address, or choose another host or port.",
            details={"host": host, "port": str(port)},
        ) from error
    return MetricsServer(server)


class _Server(ThreadingHTTPServer):
    """One thread a connection; a connection serves one request."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], metrics: Metrics | None, health: HealthSource
    ) -> None:
        self.metrics = metrics
        self.health = health
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without asking DNS for our own name, which can take seconds in a pod."""
        socketserver.TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - given by the base
        """Note a connection that broke; the client is gone, so nobody can be told."""
        log.debug("metrics.connection_broken", exc_info=True)


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; everything else is refused by the base class."""

    server: _Server
    timeout = _IDLE_CONNECTION_S
    server_version = "lockstep"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with a body."""
        self._send(with_body=True)

    def do_HEAD(self) -> None:
        """Answer with the headers alone."""
        self._send(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: probes and scrapes would be most of the log."""

    def _send(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        try:
            status, content_type, body = self._answer(path)
        except Exception as error:
            # The top of this connection's task: a failed source must fail the probe, not the server.
            log.warning("metrics.request_failed", extra={"path": path}, exc_info=True)
            text = f"{type(error).__name__}: {error}\n"
            status, content_type, body = _text(HTTPStatus.INTERNAL_SERVER_ERROR, text)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _answer(self, path: str) -> _Answer:
        metrics = self.server.metrics
        accept = self.headers.get("Accept", "")
        if path == "/healthz":
            health = self.server.health()
            return _probe(health, is_good=health.is_live)
        if path == "/readyz":
            health = self.server.health()
            return _probe(health, is_good=health.is_live and health.is_ready)
        if path == "/metrics" and metrics is not None:
            body, content_type = metrics.render(accept)
            return HTTPStatus.OK, content_type, body
        if path == "/metrics/entities" and metrics is not None:
            body, content_type = metrics.render_entities(accept)
            return HTTPStatus.OK, content_type, body
        paths = (
            "/healthz /readyz" if metrics is None else "/metrics /metrics/entities /healthz /readyz"
        )
        return _text(HTTPStatus.NOT_FOUND, f"Not found. Here are: {paths}\n")


def _probe(health: Health, *, is_good: bool) -> _Answer:
    status = HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
    facts = {"live": health.is_live, "ready": health.is_ready, "reasons": list(health.reasons)}
    return status, _JSON, json.dumps(facts).encode() + b"\n"


def _text(status: HTTPStatus, text: str) -> _Answer:
    return status, "text/plain; charset=utf-8", text.encode()
