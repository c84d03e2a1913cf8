"""One guard taken out of a copy of the product, and who noticed.

Here belong the copy, the child process and its verdict. Never here: which guards (`guard`), or telling people
(`__main__`). The law: the working tree is read and never written.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import cache_from_source
from pathlib import Path

from tests.mutation.child import FAILED, PASSED
from tests.mutation.guard import ROOT, SERVICES, BadGuard, Guard

SECONDS_MAX = 60
_ALL_SECONDS_MAX = 300


class Outcome(StrEnum):
    """What became of a trial."""

    NOTICED = "noticed"
    SURVIVED = "survived"
    EQUIVALENT = "equivalent"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What taking one guard out led to.

    Attributes:
        guard: The guard.
        outcome: What became of it.
        why: What noticed it, or why there is no verdict; for a person.
    """

    guard: Guard
    outcome: Outcome
    why: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it is as the table says."""
        return self.outcome in (Outcome.NOTICED, Outcome.EQUIVALENT)


def try_without(guard: Guard) -> Verdict:
    """Take a guard out of a copy, and run what must notice."""
    with _copy() as services:
        try:
            _take_out(guard, services)
        except BadGuard as error:
            return Verdict(guard, Outcome.BROKEN, str(error))
        code, said = _run(services, _asked(guard), SECONDS_MAX)
    if code not in (PASSED, FAILED):
        return Verdict(guard, Outcome.BROKEN, said)
    if guard.equivalent:
        if code == PASSED:
            return Verdict(guard, Outcome.EQUIVALENT, guard.equivalent)
        return Verdict(guard, Outcome.BROKEN, f"it is not equivalent: {_cause(said)}")
    if code == PASSED:
        return Verdict(guard, Outcome.SURVIVED, "write the test that notices, or why nobody can")
    return Verdict(guard, Outcome.NOTICED, _cause(said))


def try_with_all(guards: Sequence[Guard]) -> str:
    """Run what must notice the guards while all of them are there; return what failed, empty = nothing."""
    asked = dict.fromkeys(part for guard in guards for part in _asked(guard))
    seeds = max(guard.seeds for guard in guards)
    tests = [part for part in asked if not part.startswith("seeds=")]
    with _copy() as services:
        wanted = [*tests, *_seeds(seeds)]
        code, said = _run(services, wanted, _ALL_SECONDS_MAX)
    return "" if code == PASSED else said


def _asked(guard: Guard) -> list[str]:
    return [*(f"tests/{test}" for test in guard.tests), *_seeds(guard.seeds)]


def _seeds(count: int) -> list[str]:
    return [f"seeds={count}"] if count else []


@contextmanager
def _copy() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lockstep-mutation-") as directory:
        services = Path(directory, "services").resolve()
        shutil.copytree(SERVICES, services, ignore=shutil.ignore_patterns("*.egg-info"))
        yield services


def _take_out(guard: Guard, services: Path) -> None:
    file = services / guard.path
    file.write_text(guard.taken_out_of(file.read_text("utf-8")), "utf-8")
    # A change that keeps length and second would go by unseen.
    Path(cache_from_source(str(file))).unlink(missing_ok=True)


def _run(services: Path, asked: Sequence[str], seconds: int) -> tuple[int | None, str]:
    """Run a child on a copy; return its exit code, None = it took too long, and what it said."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    environment["PYTHONPATH"] = os.pathsep.join((str(services), str(ROOT)))
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, "-m", "tests.mutation.child", str(services), *asked]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"it took longer than {seconds} s"
    return done.returncode, done.stdout


def _cause(said: str) -> str:
    """Return the line of a child's output that names what failed."""
    for line in said.splitlines():
        if line.startswith(("FAILED ", "ERROR ", "seed ")):
            return line.partition(" - ")[0].removeprefix("FAILED ").removeprefix("ERROR ")
    return said.strip().rpartition("\n")[2]
