"""A server process for the examples and the README, and what runs a user's programs against it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = Path(sys.executable).parent
RUN_S = 60
STOP_S = 20
# Others change what is printed: COLUMNS, which pytest-xdist sets, FORCE_COLOR, LOCKSTEP_….
_KEPT = ("HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")
_LISTENING = re.compile(r"(server|metrics)\.listening .*port=(\d+)")


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    path = f"{COMMANDS}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT / "services")}


@dataclass(frozen=True, slots=True)
class Ran:
    """One program that ended: its exit code, and what it printed on both streams as a terminal shows it."""

    code: int
    output: str


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs, and a user who is about to use it."""

    address: str
    metrics_address: str

    def run(self, *words: str) -> Ran:
        """Run a program in the directory of the repository and wait for its end."""
        ended = subprocess.run(
            words,
            cwd=ROOT,
            env={**_environment(), "LOCKSTEP_SERVER": self.address},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        return Ran(ended.returncode, ended.stdout)

    def run_python(self, *words: str) -> Ran:
        """Run Python; a warning is an error."""
        return self.run(sys.executable, "-W", "error", *words)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on loopback with a new data directory, for the tests of a module."""
    data_dir = tmp_path_factory.mktemp("data")
    ports = ["--port", "0", "--metrics-port", "0", "--health-port", "0"]
    process = subprocess.Popen(
        [COMMANDS / "lockstep", "serve", "--data-dir", data_dir, *ports],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    log: list[str] = []
    addresses: dict[str, str] = {}
    for line in process.stderr:  # ends when the process does
        log.append(line)
        if found := _LISTENING.search(line):
            addresses[found[1]] = f"127.0.0.1:{found[2]}"
        if "server" in addresses:  # the last one to listen
            break
    rest = threading.Thread(target=log.extend, args=(process.stderr,))
    rest.start()  # a pipe that nobody reads would stop the server
    try:
        assert "server" in addresses, f"the server did not start:\n{''.join(log)}"
        yield Server(addresses["server"], addresses["metrics"])
    finally:
        process.terminate()
        try:
            code = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        rest.join()
        process.stderr.close()
    assert code == 0, f"the server ended with {code}:\n{''.join(log)}"
