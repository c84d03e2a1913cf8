"""Programs that were written for azure-servicebus run with nothing changed but import and connection string.

The programs say `azure.servicebus`, as they do where that package is installed; their types were checked against it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.server_process import SERVICES

PROGRAMS = Path(__file__).parent / "programs"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["orders", "orders_aio"])
def test_a_program_for_azure_runs_when_its_import_is_changed(
    name: str, connection_string: str, tmp_path: Path
) -> None:
    theirs = (PROGRAMS / f"{name}.py.txt").read_text()
    ours = tmp_path / f"{name}.py"
    ours.write_text(theirs.replace("from azure.servicebus", "from lockstep.servicebus"))

    done = subprocess.run(
        [sys.executable, "-W", "error", ours],
        env={
            **os.environ,
            "PYTHONPATH": str(SERVICES),
            "PYTHONIOENCODING": "utf-8",
            "SERVICEBUS_CONNECTION_STRING": connection_string,
        },
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )

    assert done.stderr == ""
    assert done.stdout == (PROGRAMS / "printed.txt").read_text()
