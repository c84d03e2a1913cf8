"""What a command prints, and where."""

from __future__ import annotations

import errno
import io
import json
import sys
from collections.abc import Callable

import pytest

from lockstep.cli.exits import CommandFailed, ExitCode, Failure
from lockstep.cli.output import Column, Output

Captured = pytest.CaptureFixture[str]
FAILURE = Failure("QUOTA_EXCEEDED", "The queue is full.", ExitCode.FAILED, {"limit": "1 MiB"})


def test_a_failure_is_one_sentence_with_its_reason(capsys: Captured) -> None:
    Output().failure(FAILURE)

    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: The queue is full. (QUOTA_EXCEEDED)\n"


def test_a_failure_is_an_object_for_programs(capsys: Captured) -> None:
    Output(is_json=True).failure(FAILURE)

    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {
        "error": {
            "reason": "QUOTA_EXCEEDED",
            "message": "The queue is full.",
            "details": {"limit": "1 MiB"},
        }
    }


def test_nothing_there_is_not_called_an_error(capsys: Captured) -> None:
    Output().failure(Failure("NOTHING_THERE", "No messages came.", ExitCode.NOTHING_THERE))

    assert capsys.readouterr().err == "No messages came. (NOTHING_THERE)\n"


def test_results_and_remarks_go_to_different_streams(capsys: Captured) -> None:
    output = Output()

    output.say("stored")
    output.note("by the way")

    assert capsys.readouterr() == ("stored\n", "by the way\n")


def test_sentences_are_silent_for_programs(capsys: Captured) -> None:
    output = Output(is_json=True)

    output.say("stored")
    output.note("by the way")
    output.data({"stored": 1, "name": "grün"})

    assert capsys.readouterr() == ('{"stored": 1, "name": "grün"}\n', "")


def test_a_table_in_a_pipe_is_not_folded(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    long = "x" * 5000

    Output().table((Column("N", is_number=True), Column("BODY")), [("1", long), ("20", "b")])

    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["N", "BODY"]
    assert first == f" 1  {long}"
    assert second == "20  b"


def test_a_row_in_a_pipe_is_one_line(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)

    Output().table((Column("BODY"), Column("N")), [("a\nb", "1"), ("c", "2")])

    assert capsys.readouterr().out == "BODY  N\na\\nb  1\nc     2\n"


def test_a_table_loses_nothing_on_a_narrow_screen(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    body = "0123456789" * 20

    Output().table((Column("N", is_number=True), Column("BODY")), [("1", body)], has_headings=False)

    assert "".join(capsys.readouterr().out.split()) == "1" + body


def test_no_column_is_left_out_on_a_screen_that_is_too_narrow(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    columns = (Column("QUEUE"), Column("MESSAGES", is_number=True), Column("DEAD", is_number=True))

    Output().table(columns, [("orders", "1,000,000", "5")])

    assert capsys.readouterr().out.split() == [
        *("QUEUE", "MESSAGES", "DEAD"),
        *("orders", "1,000,000", "5"),
    ]


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_output_that_cannot_be_written_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    output, for_programs = Output(), Output(is_json=True)

    ways: list[Callable[[], None]] = [
        lambda: output.say("stored"),
        lambda: output.table((Column("QUEUE"),), [("orders",)]),
        lambda: for_programs.data({}),
    ]
    for print_it in ways:
        with pytest.raises(CommandFailed) as caught:
            print_it()

        assert caught.value.failure.reason == "OUTPUT_FAILED"
        assert caught.value.failure.code is ExitCode.FAILED


def test_cells_cannot_steer_the_terminal_and_are_not_markup(capsys: Captured) -> None:
    Output().table((Column("BODY"),), [("\x1b[2J[red]:smile:",)])
    Output().facts([("Name", "\x1b]0;title\x07")])

    out = capsys.readouterr().out
    assert "\\x1b[2J[red]:smile:" in out
    assert "\\x1b]0;title\\x07" in out


def test_progress_is_silent_outside_a_terminal(capsys: Captured) -> None:
    with Output().progress("Sending", total=5, is_long=True) as advance:
        advance(5)

    assert capsys.readouterr() == ("", "")
