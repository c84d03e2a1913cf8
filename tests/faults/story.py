"""Histories made up for tests of the checker."""

from __future__ import annotations

from typing import Any

from tests.faults.book import Violation
from tests.faults.checker import violations
from tests.faults.draining import Ending
from tests.faults.history import Item, Kind, Operation, Outcome

LOCK_MS = 5_000
ORDERS, PLAIN = "orders", "plain"


class Story:
    """A history in which one operation follows the other, 10 ms each, unless it is told otherwise."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.now_ms = 1_000

    def add(self, kind: Kind, worker: str = "w", queue: str = ORDERS, **facts: Any) -> Operation:
        begins = self.now_ms
        times = {"invoked_ms": begins, "ended_ms": begins + 10, "outcome": Outcome.OK}
        number = len(self.operations) + 1
        operation = Operation(worker, number, kind, queue, **{**times, **facts})
        self.operations.append(operation)
        self.now_ms += 20
        return operation

    def send(self, *items: Item, **facts: Any) -> Operation:
        return self.add(Kind.SEND, "sender", items=items, **facts)

    def hold(self, grant: int, **facts: Any) -> Holder:
        return Holder(self, grant, **facts)

    def plain(self, kind: Kind, *items: Item, **facts: Any) -> Operation:
        return self.add(kind, queue=PLAIN, items=items, **{"worker": "p", **facts})


class Holder:
    """The grant of a session, from its accept on."""

    def __init__(self, story: Story, grant: int, writes: int = 0, value: str = "") -> None:
        self._story = story
        self._facts: dict[str, Any] = {"session_id": "s", "grant": grant, "worker": f"w{grant}"}
        self.do(Kind.ACCEPT, writes=writes, value=value)

    def do(self, kind: Kind, *items: Item, **facts: Any) -> Operation:
        return self._story.add(kind, items=items, **self._facts, **facts)

    def write(self, writes: int, **facts: Any) -> Operation:
        value, version = f"{writes}:{self._facts['worker']}", self._story.now_ms
        own = {"writes": writes, "value": value, "version": version}
        return self.do(Kind.SET_STATE, **{**own, **facts})


def message(sequence: int, *, count: int = 0, body: str = "", session_id: str = "s") -> Item:
    return Item(body or f"body-{sequence}", session_id, sequence, count)


def in_plain_queue(sequence: int, *, count: int = 0) -> Item:
    return message(sequence, count=count, session_id="")


def all_well(*, healed_ms: int = 0, drained_ms: int = 100) -> Ending:
    return Ending(healed_ms, drained_ms, {}, {})


def found(story: Story, ending: Ending | None = None, **circumstances: bool) -> list[Violation]:
    ending = ending or all_well()
    return violations(story.operations, ending, lock_ms=LOCK_MS, **circumstances)


def rules(story: Story, ending: Ending | None = None, **circumstances: bool) -> set[str]:
    return {violation.rule for violation in found(story, ending, **circumstances)}


def well_behaved() -> Story:
    """Messages of a session go through two hands, one of a plain queue comes twice."""
    story = Story()
    story.send(message(1), message(2), message(3))
    story.add(Kind.SEND, "sender", PLAIN, items=(in_plain_queue(1),))
    first = story.hold(1)
    first.do(Kind.RECEIVE, message(1), message(2))
    first.write(1)
    first.do(Kind.COMPLETE, message(1))
    first.do(Kind.ABANDON, message(2))
    first.do(Kind.RECEIVE, message(2, count=1), message(3))
    first.do(Kind.RELEASE)
    second = story.hold(2, writes=1, value="1:w1")
    second.do(Kind.RECEIVE, message(2, count=1), message(3))
    second.do(Kind.DEFER, message(2, count=1))
    second.do(Kind.RECEIVE_DEFERRED, message(2, count=2))
    second.do(Kind.COMPLETE, message(2), message(3))
    second.do(Kind.GET_STATE, writes=1, value="1:w1")
    second.do(Kind.RELEASE)
    story.plain(Kind.RECEIVE, in_plain_queue(1))
    story.plain(Kind.ABANDON, in_plain_queue(1))
    story.plain(Kind.RECEIVE, in_plain_queue(1, count=1), worker="q")
    story.plain(Kind.COMPLETE, in_plain_queue(1), worker="q")
    return story
