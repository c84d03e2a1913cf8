"""What a fuzz does, as values: they are generated, carried out, written down, and carried out again.

A file of steps holds one of them a line, in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from tests.fuzz.api import METHODS, parsed

_SHOWN_CHARS = 500


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as bytes."""

    path: str
    payload: bytes

    def explain(self) -> str:
        """Return the method, the request as text if it is one, and its bytes."""
        request = parsed(METHODS[self.path].request, self.payload)
        text = (
            "not a request"
            if request is None
            else text_format.MessageToString(request, as_one_line=True)
        )
        return f"{self.path}\n  text: {_cut(text)}\n  hex:  {_cut(self.payload.hex())}"


@dataclass(frozen=True, slots=True)
class Calls:
    """Requests that are sent without waiting for answers between them."""

    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Advance:
    """Time goes on."""

    span_ms: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The caller of a waiting call cancels it, the one that waits longest."""


@dataclass(frozen=True, slots=True)
class Restart:
    """The server is stopped in order, and started again on its store."""


Step = Calls | Advance | GiveUp | Restart


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}… ({len(text)} characters)"


def explain(step: Step) -> str:
    """Return a step for people."""
    if isinstance(step, Calls):
        return "\n".join(call.explain() for call in step.calls)
    return str(step)


def _to_json(step: Step) -> object:
    match step:
        case Calls(calls):
            return {"calls": [[call.path, call.payload.hex()] for call in calls]}
        case Advance(span_ms):
            return {"advance_ms": span_ms}
        case GiveUp():
            return "give up"
        case Restart():
            return "restart"


def write_steps(steps: Iterable[Step], path: Path) -> None:
    """Write steps to a file."""
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(map(_line, steps))


def _line(step: Step) -> str:
    return f"{json.dumps(_to_json(step))}\n"


class Journal:
    """The steps of a fuzz in a file, each one there before it is begun, so that even a crash leaves them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0
        self._idle: set[int] = set()
        path.write_text("", encoding="utf-8")

    def note(self, step: Step) -> None:
        """Write the next step down."""
        self._count += 1
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(_line(step))

    def note_idle(self) -> None:
        """Note that every call of the last step was refused at once, so that it did nothing."""
        self._idle.add(self._count - 1)

    def steps(self) -> list[Step]:
        """Return all steps."""
        return list(read_steps(self.path))

    def effective(self) -> list[Step]:
        """Return all steps but those that did nothing; the last one is always among them."""
        last = self._count - 1
        return [s for n, s in enumerate(self.steps()) if n == last or n not in self._idle]


def read_steps(path: Path) -> Sequence[Step]:
    """Read what `write_steps` wrote."""
    steps: list[Step] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match json.loads(line):
            case {"calls": calls}:
                made = (Call(method, bytes.fromhex(payload)) for method, payload in calls)
                steps.append(Calls(tuple(made)))
            case {"advance_ms": int(span_ms)}:
                steps.append(Advance(span_ms))
            case "give up":
                steps.append(GiveUp())
            case "restart":
                steps.append(Restart())
            case other:
                raise ValueError(f"{path}: no step: {other}")
    return steps
