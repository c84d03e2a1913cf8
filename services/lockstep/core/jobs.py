"""Work on many messages that takes many commits: resubmission, purge, move (section 10.4 of the contract, ADD-11).

Here belong what a job is to do, and how far it is. Never here: what it does to messages (`resubmitting`). The laws: how
far a job is becomes durable in the commit of what it did, so a job goes on after an outage where it stopped; a job
knows only messages that were there when it began, so what comes back meanwhile is not taken again.
"""

from __future__ import annotations

import json
from array import array
from base64 import b64decode, b64encode
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from lockstep.core.ids import EntityKey, SessionId


class JobKind(StrEnum):
    """What a job does to the messages it selects."""

    RESUBMIT = "resubmit"
    PURGE = "purge"
    MOVE = "move"
    DEAD_LETTER = "dead_letter"


class JobStatus(StrEnum):
    """How a job stands."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Selector:
    """Which dead letters a job takes: those for which all that is given holds (RSB-1).

    Attributes:
        ranges: Their sequence numbers, as (first, last), rising; empty = any.
        session_id: Their session; None = any.
        reason: Why they are dead letters, exactly; None = whatever it is.
        since_ms: They became dead letters then or later; 0 = whenever.
        until_ms: They became dead letters before then; 0 = whenever.
        properties: Application properties that they have, each as the wire encodes it. The core cannot see them:
            who runs the job looks at them.
        max_count: At most so many, the oldest; 0 = all.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    session_id: SessionId | None = None
    reason: str | None = None
    since_ms: int = 0
    until_ms: int = 0
    properties: Mapping[str, bytes] = field(default_factory=dict)
    max_count: int = 0

    def takes(self, sequence: int, reason: str, at_ms: int, session_id: str | None) -> bool:
        """Whether a dead letter is one of those, as far as the core can see."""
        return (
            (self.reason is None or reason == self.reason)
            and (self.session_id is None or session_id == self.session_id)
            and (not self.since_ms or at_ms >= self.since_ms)
            and (not self.until_ms or at_ms < self.until_ms)
            and (not self.ranges or self._names(sequence))
        )

    def _names(self, sequence: int) -> bool:
        at = bisect_right(self.ranges, sequence, key=lambda pair: pair[0])
        return at > 0 and sequence <= self.ranges[at - 1][1]


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What a job does on the way.

    Attributes:
        target: Where a move goes; None otherwise.
        session_id: The session that messages get; None = they keep theirs.
        properties: Application properties to set, each as the wire encodes it.
        new_message_id: Whether they get new message ids (RSB-5).
        at_head: Whether they go back to their old places, not to the tail of their session (RSB-7).
        max_resubmits: Messages that were resubmitted so often are left alone (RSB-9); 0 = none is.
        rate: At most so many messages in a second; 0 = as fast as it goes.
        dry_run: Only count.
        reason: Why messages are dead-lettered, where the job does that.
    """

    target: EntityKey | None = None
    session_id: SessionId | None = None
    properties: Mapping[str, bytes] = field(default_factory=dict)
    new_message_id: bool = False
    at_head: bool = False
    max_resubmits: int = 0
    rate: int = 0
    dry_run: bool = False
    reason: str = ""


class Transfer(NamedTuple):
    """Messages of a job that are on their way to another partition (`core.transfers`).

    Attributes:
        grant: The grant that holds them here until it is known whether they were taken there.
        partition: Where they go.
        queue: The number of the queue that they go to.
    """

    grant: int
    partition: int
    queue: int


@dataclass(frozen=True, slots=True)
class Job:
    """A job and how far it is.

    A job of a queue that is spread over partitions is kept by the queue's home and does nothing by itself. The
    partitions that it names each have a part of it: a job with the same uid and the negative number, which nobody is
    shown. When all parts have ended, so does the job, with their figures.

    Attributes:
        number: Counts the jobs of a queue; negative = a part of the job with the positive number.
        uid: Made new for each job; new message ids are made of it.
        kind: What it does.
        selector: To which messages.
        options: What else.
        by: Who asked, for people to read.
        started_ms: When it was asked for.
        end: Only messages up to this one: an order of arrival among dead letters, a sequence number elsewhere.
        status: How it stands.
        cursor: Messages up to this number were looked at.
        matched: Messages that it took, or in a dry run would have taken.
        skipped: Messages that matched and were left: locked by a receiver, resubmitted too often, without the session
            that their new place needs.
        finished_ms: When it ended; 0 = it runs.
        error: Why it failed.
        parts: The partitions that carry it out, rising; empty = the one that keeps it.
        queue: Where it has parts, the number of its queue: they are not begun in a later one of that name.
        is_cancelled: Whether its parts, or its transfers, are to end, and with them the job.
        transfers: What it has on the way to other partitions. While there is any it takes no further messages and does
            not end.
    """

    number: int
    uid: str
    kind: JobKind
    selector: Selector
    options: JobOptions
    by: str
    started_ms: int
    end: int
    status: JobStatus = JobStatus.RUNNING
    cursor: int = 0
    matched: int = 0
    skipped: int = 0
    finished_ms: int = 0
    error: str = ""
    parts: tuple[int, ...] = ()
    queue: int = 0
    is_cancelled: bool = False
    transfers: tuple[Transfer, ...] = ()

    @property
    def is_part(self) -> bool:
        """Whether it is one partition's part of a job."""
        return self.number < 0

    @property
    def is_running(self) -> bool:
        """Whether there is anything left to do."""
        return self.status is JobStatus.RUNNING

    @property
    def needs_bodies(self) -> bool:
        """Whether who runs the job must see the messages themselves."""
        return bool(self.selector.properties) or self.kind is JobKind.MOVE

    @property
    def left(self) -> int | None:
        """How many more messages it may take; None = any number."""
        most = self.selector.max_count
        return max(0, most - self.matched) if most else None

    def ended(self, status: JobStatus, now_ms: int, error: str = "") -> Job:
        """Return the job as it ended."""
        return replace(self, status=status, finished_ms=now_ms, error=error)

    def to_text(self) -> str:
        """Return the job as storage keeps it."""
        return json.dumps(asdict(self), default=lambda value: b64encode(value).decode())

    @staticmethod
    def from_text(text: str) -> Job:
        """Return the job that `to_text` wrote."""
        values: dict[str, Any] = json.loads(text)
        selector, options = values["selector"], values["options"]
        target = options["target"]
        values["parts"] = tuple(values.get("parts", ()))
        values["transfers"] = tuple(Transfer(*entry) for entry in values.get("transfers", ()))
        values["kind"] = JobKind(values["kind"])
        values["status"] = JobStatus(values["status"])
        values["selector"] = Selector(
            **{
                **selector,
                "ranges": tuple((first, last) for first, last in selector["ranges"]),
                "properties": _decoded(selector["properties"]),
            }
        )
        values["options"] = JobOptions(
            **{
                **options,
                "target": EntityKey(*target) if target is not None else None,
                "properties": _decoded(options["properties"]),
            }
        )
        return Job(**values)


def _decoded(properties: Mapping[str, str]) -> dict[str, bytes]:
    return {name: b64decode(value) for name, value in properties.items()}


class Running:
    """A job that runs, and what it has still to look at.

    Attributes:
        job: The job.
        todo: The messages that it may look at, rising; None = not known since the partition opened.
    """

    __slots__ = ("job", "todo")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.todo: array[int] | None = None
