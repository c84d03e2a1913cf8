"""What the processes of a cluster say that they should never have to say, whatever fails around them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.faults.book import Violation

# An etcd that lost its data is for a person to see.
_EXPECTED = {"mirror.went_back"}
# What Python and gRPC write by themselves.
_WORDS = ("Traceback", "never retrieved", "too_many_pings", "Fatal Python error")


class Logs:
    """The logs of processes from now on, over all their restarts."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._begins: Mapping[Path, int] = {
            path: path.stat().st_size if path.exists() else 0 for path in paths
        }

    def complaints(self) -> list[Violation]:
        """Return each kind of complaint of each process once."""
        found: dict[tuple[str, str], Violation] = {}
        for path, begins in self._begins.items():
            with path.open("rb") as log:
                log.seek(begins)
                text = log.read().decode(errors="replace")
            for kind, line in _complaints_in(text.splitlines()):
                violation = Violation("complaint", f"{path.parent.name}: {line[:500]}")
                found.setdefault((path.parent.name, kind), violation)
        return list(found.values())


def _complaints_in(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if line.startswith("{") and line.endswith("}"):
            event = json.loads(line)
            if event["level"] == "error" and event["event"] not in _EXPECTED:
                yield event["event"], line
        else:
            yield from ((word, line) for word in _WORDS if word in line)
