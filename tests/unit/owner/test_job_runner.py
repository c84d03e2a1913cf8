"""How the jobs of one partition are driven beside each other."""

from __future__ import annotations

from lockstep.core.commands import ListJobs, Outcome, StartJob
from lockstep.core.ids import EntityKey
from lockstep.core.jobs import Job, JobKind, JobOptions, JobStatus, Selector
from lockstep.core.replies import JobIs, JobsAre
from tests.unit.owner.owner_rig import Owner

SLOW, FAST = EntityKey("default", "slow"), EntityKey("default", "fast")


async def with_dead_letters(owner: Owner, key: EntityKey, count: int) -> None:
    await owner.create(key)
    await owner.send(key, count)
    await owner.settle(key, Outcome.DEAD_LETTER, await owner.receive(key))


async def purge(owner: Owner, key: EntityKey, *, rate: int = 0) -> None:
    options = JobOptions(rate=rate)
    await owner.call(StartJob(key, JobKind.PURGE, Selector(), options, "uid", "tester"), JobIs)


async def job(owner: Owner, key: EntityKey, number: int = 1) -> Job:
    return (await owner.call(ListJobs(key, number), JobsAre)).jobs[0]


async def test_a_slow_job_does_not_keep_those_of_other_queues_from_their_work(owner: Owner) -> None:
    await with_dead_letters(owner, SLOW, 50)
    await with_dead_letters(owner, FAST, 50)
    await purge(owner, SLOW, rate=1)
    await owner.pass_time(1)

    await purge(owner, FAST)
    await owner.pass_time(3_000)

    assert (await job(owner, FAST)).status is JobStatus.DONE
    slow = await job(owner, SLOW)
    assert slow.is_running
    assert slow.matched < 10


async def test_jobs_of_one_queue_are_done_one_after_the_other(owner: Owner) -> None:
    await with_dead_letters(owner, SLOW, 3)
    await purge(owner, SLOW, rate=1)
    await purge(owner, SLOW)
    await owner.pass_time(1)
    assert (await job(owner, SLOW, 2)).matched == 0

    await owner.pass_time(10_000)

    assert (await job(owner, SLOW, 1)).matched == 3
    assert (await job(owner, SLOW, 2)).status is JobStatus.DONE
