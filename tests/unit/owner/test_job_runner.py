"""Who drives jobs on dead letters: every queue by itself, at its pace, and each end is told once (ADD-11)."""

from __future__ import annotations

import logging

import pytest

from lockstep.core.commands import CancelJob, ListJobs, Outcome, Send, StartJob
from lockstep.core.ids import EntityKey, RequestId
from lockstep.core.jobs import Job, JobKind, JobOptions, JobStatus, Selector
from lockstep.core.replies import JobIs, JobsAre, Sent
from lockstep.owner.actor import ActorLimits
from lockstep.storage.memory import MemoryStore
from lockstep.v1.message_pb2 import Message, PropertyValue
from lockstep.wire.amending import encoded_properties
from tests.unit.owner.owner_rig import PLAIN, Owner, running_owner

OTHER = EntityKey("default", "other")
SECOND_MS = 1_000


async def with_dead_letters(owner: Owner, key: EntityKey, count: int) -> None:
    """Make a queue with so many dead letters."""
    await owner.create(key)
    await owner.send(key, count)
    await owner.settle(key, Outcome.DEAD_LETTER, await owner.receive(key, maximum=count))


async def start(
    owner: Owner, key: EntityKey, *, by: str = "", request: int | None = None, rate: int = 0
) -> int:
    """Begin to resubmit everything and return the number of the job."""
    command = StartJob(
        key,
        JobKind.RESUBMIT,
        Selector(),
        JobOptions(rate=rate),
        uid="uid",
        by=by,
        request=RequestId("client", request) if request is not None else None,
    )
    return (await owner.call(command, JobIs)).job.number


async def job(owner: Owner, key: EntityKey, number: int = 1) -> Job:
    return (await owner.call(ListJobs(key, number), JobsAre)).jobs[0]


@pytest.fixture
def audit(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "lockstep.audit")
    return caplog


def told(audit: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    """Return queue, number, status, who asked and how many were taken, of each end that was told."""
    fields = ("entity", "job", "status", "by", "matched")
    records = [record for record in audit.records if record.name == "lockstep.audit"]
    assert all(record.message == "dead_letter_job.ended" for record in records)
    return [tuple(vars(record)[field] for field in fields) for record in records]


async def test_a_slow_job_of_one_queue_does_not_hold_up_another_queue(owner: Owner) -> None:
    await with_dead_letters(owner, PLAIN, 10)
    await with_dead_letters(owner, OTHER, 10)
    await start(owner, PLAIN, rate=1)
    await owner.pass_time(SECOND_MS)

    await start(owner, OTHER)
    await owner.pass_time(0)

    assert (await job(owner, OTHER)).status is JobStatus.DONE
    assert (await job(owner, PLAIN)).matched == 2


async def test_jobs_of_one_queue_go_one_after_the_other(owner: Owner) -> None:
    await with_dead_letters(owner, PLAIN, 3)
    first = await start(owner, PLAIN, rate=1)
    second = await start(owner, PLAIN)
    await owner.pass_time(SECOND_MS)
    assert (await job(owner, PLAIN, second)).matched == 0

    await owner.pass_time(2 * SECOND_MS)

    assert (await job(owner, PLAIN, first)).matched == 3
    assert (await job(owner, PLAIN, second)).status is JobStatus.DONE


async def test_a_rate_is_the_most_in_a_second(owner: Owner) -> None:
    await with_dead_letters(owner, PLAIN, 25)
    await start(owner, PLAIN, rate=10)

    await owner.pass_time(0)
    taken = [(await job(owner, PLAIN)).matched]
    for _ in range(2):
        await owner.pass_time(SECOND_MS - 1)
        taken.append((await job(owner, PLAIN)).matched)
        await owner.pass_time(1)
        taken.append((await job(owner, PLAIN)).matched)

    assert taken == [10, 10, 20, 20, 25]
    assert (await job(owner, PLAIN)).finished_ms - (await job(owner, PLAIN)).started_ms == 2000


async def test_the_end_of_a_job_is_told_once_with_who_asked_and_how_many_it_took(
    owner: Owner, audit: pytest.LogCaptureFixture
) -> None:
    await with_dead_letters(owner, PLAIN, 3)
    await start(owner, PLAIN, by="ann", request=1)
    await owner.pass_time(0)
    await start(owner, PLAIN, by="ann", request=1)  # a retry that comes late
    await owner.call(CancelJob(PLAIN, 1), JobIs)  # too late

    assert told(audit) == [("default/plain", 1, "done", "ann", 3)]


async def test_the_end_of_a_job_that_was_cancelled_before_its_turn_is_told(
    owner: Owner, audit: pytest.LogCaptureFixture
) -> None:
    await with_dead_letters(owner, PLAIN, 3)
    await start(owner, PLAIN, rate=1)
    second = await start(owner, PLAIN, by="ann")

    await owner.call(CancelJob(PLAIN, second), JobIs)
    await owner.call(CancelJob(PLAIN, second), JobIs)

    assert told(audit) == [("default/plain", second, "cancelled", "ann", 0)]


async def test_a_cancelled_job_takes_nothing_more(
    owner: Owner, audit: pytest.LogCaptureFixture
) -> None:
    await with_dead_letters(owner, PLAIN, 5)
    await start(owner, PLAIN, rate=1)
    await owner.pass_time(SECOND_MS)

    await owner.call(CancelJob(PLAIN, 1), JobIs)
    await owner.pass_time(10 * SECOND_MS)

    ended = await job(owner, PLAIN)
    assert (ended.status, ended.matched) == (JobStatus.CANCELLED, 2)
    assert told(audit) == [("default/plain", 1, "cancelled", "nobody named", 2)]


async def test_a_job_of_a_deleted_queue_goes_with_it_and_its_successor_has_its_own(
    owner: Owner, audit: pytest.LogCaptureFixture
) -> None:
    await with_dead_letters(owner, PLAIN, 5)
    await start(owner, PLAIN, rate=1, by="old")
    await owner.pass_time(0)
    await owner.delete(PLAIN)
    ended = told(audit)
    await owner.pass_time(2 * SECOND_MS)

    await with_dead_letters(owner, PLAIN, 5)
    await start(owner, PLAIN, by="new")
    await owner.pass_time(0)

    assert ended == [("default/plain", 1, "queue_deleted", "old", 1)]
    assert told(audit)[1:] == [("default/plain", 1, "done", "new", 5)]


async def test_an_owner_goes_on_with_the_jobs_that_its_predecessor_left(
    audit: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    async with running_owner(store, ActorLimits()) as predecessor:
        await with_dead_letters(predecessor, PLAIN, 5)
        await start(predecessor, PLAIN, rate=1, by="ann")
        await predecessor.pass_time(SECOND_MS)
        assert (await job(predecessor, PLAIN)).matched == 2

    async with running_owner(store, ActorLimits()) as successor:
        await successor.pass_time(10 * SECOND_MS)

        assert (await job(successor, PLAIN)).matched == 5
    assert told(audit) == [("default/plain", 1, "done", "ann", 5)]


async def test_snd_11_a_move_needs_room_for_the_properties_that_it_sets(owner: Owner) -> None:
    await owner.create(EntityKey("default", "small"), max_size_in_megabytes=1)
    await owner.create(PLAIN)
    bodies = tuple(Message(body=b"x").SerializeToString() for _ in range(100))
    await owner.call(Send(PLAIN, bodies, (None,)), Sent)
    await owner.settle(PLAIN, Outcome.DEAD_LETTER, await owner.receive(PLAIN, maximum=100))
    properties = encoded_properties({"p": PropertyValue(string_value="x" * 30_000)})
    options = JobOptions(target=EntityKey("default", "small"), properties=properties)
    await owner.call(StartJob(PLAIN, JobKind.MOVE, Selector(), options, "uid"), JobIs)
    await owner.pass_time(SECOND_MS)

    ended = await job(owner, PLAIN)
    assert (ended.status, ended.matched) == (JobStatus.FAILED, 0)
    assert "is full" in ended.error


async def test_a_message_that_cannot_be_read_fails_its_job_and_stops_nothing_else(
    owner: Owner,
) -> None:
    other = EntityKey("default", "elsewhere")
    await owner.create(other)
    await owner.create(PLAIN)
    await owner.call(Send(PLAIN, (b"no message",), (None,)), Sent)
    await owner.settle(PLAIN, Outcome.DEAD_LETTER, await owner.receive(PLAIN, maximum=1))
    await owner.call(
        StartJob(PLAIN, JobKind.MOVE, Selector(), JobOptions(target=other), "u"), JobIs
    )
    await owner.pass_time(SECOND_MS)

    assert (await job(owner, PLAIN)).status is JobStatus.FAILED
