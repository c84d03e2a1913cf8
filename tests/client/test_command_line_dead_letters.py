"""`lockstep dlq` as a process against a real server."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from lockstep import AdministrationClient, LockstepClient, Message, SubQueue
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
from tests.server.server_process import ServerProcess, wait_until

SESSIONS = ("A", "B", "C", "D")
MESSAGES = 400
RATE = 100  # so that a resubmission of all of them takes three seconds


@pytest.fixture
def stocked(where: list[str]) -> Iterator[AdministrationClient]:
    """The session queue "orders" with six dead letters: 1 to 3 of session A as broken, 4 to 6 of B as late."""
    with LockstepClient(where[1], namespace=where[3]) as client:
        administration = client.get_administration_client()
        administration.create_queue("orders", requires_session=True)
        sender = client.get_queue_sender("orders")
        for session, why, first in (("A", "broken", 1), ("B", "late", 4)):
            sender.send_messages(
                [
                    Message(str(n), session_id=session, application_properties={"n": n})
                    for n in range(first, first + 3)
                ]
            )
            with client.get_queue_receiver("orders", session_id=session) as receiver:
                assert not receiver.dead_letter_messages(receiver.receive_messages(10), reason=why)
        yield administration


def bodies(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [message["body"] for message in lines(done)]


def counts(administration: AdministrationClient, queue: str = "orders") -> tuple[int, int]:
    """Return how many active messages and how many dead letters there are."""
    runtime = administration.get_queue_runtime_properties(queue)
    return runtime.active_message_count, runtime.dead_letter_message_count


# --- looking -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("stocked")
def test_dead_letters_are_listed_by_session_and_reason(lockstep: Command) -> None:
    assert bodies(lockstep("dlq", "list", "orders")) == list("123456")
    assert bodies(lockstep("dlq", "list", "orders", "--session", "B")) == list("456")
    assert bodies(lockstep("dlq", "list", "orders", "--reason", "broken", "--max", "2")) == [
        "1",
        "2",
    ]
    assert bodies(lockstep("dlq", "list", "orders", "--from", "6")) == ["6"]
    assert bodies(lockstep("dlq", "list", "orders", "--session", "A", "--reason", "late")) == []

    (first, *_) = lines(lockstep("dlq", "list", "orders"))
    assert (first["dead_letter_reason"], first["session_id"]) == ("broken", "A")


def test_what_is_not_there_is_told_by_the_exit_code(lockstep: Command) -> None:
    for words in (("list",), ("jobs",), ("resubmit",), ("purge", "--yes")):
        missing = lockstep("dlq", words[0], "orders", *words[1:])
        assert (missing.returncode, reason(missing)) == (NOT_FOUND, "ENTITY_NOT_FOUND")  # RSB-H
    fine(lockstep("queue", "create", "orders"))
    for word in ("wait", "cancel"):
        missing = lockstep("dlq", word, "orders", "7")
        assert (missing.returncode, reason(missing)) == (NOT_FOUND, "JOB_NOT_FOUND")
    assert fine(lockstep("dlq", "jobs", "orders")) == []


# --- repairing ---------------------------------------------------------------------------------------


def test_selected_dead_letters_are_resubmitted_with_edits(
    lockstep: Command, stocked: AdministrationClient
) -> None:
    counted = fine(lockstep("dlq", "resubmit", "orders", "--reason", "broken", "--dry-run"))
    assert (counted["matched_message_count"], counts(stocked)) == (3, (0, 6))

    done = lockstep(
        *("dlq", "resubmit", "orders", "--session", "A", "--sequence", "1-2", "--property", "n:=2"),
        *("--to-session", "repaired", "--set", "by=hand", "--new-message-id", "--by", "ann"),
    )

    job = fine(done)
    assert (job["status"], job["matched_message_count"], job["requested_by"]) == ("done", 1, "ann")
    assert counts(stocked) == (1, 5)
    (message,) = lines(lockstep("peek", "orders"))
    assert (message["body"], message["session_id"]) == ("2", "repaired")
    assert message["application_properties"] == {"n": 2, "by": "hand"}
    assert message["message_id"]


def test_at_head_puts_messages_back_where_they_were(
    lockstep: Command, stocked: AdministrationClient
) -> None:
    fine(lockstep("send", "orders", "--session", "A", "younger"))

    fine(lockstep("dlq", "resubmit", "orders", "--session", "A", "--at-head"))

    assert bodies(lockstep("receive", "orders", "--session", "A")) == ["1", "2", "3", "younger"]
    assert counts(stocked) == (0, 3)


def test_dead_letters_are_moved_to_another_queue(
    lockstep: Command, stocked: AdministrationClient
) -> None:
    fine(lockstep("queue", "create", "parked"))

    job = fine(lockstep("dlq", "move", "orders", "parked", "--max", "4"))

    assert (job["target"], job["matched_message_count"]) == ("parked", 4)
    assert bodies(lockstep("receive", "parked")) == list("1234")
    assert counts(stocked) == (0, 2)
    itself = lockstep("dlq", "move", "orders", "orders")
    assert (itself.returncode, reason(itself)) == (USAGE, "INVALID_ARGUMENT")


def test_a_session_is_dead_lettered_whole(lockstep: Command, stocked: AdministrationClient) -> None:
    fine(lockstep("send", "orders", "--session", "C", "7", "8"))

    job = fine(
        lockstep("sessions", "dead-letter", "orders", "C", "--reason", "gone", "--by", "ann")
    )

    assert job["matched_message_count"] == 2
    assert bodies(lockstep("dlq", "list", "orders", "--reason", "gone")) == ["7", "8"]
    assert counts(stocked) == (0, 8)


def test_a_purge_needs_a_yes_where_nobody_can_be_asked(
    lockstep: Command, stocked: AdministrationClient
) -> None:
    refused = lockstep("dlq", "purge", "orders")
    assert (refused.returncode, reason(refused)) == (USAGE, "NOT_CONFIRMED")
    assert counts(stocked) == (0, 6)
    assert stocked.list_dead_letter_jobs("orders") == []

    job = fine(lockstep("dlq", "purge", "orders", "--reason", "late", "--yes"))

    assert (job["kind"], job["matched_message_count"]) == ("purge", 3)
    assert counts(stocked) == (0, 3)


@pytest.mark.parametrize(
    ("answer", "code", "left"), [("n", FAILED, 6), ("y", 0, 3)], ids=["no", "yes"]
)
def test_a_purge_asks_on_a_terminal(
    where: list[str], stocked: AdministrationClient, answer: str, code: int, left: int
) -> None:
    words = [one for one in where if one != "--json"]
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [*COMMAND, *words, "dlq", "purge", "orders", "--session", "A"],
            env=ENVIRONMENT,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as purging:
            os.write(ours, f"{answer}\n".encode())
            shown, told = purging.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)

    assert purging.returncode == code, told
    assert "Remove those of the 6 dead letters of orders with session 'A' for good?" in told
    assert ("Removed 3 dead letters of orders" in shown) == (answer == "y")
    assert counts(stocked) == (0, left)


# --- jobs --------------------------------------------------------------------------------------------


def test_who_stops_waiting_stops_nothing_and_is_told_how_to_go_on(
    lockstep: Command, where: list[str], stocked: AdministrationClient
) -> None:
    words = [one for one in where if one != "--json"]
    with subprocess.Popen(
        [*COMMAND, *words, "dlq", "resubmit", "orders", "--rate", "1"],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        wait_until(
            lambda: stocked.list_dead_letter_jobs("orders"), "the job began", within_ms=30_000
        )
        waiting.send_signal(signal.SIGINT)
        _, told = waiting.communicate(timeout=60)

    assert waiting.returncode == INTERRUPTED
    assert "lockstep dlq wait orders 1" in told
    assert "lockstep dlq cancel orders 1" in told
    (running,) = fine(lockstep("dlq", "jobs", "orders", "--running"))
    assert (running["number"], running["status"]) == (1, "running")

    cancelled = fine(lockstep("dlq", "cancel", "orders", "1"))

    assert cancelled["status"] == "cancelled"
    active, dead = counts(stocked)
    assert (active, active + dead) == (cancelled["matched_message_count"], 6)
    waited = lockstep("dlq", "wait", "orders", "1")
    assert (waited.returncode, reason(waited)) == (FAILED, "JOB_CANCELLED")
    assert fine(lockstep("dlq", "jobs", "orders", "--running")) == []


def test_a_job_that_nobody_waits_for_is_found_and_waited_for_later(
    lockstep: Command, stocked: AdministrationClient
) -> None:
    begun = fine(lockstep("dlq", "resubmit", "orders", "--rate", "4", "--no-wait"))

    ended = fine(lockstep("dlq", "wait", "orders", str(begun["number"])))

    assert (ended["status"], ended["matched_message_count"]) == ("done", 6)
    assert [job["number"] for job in fine(lockstep("dlq", "jobs", "orders"))] == [1]
    assert counts(stocked) == (6, 0)


# --- crashes -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_rsb_2_a_job_survives_the_crash_of_its_server(own_server: ServerProcess) -> None:
    server = ["--server", f"127.0.0.1:{own_server.port}", "--json"]
    with (
        LockstepClient(server[1], retry_total=20, retry_backoff_max=1) as client,
        contextlib.closing(client.get_administration_client()) as administration,
    ):
        _all_dead(client)
        with subprocess.Popen(
            [*COMMAND, *server, "dlq", "resubmit", "orders", "--rate", str(RATE), "--by", "ann"],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as waiting:
            wait_until(lambda: counts(administration)[0], "the job goes on", within_ms=30_000)
            before = counts(administration)
            own_server.kill()
            own_server.start()
            after = counts(administration)
            shown, told = waiting.communicate(timeout=60)

        assert waiting.returncode == 0, told
        job = json.loads(shown)
        assert (job["status"], job["matched_message_count"]) == ("done", MESSAGES)
        assert 0 < before[0] < MESSAGES
        assert sum(before) == sum(after) == MESSAGES
        assert counts(administration) == (MESSAGES, 0)
        for session in SESSIONS:
            with client.get_queue_receiver("orders", session_id=session) as receiver:
                got = [str(message) for message in receiver.receive_messages(MESSAGES)]
            assert got == [str(n) for n in range(MESSAGES // len(SESSIONS))]
    assert [(end["by"], end["matched"]) for end in _ends_told(own_server)] == [("ann", MESSAGES)]


def _all_dead(client: LockstepClient) -> None:
    """Make the queue "orders" with dead letters only, the same number of each session."""
    administration = client.get_administration_client()
    administration.create_queue("orders", requires_session=True)
    sender = client.get_queue_sender("orders")
    for session in SESSIONS:
        numbers = range(MESSAGES // len(SESSIONS))
        sender.send_messages([Message(str(number), session_id=session) for number in numbers])
        administration.wait_for_dead_letter_job(
            administration.dead_letter_session("orders", session, requested_by="setup")
        )
    assert counts(administration) == (0, MESSAGES)
    dead = client.get_queue_receiver("orders", sub_queue=SubQueue.DEAD_LETTER)
    assert len(dead.peek_messages(MESSAGES)) == MESSAGES


def _ends_told(server: ServerProcess) -> list[dict[str, Any]]:
    """Return what the audit log of every process of a server says of resubmissions that ended (ADD-11)."""
    events = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    return [
        event
        for event in events
        if event["event"] == "dead_letter_job.ended" and event["kind"] == "resubmit"
    ]
