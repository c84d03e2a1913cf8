"""Runs the command line as a user does."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.server.server_process import SERVICES

RUN_S = 60


def run_lockstep(*words: str, server: str = "") -> subprocess.CompletedProcess[str]:
    """Run `lockstep` and return what it printed; the exit code is the caller's to judge."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LOCKSTEP_", "COLUMNS"))}
    variables = {**kept, "PYTHONPATH": str(SERVICES)}
    if server:
        variables["LOCKSTEP_SERVER"] = server
    return subprocess.run(
        [sys.executable, "-m", "lockstep", *words],
        env=variables, check=False, capture_output=True, text=True, timeout=RUN_S,
    )  # fmt: skip
