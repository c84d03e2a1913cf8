"""A cluster whose links can be disturbed one by one, and a process of clients beside it.

Links have names: `owner-1 to postgres`, `owner-1 to etcd`, `frontend-1 to etcd`, and `all to owner-1`, which front ends
and other owners share.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.cluster.local import LocalCluster, OwnerOfCluster
from tests.etcd.etcd_process import free_ports
from tests.faults.proxy import Proxies, Proxy, SocketPlace, TcpPlace
from tests.faults.workers import PARTITIONS
from tests.server.server_process import SERVICES, ServerProcess

LEASE_MS = 3_000
_OWNERS = 3
_FRONTENDS = 2
_ROOT = Path(__file__).parents[2]
_STOP_S = 20


class ClientProcess:
    """`python -m tests.faults.client_process`; after its end it may be launched again."""

    def __init__(self, address: str, prefix: str, directory: Path) -> None:
        self._address = address
        self._prefix = prefix
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.histories: list[Path] = []

    def launch(self) -> None:
        who = f"beside-{len(self.histories) + 1}"
        self.histories.append(self._directory / f"{self._prefix}-{who}.jsonl")
        words = ("--address", self._address, "--prefix", self._prefix, "--who", who)
        with (self._directory / f"{self._prefix}-{who}.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.client_process", *words, "--history", str(self.histories[-1])],
                env={"PYTHONPATH": f"{SERVICES}:{_ROOT}"},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def send(self, signal: int) -> None:
        self._running.send_signal(signal)

    def kill(self) -> None:
        self._running.kill()
        self._running.wait()

    def stop(self) -> int:
        """Let it end its turns, and return its exit code."""
        if self._running.poll() is None:
            self._running.terminate()
        return self._running.wait(_STOP_S)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


class FaultRig:
    """The cluster and its links."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.links = Proxies()
        self._sockets = Path(tempfile.mkdtemp(prefix="lockstep-links-"))
        self._owner_ports = dict(zip(_names("owner", _OWNERS), free_ports(_OWNERS), strict=True))
        everybody = [*_names("owner", _OWNERS), *_names("frontend", _FRONTENDS)]
        self._etcd_ports = dict(zip(everybody, free_ports(len(everybody)), strict=True))
        self.cluster = LocalCluster(
            directory,
            owners=_OWNERS,
            frontends=_FRONTENDS,
            partitions=PARTITIONS,
            lease_ms=LEASE_MS,
            settings_of=self._settings_of,
            dsn_of=self._dsn_of,
        )

    def _settings_of(self, name: str) -> dict[str, object]:
        settings: dict[str, object] = {
            "cluster.etcd_endpoints": f"127.0.0.1:{self._etcd_ports[name]}"
        }
        if name in self._owner_ports:
            settings["cluster.owner_port"] = self._owner_ports[name]
            settings["cluster.advertised_host"] = _host_of(name)
        return settings

    def _dsn_of(self, name: str, dsn: str) -> str:
        real = self.cluster.postgres.sockets
        return dsn.replace(f"host={real} ", f"host={self._sockets / name} ")

    def start(self, tell: Callable[[str], None]) -> FaultRig:
        cluster = self.cluster
        for name, port in self._etcd_ports.items():
            etcd = TcpPlace("127.0.0.1", cluster.etcd.port)
            self.links.add(f"{name} to etcd", TcpPlace("127.0.0.1", port), etcd)
        for name, port in self._owner_ports.items():
            owner = TcpPlace("127.0.0.1", port)
            self.links.add(f"all to {name}", TcpPlace(_host_of(name), port), owner)
            (self._sockets / name).mkdir()
            at = SocketPlace(self._sockets / name / cluster.postgres.socket.name)
            self.links.add(f"{name} to postgres", at, SocketPlace(cluster.postgres.socket))
        cluster.start(tell)
        return self

    @property
    def address(self) -> str:
        """All front ends, as one address of gRPC's: a client goes to the next when one does not answer."""
        return "ipv4:" + ",".join(f"127.0.0.1:{f.port}" for f in self.cluster.frontends)

    @property
    def other_address(self) -> str:
        """The same from the other end."""
        return "ipv4:" + ",".join(f"127.0.0.1:{f.port}" for f in reversed(self.cluster.frontends))

    @property
    def owners(self) -> list[OwnerOfCluster]:
        return self.cluster.owners

    def link(self, process: ServerProcess, to: str) -> Proxy:
        return self.links[f"{process.directory.name} to {to}"]

    def link_to(self, owner: OwnerOfCluster) -> Proxy:
        return self.links[f"all to {owner.directory.name}"]

    def close(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self._sockets)
            stack.callback(self.links.close)
            stack.callback(self.cluster.close)


def _names(kind: str, count: int) -> list[str]:
    return [f"{kind}-{number}" for number in range(1, count + 1)]


def _host_of(owner: str) -> str:
    return f"127.0.0.{10 + int(owner.rpartition('-')[2])}"


@contextlib.contextmanager
def fault_rig(directory: Path, tell: Callable[[str], None]) -> Iterator[FaultRig]:
    """A rig that ends with the block."""
    rig = FaultRig(directory)
    try:
        yield rig.start(tell)
    finally:
        rig.close()
