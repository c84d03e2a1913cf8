"""`make cluster`: what it refuses, and that it leaves nothing behind whenever it is ended."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.trying import parse_options
from tests.server.server_process import wait_until

ROOT = Path(__file__).parents[2]
START_MS = END_MS = 60_000
SMALL = ("--owners", "1", "--frontends", "1", "--partitions", "2", "--lease-ms", "2000")


class Trying:
    """`make cluster` in a process group of its own, with a directory of its own for temporary files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._out, self._errors = (directory.with_suffix(end) for end in (".out", ".err"))
        with self._out.open("wb") as out, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster", *SMALL],
                env={**os.environ, "TMPDIR": str(directory)}, cwd=ROOT, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self._out.read_text()

    @property
    def complained(self) -> str:
        return self._errors.read_text()

    def has(self, pattern: str) -> bool:
        assert self.process.poll() is None, self.complained
        return any(self.directory.glob(pattern))

    def end(self, number: signal.Signals) -> int:
        os.killpg(self.process.pid, number)
        return self.process.wait(END_MS / 1000)

    def left(self) -> list[str]:
        """Return the processes that know of the directory, and what is in it."""
        found = [str(path) for path in self.directory.iterdir()]
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(self.directory) in words:
                found.append(words)
        return found

    def clean_up(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                os.killpg(self.process.pid, number)
                try:
                    self.process.wait(END_MS / 1000)
                except subprocess.TimeoutExpired:
                    continue
        for path in (self._out, self._errors):
            path.unlink()
        shutil.rmtree(self.directory)


@pytest.fixture
def trying() -> Iterator[Trying]:
    # Not pytest's directory: the path of PostgreSQL's socket must be short, and its user must get there.
    directory = Path(tempfile.mkdtemp(prefix="ls-"))
    directory.chmod(0o711)
    trying = Trying(directory)
    yield trying
    trying.clean_up()


@pytest.mark.parametrize(
    "moment",
    [
        "lockstep-cluster-*",
        "lockstep-pg-*",
        "lockstep-pg-*/log",
        "lockstep-cluster-*/owner-1/*.log",
    ],
)
def test_ctrl_c_while_it_starts_leaves_nothing_behind(trying: Trying, moment: str) -> None:
    wait_until(lambda: trying.has(moment), moment, within_ms=START_MS)

    code = trying.end(signal.SIGINT)

    assert (code, trying.left()) == (0, [])
    assert "Traceback" not in trying.complained
    assert "Stopped." in trying.complained


def test_the_end_of_the_terminal_leaves_nothing_behind_and_what_it_said_is_right(
    trying: Trying,
) -> None:
    wait_until(lambda: "Stop with Ctrl-C." in trying.said, "it runs", within_ms=START_MS)
    said = trying.said

    code = trying.end(signal.SIGHUP)

    assert (code, trying.left()) == (0, [])
    assert "Traceback" not in trying.complained
    again = next(line for line in said.splitlines() if " owner --set " in line)
    assert "cluster.node=owner-1" in shlex.split(again)
    assert said.count("  pid ") == said.count("  metrics ") + 2 == 4


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--owners", "0"), "--owners: '0'"),
        (("--frontends", "-1"), "--frontends: '-1'"),
        (("--partitions", "0"), "--partitions: .*from 1 to 4096"),
        (("--lease-ms", "500"), "--lease-ms: .*from 2000 to 60000"),
        (("--lease-ms", "soon"), "--lease-ms: .*from 2000 to 60000"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    words: tuple[str, str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_options([words[0] + "=" + words[1]])

    assert re.search(named, capsys.readouterr().err)
