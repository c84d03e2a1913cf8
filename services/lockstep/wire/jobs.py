"""Work on dead letters, between protobuf and the core.

Here belong what a caller asks of a job and how it is shown, and what only who sees the messages themselves can tell of
them. Never here: rules (`core.resubmitting`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from lockstep.core.commands import StartJob
from lockstep.core.entity import parse_entity_path
from lockstep.core.errors import InvalidOperation, InvalidRequest
from lockstep.core.ids import EntityKey, SessionId
from lockstep.core.jobs import Job, JobKind, JobOptions, JobStatus, Selector
from lockstep.core.limits import SCHEDULE_MS_MAX, check_at_most
from lockstep.core.message import as_ranges
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import dead_letter_job_pb2 as wire
from lockstep.v1 import message_pb2
from lockstep.wire.amending import encoded_properties
from lockstep.wire.convert import fingerprint, request_id
from lockstep.wire.times import timestamp, timestamp_ms

_KINDS = {
    wire.DEAD_LETTER_JOB_KIND_RESUBMIT: JobKind.RESUBMIT,
    wire.DEAD_LETTER_JOB_KIND_PURGE: JobKind.PURGE,
    wire.DEAD_LETTER_JOB_KIND_MOVE: JobKind.MOVE,
    wire.DEAD_LETTER_JOB_KIND_DEAD_LETTER_SESSION: JobKind.DEAD_LETTER,
}
_KIND_NUMBERS = {kind: number for number, kind in _KINDS.items()}
_STATUS_NUMBERS = {
    JobStatus.RUNNING: wire.DEAD_LETTER_JOB_STATUS_RUNNING,
    JobStatus.DONE: wire.DEAD_LETTER_JOB_STATUS_DONE,
    JobStatus.CANCELLED: wire.DEAD_LETTER_JOB_STATUS_CANCELLED,
    JobStatus.FAILED: wire.DEAD_LETTER_JOB_STATUS_FAILED,
}
_TO_THE_TAIL = (
    "The messages go to the tail of their sessions, or of the queue, in their old order among themselves; messages that"
    " were behind them are ahead of them now."
)
_TO_THE_HEAD = (
    "The messages go back to the places of their sequence numbers; messages behind them may have been delivered"
    " already."
)


# --- what is asked -----------------------------------------------------------------------------------


def job_queue(namespace: str, path: str) -> EntityKey:
    """Return the queue that a caller names, by its own name or by that of its dead-letter store."""
    return parse_entity_path(namespace, path)[0]


def start_command(request: admin.StartDeadLetterJobRequest, uid: str) -> StartJob:
    """Return the command that begins a job; `uid` was made for it."""
    kind = _KINDS.get(request.kind)
    if kind is None:
        raise InvalidRequest("A job needs a kind: resubmit, purge, move or dead-letter a session.")
    given = request.options
    return StartJob(
        entity=job_queue(request.namespace, request.queue),
        kind=kind,
        selector=_selector(request.selector),
        options=JobOptions(
            target=_target(request.namespace, given.target) if given.target else None,
            session_id=SessionId(given.session_id) if given.HasField("session_id") else None,
            properties=encoded_properties(given.properties),
            new_message_id=given.new_message_id,
            at_head=given.at_head,
            max_resubmits=_not_negative(given.max_resubmits, "max_resubmits"),
            rate=_not_negative(given.messages_per_second, "messages_per_second"),
            dry_run=given.dry_run,
            reason=given.reason,
        ),
        uid=uid,
        by=request.requested_by,
        request=request_id(request.request_id, given=request.HasField("request_id")),
        fingerprint=fingerprint(request.SerializeToString(deterministic=True)),
    )


def _target(namespace: str, path: str) -> EntityKey:
    entity, dead_letter = parse_entity_path(namespace, path)
    if dead_letter:
        raise InvalidOperation(
            "Dead letters cannot be moved into another dead-letter store (SND-14). Name a queue.",
            details={"entity": path},
        )
    return entity


def _selector(given: wire.DeadLetterSelector) -> Selector:
    numbers = sorted(set(given.sequence_numbers))
    since, until = given.dead_lettered_since, given.dead_lettered_until
    return Selector(
        ranges=as_ranges(numbers) if numbers else (),
        session_id=SessionId(given.session_id) if given.HasField("session_id") else None,
        reason=given.reason if given.HasField("reason") else None,
        since_ms=_moment(since) if given.HasField("dead_lettered_since") else 0,
        until_ms=_moment(until) if given.HasField("dead_lettered_until") else 0,
        properties=encoded_properties(given.properties),
        max_count=_not_negative(given.max_count, "max_count"),
    )


def _moment(given: Timestamp) -> int:
    """Return a moment in ms since the epoch, at least 1: 0 would mean that none was given."""
    at_ms = timestamp_ms(given)
    check_at_most(at_ms, SCHEDULE_MS_MAX, "milliseconds of a time", "Use an earlier one.")
    return max(1, at_ms)


def _not_negative(value: int, what: str) -> int:
    if value < 0:
        raise InvalidRequest(
            f"{what} must not be negative; {value} was given.", details={"observed": str(value)}
        )
    return value


# --- what is shown -----------------------------------------------------------------------------------


def job_message(job: Job, queue: str) -> wire.DeadLetterJob:
    """Return how a job stands, as callers see it."""
    selector, options = job.selector, job.options
    shown = wire.DeadLetterJob(
        queue=queue,
        number=job.number,
        kind=_KIND_NUMBERS[job.kind],
        selector=wire.DeadLetterSelector(
            sequence_numbers=[n for first, last in selector.ranges for n in range(first, last + 1)],
            session_id=selector.session_id,
            reason=selector.reason,
            properties=_properties(selector.properties),
            max_count=selector.max_count,
        ),
        options=wire.DeadLetterJobOptions(
            target=options.target.name if options.target is not None else "",
            session_id=options.session_id,
            properties=_properties(options.properties),
            new_message_id=options.new_message_id,
            at_head=options.at_head,
            max_resubmits=options.max_resubmits,
            messages_per_second=options.rate,
            dry_run=options.dry_run,
            reason=options.reason,
        ),
        requested_by=job.by,
        status=_STATUS_NUMBERS[job.status],
        matched_messages=job.matched,
        skipped_messages=job.skipped,
        start_time=timestamp(job.started_ms),
        error=job.error,
    )
    if selector.since_ms:
        shown.selector.dead_lettered_since.CopyFrom(timestamp(selector.since_ms))
    if selector.until_ms:
        shown.selector.dead_lettered_until.CopyFrom(timestamp(selector.until_ms))
    if job.finished_ms:
        shown.end_time.CopyFrom(timestamp(job.finished_ms))
    if job.kind in (JobKind.RESUBMIT, JobKind.MOVE):
        shown.order_note = _TO_THE_HEAD if options.at_head else _TO_THE_TAIL
    return shown


def _properties(encoded: Mapping[str, bytes]) -> dict[str, message_pb2.PropertyValue]:
    joined = message_pb2.Message.FromString(b"".join(encoded.values()))
    return dict(joined.application_properties)


# --- what only the messages tell ---------------------------------------------------------------------


def with_properties(messages: Sequence[bytes], wanted: Mapping[str, bytes]) -> list[int]:
    """Return the places of those messages that have all these application properties."""
    expected = _properties(wanted)
    places = []
    for place, raw in enumerate(messages):
        properties = message_pb2.Message.FromString(raw).application_properties
        if all(name in properties and properties[name] == expected[name] for name in expected):
            places.append(place)
    return places


def message_ids(messages: Sequence[bytes]) -> tuple[str, ...]:
    """Return the message id of each message, "" = none."""
    return tuple(message_pb2.Message.FromString(raw).message_id for raw in messages)
