"""The command line as a process, and what its exit codes are called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.server.server_process import SERVICES

COMMAND = (sys.executable, "-m", "lockstep")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SERVICES)}
FAILED, USAGE, NOT_FOUND, CONFLICT, UNREACHABLE, NOTHING_THERE, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def fine(done: subprocess.CompletedProcess[str]) -> Any:
    """Return what a command that succeeded printed as JSON."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def lines(done: subprocess.CompletedProcess[str]) -> list[Any]:
    """Return the JSON lines that a command that succeeded printed."""
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """Return why a command failed."""
    return str(json.loads(done.stderr.splitlines()[-1])["error"]["reason"])
