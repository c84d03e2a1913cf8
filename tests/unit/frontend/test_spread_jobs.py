"""One job on the dead letters of a spread queue, whoever carries it on (ADD-11)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from lockstep.core.commands import (
    Accept,
    ApplyJobPart,
    DeleteQueue,
    ListJobs,
    Receive,
    StartJob,
)
from lockstep.core.errors import ClusterUnavailable, JobNotFound
from lockstep.core.ids import EntityKey, RequestId, SessionId
from lockstep.core.jobs import Job, JobKind, JobOptions, JobStatus, Selector
from lockstep.core.placement import partition_of_entity, partition_of_session
from lockstep.core.replies import Accepted, Delivered, JobIs, JobsAre
from lockstep.frontend.spread_jobs import SpreadJobs
from tests.unit.frontend.cluster_rig import (
    ORDERS,
    PARTITIONS,
    Cluster,
    running_cluster,
    session_on,
)

HOME = partition_of_entity(ORDERS, PARTITIONS)
AWAY = (HOME + 1) % PARTITIONS
EVERYWHERE = [session_on(partition) for partition in range(PARTITIONS)]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running_cluster() as running:
        yield running


@pytest.fixture
def audit(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "lockstep.audit")
    return caplog


def purge(
    selector: Selector | None = None, options: JobOptions | None = None, request: int | None = None
) -> StartJob:
    """Return the command that begins to remove all dead letters, or those that are selected."""
    return StartJob(
        ORDERS,
        JobKind.PURGE,
        selector or Selector(),
        options or JobOptions(),
        uid="uid",
        by="ann",
        request=RequestId("client", request) if request is not None else None,
    )


async def ended(cluster: Cluster, jobs: SpreadJobs, number: int = 1) -> Job:
    """Ask for a job until it has ended, and return it."""
    for _ in range(100):
        job = await jobs.get(ORDERS, number)
        if not job.is_running:
            return job
        await cluster.pass_time(100)
    raise AssertionError(f"job {number} does not end")


def told(audit: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    """Return number, status, who asked and how many were taken, of each end that was told."""
    fields = ("job", "status", "by", "matched")
    return [tuple(getattr(r, f) for f in fields) for r in audit.records if r.name.endswith("audit")]


async def test_add_11_a_job_is_one_job_carried_out_by_every_partition(
    cluster: Cluster, audit: pytest.LogCaptureFixture
) -> None:
    await cluster.create()
    await cluster.add_dead_letters(3, EVERYWHERE)
    jobs = SpreadJobs(cluster.router)

    started = await jobs.start(purge())
    job = await ended(cluster, jobs)

    assert started.number == 1
    assert (job.status, job.matched, job.by) == (JobStatus.DONE, 12, "ann")
    assert [one.number for one in await jobs.last(ORDERS)] == [1]
    assert (await cluster.runtime()).dead_letters == 0
    assert told(audit) == [(1, "done", "ann", 12)]


async def test_a_job_whose_front_end_died_at_its_start_is_carried_out_by_another(
    cluster: Cluster, audit: pytest.LogCaptureFixture
) -> None:
    await cluster.create()
    await cluster.add_dead_letters(3, EVERYWHERE)
    begun = replace(purge(), by="", parts=(0, 1, 2, 3))
    await cluster.call(HOME, begun, JobIs)  # and then nothing more

    async with asyncio.TaskGroup() as tasks:
        keeper = tasks.create_task(SpreadJobs(cluster.router).run())
        await cluster.pass_time(20_000)
        keeper.cancel()

    kept = (await cluster.call(HOME, ListJobs(ORDERS, 1), JobsAre)).jobs[0]
    assert (kept.status, kept.matched) == (JobStatus.DONE, 12)
    assert (await cluster.runtime()).dead_letters == 0
    assert told(audit) == [(1, "done", "nobody named", 12)]


async def test_a_start_that_comes_twice_is_one_job(cluster: Cluster) -> None:
    await cluster.create()
    await cluster.add_dead_letters(1, EVERYWHERE)
    one, other = SpreadJobs(cluster.router), SpreadJobs(cluster.router)

    numbers = {(await jobs.start(purge(request=1))).number for jobs in (one, other, one)}
    job = await ended(cluster, other)

    assert numbers == {1}
    assert job.matched == PARTITIONS
    assert len(await one.last(ORDERS)) == 1


async def test_a_part_that_is_away_is_carried_out_when_it_is_back(cluster: Cluster) -> None:
    await cluster.create()
    await cluster.add_dead_letters(2, EVERYWHERE)
    jobs = SpreadJobs(cluster.router)

    cluster.paths.closed = {AWAY}
    async with asyncio.TaskGroup() as tasks:
        starting = tasks.create_task(jobs.start(purge()))
        await cluster.pass_time(10_000)
    started = starting.result()

    assert (started.number, started.is_running) == (1, True)
    asked = await asyncio.gather(
        jobs.get(ORDERS, 1), cluster.pass_time(10_000), return_exceptions=True
    )
    assert isinstance(asked[0], ClusterUnavailable)  # figures are exact, or there are none

    cluster.paths.closed = set()
    assert (await ended(cluster, jobs)).matched == 2 * PARTITIONS


async def test_a_cancelled_job_ends_with_what_its_parts_did(
    cluster: Cluster, audit: pytest.LogCaptureFixture
) -> None:
    await cluster.create()
    await cluster.add_dead_letters(5, EVERYWHERE)
    jobs = SpreadJobs(cluster.router)

    await jobs.start(purge(options=JobOptions(rate=PARTITIONS)))  # one a second and partition
    await cluster.pass_time(1_500)
    cancelled = await jobs.cancel(ORDERS, 1)
    await cluster.pass_time(10_000)

    assert cancelled.status is JobStatus.CANCELLED
    assert 0 < cancelled.matched < 20
    assert (await cluster.runtime()).dead_letters == 20 - cancelled.matched
    assert told(audit) == [(1, "cancelled", "ann", cancelled.matched)]


async def test_a_late_copy_of_a_job_does_not_begin_a_part_of_a_cancelled_one(
    cluster: Cluster,
) -> None:
    await cluster.create()
    await cluster.add_dead_letters(5, EVERYWHERE)
    begun = replace(purge(options=JobOptions(rate=PARTITIONS)), parts=(0, 1, 2, 3))
    late = (await cluster.call(HOME, begun, JobIs)).job

    await SpreadJobs(cluster.router).cancel(ORDERS, 1)
    part = (await cluster.call(AWAY, ApplyJobPart(ORDERS, late), JobIs)).job
    await cluster.pass_time(10_000)

    assert part.status is JobStatus.CANCELLED
    assert (await cluster.runtime()).dead_letters == 20


async def test_a_job_of_a_queue_that_was_deleted_touches_no_later_one(cluster: Cluster) -> None:
    await cluster.create()
    begun = replace(purge(), by="", parts=(0, 1, 2, 3))
    late = (await cluster.call(HOME, begun, JobIs)).job
    await cluster.call(0, DeleteQueue(ORDERS), object)
    await cluster.create()
    await cluster.add_dead_letters(1, EVERYWHERE)

    with pytest.raises(JobNotFound):
        await cluster.call(AWAY, ApplyJobPart(ORDERS, late), JobIs)
    assert (await cluster.runtime()).dead_letters == PARTITIONS


@pytest.mark.parametrize(
    ("selector", "options", "taken"),
    [
        (Selector(max_count=7), JobOptions(), 7),
        (Selector(max_count=2), JobOptions(dry_run=True), 2),
        (Selector(max_count=100), JobOptions(), 12),
        (Selector(session_id=SessionId(EVERYWHERE[2])), JobOptions(), 3),
        (Selector(reason="another"), JobOptions(), 0),
        (Selector(), JobOptions(rate=2), 12),
    ],
)
async def test_rsb_1_a_selection_is_that_of_the_whole_queue(
    cluster: Cluster, selector: Selector, options: JobOptions, taken: int
) -> None:
    await cluster.create()
    await cluster.add_dead_letters(3, EVERYWHERE)
    jobs = SpreadJobs(cluster.router)

    await jobs.start(purge(selector, options))
    job = await ended(cluster, jobs)

    assert (job.status, job.matched) == (JobStatus.DONE, taken)
    left = 12 if options.dry_run else 12 - taken
    assert (await cluster.runtime()).dead_letters == left


@pytest.mark.parametrize("rate", [2, 8])
async def test_a_rate_is_that_of_all_parts_together(cluster: Cluster, rate: int) -> None:
    await cluster.create()
    await cluster.add_dead_letters(12, EVERYWHERE)
    jobs = SpreadJobs(cluster.router)
    async with asyncio.TaskGroup() as tasks:
        keeper = tasks.create_task(jobs.run())
        await jobs.start(purge(options=JobOptions(rate=rate)))
        await cluster.pass_time(3_900)
        gone = 48 - (await cluster.runtime()).dead_letters
        keeper.cancel()

    # Four seconds began. Where parts follow each other, two of them may share one second.
    assert 2 * rate <= gone <= 5 * rate


async def test_numbers_count_all_jobs_of_the_queue_also_those_of_one_session(
    cluster: Cluster,
) -> None:
    await cluster.create()
    await cluster.add_dead_letters(1, EVERYWHERE)
    jobs = SpreadJobs(cluster.router)
    options = JobOptions(reason="why")
    for name in EVERYWHERE:
        one = Selector(session_id=SessionId(name))
        await jobs.start(StartJob(ORDERS, JobKind.DEAD_LETTER, one, options, uid=name))
    await jobs.start(purge())

    assert [(await ended(cluster, jobs, number)).status for number in (1, 2, 3, 4, 5)] == [
        JobStatus.DONE
    ] * 5
    assert [job.number for job in await jobs.last(ORDERS)] == [5, 4, 3, 2, 1]
    for number in (0, -1, 6):
        with pytest.raises(JobNotFound):
            await jobs.get(ORDERS, number)


FAR = next(
    key
    for key in (EntityKey("default", f"other-{number}") for number in range(20))
    if partition_of_entity(key, PARTITIONS) != HOME
)


async def test_add_11_a_move_brings_the_dead_letters_of_all_partitions_to_one_queue(
    cluster: Cluster,
) -> None:
    await cluster.create()
    await cluster.add_dead_letters(3, EVERYWHERE)
    await cluster.create(FAR, requires_session=False)
    jobs = SpreadJobs(cluster.router)

    await jobs.start(StartJob(ORDERS, JobKind.MOVE, Selector(), JobOptions(target=FAR), uid="uid"))
    job = await ended(cluster, jobs)

    assert (job.status, job.matched, job.skipped) == (JobStatus.DONE, 3 * PARTITIONS, 0)
    assert (await cluster.runtime()).dead_letters == 0
    assert (await cluster.runtime(FAR)).active == 3 * PARTITIONS


async def test_add_1_a_move_to_a_spread_queue_brings_each_session_to_its_own_partition(
    cluster: Cluster,
) -> None:
    await cluster.create()
    await cluster.add_dead_letters(2, EVERYWHERE)
    await cluster.create(FAR)
    jobs = SpreadJobs(cluster.router)

    await jobs.start(
        StartJob(
            ORDERS,
            JobKind.MOVE,
            Selector(),
            JobOptions(target=FAR, session_id=SessionId("one")),
            uid="uid",
        )
    )
    job = await ended(cluster, jobs)

    assert (job.status, job.matched) == (JobStatus.DONE, 2 * PARTITIONS)
    home = partition_of_session(FAR, "one", PARTITIONS)
    lock = (await cluster.call(home, Accept(FAR, SessionId("one"), "x"), Accepted)).session
    got = await cluster.call(home, Receive(FAR, False, lock, 100), Delivered)
    assert len(got.sequences) == 2 * PARTITIONS


async def test_add_11_a_resubmission_into_another_session_goes_to_its_partition(
    cluster: Cluster,
) -> None:
    await cluster.create()
    await cluster.add_dead_letters(2, EVERYWHERE)
    elsewhere = SessionId(session_on(AWAY))
    jobs = SpreadJobs(cluster.router)

    await jobs.start(
        StartJob(ORDERS, JobKind.RESUBMIT, Selector(), JobOptions(session_id=elsewhere), uid="uid")
    )
    job = await ended(cluster, jobs)

    assert (job.status, job.matched) == (JobStatus.DONE, 2 * PARTITIONS)
    lock = (await cluster.call(AWAY, Accept(ORDERS, elsewhere, "x"), Accepted)).session
    got = await cluster.call(AWAY, Receive(ORDERS, False, lock, 100), Delivered)
    assert len(got.sequences) == 2 * PARTITIONS
    assert (await cluster.runtime()).dead_letters == 0


async def test_add_1_a_move_fills_a_spread_queue_no_further_than_its_quota(
    cluster: Cluster,
) -> None:
    """Dead letters of all partitions go to sessions of another queue: together they are held to its quota (SND-11)."""
    await cluster.create()
    size, each = 100_000, 4
    for name in EVERYWHERE:
        await cluster.add_dead_letters(each, [name], size=size)
    await cluster.create(FAR, max_size_in_megabytes=1)
    jobs = SpreadJobs(cluster.router)

    options = JobOptions(target=FAR)
    await jobs.start(StartJob(ORDERS, JobKind.MOVE, Selector(), options, uid="uid"))
    job = await ended(cluster, jobs)

    held = (await cluster.runtime(FAR)).size_bytes
    assert job.status is JobStatus.FAILED
    assert "max_size_in_megabytes" in job.error or "is full" in job.error
    assert 0 < held <= 1024 * 1024
    moved = (await cluster.runtime(FAR)).active
    assert (await cluster.runtime()).dead_letters == each * PARTITIONS - moved


async def test_a_move_that_fits_gets_the_shares_that_it_needs(cluster: Cluster) -> None:
    await cluster.create()
    await cluster.add_dead_letters(2, EVERYWHERE, size=100_000)
    await cluster.create(FAR, max_size_in_megabytes=1)
    jobs = SpreadJobs(cluster.router)

    one = JobOptions(target=FAR, session_id=SessionId("one"))
    await jobs.start(StartJob(ORDERS, JobKind.MOVE, Selector(), one, uid="uid"))
    job = await ended(cluster, jobs)
    assert (job.status, job.matched) == (JobStatus.DONE, 2 * PARTITIONS)
