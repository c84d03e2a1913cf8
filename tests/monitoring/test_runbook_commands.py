"""The commands of the runbooks are commands of this product, with options that it has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from lockstep.cli.main import app

PAGES = Path(__file__).parents[2] / "docs" / "runbooks"
_INLINE = re.compile(r"`(lockstep [^`]+)`")
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[str, str]]:
    """Give every command line that begins with `lockstep`, with its page."""
    for path in sorted(PAGES.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        lines = [line for block in _BLOCK.findall(text) for line in block.splitlines()]
        for line in (*lines, *_INLINE.findall(_BLOCK.sub("", text))):
            command = re.split(r" [|>] ", line.rpartition(" -- ")[2])[0]
            if command.startswith("lockstep ") and "…" not in command:
                yield path.stem, command


ALL = sorted(set(commands()))


def complaint(line: str) -> str:
    """Return what is wrong with a command line; "" = nothing is."""
    command: Any = get_command(app)
    path, options = "lockstep", _options(command)
    words = shlex.split(line)[1:]
    while words:
        word = words.pop(0)
        if word.startswith("-"):
            name, given, _ = word.partition("=")
            if name not in options:
                return f"{path} has no option {name}"
            if not given and not options[name].is_flag:
                words.pop(0)
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return f"{path} has no command {word}"
            path, command = f"{path} {word}", command.commands[word]
            options |= _options(command)
    return f"{path} lacks a command" if hasattr(command, "commands") else ""


def _options(command: Any) -> dict[str, Any]:
    return {name: one for one in command.params for name in (*one.opts, *one.secondary_opts)}


def test_runbooks_have_commands() -> None:
    assert len(ALL) > 50


@pytest.mark.parametrize(("page", "line"), ALL)
def test_a_command_of_a_runbook_exists(page: str, line: str) -> None:
    assert complaint(line) == "", page


@pytest.mark.parametrize(
    "line", ["lockstep dlq show orders", "lockstep queue", "lockstep queue list --colour"]
)
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    assert complaint(line) != ""
