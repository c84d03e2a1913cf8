"""`lockstep explain`, `lockstep sessions list` and `sessions state purge` as processes against a real server."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import version

import pytest

from lockstep import AdministrationClient, LockstepClient, Message, QueueReceiver
from tests.client.command_line import (
    COMMAND,
    ENVIRONMENT,
    FAILED,
    NOT_FOUND,
    USAGE,
    Command,
    fine,
    reason,
)


@pytest.fixture
def stocked(where: list[str]) -> Iterator[tuple[AdministrationClient, QueueReceiver]]:
    """The session queue "orders" with a session for each filter; the receiver holds the session "held"."""
    with LockstepClient(where[1], namespace=where[3]) as client:
        administration = client.get_administration_client()
        administration.create_queue("orders", requires_session=True, lock_duration="PT5M")
        sender = client.get_queue_sender("orders")
        names = ("delayed", "dead", "held", "runnable")
        sender.send_messages([Message("x", session_id=name) for name in names])
        for name in ("delayed", "dead", "with-state"):
            with client.get_queue_receiver("orders", session_id=name) as receiver:
                if name == "with-state":
                    receiver.session.set_state(b"state")
                    continue
                (message,) = receiver.receive_messages(1)
                if name == "dead":
                    receiver.dead_letter_message(message, reason="broken")
                else:
                    receiver.abandon_message(message, delay=timedelta(minutes=10))
        with client.get_queue_receiver(
            "orders", session_id="held", client_identifier="worker-1"
        ) as holder:
            holder.receive_messages(1)
            holder.session.renew_lock()
            yield administration, holder


def as_text(where: list[str], *words: str) -> str:
    """Return what a command prints for people."""
    done = subprocess.run(
        [*COMMAND, *(one for one in where if one != "--json"), *words],
        env={name: value for name, value in ENVIRONMENT.items() if name != "COLUMNS"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- sessions ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("stocked")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), ["delayed", "held", "runnable", "with-state"]),
        (("--filter", "held"), ["held"]),
        (("--held",), ["held"]),
        (("--free",), ["delayed", "runnable", "with-state"]),
        (("--filter", "runnable"), ["runnable"]),
        (("--filter", "waiting"), ["delayed"]),
        (("--filter", "dead-letters"), ["dead"]),
        (("--filter", "state-only"), ["with-state"]),
        (("--state-since", "2026-01-31T12:00:00Z"), ["with-state"]),
        (("--state-since", "2999-01-31T12:00:00Z"), []),
    ],
)
def test_add_9_sessions_are_listed_by_a_filter(
    lockstep: Command, words: tuple[str, ...], expected: list[str]
) -> None:
    listed = fine(lockstep("sessions", "list", "orders", *words))

    assert [session["session_id"] for session in listed] == expected


@pytest.mark.usefixtures("stocked")
def test_add_9_the_figures_of_a_session_are_shown(lockstep: Command, where: list[str]) -> None:
    (held,) = fine(lockstep("sessions", "list", "orders", "--held"))
    assert (held["holder_client_id"], held["renewal_count"]) == ("worker-1", 1)
    assert held["holder_address"].startswith("ipv4:127.0.0.1:")

    table = as_text(where, "sessions", "list", "orders")
    headings, *rows = table.splitlines()
    assert headings.split("  ")[0] == "SESSION"
    for heading in ("RENEWED", "OLDEST", "SET ASIDE", "LAST LOSS"):
        assert heading in headings
    assert any("worker-1 at 127.0.0.1:" in line for line in rows)
    assert any(line.startswith("delayed ") and "closed" in line for line in rows)
    free = as_text(where, "sessions", "list", "orders", "--filter", "runnable")
    assert "RENEWED" not in free
    shown = as_text(where, "sessions", "show", "orders", "delayed")
    assert "because of an abandon with a delay" in shown
    assert "nothing is delivered before" in shown


def test_two_filters_at_once_are_refused(lockstep: Command) -> None:
    for words in (("--held", "--filter", "held"), ("--filter", "free")):
        wrong = lockstep("sessions", "list", "orders", *words)
        assert (wrong.returncode, reason(wrong)) == (USAGE, "USAGE")


# --- states ------------------------------------------------------------------------------------------


def test_ses_44_states_are_purged_once_somebody_is_sure(
    lockstep: Command, stocked: tuple[AdministrationClient, QueueReceiver]
) -> None:
    administration, holder = stocked
    holder.session.set_state(b"mine")
    unsure = lockstep("sessions", "state", "purge", "orders")
    assert (unsure.returncode, reason(unsure)) == (USAGE, "NOT_CONFIRMED")
    assert "clears 1 state of orders" in unsure.stderr
    purge = ("sessions", "state", "purge", "orders", "--yes")
    assert fine(lockstep(*purge, "--idle-for", "7d"))["cleared_states"] == 0

    assert fine(lockstep(*purge))["cleared_states"] == 1

    assert administration.get_session("orders", "with-state").state_size_in_bytes is None
    assert administration.get_session("orders", "held").state_size_in_bytes == 4
    held = lockstep("sessions", "state", "purge", "orders", "--session", "held")
    assert reason(held) == "SESSION_CANNOT_BE_LOCKED"


@pytest.mark.parametrize(("answer", "code", "size"), [("n", FAILED, 5), ("y", 0, None)])
def test_a_purge_of_states_asks_a_person_who_is_there(
    where: list[str],
    stocked: tuple[AdministrationClient, QueueReceiver],
    answer: str,
    code: int,
    size: int | None,
) -> None:
    ours, theirs = pty.openpty()
    try:
        words = [one for one in where if one != "--json"]
        with subprocess.Popen(
            [*COMMAND, *words, "sessions", "state", "purge", "orders"],
            env=ENVIRONMENT,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as purging:
            os.write(ours, f"{answer}\n".encode())
            _, told = purging.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)

    assert purging.returncode == code, told
    assert "Clear 1 state of orders for good?" in told
    assert stocked[0].get_session("orders", "with-state").state_size_in_bytes == size


def test_idle_times_of_a_queue_are_set_shown_and_taken_back(
    lockstep: Command, where: list[str]
) -> None:
    idle = ("--auto-delete-on-idle", "1h", "--state-idle-ttl", "7d")
    made = fine(lockstep("queue", "create", "orders", "--session", *idle))
    assert (made["auto_delete_on_idle"], made["session_state_idle_ttl"]) == (3600.0, 604800.0)
    shown = as_text(where, "queue", "show", "orders")
    for words in (
        "after 1h in which nobody used",
        "nothing happened for 7d",
        "Last used",
        "Delayed",
    ):
        assert words in shown

    fine(lockstep("queue", "update", "orders", "--auto-delete-on-idle", "never"))

    assert "Auto-delete" not in as_text(where, "queue", "show", "orders")


# --- explanations ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("stocked")
@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ((), "no_receiver"),
        (("--session", "held"), "held"),
        (("--session", "runnable"), "no_receiver"),
        (("--session", "delayed"), "delayed"),
        (("--session", "with-state"), "empty"),
        (("--message", "1"), "delayed"),
        (("--message", "2"), "dead_lettered"),
        (("--message", "3"), "held"),
        (("--message", "99"), "gone"),
    ],
)
def test_add_10_what_keeps_a_message_is_told(
    lockstep: Command, words: tuple[str, ...], cause: str
) -> None:
    assert fine(lockstep("explain", "orders", *words))["cause"] == cause


@pytest.mark.usefixtures("stocked")
def test_snd_3_a_person_is_told_what_to_check(lockstep: Command, where: list[str]) -> None:
    address, namespace, release = where[1], where[3], version("lockstep-broker")
    told = as_text(where, "explain", "orders", "--session", "held")
    for words in (
        "is held by 'worker-1'",
        "What ends it: The holder settles",
        f"{address} answered; it runs release {release}, this command {release}\n",
        f"{namespace}/orders: senders and receivers must use exactly this one",
        "none waits for something to come",
        "worker-1 at 127.0.0.1:",
        "Ends by itself",
    ):
        assert words in told

    found = fine(lockstep("explain", "orders"))
    assert (found["server"], found["client_release"]) == (
        {"address": address, "release": release},
        release,
    )
    assert [session["session_id"] for session in found["held_sessions"]] == ["held"]
    assert found["path"] == f"{namespace}/orders"
    assert found["facts"]["last_receiver"] == "worker-1"


def test_snd_3_a_queue_that_is_not_there_brings_similar_names(
    lockstep: Command, where: list[str]
) -> None:
    fine(lockstep("queue", "create", "Orders/new"))
    missing = lockstep("explain", "order/new")
    assert (missing.returncode, reason(missing)) == (NOT_FOUND, "ENTITY_NOT_FOUND")

    words = [one for one in where if one != "--json"]
    told = subprocess.run(
        [*COMMAND, *words, "explain", "order/new"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "There is Orders/new." in told.stderr


def test_a_disabled_queue_is_explained_as_such(lockstep: Command, where: list[str]) -> None:
    fine(lockstep("queue", "create", "jobs", "--status", "receive-disabled"))

    told = as_text(where, "explain", "jobs")

    assert "forbids receiving" in told
    assert f"{where[3]}/jobs" in told
    assert fine(lockstep("explain", "jobs"))["cause"] == "disabled"
    both = lockstep("explain", "jobs", "--session", "A", "--message", "1")
    assert (both.returncode, reason(both)) == (USAGE, "USAGE")
