"""`lockstep top` as a process against a real server."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lockstep import LockstepClient, Message
from tests.client.command_line import (
    COMMAND,
    ENVIRONMENT,
    FAILED,
    INTERRUPTED,
    NOT_FOUND,
    USAGE,
    Command,
    fine,
    lines,
    reason,
)
from tests.server.server_process import ServerProcess

_SHOWN_S = 30
_ALTERNATE_SCREEN, _PROPER_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.fixture
def stocked(where: list[str]) -> Iterator[LockstepClient]:
    """The session queue "orders" with sessions of one message each, and the plain queue "jobs" with a dead letter."""
    with LockstepClient(where[1], namespace=where[3]) as client:
        administration = client.get_administration_client()
        administration.create_queue("orders", requires_session=True)
        sender = client.get_queue_sender("orders")
        for name in ("first", "second", "third"):
            sender.send_messages(Message("x", session_id=name))
        administration.create_queue("jobs")
        client.get_queue_sender("jobs").send_messages([Message("1"), Message("2")])
        receiver = client.get_queue_receiver("jobs")
        (message,) = receiver.receive_messages(1)
        receiver.dead_letter_message(message)
        yield client


@contextmanager
def watching(where: list[str], *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run `lockstep top` for programs, and end it with Ctrl-C."""
    with subprocess.Popen(
        [*COMMAND, *where, "top", "--interval", "100ms", *words],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
            running.send_signal(signal.SIGINT)
            _, told = running.communicate(timeout=60)
            assert "Traceback" not in told
        finally:
            running.kill()


def frame(running: subprocess.Popen[str]) -> dict[str, Any]:
    assert running.stdout is not None
    found: dict[str, Any] = json.loads(running.stdout.readline())
    return {queue["name"]: queue for queue in found["queues"]}


def test_one_look_shows_all_queues_and_their_oldest_sessions(
    lockstep: Command, stocked: LockstepClient
) -> None:
    with stocked.get_queue_receiver("orders", session_id="third", client_identifier="w"):
        (seen,) = lines(lockstep("top", "--once", "--sessions", "2"))

    jobs, orders = seen["queues"]
    assert (jobs["name"], jobs["ready_message_count"]) == ("jobs", 1)
    assert jobs["dead_letter_message_count"] == 1
    assert (orders["name"], orders["ready_message_count"]) == ("orders", 3)
    assert orders["receiver_count"] == 1
    assert [session["session_id"] for session in orders["oldest_sessions"]] == ["first", "second"]
    assert jobs["change_per_second"] is None
    (only,) = lines(lockstep("top", "jobs", "--once"))
    assert [queue["name"] for queue in only["queues"]] == ["jobs"]


def test_what_cannot_be_shown_is_told_by_the_exit_code(lockstep: Command) -> None:
    missing = lockstep("top", "orders")
    assert (missing.returncode, reason(missing)) == (NOT_FOUND, "ENTITY_NOT_FOUND")
    hasty = lockstep("top", "--interval", "1ms")
    assert (hasty.returncode, reason(hasty)) == (USAGE, "USAGE")
    unread = lockstep("top", "--once", "--metrics", "127.0.0.1:1")
    assert (unread.returncode, reason(unread)) == (FAILED, "UNAVAILABLE")
    assert fine(lockstep("top", "--once"))["queues"] == []


def test_each_look_is_a_line_until_ctrl_c(where: list[str], stocked: LockstepClient) -> None:
    with watching(where, "jobs") as running:
        seen = frame(running)["jobs"]
        assert (seen["change_per_second"], seen["active_message_count"]) == (None, 1)
        stocked.get_queue_sender("jobs").send_messages([Message("x")] * 10)
        while seen["active_message_count"] < 11:
            seen = frame(running)["jobs"]
        assert seen["change_per_second"] > 0

    assert running.returncode == INTERRUPTED


def test_on_a_terminal_the_screen_is_drawn_again_and_given_back(
    where: list[str], stocked: LockstepClient
) -> None:
    ours, theirs = pty.openpty()
    words = [one for one in where if one != "--json"]
    with subprocess.Popen(
        [*COMMAND, *words, "top", "--interval", "100ms", "--no-color"],
        env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "160", "LINES": "40"},
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
    ) as running:
        try:
            seen = _read_until(ours, rb"orders +3.*first.*second")
            assert _ALTERNATE_SCREEN in seen
            stocked.get_queue_sender("orders").send_messages(Message("x", session_id="fourth"))
            assert _PROPER_SCREEN not in _read_until(ours, rb"orders +4")
            running.send_signal(signal.SIGINT)
            _read_until(ours, re.escape(_PROPER_SCREEN))
            _, told = running.communicate(timeout=_SHOWN_S)
        finally:
            running.kill()
            os.close(theirs)
            os.close(ours)

    assert (running.returncode, told) == (INTERRUPTED, b"")


def _read_until(terminal: int, wanted: bytes) -> bytes:
    """Return what is written to a terminal, as soon as something wanted is among it."""
    seen = b""
    while not re.search(wanted, seen, re.DOTALL):
        assert select.select([terminal], [], [], _SHOWN_S)[0], f"never shown; but {seen!r}"
        seen += os.read(terminal, 65_536)
    return seen


@pytest.mark.slow
def test_a_restart_of_the_server_is_sat_out(own_server: ServerProcess) -> None:
    where = ["--server", f"127.0.0.1:{own_server.port}", "--json"]
    with LockstepClient(where[1], retry_total=20, retry_backoff_max=1) as client:
        client.get_administration_client().create_queue("jobs")
        with watching(where, "jobs") as running:
            frame(running)
            own_server.kill()
            own_server.start()
            client.get_queue_sender("jobs").send_messages(Message("after"))
            while frame(running)["jobs"]["active_message_count"] < 1:
                pass

    assert running.returncode == INTERRUPTED
