"""What the command line does with messages, states and settings, against a real server."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess

import pytest
from typer.testing import CliRunner

from lockstep import QueueSettings
from lockstep.cli.main import app
from lockstep.core.entity import NOT_AVAILABLE_YET
from tests.client.command_line import (
    COMMAND,
    CONFLICT,
    ENVIRONMENT,
    INTERRUPTED,
    NOT_FOUND,
    NOTHING_THERE,
    USAGE,
    Command,
    fine,
    lines,
    reason,
)
from tests.server.server_process import ServerProcess

HAS_NO_EFFECT = "enable_batched_operations"
CREATED = {
    "--session": ("requires_session", True),
    "--placement=single": ("placement", "single"),
    "--duplicate-detection": ("requires_duplicate_detection", True),
}
CHANGED = {
    "--duplicate-window=1h": ("duplicate_detection_history_time_window", 3600),
    "--lock-duration=2m": ("lock_duration", 120),
    "--max-delivery-count=3": ("max_delivery_count", 3),
    "--default-ttl=14d": ("default_message_time_to_live", 14 * 86_400),
    "--dead-letter-expired": ("dead_lettering_on_message_expiration", True),
    "--session-expiry=per-message": ("session_expiry", "per_message"),
    "--status=send-disabled": ("status", "send_disabled"),
    "--max-size-mib=5": ("max_size_in_megabytes", 5),
    "--max-message-size-kib=7": ("max_message_size_in_kilobytes", 7),
    "--max-session-state-size-kib=6": ("max_session_state_size_in_kilobytes", 6),
    "--session-lock-extension=off": ("session_lock_extension", "off"),
    "--accept-next=disabled": ("accept_next", "disabled"),
    "--recall-on-abandon": ("recall_on_abandon", True),
    "--release-on-disconnect": ("release_on_disconnect", True),
    "--auto-delete-on-idle=1h": ("auto_delete_on_idle", 3_600),
    "--state-idle-ttl=7d": ("session_state_idle_ttl", 7 * 86_400),
    "--user-metadata=of ann": ("user_metadata", "of ann"),
}


@pytest.fixture
def lockstep(where: list[str]) -> Command:
    """Run `lockstep --json …` in this process, which takes a fraction of the time of another one."""

    def run(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        result = CliRunner().invoke(app, [*where, *words], input=text, prog_name="lockstep")
        if not isinstance(result.exception, SystemExit | None):
            raise result.exception
        return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)

    return run


def test_every_setting_that_the_broker_takes_has_an_option_and_is_shown(lockstep: Command) -> None:
    expected = dict([*CREATED.values(), *CHANGED.values()])
    refused = {name.removesuffix("_ms") for name in NOT_AVAILABLE_YET}
    assert {*expected, *refused, HAS_NO_EFFECT} == set(QueueSettings.__annotations__)

    created = fine(lockstep("queue", "create", "all", *CREATED, *CHANGED))
    fine(lockstep("queue", "create", "few", *CREATED))
    fine(lockstep("queue", "update", "few", *CHANGED))
    updated = fine(lockstep("queue", "show", "few"))

    assert {name: created[name] for name in expected} == expected
    assert {name: updated[name] for name in expected} == expected


def test_a_default_time_to_live_can_be_taken_back(lockstep: Command) -> None:
    fine(lockstep("queue", "create", "orders", "--default-ttl", "1d"))
    fine(lockstep("queue", "update", "orders", "--default-ttl", "never"))
    fine(lockstep("send", "orders", "hello"))

    (message,) = lines(lockstep("peek", "orders"))

    assert "expires_at_utc" not in message


def test_a_status_forbids_sending_until_it_is_active_again(lockstep: Command) -> None:
    fine(lockstep("queue", "create", "orders"))
    set_to = fine(lockstep("queue", "status", "orders", "send-disabled"))

    refused = lockstep("send", "orders", "hello")

    assert set_to == {"name": "orders", "status": "send_disabled"}
    assert (refused.returncode, reason(refused)) == (CONFLICT, "ENTITY_DISABLED")
    assert fine(lockstep("queue", "status", "orders"))["status"] == "send_disabled"
    fine(lockstep("queue", "status", "orders", "active"))
    assert fine(lockstep("send", "orders", "hello"))["sent"] == 1


def test_dup_11_duplicates_are_named(lockstep: Command) -> None:
    fine(lockstep("queue", "create", "orders", "--duplicate-detection"))
    first = fine(lockstep("send", "orders", "--message-id", "m{n}", "a", "b"))

    again = fine(lockstep("send", "orders", "--message-id", "m{n}", "a", "b", "c", "--skip", "1"))

    assert first["duplicate_indexes"] == []
    assert again["duplicate_indexes"] == [0]
    assert again["sequence_numbers"][0] == first["sequence_numbers"][1]
    assert [message["body"] for message in lines(lockstep("peek", "orders"))] == ["a", "b", "c"]


def test_sch_5_scheduled_messages_are_taken_back_all_or_none(lockstep: Command) -> None:
    fine(lockstep("queue", "create", "orders"))
    sent = fine(lockstep("send", "orders", "--delay", "1d", "a", "b"))
    fine(lockstep("send", "orders", "--schedule-at", "2026-01-31T12:00:00Z", "of the past"))
    assert sent["scheduled_indexes"] == [0, 1]
    assert [m["state"] for m in lines(lockstep("peek", "orders"))] == [
        "scheduled",
        "scheduled",
        "active",
    ]

    assert lockstep("schedule", "cancel", "orders", "1-3").returncode == NOT_FOUND
    cancelled = fine(lockstep("schedule", "cancel", "orders", "1-2"))

    assert cancelled["cancelled_sequence_numbers"] == [1, 2]
    assert [m["body"] for m in lines(lockstep("peek", "orders"))] == ["of the past"]


def test_what_a_look_prints_can_be_sent_elsewhere_as_it_was(lockstep: Command) -> None:
    fine(lockstep("queue", "create", "orders"))
    fine(lockstep("queue", "create", "copy"))
    properties = ("--property", "n:=5", "--correlation-id", "c", "--reply-to", "r", "--to", "t")
    fine(lockstep("send", "orders", "--ttl", "1h", "--delay", "1d", *properties, "later"))
    fine(lockstep("send", "orders", "--reply-to-session", "s", "now"))
    looked = lockstep("peek", "orders")

    fine(lockstep("send", "copy", "--jsonl", text=looked.stdout))

    own = ("sequence_number", "enqueued_time_utc", "expires_at_utc")
    first, second = (
        [{name: v for name, v in m.items() if name not in own} for m in lines(done)]
        for done in (looked, lockstep("peek", "copy"))
    )
    assert first == second
    assert first[0]["application_properties"] == {"n": 5}
    assert (first[0]["time_to_live"], first[0]["state"]) == (3600, "scheduled")


def test_pek_6_a_look_shows_a_session_that_somebody_holds_and_dead_letters_apart(
    lockstep: Command,
) -> None:
    fine(lockstep("queue", "create", "orders", "--session", "--max-delivery-count", "1"))
    fine(lockstep("send", "orders", "--session", "A", "1"))
    assert lockstep("receive", "orders", "--abandon").returncode == 0
    fine(lockstep("send", "orders", "--session", "A", "2", "3"))
    fine(lockstep("send", "orders", "--session", "B", "4"))

    def bodies(*words: str) -> list[str]:
        return [message["body"] for message in lines(lockstep("peek", *words))]

    assert bodies("orders") == ["2", "3", "4"]
    assert bodies("orders", "--session", "A") == ["2", "3"]
    assert bodies("orders", "--from", "3", "--max", "1") == ["3"]
    assert bodies("orders/$DeadLetterQueue") == bodies("orders", "--dlq") == ["1"]
    assert bodies("orders", "--from", "99") == []
    assert fine(lockstep("queue", "show", "orders"))["active_message_count"] == 3


def test_add_1_a_look_tells_the_cursor_that_goes_on(lockstep: Command, where: list[str]) -> None:
    fine(lockstep("queue", "create", "orders", "--session"))
    fine(lockstep("send", "orders", "--session", "A", "1", "2", "3"))

    for_people = [word for word in where if word != "--json"]
    told = CliRunner().invoke(app, [*for_people, "peek", "orders", "--max", "2"]).stderr
    cursor = told.partition("--cursor ")[2].split()[0]
    rest = lockstep("peek", "orders", "--cursor", cursor)

    assert [message["body"] for message in lines(rest)] == ["3"]
    assert lockstep("peek", "orders", "--cursor", cursor, "--from", "1").returncode == USAGE


@pytest.mark.parametrize("session", [(), ("--session", "A")])
def test_def_2_what_was_deferred_is_received_by_its_number(
    lockstep: Command, session: tuple[str, ...]
) -> None:
    fine(lockstep("queue", "create", "orders", *session[:1]))
    fine(lockstep("send", "orders", *session, "1", "2", "3"))
    assert len(lines(lockstep("receive", "orders", *session, "--max", "2", "--defer"))) == 2

    missing = lockstep("receive", "orders", *session, "--deferred", "1-3")
    looked = lines(lockstep("receive", "orders", *session, "--deferred", "2", "--no-complete"))
    got = lines(lockstep("receive", "orders", *session, "--deferred", "1,2"))

    assert (missing.returncode, reason(missing)) == (NOT_FOUND, "MESSAGE_NOT_FOUND")
    assert [message["body"] for message in looked] == ["2"]
    assert [(message["body"], message["delivery_count"]) for message in got] == [("1", 1), ("2", 1)]
    assert fine(lockstep("queue", "show", "orders"))["total_message_count"] == 1


def test_def_5_deferred_messages_of_a_session_need_its_name(lockstep: Command) -> None:
    fine(lockstep("queue", "create", "orders", "--session"))

    done = lockstep("receive", "orders", "--deferred", "1")

    assert done.returncode == USAGE
    assert "--session" in done.stderr


@pytest.mark.parametrize("session", [(), ("--session", "A")])
def test_dlq_7_a_message_is_dead_lettered_with_reason_description_and_properties(
    lockstep: Command, session: tuple[str, ...]
) -> None:
    fine(lockstep("queue", "create", "orders", *session[:1]))
    fine(lockstep("send", "orders", *session, "--property", "tried=no", "1", "2"))
    why = ("--reason", "UnknownCurrency", "--description", "CHF is not known")

    done = lockstep(
        "receive",
        "orders",
        "--max",
        "1",
        "--dead-letter",
        *why,
        "--set",
        "tried=yes",
        "--set",
        "n:=5",
    )

    assert [message["body"] for message in lines(done)] == ["1"]
    (dead,) = lines(lockstep("receive", "orders", "--dlq"))
    assert (dead["body"], dead["delivery_count"]) == ("1", 0)
    assert dead["dead_letter_reason"] == "UnknownCurrency"
    assert dead["dead_letter_error_description"] == "CHF is not known"
    assert dead["application_properties"] == {"tried": "yes", "n": 5}
    assert [message["body"] for message in lines(lockstep("receive", "orders"))] == ["2"]


def test_people_are_told_what_became_of_messages_and_how_to_find_them(
    where: list[str], lockstep: Command
) -> None:
    fine(lockstep("queue", "create", "orders"))
    fine(lockstep("send", "orders", "1", "2"))

    def told(*words: str) -> str:
        options = [one for one in where if one != "--json"]
        done = CliRunner().invoke(
            app, [*options, "receive", "orders", "--max", "1", *words], prog_name="lockstep"
        )
        assert done.exit_code == 0, done.stderr
        return done.stderr

    assert "delivered again after 1d." in told("--abandon", "--delay", "1d")
    to_look = told("--dead-letter", "--reason", "Unknown currency").splitlines()[-1]

    before, _, command = to_look.partition(" lockstep ")
    assert before == "To look at them:"
    shown = CliRunner().invoke(app, [*where[:2], *shlex.split(command)], prog_name="lockstep")
    assert (shown.exit_code, shown.stderr.splitlines()[0]) == (
        0,
        "1 dead letter shown. There are no more.",
    )


def test_more_messages_than_one_receive_gives_are_dead_lettered_as_they_come(
    lockstep: Command,
) -> None:
    fine(lockstep("queue", "create", "orders"))
    fine(lockstep("send", "orders", "--count", "501", "{n}"))

    done = lockstep("receive", "orders", "--max", "1000", "--dead-letter", "--reason", "R")

    assert len({message["body"] for message in lines(done)}) == 501
    assert fine(lockstep("queue", "show", "orders"))["dead_letter_message_count"] == 501


@pytest.mark.parametrize(
    ("session", "left"), [((), ["2"]), (("--session", "A"), [])], ids=["plain", "session"]
)
def test_add_6_an_abandoned_message_waits_for_the_end_of_its_delay(
    lockstep: Command, session: tuple[str, ...], left: list[str]
) -> None:
    fine(lockstep("queue", "create", "orders", *session[:1]))
    fine(lockstep("send", "orders", *session, "1", "2"))

    done = lockstep("receive", "orders", "--max", "1", "--abandon", "--delay", "1d")
    meanwhile = lockstep("receive", "orders", *session, "--wait", "0s", "--no-complete")

    assert [message["body"] for message in lines(done)] == ["1"]
    assert [json.loads(line)["body"] for line in meanwhile.stdout.splitlines()] == left
    first = lines(lockstep("peek", "orders"))[0]
    assert (first["body"], first["delivery_count"]) == ("1", 1)


@pytest.mark.parametrize("how", ["--abandon", "--defer"])
def test_msg_8_a_message_that_is_not_removed_can_get_properties(
    lockstep: Command, how: str
) -> None:
    fine(lockstep("queue", "create", "orders"))
    fine(lockstep("send", "orders", "--property", "colour=red", "1"))

    assert len(lines(lockstep("receive", "orders", how, "--set", "tried:=1"))) == 1

    (looked,) = lines(lockstep("peek", "orders"))
    assert looked["application_properties"] == {"colour": "red", "tried": 1}


@pytest.mark.parametrize("session", [(), ("--session", "A")])
def test_rcv_1_receive_and_delete_leaves_nothing(
    lockstep: Command, session: tuple[str, ...]
) -> None:
    fine(lockstep("queue", "create", "orders", *session[:1]))
    fine(lockstep("send", "orders", *session, "1", "2"))

    got = lines(lockstep("receive", "orders", "--mode", "receive-and-delete"))

    assert [message["body"] for message in got] == ["1", "2"]
    assert lockstep("receive", "orders", "--wait", "0s").returncode == NOTHING_THERE
    assert fine(lockstep("queue", "show", "orders"))["total_message_count"] == 0


def test_add_7_a_state_is_written_on_condition_of_its_version(lockstep: Command) -> None:
    fine(lockstep("queue", "create", "orders", "--session"))
    state = ("sessions", "state")
    of = ("orders", "A")
    assert fine(lockstep(*state, "get", *of)) == {"session_id": "A", "state": None, "version": 0}
    stored = fine(lockstep(*state, "set", *of, "begun", "--if-version", "0"))

    refused = lockstep(*state, "set", *of, "again", "--if-version", "0")

    assert stored["state_size_in_bytes"] == 5
    first = stored["version"]
    assert (refused.returncode, reason(refused)) == (CONFLICT, "STATE_CONFLICT")
    assert fine(lockstep(*state, "get", *of))["state"] == "begun"
    second = fine(lockstep(*state, "set", *of, "--file", "-", text=""))["version"]
    assert second > first > 0
    assert fine(lockstep(*state, "get", *of))["state"] == ""
    assert lockstep(*state, "clear", *of, "--if-version", str(first)).returncode == CONFLICT
    assert fine(lockstep(*state, "clear", *of, "--if-version", str(second)))["version"] > second
    assert fine(lockstep(*state, "get", *of))["state"] is None


def test_a_follower_that_is_stopped_loses_nothing_and_repeats_nothing(
    lockstep: Command, where: list[str]
) -> None:
    total = 3_000
    fine(lockstep("queue", "create", "orders", "--session"))
    fine(
        lockstep(
            "send", "orders", "--session", "A", "--count", str(total), "--batch", "1000", "{n}"
        )
    )
    with subprocess.Popen(
        [*COMMAND, *where, "receive", "orders", "--session", "A", "--follow", "--max", "7"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as follower:
        assert follower.stdout is not None
        first = follower.stdout.readline()

        follower.send_signal(signal.SIGINT)

        rest = follower.stdout.readlines()
    printed = [json.loads(line)["body"] for line in [first, *rest]]

    left = lines(lockstep("receive", "orders", "--max", str(total)))

    assert follower.returncode == INTERRUPTED
    assert 0 < len(printed) < total
    assert [*printed, *(m["body"] for m in left)] == [str(n) for n in range(1, total + 1)]
    assert {message["delivery_count"] for message in left} == {0}


def test_a_follower_outlasts_a_restart_of_its_server(own_server: ServerProcess) -> None:
    where = ["--server", f"127.0.0.1:{own_server.port}", "--json"]

    def run(*words: str) -> None:
        subprocess.run([*COMMAND, *where, *words], env=ENVIRONMENT, timeout=60, check=True)

    run("queue", "create", "orders", "--session")
    with subprocess.Popen(
        [*COMMAND, *where, "receive", "orders", "--follow", "--wait", "0s"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    ) as follower:
        assert follower.stdout is not None
        run("send", "orders", "--session", "A", "before")
        assert json.loads(follower.stdout.readline())["body"] == "before"

        own_server.restart(with_kill=True)
        run("send", "orders", "--session", "A", "after")

        assert json.loads(follower.stdout.readline())["body"] == "after"
        follower.terminate()
        assert follower.wait(60) == INTERRUPTED
