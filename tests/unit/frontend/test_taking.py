"""Accept-next over several partitions: what comes while they are asked is found (design section 5, SES-14)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from lockstep.cluster.port import Answer, Hint, OwnerChannel
from lockstep.core.commands import Accept, Command, Send
from lockstep.core.errors import LockstepError, NoSessionAvailable, ServerBusy
from lockstep.core.ids import EntityKey, PartitionId
from lockstep.core.replies import Accepted
from lockstep.frontend.router import Router
from lockstep.frontend.taking import Taker
from tests.unit.frontend.cluster_rig import (
    ORDERS,
    PARTITIONS,
    Cluster,
    running_cluster,
    session_on,
)

WAIT_MS = 60_000
HUNG_S = 20
EVERYWHERE = [session_on(partition) for partition in range(PARTITIONS)]


class Meddling:
    """The owners, with something done before each accept goes on to them."""

    def __init__(self, owner: OwnerChannel) -> None:
        self.partitions = PARTITIONS
        self._owner = owner
        self.asked: list[PartitionId] = []
        self.before: Callable[[], Awaitable[None]] | None = None

    def owner_of(self, _partition: PartitionId) -> OwnerChannel:
        return self

    async def call(
        self,
        partition: PartitionId,
        command: Command,
        *,
        wait_ms: int = 0,
        placement: str | None = None,
    ) -> Answer:
        if isinstance(command, Accept):
            if self.before is not None:
                await self.before()
            self.asked.append(partition)
        return await self._owner.call(partition, command, wait_ms=wait_ms, placement=placement)

    def follow_hints(self, partition: PartitionId) -> AsyncIterator[Sequence[Hint]]:
        return self._owner.follow_hints(partition)

    def note_refused_send(
        self, partition: PartitionId, entity: EntityKey, messages: int, error: LockstepError
    ) -> None:
        self._owner.note_refused_send(partition, entity, messages, error)


class FrontEnd:
    """A front end of a running cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.owners = Meddling(cluster.supervisor)
        self.taker = Taker(Router(self.owners, cluster.clock))

    async def accept(self, wait_ms: int = WAIT_MS) -> str:
        _, answer = await self.taker.take(Accept(ORDERS, None, "x"), wait_ms=wait_ms)
        assert isinstance(answer.reply, Accepted)
        return answer.reply.session.session_id

    async def send(self, partition: int) -> None:
        await self.cluster.call(partition, Send(ORDERS, (b"x",), (EVERYWHERE[partition],)), object)
        await self.cluster.pass_time(0)  # until its hint has arrived


@pytest.fixture
async def front() -> AsyncIterator[FrontEnd]:
    async with running_cluster() as cluster, asyncio.TaskGroup() as tasks:
        await cluster.create()
        front = FrontEnd(cluster)
        following = tasks.create_task(front.taker.run())
        await cluster.pass_time(0)
        yield front
        following.cancel()


async def test_what_comes_to_a_partition_that_was_asked_already_is_found_at_once(
    front: FrontEnd,
) -> None:
    """Its hint wakes nobody, because nobody waits yet."""

    async def send_behind() -> None:
        if len(front.owners.asked) == PARTITIONS - 1:
            front.owners.before = None
            await front.send(front.owners.asked[0])

    with pytest.raises(NoSessionAvailable):  # and learn the placement
        await front.accept(wait_ms=0)
    front.owners.asked.clear()
    front.owners.before = send_behind
    async with asyncio.timeout(HUNG_S):
        assert await front.accept() == EVERYWHERE[front.owners.asked[0]]


async def test_ses_14_who_waits_longest_is_served_first_and_one_hint_wakes_one(
    front: FrontEnd,
) -> None:
    served: list[tuple[int, str]] = []

    async def wait(number: int) -> None:
        served.append((number, await front.accept()))

    async with asyncio.TaskGroup() as tasks:
        for number in range(3):
            tasks.create_task(wait(number))
            await front.cluster.pass_time(0)
        front.owners.asked.clear()
        for partition in (2, 0, 1):
            await front.send(partition)
            await front.cluster.pass_time(0)
    assert served == [(0, EVERYWHERE[2]), (1, EVERYWHERE[0]), (2, EVERYWHERE[1])]
    assert front.owners.asked == [2, 0, 1]  # nobody asked in vain


async def test_a_hint_for_one_that_has_gone_wakes_the_next(front: FrontEnd) -> None:
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(front.accept())
        await front.cluster.pass_time(0)
        second = tasks.create_task(front.accept())
        await front.cluster.pass_time(0)
        first.cancel()
        await front.send(1)
        await front.cluster.pass_time(0)
        async with asyncio.timeout(HUNG_S):
            assert await second == EVERYWHERE[1]


async def test_a_hint_whose_taker_goes_while_it_asks_wakes_the_next(front: FrontEnd) -> None:
    """The owner never saw the call, so nothing there changes that would be told again."""

    async def hang() -> None:
        front.owners.before = None
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(front.accept())
        await front.cluster.pass_time(0)
        second = tasks.create_task(front.accept())
        await front.cluster.pass_time(0)
        front.owners.before = hang
        await front.send(1)
        await front.cluster.pass_time(0)
        first.cancel()
        async with asyncio.timeout(HUNG_S):
            assert await second == EVERYWHERE[1]


async def test_add_14_a_partition_that_is_too_busy_to_look_is_asked_again(front: FrontEnd) -> None:
    refused = 0

    async def be_busy() -> None:
        nonlocal refused
        refused += 1
        if refused == 3:
            front.owners.before = None
        raise ServerBusy("Busy.", retry_after_ms=100)

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(front.accept())
        await front.cluster.pass_time(0)
        front.owners.before = be_busy
        await front.send(1)
        await front.cluster.pass_time(1_000)
        assert waiting.done()
        assert await waiting == EVERYWHERE[1]
    assert front.owners.asked.count(PartitionId(1)) == 2  # when it began, and when it was let


async def test_nothing_in_time_is_said_in_time(front: FrontEnd) -> None:
    async def wait() -> None:
        with pytest.raises(NoSessionAvailable):
            await front.accept()

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(wait())
        await front.cluster.pass_time(WAIT_MS - 1)
        assert not waiting.done()
        await front.cluster.pass_time(2)
        assert waiting.done()


async def test_looking_at_every_partition_counts_no_accept_as_timed_out(front: FrontEnd) -> None:
    """An accept that finds a session on the last partition would count as many as there are partitions before it."""
    metrics = front.cluster.metrics
    metrics.watch_entities(front.cluster.supervisor.gauges)
    with pytest.raises(NoSessionAvailable):
        await front.accept(wait_ms=0)
    await front.send(1)
    await front.accept(wait_ms=0)

    counted = {
        sample.labels["result"]: sample.value
        for family in metrics.entity_registry.collect()
        for sample in family.samples
        if sample.name == "lockstep_session_accepts_total" and sample.value
    }
    assert counted == {"granted": 1}
