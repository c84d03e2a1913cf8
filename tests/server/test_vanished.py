"""A client whose machine is gone without a word: its connection stays open, and nobody answers on it (SES-15)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from lockstep.v1 import messaging_service_pb2 as messaging
from tests.server import calls
from tests.server.server_process import ServerProcess, Stubs, wait_until
from tests.server.test_waiting import receivers

HOUR_S = 3_600


class Way:
    """A way to the server on which nothing gets through any more once it is cut, and nothing is closed."""

    def __init__(self, port: int) -> None:
        self._is_cut = threading.Event()
        self._sockets: list[socket.socket] = []
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._server_port))
            self._sockets += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                if self._is_cut.is_set():
                    return  # the sockets stay open
                target.sendall(data)
        except OSError:
            return

    def cut(self) -> None:
        """Let nothing through any more."""
        self._is_cut.set()

    def close(self) -> None:
        """Close what was kept open."""
        for kept in (self._listener, *self._sockets):
            kept.close()


@pytest.fixture
def way(server: ServerProcess) -> Iterator[Way]:
    way = Way(server.port)
    yield way
    way.close()


def test_ses_15_a_client_that_vanished_waits_for_no_session(
    server: ServerProcess, way: Way
) -> None:
    """The server asks after 10 s of silence, and waits 5 s for an answer: times of gRPC, which no test can turn."""
    stubs = server.stubs
    calls.create(stubs, "vanishing", requires_session=True)
    gone = Stubs(way.port)
    request = messaging.AcceptSessionRequest(entity="vanishing", max_wait=calls.seconds(HOUR_S))
    waiting = gone.messaging.AcceptSession.future(request)
    wait_until(lambda: receivers(server, "vanishing") == 1, "it waits")

    way.cut()

    wait_until(lambda: receivers(server, "vanishing") == 0, "it is found out", within_ms=40_000)
    calls.send(stubs, "vanishing", b"x", session="s")
    granted = calls.accept(stubs, "vanishing")
    assert granted.session.session_id == "s"
    waiting.cancel()
