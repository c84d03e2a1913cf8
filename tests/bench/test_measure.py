"""Processor time of processes is counted where it belongs."""

from __future__ import annotations

import os
import subprocess
import sys

from bench import measure
from tests.server.server_process import wait_until

BURN = "import time\nwhile time.process_time() < 0.5: pass\n"
SEEN_SECONDS = 0.3  # the system counts in ticks, and in what is left of them


def test_a_family_has_the_time_of_children_that_have_ended() -> None:
    before = measure.family_cpu_seconds(os.getpid())

    subprocess.run([sys.executable, "-c", BURN], check=True)

    assert measure.family_cpu_seconds(os.getpid()) - before > SEEN_SECONDS


def test_a_family_has_the_time_of_grandchildren_that_run() -> None:
    grandchild = [sys.executable, "-c", f"{BURN}input()"]
    child = f"import subprocess\nsubprocess.run({grandchild!r})"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE) as process:

        def of_others() -> float:
            return measure.family_cpu_seconds(process.pid) - measure.cpu_seconds(process.pid)

        wait_until(lambda: of_others() > SEEN_SECONDS, "the grandchild is counted")
        assert process.poll() is None
        process.communicate(b"\n")
