"""The command line as a whole, as far as it needs no server."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from lockstep.cli.main import app, split_global_options

COMMANDS = [
    "serve",
    "send",
    "receive",
    "queue create",
    "queue list",
    "queue show",
    "queue update",
    "queue status",
    "queue delete",
    "sessions list",
    "sessions show",
    "sessions state get",
    "sessions state set",
    "sessions state clear",
    "sessions state purge",
    "peek",
    "schedule cancel",
    "dlq list",
    "dlq jobs",
    "dlq wait",
    "dlq cancel",
    "dlq resubmit",
    "dlq purge",
    "dlq move",
    "sessions dead-letter",
    "explain",
    "export",
    "top",
]
# An address that the client refuses before it connects anywhere.
NO_ADDRESS = "http://broker.example"


def run(*words: str, text: str | None = None) -> Result:
    return CliRunner().invoke(app, list(words), input=text, prog_name="lockstep")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_examples(command: str) -> None:
    result = run(*command.split(), "--help")

    examples = result.stdout.partition("Examples:\n")[2].splitlines()
    shown = [line for line in examples if line.startswith("  ") and f"lockstep {command}" in line]
    assert result.exit_code == 0
    assert 2 <= len(shown) <= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_screen_of_80_columns(command: str) -> None:
    examples = run(*command.split(), "--help").stdout.partition("Examples:\n")[2]

    assert [line for line in examples.splitlines() if len(line) > 80] == []


def test_usage_shows_required_arguments_bare() -> None:
    assert "Usage: lockstep send [OPTIONS] QUEUE [BODY]...\n" in run("send", "--help").stdout


def test_help_documents_the_exit_codes_and_global_options() -> None:
    result = run("--help")

    assert result.exit_code == 0
    for words in ("Exit codes:", "cannot be reached", "nothing there", "LOCKSTEP_SERVER", "--json"):
        assert words in result.stdout


def test_without_a_command_help_is_shown() -> None:
    result = run()

    assert result.exit_code == 2
    assert "Commands:" in result.stdout


def test_the_version_is_shown() -> None:
    result = run("--version")

    assert result.exit_code == 0
    assert result.stdout.startswith("lockstep ")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("nonsense",), "No such command"),
        (("sned",), "Did you mean 'send'? See"),
        (("queue",), "Missing command"),
        (("queue", "create"), "QUEUE"),
        (("queue", "create", "q", "--lock-duration", "soon"), "'soon' is not a duration"),
        (("queue", "create", "q", "--placement", "here"), "'here' is not one of"),
        (("queue", "update", "q"), "at least one setting"),
        (("queue", "update", "q", "--default-ttl", "ever"), "'ever' is not a duration"),
        (("queue", "status", "q", "off"), "'off' is not one of"),
        (("send", "q", "a", "--ttl", "long"), "'long' is not a duration"),
        (("send", "q", "a", "--schedule-at", "noon"), "'noon' is not a time"),
        (("send", "q", "a", "--schedule-at", "2026-01-31T12:00"), "no zone"),
        (("send", "q", "--delay", "1h", "--schedule-at", "2026-01-31T12:00Z"), "Choose one"),
        (("receive", "q", "--abandon", "--defer"), "Choose one"),
        (("receive", "q", "--defer", "--no-complete"), "Choose one"),
        (("receive", "q", "--mode", "receive-and-delete", "--abandon"), "given back"),
        (("receive", "q", "--mode", "delete"), "'delete' is not one of"),
        (("receive", "q", "--deferred", "a"), "'a' is not a sequence number"),
        (("receive", "q", "--deferred", "1", "--follow"), "names its messages"),
        (("receive", "q", "--follow", "--defer"), "--follow"),
        (("receive", "q", "--follow", "--dead-letter", "--reason", "R"), "--follow"),
        (("receive", "q", "--defer", "--dead-letter", "--reason", "R"), "Choose one"),
        (("receive", "q", "--dead-letter"), "write --dead-letter-queue"),
        (("receive", "q", "--dead-letter", "--reason", ""), "needs --reason"),
        (("receive", "q", "--dlq", "--dead-letter", "--reason", "R"), "lockstep dlq move"),
        (("receive", "q", "--reason", "R"), "add --dead-letter"),
        (("receive", "q", "--abandon", "--description", "D"), "add --dead-letter"),
        (("receive", "q", "--dead-letter", "--reason", "R" * 4097), "limited to 4096"),
        (("receive", "q", "--delay", "10m"), "add --abandon"),
        (("receive", "q", "--defer", "--delay", "10m"), "add --abandon"),
        (("receive", "q", "--abandon", "--delay", "soon"), "'soon' is not a duration"),
        (("receive", "q", "--abandon", "--delay", "8d"), "at most 7d"),
        (("receive", "q", "--set", "a=b"), "--set goes with"),
        (("receive", "q", "--no-complete", "--set", "a=b"), "--set goes with"),
        (("receive", "q", "--abandon", "--set", "bad"), "name=text"),
        (("peek", "q/$DeadLetterQueue", "--session", "A"), "no sessions"),
        (("peek", "q", "--max", "0"), "--max"),
        (("schedule", "cancel", "q"), "NUMBER"),
        (("dlq", "resubmit", "q", "--at-head", "--to-session", "A"), "--to-session"),
        (("dlq", "resubmit", "q", "--sequence", "5-3"), "lowest first"),
        (("dlq", "resubmit", "q", "--set", "bad"), "name=text"),
        (("dlq", "resubmit", "q", "--rate", "0"), "--rate"),
        (("dlq", "purge", "q", "--property", "n:=x"), "cannot be read"),
        (("dlq", "purge", "q", "--since", "noon"), "'noon' is not a time"),
        (
            ("dlq", "purge", "q", "--since", "2026-01-02T00:00Z", "--until", "2026-01-01T00:00Z"),
            "--until must be later",
        ),
        (("dlq", "move", "q"), "TARGET"),
        (("dlq", "cancel", "q", "first"), "JOB"),
        (("schedule", "cancel", "q", "5-3"), "lowest first"),
        (("sessions", "state", "set", "q", "A"), "TEXT or with --file"),
        (("sessions", "state", "set", "q", "A", "x", "--file", "-"), "TEXT or with --file"),
        (("sessions", "state", "set", "q", "A", "--file", "no/such"), "No such file"),
        (("sessions", "state", "set", "q", "A", "x", "--if-version", "-1"), "--if-version"),
        (("send", "q", "a", "--count", "0"), "--count"),
        (("send", "q", "a", "--property", "bad"), "name=text"),
        (("send", "q", "--lines", "--jsonl"), "Choose one"),
        (("send", "q", "a", "--whole"), "--whole"),
        (("send", "q", "a", "--file", "-"), "not both"),
        (("send", "q", "--count", "5"), "--count repeats"),
        (("send", "q", "a", "b", "--message-id", "m"), "{n}"),
        (("send", "q", "--file", "no/such/file"), "No such file"),
        (("send", "q", "--file", "."), "directory"),
        (("receive", "q", "--max", "0"), "--max"),
        (("receive", "q", "--wait", "later"), "'later' is not a duration"),
        (("receive", "q", "--session", "A", "--next-session"), "Choose one"),
        (("receive", "q", "--dlq", "--session", "A"), "no sessions"),
        (("receive", "q", "--follow", "--abandon"), "--follow"),
        (("receive", "q", "--follow", "--no-complete"), "--follow"),
        (("serve", "--set", "port"), "KEY=VALUE"),
        (("serve", "--set", "prot=1"), "port"),
        (("serve", "--port", "99999"), "65535"),
        (("serve", "--log-level", "loud"), "'loud' is not one of"),
        (("queue", "list", "--server", NO_ADDRESS), NO_ADDRESS),
        (("queue", "list", "--server", "127.0.0.1:abc"), "port"),
        (("send", "q", "a", "--server", "127.0.0.1:99999"), "from 1 to 65535"),
        (("receive", "q", "--server", "127.0.0.1:"), "port"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_exit_code_2(
    words: tuple[str, ...], complaint: str
) -> None:
    result = run(*words)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--json", "nonsense"), "USAGE"),
        (("send", "q", "a", "--file", "-", "--json"), "USAGE"),
        (("queue", "list", "--json", "--server", NO_ADDRESS), "INVALID_ARGUMENT"),
        (("serve", "--json", "--port", "x"), "INVALID_ARGUMENT"),
    ],
)
def test_with_json_an_error_is_an_object(words: tuple[str, ...], reason: str) -> None:
    result = run(*words)

    error = json.loads(result.stderr)["error"]
    assert result.exit_code == 2
    assert result.stdout == ""
    assert error["reason"] == reason
    assert set(error) == {"reason", "message", "details"}


def test_an_unreadable_line_is_named_before_anything_is_sent() -> None:
    result = run("send", "q", "--jsonl", text='{"body": 1}\n{"bdy": 2}\n')

    assert result.exit_code == 2
    assert "Line 2" in result.stderr
    assert "Stored: 0" in result.stderr


def test_an_empty_input_sends_nothing_and_says_so() -> None:
    result = run("send", "q", text="\n\n")

    assert result.exit_code == 0
    assert "nothing was sent" in result.stderr


def test_the_configuration_can_be_shown_without_starting() -> None:
    result = run("serve", "--port", "7800", "--set", "limits.queues_max=50", "--show-config")

    assert result.exit_code == 0
    assert "port = 7800" in result.stdout
    assert "queues_max = 50" in result.stdout


def test_the_configuration_is_json_for_programs() -> None:
    result = run("serve", "--store", "memory", "--show-config", "--json")

    assert json.loads(result.stdout)["store"] == "memory"


@pytest.mark.parametrize(
    ("words", "found", "rest"),
    [
        (["queue", "list", "--json"], ["--json"], ["queue", "list"]),
        (["--server", "a:1", "send", "q"], ["--server", "a:1"], ["send", "q"]),
        (["send", "q", "--server=a:1", "x"], ["--server=a:1"], ["send", "q", "x"]),
        (["send", "q", "--", "--json"], [], ["send", "q", "--", "--json"]),
        (["send", "--namespace"], ["--namespace"], ["send"]),
        (["send", "q", "--no-color", "-"], ["--no-color"], ["send", "q", "-"]),
    ],
)
def test_global_options_may_stand_anywhere(
    words: list[str], found: list[str], rest: list[str]
) -> None:
    assert split_global_options(words) == (found, rest)
