"""The programs of docs/testing.md print what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/testing.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(
    r"^```python\n(.*?)^```\n\n```text\n(.*?)^```\n", TEXT, re.MULTILINE | re.DOTALL
)


def test_there_is_a_program_for_each_broker() -> None:
    assert len(PROGRAMS) == TEXT.count("```python") == 2


@pytest.mark.parametrize(("program", "shown"), PROGRAMS, ids=["aio", "blocking"])
def test_a_program_prints_what_is_shown(program: str, shown: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.stdout == shown, ran.stderr
