"""A real server process on loopback: its start, its log, its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import lockstep
from lockstep.runtime.clock import SystemClock
from lockstep.v1 import admin_service_pb2_grpc as admin_grpc
from lockstep.v1 import messaging_service_pb2_grpc as messaging_grpc

# Where the tests have the product from: the tree, or a copy without one of its guards (`tests.mutation`).
SERVICES = Path(lockstep.__file__).resolve().parents[1]
START_MS = 30_000
STOP_MS = 20_000
CALL_S = 20.0
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
)
_clock = SystemClock()


def wait_until(condition: Callable[[], object], what: str, *, within_ms: int = 10_000) -> Any:
    """Ask until the answer is true, and return it."""
    ends_ms = _clock.monotonic_ms() + within_ms
    pause = threading.Event()
    while not (answer := condition()):
        assert _clock.monotonic_ms() < ends_ms, f"not within {within_ms} ms: {what}"
        pause.wait(0.02)
    return answer


def elapsed_since(started_ms: int) -> int:
    """Return how many milliseconds have passed since a reading of `now_ms`."""
    return _clock.monotonic_ms() - started_ms


def now_ms() -> int:
    """Return a reading for `elapsed_since`."""
    return _clock.monotonic_ms()


class ServerFailed(Exception):
    """The process ended, or did not get ready in time; the text ends with its log."""


class Stubs:
    """Raw stubs of both services on one channel."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=_CHANNEL_OPTIONS)
        self.messaging = messaging_grpc.MessagingServiceStub(self.channel)
        self.admin = admin_grpc.AdminServiceStub(self.channel)
        # The published stubs of this service name none of its calls.
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)

    def close(self) -> None:
        self.channel.close()


class ServerProcess:
    """`lockstep serve` on one data directory; may be started again after each end.

    After the first start it listens on the same port every time, so that channels find it again.
    """

    command = "serve"
    listening = "server.listening"

    def __init__(
        self,
        directory: Path,
        *,
        settings: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        services: Path = SERVICES,
    ) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.log_path = directory / "server.log"
        self.port = 0
        self._settings: dict[str, object] = {"health_port": 0, "metrics_port": 0}
        self._settings.update(settings or {})
        self._environment = dict(environment or {})
        self._services = services
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._stubs: Stubs | None = None
        directory.mkdir(parents=True, exist_ok=True)

    # --- life ------------------------------------------------------------------------------------

    def launch(self) -> None:
        """Start the process and do not wait for it."""
        assert self._process is None, "the server runs already"
        command, *settings = self.words()
        self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self._log_for_writing() as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lockstep", command, "--log-format", "json", *settings],
                env=self._variables(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def words(self, more: Mapping[str, object] | None = None) -> list[str]:
        """Return what stands behind `lockstep` to start it, with more settings, laid over its own."""
        given = {**self._place(), **self._settings, **(more or {})}
        return [
            self.command,
            *(word for key, value in given.items() for word in ("--set", f"{key}={value}")),
        ]

    def _place(self) -> dict[str, object]:
        """Return the settings that say where it is."""
        return {"port": self.port, "data_dir": self.data_dir}

    def start(self) -> Self:
        """Start the process and return when its health service says that it serves."""
        self.launch()
        self.wait_until_serving()
        return self

    def wait_until_serving(self) -> None:
        """Return when the health service of a process that was launched says that it serves."""
        wait_until(self._is_listening, "the server listens", within_ms=START_MS)
        wait_until(
            lambda: self._still_runs() and self.is_serving(),
            "the server serves",
            within_ms=START_MS,
        )
        if self._stubs is not None:
            # A channel that failed to connect a moment ago would fail calls until it tries again.
            grpc.channel_ready_future(self._stubs.channel).result(START_MS / 1000)

    def set_environment(self, variables: Mapping[str, str]) -> None:
        """Give variables to the processes that are started from now on."""
        self._environment.update(variables)

    def _variables(self) -> dict[str, str]:
        # COLUMNS would have sentences broken at some width, as on a terminal.
        ours = ("LOCKSTEP_", "COLUMNS")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        return {**kept, "PYTHONPATH": str(self._services), **self._environment}

    def _log_for_writing(self) -> IO[bytes]:
        return self.log_path.open("ab")

    def _still_runs(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            code = self._process.returncode
            raise ServerFailed(f"exit code {code}; its log:\n{self.log()}")
        return True

    def _is_listening(self) -> bool:
        self._still_runs()
        for event in self.events(self.listening):
            self.port = int(event["port"])
            return True
        return False

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def terminate(self) -> None:
        """Send SIGTERM and do not wait."""
        assert self._process is not None, "the server does not run"
        self._process.send_signal(signal.SIGTERM)

    def wait(self, within_ms: int = STOP_MS) -> int:
        """Return the exit code."""
        assert self._process is not None, "the server does not run"
        code = self._process.wait(within_ms / 1000)
        self._process = None
        return code

    def stop(self) -> int:
        """End the process in order and return its exit code."""
        self.terminate()
        return self.wait()

    def pause(self) -> None:
        """Let the process stand still, as a host that hangs does."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let a process that stood still go on."""
        os.kill(self.pid, signal.SIGCONT)

    @property
    def is_running(self) -> bool:
        """Whether the process has been started and not ended."""
        return self._process is not None

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        assert self._process is not None, "the server does not run"
        self._process.kill()
        self.wait()

    def restart(self, *, with_kill: bool = False) -> None:
        """End the process and start it again on the same directory and port."""
        if with_kill:
            self.kill()
        else:
            assert self.stop() == 0, self.log()
        self.start()

    def close(self) -> None:
        """Leave nothing behind."""
        if self._stubs is not None:
            self._stubs.close()
            self._stubs = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self.wait()

    # --- talking to it -----------------------------------------------------------------------------

    @property
    def stubs(self) -> Stubs:
        """Stubs on one channel, which survives restarts."""
        if self._stubs is None:
            self._stubs = Stubs(self.port)
        return self._stubs

    @contextlib.contextmanager
    def other_stubs(self) -> Iterator[Stubs]:
        """Stubs on a channel of their own."""
        stubs = Stubs(self.port)
        try:
            yield stubs
        finally:
            stubs.close()

    def health(self, service: str = "") -> int:
        """Return the status that the health service tells; -1 = no answer."""
        with self.other_stubs() as stubs:
            try:
                request = health_pb2.HealthCheckRequest(service=service)
                return int(stubs.health.Check(request, timeout=CALL_S).status)
            except grpc.RpcError:
                return -1

    def is_serving(self) -> bool:
        """Whether the health service says SERVING."""
        return self.health() == health_pb2.HealthCheckResponse.SERVING

    def http(self, which: str, path: str) -> tuple[int, str]:
        """Return the status and the text of a page of the `metrics` or the `health` listener."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port_of(which)}{path}", timeout=CALL_S
            ) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def port_of(self, which: str) -> int:
        """Return the port of the `metrics` or the `health` listener."""
        return int(next(self.events(f"{which}.listening"))["port"])

    # --- its log -----------------------------------------------------------------------------------

    def log(self) -> str:
        """Return everything that all processes wrote to standard error."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def last_log(self) -> str:
        """Return what the last process wrote to standard error."""
        with self.log_path.open("rb") as stream:
            stream.seek(self._log_start)
            return stream.read().decode(errors="replace")

    def events(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the events of a name that the last process logged."""
        for line in self.last_log().splitlines():
            if line.startswith("{") and line.endswith("}"):
                event = json.loads(line)
                if event["event"] == name:
                    yield event

    def cpu_ms(self) -> int:
        """Return how much processor time the process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1000 // os.sysconf("SC_CLK_TCK")


MakeServer = Callable[..., ServerProcess]
"""Makes a server that is not started yet: make(name, settings=…, environment=…, services=…)."""
