"""What a document tells its reader to do, and what it says will be printed.

A `console` block holds commands after `$` and what they print. A `python` block is a program; a `text` block right
after it is what it prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do, and what it says will be printed."""

    words: tuple[str, ...]
    shown: str


def steps(document: str) -> Iterator[Step]:
    """Return the steps of a document, in their order."""
    for kind, text, output in _BLOCK.findall(document):
        if kind == "python":
            yield Step(("python", "-W", "error", "-c", text), output)
        elif kind == "console":
            for one in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, _, shown = one.partition("\n")
                yield Step(("bash", "-c", command), shown)
