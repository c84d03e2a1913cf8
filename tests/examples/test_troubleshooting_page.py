"""docs/troubleshooting.md knows every reason and every cause, names no other, and shows what is printed."""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict

import pytest

from lockstep import DeliveryCause
from lockstep.core import errors
from tests.examples.conftest import ROOT, Server
from tests.examples.steps import steps
from tests.examples.test_readme import DEFAULT_SERVER, masked

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
COMMAND_LINE = ROOT / "services" / "lockstep" / "cli"
CLASSES = [
    kind
    for kind in vars(errors).values()
    if inspect.isclass(kind) and issubclass(kind, errors.LockstepError)
]
REASONS = list(dict.fromkeys(kind.reason for kind in CLASSES))
FOUND_BY_THE_CLIENT = (errors.MessageAlreadySettled, errors.ClientClosed)
RETRIED = (errors.Unavailable, errors.Moved, errors.OperationTimeout)
OTHER_NAMES = {"NEXT_AVAILABLE_SESSION", "LOCKSTEP_SERVER"}
_SECTION = re.compile(r"^### `(\w+)`\n(.*?)(?=^##)", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
_UPPER_SNAKE = re.compile(r"`([A-Z]+(?:_[A-Z]+)+)`")


def chapter(heading: str) -> str:
    """Return what stands between a heading and the next one of its level."""
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def reasons_of_the_command_line() -> set[str]:
    """Return the reasons with which the command line itself ends, as its code has them."""
    found = set()
    for module in COMMAND_LINE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name("Failure"), args=[ast.Constant(str(reason)), *_]):
                    found.add(reason)
                case _:
                    pass
    return found


def test_every_reason_has_a_section_and_no_other_has() -> None:
    assert [reason for reason, _ in _SECTION.findall(PAGE)] == REASONS


def test_every_section_names_its_errors_and_says_what_to_do() -> None:
    named = defaultdict(list)
    for kind in CLASSES:
        named[kind.reason].append(f"`{kind.__name__}`")

    for reason, text in _SECTION.findall(PAGE):
        paragraphs = text.strip().split("\n\n")
        assert [part.partition(":")[0] for part in paragraphs[1:]] == ["Means", "Causes", "Do"]
        assert [name for name in named[reason] if name not in paragraphs[0]] == [], reason


@pytest.mark.parametrize("reason", REASONS)
def test_whether_the_client_retries_is_said(reason: str) -> None:
    beginning = dict(_SECTION.findall(PAGE))[reason].strip().partition("\n\n")[0]
    kinds = [kind for kind in CLASSES if kind.reason == reason]

    if any(issubclass(kind, FOUND_BY_THE_CLIENT) for kind in kinds):
        assert "no call was made" in beginning
    elif any(issubclass(kind, RETRIED) for kind in kinds):
        assert ". Retried" in beginning
    else:
        assert "Not retried" in beginning


def test_what_is_named_in_passing_exists() -> None:
    known = {*REASONS, *reasons_of_the_command_line(), *OTHER_NAMES}

    assert set(_UPPER_SNAKE.findall(PAGE)) - known == set()


def test_every_cause_of_an_explanation_is_there() -> None:
    rows = _ROW.findall(chapter("My messages do not arrive"))

    assert rows == [cause.value for cause in DeliveryCause]


def test_every_reason_of_the_command_line_is_there() -> None:
    rows = _ROW.findall(chapter("Reasons of the command line"))

    assert rows == sorted(reasons_of_the_command_line())


def test_the_page_shows_what_its_commands_print(server: Server) -> None:
    shown = list(steps(PAGE))
    assert len(shown) > 2
    for step in shown:
        ran = server.run(*(word.replace(DEFAULT_SERVER, server.address) for word in step.words))

        assert masked(ran.output) == masked(step.shown.replace(DEFAULT_SERVER, server.address))
        assert ran.code == 0, step.words[-1]
