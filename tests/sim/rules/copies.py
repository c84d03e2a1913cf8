"""What a job's message is where it goes, and that it is stored there as that (RSB-2 to RSB-5).

Here belongs what moves within a partition and transfers between two of them share. Never here: which messages a job
takes (`jobs`), or the way between partitions (`transfers`).
"""

from __future__ import annotations

import json
from array import array

from lockstep.core.amendments import UNCHANGED, Amendment, Trail
from lockstep.core.entity import SPREAD, QueueSettings
from lockstep.core.jobs import Job
from lockstep.v1 import message_pb2
from lockstep.wire.times import duration_ms
from tests.sim.book import Message
from tests.sim.case import Case, Parcel
from tests.sim.rows import Where

_KIB = 1024


def parcel_of(case: Case, job: Job, where: Where, message: Message) -> Parcel:
    """Return a message as it is once the job has taken it elsewhere."""
    sent = message_pb2.Message.FromString(message.body)
    session_id = amended(case, job, where, message).session_id
    if session_id is None and sent.HasField("session_id"):
        session_id = sent.session_id
    return Parcel(
        where,
        message.body,
        session_id,
        duration_ms(sent.time_to_live),
        name_of(case, job, where, message),
        amended(case, job, where, message),
    )


def fits(settings: QueueSettings, parcel: Parcel) -> bool:
    """Whether a queue can take a message: it is small enough, and has the session that it needs."""
    if settings.requires_session and parcel.session_id is None:
        return False
    size = len(parcel.body) + parcel.amendment.size_bytes
    return size <= settings.max_message_size_in_kilobytes * _KIB


def amended(case: Case, job: Job, where: Where, message: Message) -> Amendment:
    """Return what is changed about a taken message from now on (RSB-4, RSB-5)."""
    before, options = case.book.amendments.get(where, UNCHANGED), job.options
    definition = case.book.entities[where[0]]
    first = before.trail
    return Amendment(
        {**before.properties, **options.properties},
        before.session_id if options.session_id is None else options.session_id,
        f"{job.uid}-{where[1]}" if options.new_message_id else before.message_id,
        Trail(
            first.resubmits + 1 if first is not None else 1,
            first.sequence if first is not None else where[1],
            f"{definition.namespace}/{definition.name}",
            message.reason,
        ),
    )


def name_of(case: Case, job: Job, where: Where, message: Message) -> str:
    """Return the message id that a taken message has from now on (RSB-5)."""
    if job.options.new_message_id:
        return f"{job.uid}-{where[1]}"
    changed = case.book.amendments.get(where, UNCHANGED).message_id
    return message_pb2.Message.FromString(message.body).message_id if changed is None else changed


def register(case: Case, entity: int, number: int, name: str, session_id: str | None) -> None:
    """Expect that a message's id is known from now on, for another whole window (RSB-5)."""
    if name:
        owner = session_id if case.settings(entity).placement == SPREAD else None
        case.memory.ids[case.book.number, entity, owner, name] = (case.now_ms, number)


def expect_stored(case: Case, entity: int, parcels: list[Parcel]) -> None:
    """Expect that exactly these messages are stored, as one batch of a queue, and nothing else is."""
    bodies = [parcel.body for parcel in parcels]
    stored = [body for row in case.step.chunks for body in row.messages]
    case.check(stored == bodies, "RSB-2: moved", stored, "not", bodies)
    if not bodies or stored != bodies:
        return
    case.check(len(case.step.chunks) == 1, "RSB-2: not one batch", case.step.chunks)
    row = case.step.chunks[0]
    case.check(row.entity == entity, "RSB-2: moved to", row.entity, "not", entity)
    settings = case.settings(row.entity)
    ids = [parcel.session_id for parcel in parcels]
    if settings.requires_session:
        told = json.loads(row.sessions)
        told = told * len(ids) if len(told) == 1 else told
        case.check(told == ids, "RSB-2: moved to the sessions", told, "not", ids)
    most = settings.default_message_time_to_live_ms
    lives = [p.ttl_ms if most is None else min(p.ttl_ms or most, most) for p in parcels]
    ttls = list(array("q", row.ttls)) if row.ttls else [0] * len(lives)
    case.check(ttls == lives, "RSB-3: lives for", ttls, "not", lives)
    case.check(not row.due_ms and row.enqueued_ms == case.now_ms, "RSB-3: enqueued", row)
    for number, parcel in enumerate(parcels, row.first_sequence):
        case.amended[row.entity, number] = parcel.amendment
        register(case, row.entity, number, parcel.message_id, parcel.session_id)
