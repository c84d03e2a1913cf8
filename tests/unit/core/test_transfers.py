"""Dead letters that go to another partition: in one place at any moment, whatever fails on the way (RSB-2, ADD-11)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from lockstep.core.amendments import Trail
from lockstep.core.commands import (
    AdvanceJob,
    ApplyDefinition,
    ApplyDeletion,
    CancelJob,
    Explain,
    ListJobs,
    LookForJob,
    LookForTransfer,
    Outcome,
    Receive,
    RenewMessages,
    Send,
    Settle,
    Settlement,
    SettleTransfer,
    StartJob,
    TakeTransfer,
)
from lockstep.core.entity import QueueDefinition, SettingValue
from lockstep.core.errors import EntityNotFound, InvalidOperation, ServerBusy
from lockstep.core.ids import EntityKey, EntityNumber, GrantNumber, PartitionId
from lockstep.core.invariants import check_partition
from lockstep.core.jobs import Job, JobKind, JobOptions, JobStatus, Selector
from lockstep.core.placement import partition_of_entity
from lockstep.core.replies import (
    Applied,
    Delivered,
    Explained,
    JobIs,
    JobLook,
    JobsAre,
    Renewed,
    Sent,
    Settled,
    TransferIs,
    TransferTaken,
)
from tests.unit.core.partition_rig import Rig

PARTITIONS = 4


def _names() -> Iterator[EntityKey]:
    return (EntityKey("default", f"queue {number}") for number in range(1000))


SOURCE = next(k for k in _names() if partition_of_entity(k, PARTITIONS) == 0)
TARGET = next(k for k in _names() if partition_of_entity(k, PARTITIONS) == 3)
NEAR = next(k for k in _names() if partition_of_entity(k, PARTITIONS) == 0 and k != SOURCE)


class Pair:
    """The partition of the source and that of the target, and what is on the way between them."""

    def __init__(self, **settings: SettingValue) -> None:
        self.here = Rig(0, partitions=PARTITIONS)
        self.there = Rig(3, partitions=PARTITIONS)
        self.here.create(NEAR)
        self.source = self._create(SOURCE)
        self.target = self._create(TARGET, **settings)

    def _create(self, key: EntityKey, **settings: SettingValue) -> QueueDefinition:
        definition = self.here.create(key, **settings)
        self.there.step(ApplyDefinition(definition), Applied)
        return definition

    def dead_letters(self, *bodies: bytes) -> None:
        """Make dead letters in the source."""
        self.here.step(Send(SOURCE, bodies, (None,)), Sent)
        got = self.here.step(Receive(SOURCE, False, None, len(bodies)), Delivered)
        settlement = Settlement(Outcome.DEAD_LETTER, got.grant, got.sequences, "broken")
        self.here.step(Settle(SOURCE, False, None, (settlement,)), Settled)

    def start(self, target: EntityKey = TARGET, *, most: int = 0) -> Job:
        command = StartJob(
            SOURCE, JobKind.MOVE, Selector(max_count=most), JobOptions(target=target), uid="u"
        )
        return self.here.step(command, JobIs).job

    def advance(self, *, maximum: int = 512, bodies: tuple[bytes, ...] | None = None) -> Job:
        """Let the job find messages and send them off, as `owner.job_runner` does."""
        look = self.here.step(LookForJob(SOURCE, 1, maximum), JobLook)
        messages = bodies or tuple(b"%d" % n for n in look.sequences)
        command = AdvanceJob(
            SOURCE,
            1,
            look.job.cursor,
            look.cursor,
            look.sequences,
            copies=Send(look.job.options.target or SOURCE, messages, (None,)),
            uid="u",
        )
        return self.here.step(command, JobIs).job

    def look(self, grant: int) -> TakeTransfer | None:
        """Return what asks the target to take a transfer; None = it is over."""
        look = self.here.step(LookForTransfer(SOURCE, 1, grant), TransferIs)
        if look.transfer is None or look.delivered is None:
            return None
        numbers = look.delivered.sequences
        return TakeTransfer(
            TARGET,
            self.target.number,
            SOURCE,
            look.source,
            PartitionId(0),
            look.transfer.grant,
            look.revision,
            tuple(b"%d" % number for number in numbers),
            (None,) * len(numbers),
            (),
            tuple(f"id {number}" for number in numbers),
            look.amendments,
        )

    def take(self, command: TakeTransfer) -> TransferTaken:
        return self.there.step(command, TransferTaken)

    def settle(self, command: TakeTransfer, taken: TransferTaken) -> Job:
        """Tell the source what became of a transfer."""
        numbers = sorted(self.here.partition.queues[SOURCE].dead.grants.get(command.number, ()))
        refused = tuple(numbers[place] for place in taken.refused) if numbers else ()
        command_back = SettleTransfer(SOURCE, 1, "u", command.number, refused, taken.error)
        return self.here.step(command_back, JobIs).job

    async def restart(self, rig: Rig) -> None:
        """Let another owner open what a partition has stored."""
        rig.partition = await rig.reopened(rig.now_ms)

    @property
    def job(self) -> Job:
        return self.here.step(ListJobs(SOURCE, 1), JobsAre).jobs[0]

    @property
    def left(self) -> int:
        """How many dead letters the source still has, on the way or not."""
        return len(self.here.partition.queues[SOURCE].dead_order)

    @property
    def arrived(self) -> int:
        return self.there.partition.queues[TARGET].log.count

    def receivable(self) -> int:
        """Count the dead letters of the source that a receiver would get now."""
        return self.here.partition.queues[SOURCE].dead.ready_count

    def check(self) -> None:
        check_partition(self.here.partition)
        check_partition(self.there.partition)


def grant_of(job: Job) -> int:
    (transfer,) = job.transfers
    return transfer.grant


def sent_off(pair: Pair) -> TakeTransfer:
    """Send the only batch of a job off, and return what asks for it."""
    command = pair.look(grant_of(pair.advance()))
    assert command is not None
    return command


async def test_rsb_2_a_message_on_its_way_is_received_nowhere_until_it_has_arrived() -> None:
    pair = Pair()
    pair.dead_letters(b"1", b"2")
    pair.start()

    command = sent_off(pair)
    assert (pair.receivable(), pair.left, pair.arrived) == (0, 2, 0)
    taken = pair.take(command)
    assert (pair.receivable(), pair.left, pair.arrived) == (0, 2, 2)
    job = pair.settle(command, taken)
    assert (pair.receivable(), pair.left, pair.arrived) == (0, 0, 2)
    assert (job.status, job.matched, job.transfers) == (JobStatus.RUNNING, 2, ())

    assert pair.advance().status is JobStatus.DONE
    pair.check()


async def test_rsb_4_what_arrived_knows_where_it_was() -> None:
    pair = Pair()
    pair.dead_letters(b"1")
    pair.start()
    pair.take(sent_off(pair))

    queue = pair.there.partition.queues[TARGET]
    (amendment,) = queue.amendments.values()
    assert amendment.trail == Trail(1, 1, f"default/{SOURCE.name}", "broken")
    assert queue.counts == {}


async def test_rsb_2_nobody_settles_or_renews_what_is_on_its_way() -> None:
    """A lock token is a grant and a number, so who had a grant before can guess that of a transfer."""
    pair = Pair()
    pair.dead_letters(b"1", b"2")
    pair.start()
    command = sent_off(pair)
    numbers = tuple(pair.here.partition.queues[SOURCE].dead_order)
    grant = GrantNumber(command.number)

    for outcome in (Outcome.ABANDON, Outcome.DEFER, Outcome.COMPLETE):
        forged = Settlement(outcome, grant, numbers)
        settled = pair.here.step(Settle(SOURCE, True, None, (forged,)), Settled)
        assert len(settled.failures) == 2
    tokens = tuple((grant, number) for number in numbers)
    assert len(pair.here.step(RenewMessages(SOURCE, True, tokens), Renewed).failures) == 2
    assert (pair.receivable(), pair.left) == (0, 2)
    pair.check()


async def test_a_transfer_that_comes_again_is_answered_and_not_taken_again() -> None:
    pair = Pair()
    pair.dead_letters(b"1", b"2")
    pair.start()
    command = sent_off(pair)

    first = pair.take(command)
    await pair.restart(pair.there)
    assert pair.take(command) == first
    assert pair.arrived == 2
    pair.check()


async def test_a_transfer_goes_on_after_a_restart_where_it_stopped() -> None:
    pair = Pair()
    pair.dead_letters(b"1", b"2")
    pair.start()
    before = sent_off(pair)
    pair.take(before)
    await pair.restart(pair.here)

    assert pair.receivable() == 0
    pair.here.now_ms += 10**9  # no time gives back what is on its way
    assert pair.here.partition.next_deadline_ms is None
    after = pair.look(grant_of(pair.job))
    assert after == before
    assert after is not None
    pair.settle(after, pair.take(after))
    assert (pair.left, pair.arrived, pair.job.matched) == (0, 2, 2)
    pair.check()


async def test_a_late_copy_of_a_transfer_does_nothing() -> None:
    pair = Pair()
    pair.dead_letters(b"1", b"2")
    pair.start()
    pair.advance(maximum=1)
    old = pair.look(grant_of(pair.job))
    assert old is not None
    pair.settle(old, pair.take(old))
    pair.advance(maximum=1)
    new = pair.look(grant_of(pair.job))
    assert new is not None
    pair.settle(new, pair.take(new))

    with pytest.raises(InvalidOperation):
        pair.take(old)
    assert pair.arrived == 2


async def test_a_refusal_is_final_so_that_a_late_copy_does_nothing() -> None:
    """What was refused for want of room stays at the source; a copy that finds room later must not arrive."""
    pair = Pair(max_size_in_megabytes=1)
    pair.dead_letters(b"1")
    pair.there.step(Send(TARGET, (bytes(1_000_000),), (None,)), Sent)
    pair.there.step(Send(TARGET, (bytes(48_570),), (None,)), Sent)
    pair.start()
    command = sent_off(pair)

    refused = pair.take(command)
    assert "max_size_in_megabytes" in refused.error
    got = pair.there.step(Receive(TARGET, False, None, 2), Delivered)
    done = Settlement(Outcome.COMPLETE, got.grant, got.sequences)
    pair.there.step(Settle(TARGET, False, None, (done,)), Settled)
    assert pair.take(command) == refused

    job = pair.settle(command, refused)
    assert (job.status, job.matched, job.error) == (JobStatus.FAILED, 0, refused.error)
    assert (pair.receivable(), pair.arrived) == (1, 0)
    pair.check()


async def test_a_message_that_does_not_fit_stays_and_the_others_go() -> None:
    pair = Pair(requires_session=True, placement="single")
    pair.dead_letters(b"1", b"2")
    pair.start()
    look = pair.here.step(LookForJob(SOURCE, 1, 512), JobLook)
    copies = Send(TARGET, (b"1", b"2"), ("s", None))
    command = AdvanceJob(SOURCE, 1, 0, look.cursor, look.sequences, copies=copies, uid="u")
    job = pair.here.step(command, JobIs).job
    assert (job.skipped, len(job.transfers)) == (1, 1)  # the second needs a session
    pair.check()


async def test_what_the_target_finds_too_large_comes_back() -> None:
    pair = Pair(max_message_size_in_kilobytes=1)
    pair.dead_letters(b"1", b"2")
    pair.start()
    command = sent_off(pair)
    large = (command.messages[0], bytes(2_000))
    taken = pair.take(replace(command, messages=large))
    assert taken == TransferTaken(refused=(1,))

    job = pair.settle(command, taken)
    assert (job.matched, job.skipped, pair.receivable(), pair.left) == (1, 1, 1, 1)
    assert pair.advance().status is JobStatus.DONE  # what came back is not taken again
    pair.check()


async def test_a_job_that_is_cancelled_ends_when_what_is_on_the_way_has_arrived() -> None:
    pair = Pair()
    pair.dead_letters(b"1", b"2", b"3")
    pair.start()
    pair.advance(maximum=1)
    cancelled = pair.here.step(CancelJob(SOURCE, 1), JobIs).job
    assert cancelled.is_running

    command = pair.look(grant_of(cancelled))
    assert command is not None
    job = pair.settle(command, pair.take(command))
    assert (job.status, job.matched, pair.receivable()) == (JobStatus.CANCELLED, 1, 2)
    pair.check()


async def test_add_10_a_message_on_its_way_is_explained() -> None:
    pair = Pair()
    pair.dead_letters(b"1")
    pair.start()
    command = sent_off(pair)
    why = pair.here.step(Explain(SOURCE, None, 1), Explained)
    assert "Job 1 is taking it to another partition" in why.sentence

    pair.settle(command, TransferTaken(error="no room"))
    why = pair.here.step(Explain(SOURCE, None, 1), Explained)
    assert "Job 1" not in why.sentence


async def test_a_job_stops_at_its_number_of_messages() -> None:
    pair = Pair()
    pair.dead_letters(b"1", b"2", b"3")
    pair.start(most=2)
    command = sent_off(pair)
    job = pair.settle(command, pair.take(command))
    assert (job.status, job.matched, pair.receivable()) == (JobStatus.DONE, 2, 1)


async def test_nothing_more_is_taken_while_something_is_on_the_way() -> None:
    pair = Pair()
    pair.dead_letters(b"1", b"2")
    pair.start()
    job = pair.advance(maximum=1)

    look = pair.here.step(LookForJob(SOURCE, 1, 512), JobLook)
    assert list(look.sequences) == []
    assert pair.advance() == job


async def test_a_target_that_is_deleted_meanwhile_takes_nothing() -> None:
    pair = Pair()
    pair.dead_letters(b"1")
    pair.start()
    command = sent_off(pair)
    pair.there.decide(ApplyDeletion(pair.target.number, 99))

    taken = pair.take(command)
    assert "gone" in taken.error
    assert pair.settle(command, taken).status is JobStatus.FAILED
    assert pair.receivable() == 1


async def test_a_partition_that_has_not_heard_of_the_target_is_asked_again() -> None:
    pair = Pair()
    pair.dead_letters(b"1")
    pair.start()
    command = sent_off(pair)
    behind = Rig(3, partitions=PARTITIONS)
    with pytest.raises(EntityNotFound):
        behind.decide(command)
    behind.decide(ApplyDefinition(pair.source))
    with pytest.raises(ServerBusy) as busy:
        behind.decide(command)
    assert busy.value.retry_after_ms
    behind.decide(ApplyDefinition(pair.target))
    assert behind.step(command, TransferTaken) == TransferTaken()


async def test_what_a_queue_had_on_the_way_is_forgotten_with_it() -> None:
    pair = Pair()
    pair.dead_letters(b"1")
    pair.start()
    command = sent_off(pair)
    pair.take(command)

    pair.there.decide(ApplyDeletion(pair.source.number, 99))
    await pair.restart(pair.there)
    assert pair.arrived == 1
    with pytest.raises(EntityNotFound):
        pair.take(command)


async def test_a_transfer_of_an_earlier_queue_of_that_name_is_not_taken() -> None:
    pair = Pair()
    pair.dead_letters(b"1")
    pair.start()
    command = sent_off(pair)

    pair.there.decide(ApplyDeletion(pair.source.number, 99))
    again = replace(pair.source, number=EntityNumber(50), uid="another", revision=100)
    pair.there.step(ApplyDefinition(again), Applied)
    with pytest.raises(EntityNotFound):
        pair.take(command)
    assert pair.arrived == 0


async def test_a_move_to_a_queue_of_this_partition_sends_nothing_off() -> None:
    pair = Pair()
    pair.dead_letters(b"1")
    pair.start(NEAR)
    job = pair.advance(bodies=(b"1",))
    assert (job.status, job.matched, job.transfers) == (JobStatus.DONE, 1, ())


@pytest.mark.parametrize("seed", range(60))
async def test_rsb_2_no_message_is_lost_or_doubled_whatever_fails(seed: int) -> None:
    """Owners that restart, replies that are lost, and copies that come late: each message is moved exactly once."""
    chance = random.Random(seed)
    pair = Pair()
    count = chance.randint(1, 12)
    pair.dead_letters(*(b"x" for _ in range(count)))
    pair.start()
    asked: list[TakeTransfer] = []
    for _ in range(400):
        job = pair.job
        if not job.is_running:
            break
        if not job.transfers:
            pair.advance(maximum=chance.randint(1, 5))
            continue
        match chance.randrange(6):
            case 0:
                await pair.restart(pair.here)
            case 1:
                await pair.restart(pair.there)
            case 2 if asked:  # a late copy
                with suppress(InvalidOperation):
                    pair.take(chance.choice(asked))
            case 3:  # a reply that is lost
                command = pair.look(grant_of(job))
                assert command is not None
                asked.append(command)
                pair.take(command)
            case _:
                command = pair.look(grant_of(job))
                assert command is not None
                asked.append(command)
                pair.settle(command, pair.take(command))
        pair.check()
        on_the_way = pair.left - pair.receivable()
        assert count <= pair.left + pair.arrived <= count + on_the_way

    assert (pair.job.status, pair.job.matched) == (JobStatus.DONE, count)
    assert (pair.left, pair.arrived) == (0, count)
