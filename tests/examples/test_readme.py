"""The README, done as it says: its commands and programs on one server, in their order.

A `console` block holds commands after `$` and what they print. A `python` block is a program; a
`text` block right after it is what it prints. Times and ages differ from run to run and are masked.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.examples.conftest import ROOT, Server

README = (ROOT / "README.md").read_text(encoding="utf-8")
DEFAULT_SERVER = "127.0.0.1:7700"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_AGE = re.compile(r" \d+s(?= )")
_METRIC = re.compile(r"`(lockstep_\w+)`")
_LINK = re.compile(r"\]\(([^)#:]+)\)")


@dataclass(frozen=True, slots=True)
class Step:
    """Something that the README tells its reader to do, and what it says will be printed."""

    words: tuple[str, ...]
    shown: str


def steps() -> Iterator[Step]:
    for kind, text, output in _BLOCK.findall(README):
        if kind == "python":
            yield Step(("python", "-W", "error", "-c", text), output)
        elif kind == "console":
            for one in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, _, shown = one.partition("\n")
                yield Step(("bash", "-c", command), shown)


def masked(text: str) -> str:
    return _AGE.sub(" AGE", _TIME.sub("TIME", text))


def test_there_are_steps_of_both_kinds() -> None:
    kinds = [step.words[0] for step in steps()]

    assert kinds.count("bash") > 5
    assert kinds.count("python") == 3


@pytest.mark.slow  # one program waits 5 s for a lock to run out
def test_the_readme_shows_what_its_commands_and_programs_print(server: Server) -> None:
    for step in steps():
        ran = server.run(*(word.replace(DEFAULT_SERVER, server.address) for word in step.words))

        assert masked(ran.output) == masked(step.shown), step.words[-1]
        assert ran.code == 0, step.words[-1]


def test_the_metrics_that_the_readme_names_exist(server: Server) -> None:
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics/entities") as page:
        text = page.read().decode()

    named = _METRIC.findall(README)
    assert named
    assert [name for name in named if f"# HELP {name} " not in text] == []


@pytest.mark.parametrize(
    "document", ["README.md", "docs/concepts.md", "docs/dead-letters.md", "docs/testing.md"]
)
def test_what_is_linked_to_is_there(document: str) -> None:
    path = ROOT / document
    links = _LINK.findall(path.read_text(encoding="utf-8"))

    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []
