"""Who brings dead letters to another partition: again and again until it is known what became of them (ADR 0009)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from lockstep.cluster.port import Answer
from lockstep.core.commands import (
    AdvanceJob,
    ApplyDefinition,
    ApplyDeletion,
    ApplyJobPart,
    Command,
    LookForJob,
    Outcome,
    Receive,
    Send,
    Settle,
    Settlement,
    StartJob,
    TakeTransfer,
)
from lockstep.core.entity import SettingValue
from lockstep.core.errors import EntityNotFound, Moved
from lockstep.core.ids import EntityKey, EntityNumber, PartitionId
from lockstep.core.jobs import Job, JobKind, JobOptions, JobStatus, Selector
from lockstep.core.placement import partition_of_entity
from lockstep.core.replies import Applied, Delivered, JobIs, JobLook, Sent, Settled, TransferIs
from lockstep.owner.carrying import Carrier
from lockstep.owner.job_runner import JobRunner
from lockstep.runtime.clock import ManualClock
from lockstep.v1.message_pb2 import Message
from lockstep.wire.sends import copies_of
from tests.unit.core.partition_rig import Rig

_KEYS = [EntityKey("default", f"queue {number}") for number in range(20)]
SOURCE = next(k for k in _KEYS if partition_of_entity(k, 2) == 0)
TARGET = next(k for k in _KEYS if partition_of_entity(k, 2) == 1)
LONGEST_PAUSE_MS = 2000


def message(text: str) -> bytes:
    return Message(body=text.encode(), message_id=text).SerializeToString()


class Way:
    """Two partitions, and a way between them that fails as often as a test says.

    Attributes:
        asked: What the other partition was asked for, each time.
        failing: How often it still fails before it is asked, and how often its answer is lost.
    """

    def __init__(self, bodies: Sequence[bytes], **settings: SettingValue) -> None:
        self.here, self.there = Rig(0, partitions=2), Rig(1, partitions=2)
        self.clock = ManualClock()
        self.asked: list[TakeTransfer] = []
        self.failing = self.silent = 0
        self.source = self.here.create(SOURCE)
        self.target = self.here.create(TARGET, **settings)
        for definition in (self.source, self.target):
            self.there.step(ApplyDefinition(definition), Applied)
        self.here.step(Send(SOURCE, tuple(bodies), (None,)), Sent)
        got = self.here.step(Receive(SOURCE, False, None, len(bodies)), Delivered)
        self.sequences = tuple(got.sequences)
        self.bodies = dict(zip(self.sequences, bodies, strict=True))
        dead = Settlement(Outcome.DEAD_LETTER, got.grant, got.sequences, "broken")
        self.here.step(Settle(SOURCE, False, None, (dead,)), Settled)

    def sent_off(self) -> Job:
        """Let a job send all dead letters off."""
        options = JobOptions(target=TARGET)
        self.here.step(StartJob(SOURCE, JobKind.MOVE, Selector(), options, uid="u"), JobIs)
        look = self.here.step(LookForJob(SOURCE, 1, 512), JobLook)
        copies = copies_of(TARGET, [message("x")] * len(look.sequences), None)
        advance = AdvanceJob(SOURCE, 1, 0, look.cursor, look.sequences, copies=copies, uid="u")
        return self.here.step(advance, JobIs).job

    async def call(self, command: Command, *, wait_ms: int = 0) -> Answer:
        """Have a command carried out here."""
        assert not wait_ms
        reply = self.here.decide(command).reply
        if isinstance(reply, TransferIs | JobLook) and reply.delivered is not None:
            return Answer(reply, [self.bodies[s] for s in reply.delivered.sequences])
        return Answer(reply)

    async def call_other(self, partition: PartitionId, command: Command) -> Answer:
        """Have a transfer taken there, unless the way fails."""
        assert partition == 1
        assert isinstance(command, TakeTransfer)
        self.asked.append(command)
        if self.failing:
            self.failing -= 1
            raise Moved("The partition is moving.")
        answer = Answer(self.there.decide(command).reply)
        if self.silent:
            self.silent -= 1
            raise Moved("The answer was lost.")
        return answer

    def carry(self, job: Job) -> asyncio.Task[Job]:
        """Begin to bring what a job has on the way."""
        carrier = Carrier(self.here.partition, self, self.clock, self.call_other)
        return asyncio.get_running_loop().create_task(carrier.carry(SOURCE, job))

    def drive(self) -> asyncio.Task[None]:
        """Begin to drive all jobs."""
        runner = JobRunner(self.here.partition, self, self.clock, self.call_other)
        return asyncio.get_running_loop().create_task(runner.run())

    async def pass_time(self, ms: int) -> None:
        await self.clock.advance_stepwise(ms)

    @property
    def arrived(self) -> int:
        return self.there.partition.queues[TARGET].log.count

    @property
    def receivable(self) -> list[int]:
        return list(self.here.partition.queues[SOURCE].dead.ready())


@pytest.fixture
def two() -> Way:
    """A way with two dead letters."""
    return Way([message("1"), message("2")])


async def test_rsb_2_a_transfer_is_asked_for_again_under_its_number_until_it_is_answered(
    two: Way,
) -> None:
    two.failing, two.silent = 2, 1
    carrying = two.carry(two.sent_off())

    await two.pass_time(0)
    assert (len(two.asked), two.arrived, carrying.done()) == (1, 0, False)
    await two.pass_time(3 * LONGEST_PAUSE_MS)

    assert (await carrying).matched == 2
    assert two.asked == [two.asked[0]] * 4
    assert (two.arrived, two.receivable) == (2, [])


async def test_the_pauses_between_attempts_grow_to_a_limit(two: Way) -> None:
    two.failing = 1000
    carrying = two.carry(two.sent_off())

    await two.pass_time(10 * LONGEST_PAUSE_MS)
    first = len(two.asked)
    await two.pass_time(10 * LONGEST_PAUSE_MS)

    assert 10 < first < 25
    assert len(two.asked) == first + 10
    carrying.cancel()


async def test_rsb_2_what_was_refused_comes_back_by_its_own_number() -> None:
    way = Way([message("1"), message("2" * 2000), message("3")], max_message_size_in_kilobytes=1)
    carrying = way.carry(way.sent_off())
    await way.pass_time(0)

    job = await carrying
    assert (job.matched, job.skipped, way.arrived) == (2, 1, 2)
    assert way.receivable == [way.sequences[1]]


async def test_a_job_whose_target_is_gone_fails_and_keeps_its_messages(two: Way) -> None:
    job = two.sent_off()
    two.there.decide(ApplyDeletion(two.target.number, 99))
    carrying = two.carry(job)
    await two.pass_time(0)

    assert (await carrying).status is JobStatus.FAILED
    assert two.receivable == list(two.sequences)


async def test_a_message_that_cannot_be_read_stays_and_its_job_fails() -> None:
    way = Way([b"\xff\xff\xff"])
    carrying = way.carry(way.sent_off())
    await way.pass_time(0)

    job = await carrying
    assert (job.status, bool(job.error)) == (JobStatus.FAILED, True)
    assert (way.asked, way.receivable) == ([], list(way.sequences))


async def test_what_is_over_is_not_asked_for_again(two: Way) -> None:
    job = two.sent_off()
    await two.carry(job)
    assert len(two.asked) == 1

    assert (await two.carry(job)).matched == 2
    assert len(two.asked) == 1


@pytest.mark.parametrize("is_made_again", [False, True])
async def test_nothing_is_brought_any_more_of_a_queue_that_was_deleted(
    two: Way, *, is_made_again: bool
) -> None:
    two.failing = 1000
    carrying = two.carry(two.sent_off())
    await two.pass_time(0)

    two.here.decide(ApplyDeletion(two.source.number, 99))
    if is_made_again:
        again = replace(two.source, number=EntityNumber(50), uid="another", revision=100)
        two.here.step(ApplyDefinition(again), Applied)
    await two.pass_time(2 * LONGEST_PAUSE_MS)

    with pytest.raises(EntityNotFound):
        carrying.result()


async def test_what_is_on_its_way_arrives_before_another_job_sends_anything_off(two: Way) -> None:
    """Numbers of transfers only rise: an older one that came later would be late for ever (ADR 0009)."""
    first, second = (
        Job(
            number=number,
            uid=f"uid {number}",
            kind=JobKind.MOVE,
            selector=Selector(ranges=((sequence, sequence),)),
            options=JobOptions(target=TARGET),
            by="",
            started_ms=0,
            end=0,
            parts=(0, 1),
            queue=two.source.number,
        )
        for number, sequence in zip((1, 2), two.sequences, strict=True)
    )
    two.failing = 1
    two.here.step(ApplyJobPart(SOURCE, second), JobIs)
    driving = two.drive()
    await two.pass_time(0)
    driving.cancel()

    two.here.partition = await two.here.reopened(two.here.now_ms)
    two.here.step(ApplyJobPart(SOURCE, first), JobIs)
    driving = two.drive()
    await two.pass_time(0)

    jobs = two.here.partition.queues[SOURCE].jobs
    assert [jobs[number].status for number in (-1, -2)] == [JobStatus.DONE] * 2
    assert two.arrived == 2
    driving.cancel()
