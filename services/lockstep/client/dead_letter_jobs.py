"""What administrators read and write of work on dead letters: selectors and jobs.

Here belong the values and their conversion. Never here: calls (`repairing`). The law: a job says of itself all that it
was asked to do, so that who looks at it later need not have started it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from lockstep.client.values import (
    NamedChoice,
    PropertyValue,
    check_id,
    datetime_to_timestamp,
    property_values,
    read_properties,
    timestamp_to_datetime,
)
from lockstep.core.errors import InternalError, InvalidRequest
from lockstep.v1 import dead_letter_job_pb2 as wire
from lockstep.v1 import message_pb2


class DeadLetterJobKind(NamedChoice):
    """What a job does to the messages that it selects."""

    RESUBMIT = "resubmit"
    """Puts dead letters back into their queue."""
    PURGE = "purge"
    """Removes dead letters for good."""
    MOVE = "move"
    """Puts dead letters into another queue."""
    DEAD_LETTER_SESSION = "dead_letter_session"
    """Makes the messages of a session dead letters."""


class DeadLetterJobStatus(NamedChoice):
    """How a job stands."""

    RUNNING = "running"
    """It goes on by itself, also after a restart of the broker."""
    DONE = "done"
    """It took everything that it selects."""
    CANCELLED = "cancelled"
    """Somebody ended it; what it did stays done."""
    FAILED = "failed"
    """It could not go on; what it did stays done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterSelector:
    """Which dead letters a job takes: those for which everything that is given holds (RSB-1).

    Whatever is given, a job takes only dead letters that were there when it began.

    Attributes:
        sequence_numbers: Their sequence numbers, at least one; None = any.
        session_id: Their session; None = any.
        reason: Why they are dead letters, exactly; None = whatever it is.
        dead_lettered_since_utc: They became dead letters then or later; None = whenever.
        dead_lettered_until_utc: They became dead letters before then; None = whenever.
        application_properties: Application properties that they have, with these values.
        max_count: At most so many, at least one, the lowest sequence numbers first; None = all.
    """

    sequence_numbers: Sequence[int] | None = None
    session_id: str | None = None
    reason: str | None = None
    dead_lettered_since_utc: datetime | None = None
    dead_lettered_until_utc: datetime | None = None
    application_properties: Mapping[str, PropertyValue] = field(default_factory=dict)
    max_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterJob:
    """A job on dead letters, and how far it was when it was read.

    Attributes:
        queue: The queue whose dead letters are meant.
        number: Counts the jobs of the queue.
        kind: What it does.
        status: How it stands.
        selector: To which messages.
        target: Where a move goes; None otherwise.
        to_session_id: The session that the messages get; None = they keep theirs.
        application_properties: Application properties that are set on them.
        new_message_id: Whether they get new message ids.
        at_head: Whether they go back to their old places, not to the tail of their session.
        max_resubmits: Messages that were resubmitted so often are left alone; 0 = none is.
        messages_per_second: At most so many; 0 = as fast as it goes.
        dry_run: Whether it only counts.
        reason: Why messages are dead-lettered, of a job that does that.
        requested_by: Who asked.
        matched_message_count: Messages that it took; of a dry run, that it would have taken.
        skipped_message_count: Messages that it selects and left: locked by a receiver, resubmitted too often, or not
            fit for the target.
        started_at_utc: When it was asked for.
        ended_at_utc: When it ended; None = it runs.
        error: Why it failed.
        order_note: What becomes of the order of the messages, for a person to read (RSB-7).
    """

    queue: str
    number: int
    kind: DeadLetterJobKind
    status: DeadLetterJobStatus
    selector: DeadLetterSelector
    target: str | None
    to_session_id: str | None
    application_properties: Mapping[str, PropertyValue]
    new_message_id: bool
    at_head: bool
    max_resubmits: int
    messages_per_second: int
    dry_run: bool
    reason: str
    requested_by: str
    matched_message_count: int
    skipped_message_count: int
    started_at_utc: datetime
    ended_at_utc: datetime | None
    error: str
    order_note: str

    @property
    def is_running(self) -> bool:
        """Whether there may be something left to do."""
        return self.status is DeadLetterJobStatus.RUNNING


_KINDS: Final = {
    wire.DEAD_LETTER_JOB_KIND_RESUBMIT: DeadLetterJobKind.RESUBMIT,
    wire.DEAD_LETTER_JOB_KIND_PURGE: DeadLetterJobKind.PURGE,
    wire.DEAD_LETTER_JOB_KIND_MOVE: DeadLetterJobKind.MOVE,
    wire.DEAD_LETTER_JOB_KIND_DEAD_LETTER_SESSION: DeadLetterJobKind.DEAD_LETTER_SESSION,
}
_KIND_NUMBERS: Final = {kind: number for number, kind in _KINDS.items()}
_STATUSES: Final = {
    wire.DEAD_LETTER_JOB_STATUS_RUNNING: DeadLetterJobStatus.RUNNING,
    wire.DEAD_LETTER_JOB_STATUS_DONE: DeadLetterJobStatus.DONE,
    wire.DEAD_LETTER_JOB_STATUS_CANCELLED: DeadLetterJobStatus.CANCELLED,
    wire.DEAD_LETTER_JOB_STATUS_FAILED: DeadLetterJobStatus.FAILED,
}


def kind_number(kind: DeadLetterJobKind) -> wire.DeadLetterJobKind.ValueType:
    """Return the number of a kind in the protos."""
    return _KIND_NUMBERS[kind]


def selector_to_wire(selector: DeadLetterSelector) -> wire.DeadLetterSelector:
    """Return a selector as a protobuf value.

    Raises:
        TypeError: A value is of a wrong type.
        LimitExceeded: The session id is too long.
        InvalidRequest: A number does not fit its type, or the selector asks for nothing at all.
    """
    check_id(selector.session_id, "session_id")
    _refuse_nothing(selector)
    try:
        return wire.DeadLetterSelector(
            sequence_numbers=selector.sequence_numbers,
            session_id=selector.session_id,
            reason=selector.reason,
            dead_lettered_since=_timestamp(selector.dead_lettered_since_utc),
            dead_lettered_until=_timestamp(selector.dead_lettered_until_utc),
            properties=property_values(selector.application_properties),
            max_count=selector.max_count or 0,
        )
    except ValueError as error:
        raise InvalidRequest(f"A number of the selector is out of range: {error}.") from error


def _refuse_nothing(selector: DeadLetterSelector) -> None:
    """Refuse what is sent as nothing, which the server reads as everything."""
    if selector.sequence_numbers is not None and not len(selector.sequence_numbers):
        raise InvalidRequest(
            "sequence_numbers is empty, so nothing is selected. Name at least one, or None for any."
        )
    if selector.max_count is not None and selector.max_count < 1:
        raise InvalidRequest(
            f"max_count is at least 1; {selector.max_count} was given. None takes all."
        )


def job_from_wire(job: wire.DeadLetterJob) -> DeadLetterJob:
    """Return a job as it was read.

    Raises:
        InternalError: Its kind or its status is one of a later release.
    """
    kind, status, options = _KINDS.get(job.kind), _STATUSES.get(job.status), job.options
    if kind is None or status is None:
        raise InternalError(
            f"The server names a kind {job.kind} or a status {job.status} of jobs that this client does not know; use"
            " a newer client.",
            details={"observed": f"{job.kind}, {job.status}"},
        )
    return DeadLetterJob(
        queue=job.queue,
        number=job.number,
        kind=kind,
        status=status,
        selector=_selector(job.selector),
        target=options.target or None,
        to_session_id=options.session_id if options.HasField("session_id") else None,
        application_properties=_properties(options.properties),
        new_message_id=options.new_message_id,
        at_head=options.at_head,
        max_resubmits=options.max_resubmits,
        messages_per_second=options.messages_per_second,
        dry_run=options.dry_run,
        reason=options.reason,
        requested_by=job.requested_by,
        matched_message_count=job.matched_messages,
        skipped_message_count=job.skipped_messages,
        started_at_utc=timestamp_to_datetime(job.start_time),
        ended_at_utc=timestamp_to_datetime(job.end_time) if job.HasField("end_time") else None,
        error=job.error,
        order_note=job.order_note,
    )


def _selector(given: wire.DeadLetterSelector) -> DeadLetterSelector:
    since, until = given.dead_lettered_since, given.dead_lettered_until
    has_since, has_until = (
        given.HasField("dead_lettered_since"),
        given.HasField("dead_lettered_until"),
    )
    return DeadLetterSelector(
        sequence_numbers=tuple(given.sequence_numbers) or None,
        session_id=given.session_id if given.HasField("session_id") else None,
        reason=given.reason if given.HasField("reason") else None,
        dead_lettered_since_utc=timestamp_to_datetime(since) if has_since else None,
        dead_lettered_until_utc=timestamp_to_datetime(until) if has_until else None,
        application_properties=_properties(given.properties),
        max_count=given.max_count or None,
    )


def _timestamp(moment: datetime | None) -> Timestamp | None:
    return None if moment is None else datetime_to_timestamp(moment)


def _properties(given: Mapping[str, message_pb2.PropertyValue]) -> dict[str, PropertyValue]:
    return read_properties(message_pb2.Message(application_properties=given))
