"""`make cluster`: a whole cluster here, to try things with; it ends with Ctrl-C and leaves nothing behind."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.cluster.local import LEASE_MS, PARTITIONS, LocalCluster

_FIRST_PORT = 7700
_SYNCED = ("shared_buffers=128MB",)  # unlike in tests, what is acknowledged survives a power cut


def main() -> int:
    """Start a cluster, say how to use it, and wait for Ctrl-C."""
    options = _options()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="lockstep-cluster-") as directory:
        cluster = LocalCluster(
            Path(directory),
            owners=options.owners,
            frontends=options.frontends,
            partitions=options.partitions,
            lease_ms=options.lease_ms,
            postgres=_SYNCED,
        )
        for number, frontend in enumerate(cluster.frontends):
            if _is_free(_FIRST_PORT + number):
                frontend.port = _FIRST_PORT + number
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            with cluster:
                with console.status("Starting") as status:
                    cluster.start(lambda what: status.update(f"Starting: {what}"))
                sys.stdout.write(_welcome(cluster))
                sys.stdout.flush()
                signal.pause()
        except KeyboardInterrupt:
            console.print("Stopped.")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__)
    parser.add_argument("--owners", type=int, default=3, help="owner processes (default 3)")
    parser.add_argument("--frontends", type=int, default=2, help="front ends (default 2)")
    parser.add_argument(
        "--partitions", type=int, default=PARTITIONS, help=f"partitions (default {PARTITIONS})"
    )
    parser.add_argument(
        "--lease-ms",
        type=int,
        default=LEASE_MS,
        help=f"ms after which a silent owner has lost its partitions (default {LEASE_MS})",
    )
    return parser.parse_args()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _welcome(cluster: LocalCluster) -> str:
    program = os.path.relpath(Path(sys.executable).parent / "lockstep")
    status = f"{program} cluster status --etcd {cluster.etcd.endpoint}"
    if cluster.partitions != PARTITIONS:
        status += f" --partitions {cluster.partitions}"
    lines = [
        "A cluster runs:",
        f"  etcd        {cluster.etcd.endpoint}",
        f"  PostgreSQL  {cluster.dsn}",
    ]
    lines += [
        f"  {process.directory.name:11} 127.0.0.1:{process.port}  pid {process.pid}  log {process.log_path}"
        for process in (*cluster.owners, *cluster.frontends)
    ]
    owner = cluster.owners[0]
    lines += [
        "",
        "What to type next, in another terminal:",
        f"  export LOCKSTEP_SERVER=127.0.0.1:{cluster.frontends[0].port}",
        f"  {program} queue create orders --session",
        f"  {program} send orders --session A --count 5 'step {{n}}'",
        f"  {program} receive orders",
        f"  {status}",
        "",
        "What to break:",
        f"  kill -9 {owner.pid}    # crash {owner.directory.name}; others take over when its lease has ended",
        f"  kill {owner.pid}       # stop it in order; it hands its partitions over",
        f"  kill -STOP {owner.pid} # let it stand still; kill -CONT {owner.pid} lets it go on",
        "",
        "Stop with Ctrl-C.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
