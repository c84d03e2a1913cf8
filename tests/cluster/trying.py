"""What `make cluster` starts, and what it says of it."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console

from lockstep.core.errors import InvalidRequest
from lockstep.runtime.config import load_config
from tests.cluster.local import LEASE_MS, PARTITIONS, LocalCluster
from tests.server.server_process import ServerProcess

_FIRST_PORT = 7700
_SYNCED = ("shared_buffers=128MB",)  # unlike in tests, what is acknowledged survives a power cut
_SETTINGS = {"partitions": "partitions", "lease_ms": "cluster.lease_ttl_ms"}


class Asked(Protocol):
    """Whether somebody asked for the end."""

    have_come: bool

    def wait(self) -> None:
        """Return when somebody has."""


class _Stop(Exception):
    """The end was asked for before everything had started."""


def run(words: Sequence[str], asked: Asked) -> int:
    """Start a cluster, say how to use it, wait for a signal, and remove everything."""
    options = parse_options(words)
    console = Console(stderr=True)
    try:
        with tempfile.TemporaryDirectory(prefix="lockstep-cluster-") as directory:
            _run(Path(directory), options, console, asked)
    except (
        Exception
    ):  # a signal from the terminal reaches all processes: they end while they are waited for
        if not asked.have_come:
            raise
    with contextlib.suppress(OSError):  # the terminal may have gone
        console.print("Stopped.")
    return 0


def _run(directory: Path, options: argparse.Namespace, console: Console, asked: Asked) -> None:
    with console.status("Starting") as status:

        def tell(what: str) -> None:
            if asked.have_come:
                raise _Stop
            status.update(f"Starting: {what}")

        tell("the files of PostgreSQL")
        cluster = LocalCluster(
            directory,
            owners=options.owners,
            frontends=options.frontends,
            partitions=options.partitions,
            lease_ms=options.lease_ms,
            postgres=_SYNCED,
        )
        for number, frontend in enumerate(cluster.frontends):
            if _is_free(_FIRST_PORT + number):
                frontend.port = _FIRST_PORT + number
        with cluster:
            cluster.start(tell)
            status.stop()
            sys.stdout.write(_welcome(cluster))
            sys.stdout.flush()
            asked.wait()


def parse_options(words: Sequence[str]) -> argparse.Namespace:
    """Return the options; what is wrong with them ends the program with a sentence, before anything is started."""
    parser = argparse.ArgumentParser(
        prog="make cluster",
        description="A whole cluster here, to try things with; see docs/cluster.md.",
    )
    parser.add_argument("--owners", type=_count, default=3, help="owner processes (default 3)")
    parser.add_argument("--frontends", type=_count, default=2, help="front ends (default 2)")
    parser.add_argument(
        "--partitions", default=str(PARTITIONS), help=f"partitions (default {PARTITIONS})"
    )
    parser.add_argument(
        "--lease-ms",
        default=str(LEASE_MS),
        help=f"ms after which a silent owner has lost its partitions (default {LEASE_MS})",
    )
    options = parser.parse_args(words)
    for name, setting in _SETTINGS.items():
        try:
            load_config(None, {setting: getattr(options, name)})
        except InvalidRequest as error:
            if (
                error.details["key"] == setting
            ):  # what else is wrong, in the environment, is not used here
                parser.error(f"argument --{name.replace('_', '-')}: {error.message}")
        setattr(options, name, int(getattr(options, name)))
    return options


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes; 1 is the least")
    return int(text)


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
        f"  etcd        {cluster.etcd.endpoint}  pid {cluster.etcd.pid}",
        f"  PostgreSQL  {cluster.dsn}  pid {cluster.postgres.pid}",
    ]
    for process in (*cluster.owners, *cluster.frontends):
        lines += [
            f"  {process.directory.name:11} 127.0.0.1:{process.port}  pid {process.pid}"
            f"  metrics {process.port_of('metrics')}  health {process.port_of('health')}",
            f"  {'':11} log {process.log_path}",
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
        f"To start {owner.directory.name} again, in that terminal; it ends with Ctrl-C there:",
        f"  {_again(program, cluster, owner)}",
        "",
        "Stop with Ctrl-C.",
    ]
    return "\n".join(lines) + "\n"


def _again(program: str, cluster: LocalCluster, owner: ServerProcess) -> str:
    ports = {f"{which}_port": owner.port_of(which) for which in ("metrics", "health")}
    words = shlex.join(owner.words(ports))
    return f"LOCKSTEP_CLUSTER__POSTGRES_DSNS={shlex.quote(cluster.dsn)} {program} {words}"
