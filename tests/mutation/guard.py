"""Guards: lines of the product that keep a promise, and what they are replaced by to see who notices.

Here belongs the table `guards.toml` as values, and the text of a file without a guard. Never here: running anything
(`trial`). The law: a guard is found by its own text, exactly once, so that a change of the product cannot make a
mutation of something else out of it.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVICES = ROOT / "services"
TABLE = Path(__file__).with_name("guards.toml")

_RULE = re.compile(r"(?:[A-Z]{3}|I|P|C|RACE)-?\d+|section \d+(?:\.\d+)*")


class BadGuard(Exception):
    """A guard that cannot be taken out as the table says."""


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard.

    Attributes:
        id: Its name; the part before the first dash is the place that it belongs to.
        rules: The rules of the contract that it keeps.
        file: Its file, below `services/lockstep`.
        source: Its text in that file.
        instead: What takes its place.
        tests: Tests that must notice, below `tests`, as pytest names them. Of the drivers of the conformance suite,
            the one in memory is meant unless another is named.
        seeds: How many seeds the simulator gets to notice it; 0 = none.
        equivalent: Why nobody can notice; empty = somebody must.
    """

    id: str
    rules: Sequence[str]
    file: str
    source: str
    instead: str
    tests: Sequence[str] = ()
    seeds: int = 0
    equivalent: str = ""

    @property
    def path(self) -> Path:
        """Its file, below `services`."""
        return Path("lockstep", self.file)

    def taken_out_of(self, text: str) -> str:
        """Return the text of its file without it.

        Raises:
            BadGuard: Its text is not there exactly once, or what is left is no Python.
        """
        found = text.count(self.source)
        if found != 1:
            raise BadGuard(
                f"{self.id}: its text is {found} times in {self.file}, not once. Write in guards.toml what keeps"
                f" {', '.join(self.rules)} there now."
            )
        changed = text.replace(self.source, self.instead)
        if self.path.suffix == ".py":
            try:
                ast.parse(changed)
            except SyntaxError as error:
                raise BadGuard(f"{self.id}: what is left is no Python: {error}") from error
        return changed

    def complaints(self) -> list[str]:
        """Return what is wrong with its entry, as lines."""
        wrong = [f"{rule} is no id of a rule" for rule in self.rules if not _RULE.fullmatch(rule)]
        wrong += [f"there is no test {test}" for test in self.tests if not _exists(test)]
        if not self.rules:
            wrong.append("it names no rule")
        if self.source == self.instead:
            wrong.append("nothing takes its place")
        if not self.tests and not self.seeds:
            wrong.append("nobody is named who must notice")
        return [f"{self.id}: {what}" for what in wrong]


def load_guards() -> tuple[Guard, ...]:
    """Return the table."""
    return tuple(Guard(**entry) for entry in tomllib.loads(TABLE.read_text("utf-8"))["guard"])


def _exists(test: str) -> bool:
    file, _, name = test.partition("::")
    return name.partition("[")[0] in _tests_of(ROOT / "tests" / file)


@cache
def _tests_of(file: Path) -> frozenset[str]:
    """Return the names of the tests of a file; of a file that is not there, none."""
    if not file.is_file():
        return frozenset()
    module = ast.parse(file.read_text("utf-8"))
    functions = (n for n in module.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))
