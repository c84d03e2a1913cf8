"""The commands of users, as processes against a real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from lockstep.runtime.ids import SystemIds
from tests.server.server_process import SERVICES, ServerProcess

NOT_FOUND, CONFLICT, UNREACHABLE, NOTHING_THERE, USAGE = 3, 4, 5, 6, 2
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def lockstep(shared_server: ServerProcess) -> Command:
    """Run `lockstep --json …` in a namespace of the test's own."""
    namespace = f"line-{SystemIds().client_id()[:12]}"

    def run(*words: str, server: str = f"127.0.0.1:{shared_server.port}") -> Any:
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "lockstep",
                "--server",
                server,
                "--namespace",
                namespace,
                "--json",
                *words,
            ],
            env={**os.environ, "PYTHONPATH": str(SERVICES)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def _fine(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_session_from_send_to_receive(lockstep: Command) -> None:
    assert _fine(lockstep("queue", "create", "orders", "--session"))["name"] == "orders"
    _fine(lockstep("send", "orders", "--session", "A", "--count", "3", "step {n}"))
    (session,) = _fine(lockstep("sessions", "list", "orders"))
    assert session["session_id"] == "A"

    received = lockstep("receive", "orders", "--wait", "10s")

    assert received.returncode == 0, received.stderr
    bodies = [json.loads(line)["body"] for line in received.stdout.splitlines()]
    assert bodies == ["step 1", "step 2", "step 3"]
    assert _fine(lockstep("queue", "show", "orders"))["active_message_count"] == 0
    assert lockstep("queue", "delete", "orders", "--yes").returncode == 0
    assert lockstep("queue", "show", "orders").returncode == NOT_FOUND


def test_errors_have_exit_codes_and_reasons(lockstep: Command) -> None:
    missing = lockstep("send", "orders", "1")
    assert missing.returncode == NOT_FOUND
    assert "ENTITY_NOT_FOUND" in missing.stderr
    assert missing.stdout == ""
    _fine(lockstep("queue", "create", "orders"))
    assert lockstep("queue", "create", "orders").returncode == CONFLICT
    assert lockstep("receive", "orders", "--wait", "0s").returncode == NOTHING_THERE
    assert lockstep("queue", "delete", "orders").returncode != 0
    assert lockstep("queue", "create", "more", "--lock-duration", "25d").returncode == USAGE


def test_a_server_that_is_not_there_is_unreachable(lockstep: Command) -> None:
    done = lockstep("queue", "list", server="127.0.0.1:1")

    assert done.returncode == UNREACHABLE
    error = json.loads(done.stderr)["error"]
    assert error["reason"] == "CONNECTION_FAILED"
    assert error["details"]["server"] == "127.0.0.1:1"


def test_the_example_of_queue_show_works(lockstep: Command) -> None:
    shown = _fine(lockstep("queue", "create", "orders"))
    assert shown["name"] == "orders"

    shown = _fine(lockstep("queue", "show", "orders"))

    help_text = lockstep("queue", "show", "--help").stdout
    (key,) = re.findall(r"jq \.(\w+)", help_text)
    assert key in shown


def test_the_module_has_the_name_of_the_command() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "lockstep", "--help"],
        env={**os.environ, "PYTHONPATH": str(SERVICES)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert shown.returncode == 0
    assert "lockstep [OPTIONS] COMMAND" in shown.stdout
