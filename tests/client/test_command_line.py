"""The commands of users, as processes against a real server."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.client.command_line import (
    COMMAND,
    CONFLICT,
    ENVIRONMENT,
    FAILED,
    INTERRUPTED,
    NOT_FOUND,
    NOTHING_THERE,
    UNREACHABLE,
    USAGE,
    Command,
    fine,
)
from tests.server.server_process import ServerProcess

_SIDE_PORTS = ("--metrics-port", "off", "--health-port", "off")


def test_a_session_from_send_to_receive(lockstep: Command) -> None:
    assert fine(lockstep("queue", "create", "orders", "--session"))["name"] == "orders"
    fine(lockstep("send", "orders", "--session", "A", "--count", "3", "step {n}"))
    (session,) = fine(lockstep("sessions", "list", "orders"))
    assert session["session_id"] == "A"

    received = lockstep("receive", "orders", "--wait", "10s")

    assert received.returncode == 0, received.stderr
    bodies = [json.loads(line)["body"] for line in received.stdout.splitlines()]
    assert bodies == ["step 1", "step 2", "step 3"]
    assert fine(lockstep("queue", "show", "orders"))["active_message_count"] == 0
    assert lockstep("queue", "delete", "orders", "--yes").returncode == 0
    assert lockstep("queue", "show", "orders").returncode == NOT_FOUND


def test_add_13_a_queue_with_something_in_it_is_kept_if_asked(lockstep: Command) -> None:
    fine(lockstep("queue", "create", "orders"))
    fine(lockstep("send", "orders", "one"))

    kept = lockstep("queue", "delete", "orders", "--if-empty")
    assert kept.returncode == CONFLICT
    assert "ENTITY_NOT_EMPTY" in kept.stderr
    assert lockstep("receive", "orders", "--wait", "10s").returncode == 0
    assert lockstep("queue", "delete", "orders", "--if-empty").returncode == 0
    assert lockstep("queue", "show", "orders").returncode == NOT_FOUND


def test_errors_have_exit_codes_and_reasons(lockstep: Command) -> None:
    missing = lockstep("send", "orders", "1")
    assert missing.returncode == NOT_FOUND
    assert "ENTITY_NOT_FOUND" in missing.stderr
    assert missing.stdout == ""
    fine(lockstep("queue", "create", "orders"))
    assert lockstep("queue", "create", "orders").returncode == CONFLICT
    assert lockstep("receive", "orders", "--wait", "0s").returncode == NOTHING_THERE
    assert lockstep("queue", "delete", "orders").returncode != 0
    assert lockstep("queue", "create", "more", "--lock-duration", "25d").returncode == USAGE


def test_who_forgets_the_session_is_told_the_option(lockstep: Command) -> None:
    fine(lockstep("queue", "create", "orders", "--session"))

    forgotten = lockstep("send", "orders", "1")

    assert forgotten.returncode == USAGE
    assert "--session" in json.loads(forgotten.stderr)["error"]["message"]


def test_a_server_that_is_not_there_is_unreachable(lockstep: Command) -> None:
    done = lockstep("queue", "list", "--server", "127.0.0.1:1")

    assert done.returncode == UNREACHABLE
    error = json.loads(done.stderr)["error"]
    assert error["reason"] == "CONNECTION_FAILED"
    assert error["details"]["server"] == "127.0.0.1:1"


def test_a_session_is_free_at_once_when_its_receiver_is_terminated(
    lockstep: Command, where: list[str]
) -> None:
    fine(lockstep("queue", "create", "orders", "--session"))
    fine(lockstep("send", "orders", "--session", "A", "1"))
    with subprocess.Popen(
        [*COMMAND, *where, "receive", "orders", "--session", "A", "--follow"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    ) as receiving:
        assert receiving.stdout is not None
        assert json.loads(receiving.stdout.readline())["body"] == "1"

        receiving.terminate()

        assert receiving.wait(20) == INTERRUPTED
    shown = fine(lockstep("sessions", "show", "orders", "A"))
    assert shown["locked_until_utc"] is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_add_5_a_lock_is_broken_and_the_holder_is_told_by_whom(
    lockstep: Command, where: list[str]
) -> None:
    fine(lockstep("queue", "create", "orders", "--session"))
    with subprocess.Popen(
        [*COMMAND, *where, "receive", "orders", "--session", "A", "--follow"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as holder:
        while not fine(lockstep("sessions", "show", "orders", "A"))["locked_until_utc"]:
            assert holder.poll() is None

        broken = fine(lockstep("sessions", "break-lock", "orders", "A", "--by", "ann"))

        _, told = holder.communicate(timeout=60)

    assert broken == {"session_id": "A", "was_held": True}
    assert holder.returncode == CONFLICT
    assert "an administrator broke it (ann)" in told
    assert not fine(lockstep("sessions", "break-lock", "orders", "A"))["was_held"]


def test_messages_that_could_not_be_printed_are_given_back(
    lockstep: Command, where: list[str]
) -> None:
    fine(lockstep("queue", "create", "orders"))
    fine(lockstep("send", "orders", "1"))

    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, *where, "receive", "orders"],
            env=ENVIRONMENT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == FAILED
    assert json.loads(done.stderr)["error"]["reason"] == "OUTPUT_FAILED"
    shown = fine(lockstep("queue", "show", "orders"))
    assert (shown["active_message_count"], shown["locked_message_count"]) == (1, 0)


def test_the_example_of_queue_show_works(lockstep: Command) -> None:
    shown = fine(lockstep("queue", "create", "orders"))
    assert shown["name"] == "orders"

    shown = fine(lockstep("queue", "show", "orders"))

    help_text = lockstep("queue", "show", "--help").stdout
    (key,) = re.findall(r"jq \.(\w+)", help_text)
    assert key in shown


def test_the_module_has_the_name_of_the_command() -> None:
    shown = subprocess.run(
        [*COMMAND, "--help"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert shown.returncode == 0
    assert "lockstep [OPTIONS] COMMAND" in shown.stdout


def test_nobody_is_told_what_to_type_next_by_a_server_that_cannot_serve(
    shared_server: ServerProcess,
) -> None:
    done = subprocess.run(
        [*COMMAND, "serve", "--store", "memory", "--port", str(shared_server.port), *_SIDE_PORTS],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == USAGE
    assert done.stdout == ""


def test_a_server_tells_its_settings_once_it_serves() -> None:
    with subprocess.Popen(
        [*COMMAND, "--json", "serve", "--store", "memory", "--port", "0", *_SIDE_PORTS],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        told = json.loads(server.stdout.readline())
        listed = subprocess.run(
            [*COMMAND, "--server", f"127.0.0.1:{told['port']}", "queue", "list", "--json"],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        server.terminate()

    assert fine(listed) == []
    assert told["health_port"] is None
    assert server.returncode == 0
