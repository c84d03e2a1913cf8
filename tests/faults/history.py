"""What clients did and what they were told, as lines of files that outlive their writers.

Each operation leaves a line when it begins and one when it ends, so that of a client that was killed it is known what
it had begun. Times are of the machine's monotonic clock, the same for all processes.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lockstep.runtime.clock import SystemClock

NEVER_MS = 2**62
"""When an operation ended whose end nobody saw."""


class Kind(StrEnum):
    SEND = "send"
    ACCEPT = "accept"
    RECEIVE = "receive"
    RECEIVE_DEFERRED = "receive_deferred"
    COMPLETE = "complete"
    ABANDON = "abandon"
    DEFER = "defer"
    SET_STATE = "set_state"
    GET_STATE = "get_state"
    RENEW = "renew"
    RELEASE = "release"
    DEFINE = "define"
    USE = "use"
    """A send to a queue that was defined just before."""
    DROP = "drop"
    MISS = "miss"
    """A send to a queue that was dropped just before."""


class Outcome(StrEnum):
    OK = "ok"
    FAILED = "failed"
    """It had no effect, and never will."""
    UNKNOWN = "unknown"
    """It had its effect or not, or has it later."""


@dataclass(frozen=True, slots=True)
class Item:
    """A message of an operation.

    Attributes:
        body: Unique among all messages, so that it tells who sent it in which call.
        session_id: "" = none.
        sequence: 0 = not told.
        count: Its delivery count when it was delivered.
    """

    body: str
    session_id: str = ""
    sequence: int = 0
    count: int = 0


@dataclass(frozen=True, slots=True)
class Operation:
    """What a client did.

    Attributes:
        grant: Of the session that it was done under; 0 = none.
        items: What was sent, delivered, or settled.
        writes: How many writes made the state that was written, or seen, by its own words; -1 = it is not about states.
        value: The state that was written, or seen; "" = none.
        version: That the broker gave to what was written (ADD-7).
        reason: Of the error that it ended with.
        turn: Of the operations of a worker that are one commit (ADD-8); 0 = it is by itself.
    """

    worker: str
    number: int
    kind: Kind
    queue: str
    invoked_ms: int
    ended_ms: int = NEVER_MS
    outcome: Outcome = Outcome.UNKNOWN
    session_id: str = ""
    grant: int = 0
    items: tuple[Item, ...] = ()
    writes: int = -1
    value: str = ""
    version: int = 0
    reason: str = ""
    turn: int = 0

    @property
    def is_ok(self) -> bool:
        return self.outcome is Outcome.OK

    @property
    def may_have_happened(self) -> bool:
        return self.outcome is not Outcome.FAILED

    def __str__(self) -> str:
        ended = "…" if self.ended_ms == NEVER_MS else f"{self.ended_ms}"
        about = f" {self.queue}/{self.session_id}#{self.grant}" if self.session_id else ""
        told = f" {self.reason}" if self.reason else ""
        return f"[{self.invoked_ms}–{ended} {self.worker} {self.kind}{about} {self.outcome}{told}]"


class Recorder:
    """Writes the operations of one process; for one event loop."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("a", encoding="utf-8")
        self._numbers = itertools.count(1)
        self._clock = SystemClock()

    def begin(self, worker: str, kind: Kind, queue: str, **facts: Any) -> Operation:
        """Note that an operation begins now."""
        operation = Operation(
            worker, next(self._numbers), kind, queue, self._clock.monotonic_ms(), **facts
        )
        self._write(operation)
        return operation

    def new_turn(self) -> int:
        """Return what names the operations of one commit."""
        return next(self._numbers)

    def end(self, operation: Operation, outcome: Outcome, **facts: Any) -> Operation:
        """Note how it ended, now."""
        ended = replace(operation, outcome=outcome, ended_ms=self._clock.monotonic_ms(), **facts)
        self._write(ended)
        return ended

    def end_in_part(
        self, operation: Operation, known: Sequence[Item], unknown: Sequence[Item], reason: str
    ) -> None:
        """Note of a send that some of its messages are stored, and that nothing is known of the others."""
        self.end(operation, Outcome.OK, items=tuple(known), reason=reason)
        rest = replace(operation, number=next(self._numbers), items=tuple(unknown))
        self.end(rest, Outcome.UNKNOWN, reason=reason)

    def note_refused(self, operation: Operation, item: Item, reason: str) -> None:
        """Note that nothing happened to one message of several."""
        one = replace(operation, number=next(self._numbers), items=(item,))
        self.end(one, Outcome.FAILED, reason=reason)

    def _write(self, operation: Operation) -> None:
        self._stream.write(json.dumps(asdict(operation)) + "\n")
        self._stream.flush()  # what the system has outlives the process

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_history(paths: Iterable[Path]) -> list[Operation]:
    """Return all operations, those without an end as unknown, by when they began."""
    found: dict[tuple[Path, int], Operation] = {}
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):  # the last one of a process that was killed may be half a line
                operation = _read(json.loads(line))
                found[path, operation.number] = operation
    return sorted(found.values(), key=lambda one: (one.invoked_ms, one.ended_ms))


def _read(fields: Mapping[str, Any]) -> Operation:
    items = tuple(Item(**item) for item in fields["items"])
    kind, outcome = Kind(fields["kind"]), Outcome(fields["outcome"])
    return Operation(**{**fields, "items": items, "kind": kind, "outcome": outcome})


def deliveries(history: Iterable[Operation]) -> Iterator[Operation]:
    """All operations that are known to have delivered messages."""
    for operation in history:
        if operation.kind in (Kind.RECEIVE, Kind.RECEIVE_DEFERRED) and operation.is_ok:
            yield operation
