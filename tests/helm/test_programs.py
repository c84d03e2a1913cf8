"""The programs of `helm test`, against a real broker of several partitions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep.v1 import admin_service_pb2 as admin
from tests.helm.chart import CHART
from tests.server.server_process import SERVICES, ServerProcess

PROGRAMS = sorted((CHART / "files" / "tests").glob("*.py"))
RUN_S = 60


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.stem)
def test_it_passes_and_leaves_nothing_behind(program: Path, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "server", settings={"partitions": 4, "store": "memory"})
    server.start()
    try:
        known = {"LOCKSTEP_SERVER": f"127.0.0.1:{server.port}", "PYTHONPATH": str(SERVICES)}
        ran = subprocess.run(
            [sys.executable, program],
            env={**os.environ, **known},
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert "in order" in ran.stdout
        assert not server.stubs.admin.ListQueues(admin.ListQueuesRequest()).queues
    finally:
        server.stop()
