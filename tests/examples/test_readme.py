"""The README, done as it says: its commands and programs on one server, in their order.

What its blocks mean is in `steps`. Times, ages, ports and names of callers differ from run to
run and are masked, and so does the size of what is in a queue: a time takes a byte less when its fraction of a second
is small.
"""

from __future__ import annotations

import re
import urllib.request

import pytest

from tests.examples.conftest import ROOT, Server
from tests.examples.steps import steps

README = (ROOT / "README.md").read_text(encoding="utf-8")
DEFAULT_SERVER = "127.0.0.1:7700"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_AGE = re.compile(r"(?<=[ (])(?:\d+(?:ms|s|m|h))+(?=[ .)])")
_SIZE = re.compile(r"(?<=^Size)( +)\d+(?= of )", re.MULTILINE)
_CALLER = re.compile(r"(?<= by )\S+-[0-9a-f]{8}$", re.MULTILINE)
_METRIC = re.compile(r"`(lockstep_\w+)`")


def masked(text: str) -> str:
    """Return a text with fixed words where runs differ."""
    text = _CALLER.sub("CALLER", _AGE.sub("AGE", _TIME.sub("TIME", text)))
    return _SIZE.sub(r"\1SIZE", text)


def test_there_are_steps_of_both_kinds() -> None:
    kinds = [step.words[0] for step in steps(README)]

    assert kinds.count("bash") > 5
    assert kinds.count("python") == 3


@pytest.mark.slow  # one program waits 5 s for a lock to run out
def test_the_readme_shows_what_its_commands_and_programs_print(server: Server) -> None:
    for step in steps(README):
        ran = server.run(*(word.replace(DEFAULT_SERVER, server.address) for word in step.words))

        shown = step.shown.replace(DEFAULT_SERVER, server.address)
        assert masked(ran.output) == masked(shown), step.words[-1]
        assert ran.code == 0, step.words[-1]


def test_the_metrics_that_the_readme_names_exist(server: Server) -> None:
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics/entities") as page:
        text = page.read().decode()

    named = _METRIC.findall(README)
    assert named
    assert [name for name in named if f"# HELP {name} " not in text] == []
