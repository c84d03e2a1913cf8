"""What becomes of calls, and of a partition, when there is too much or something breaks."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Sequence

import pytest
from prometheus_client import CollectorRegistry

from lockstep.cluster.changes import Changes
from lockstep.cluster.port import Lease
from lockstep.cluster.static import StaticLease
from lockstep.core.changes import Change
from lockstep.core.commands import (
    Accept,
    Command,
    GetRuntime,
    Outcome,
    ReleaseSession,
    RenewSession,
    Send,
    SetState,
    Settle,
    Settlement,
)
from lockstep.core.errors import (
    InternalError,
    LockstepError,
    Moved,
    ServerBusy,
    StoreRefused,
    StoreUnavailable,
)
from lockstep.core.ids import GrantNumber, PartitionEpoch, PartitionId, SessionId, SessionLock
from lockstep.core.limits import Limits
from lockstep.core.snapshot import Snapshot
from lockstep.owner.actor import ActorLimits
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.clock import ManualClock
from lockstep.runtime.metrics import Metrics
from lockstep.storage.memory import MemoryStore
from tests.unit.owner.owner_rig import PARTITION, SESSIONS, Owner, running_owner


class BreakingStore(MemoryStore):
    """Fails as it is told: the next commit, and every opening after that.

    Attributes:
        is_breaking: Whether the next commit fails.
        opening: What an opening fails with; None = it does not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_breaking = False
        self.opening: Exception | None = None
        self.is_slow = asyncio.Event()
        self.is_slow.set()

    async def commit(
        self, partition: PartitionId, epoch: PartitionEpoch, changes: Sequence[Change]
    ) -> None:
        await self.is_slow.wait()
        if self.is_breaking:
            raise StoreUnavailable("broken for the test")
        await super().commit(partition, epoch, changes)

    async def open(self, partition: PartitionId, epoch: PartitionEpoch) -> Snapshot:
        if self.opening is not None:
            raise self.opening
        return await super().open(partition, epoch)


class EndingOwnership:
    """One grant, which a test may end."""

    def __init__(self) -> None:
        self._changes = Changes()
        self.grants: dict[PartitionId, Lease] = {PARTITION: StaticLease(PartitionEpoch(0, 1, 0))}
        self.unwanted: tuple[PartitionId, ...] = ()
        self.released: list[PartitionId] = []

    @property
    def version(self) -> int:
        return self._changes.version

    async def wait_changed(self, seen: int) -> int:
        return await self._changes.wait(seen)

    async def release(self, partition: PartitionId) -> None:
        self.released.append(partition)

    def end(self) -> None:
        self.grants = {}
        self._changes.note()


class WatchedLease:
    """A lease that ends when the test says so, and tells when somebody asks for it.

    Attributes:
        is_over: Whether it has ended.
        when_asked: Called once, the next time that somebody asks.
    """

    epoch = PartitionEpoch(0, 1, 0)

    def __init__(self) -> None:
        self.is_over = False
        self.when_asked: Callable[[], object] | None = None

    def is_valid(self) -> bool:
        asked, self.when_asked = self.when_asked, None
        if asked is not None:
            asked()
        return not self.is_over


HOLDERS_CALLS: dict[str, Callable[[SessionLock], Command]] = {
    "renew": lambda lock: RenewSession(SESSIONS, lock),
    "settle": lambda lock: Settle(
        SESSIONS, False, lock, (Settlement(Outcome.COMPLETE, GrantNumber(1), (1,)),)
    ),
    "set state": lambda lock: SetState(SESSIONS, lock, b"1"),
    "release": lambda lock: ReleaseSession(SESSIONS, lock),
}


@pytest.mark.parametrize(
    "opening", [StoreRefused("damaged"), InternalError("a bug")], ids=["damaged", "bug"]
)
async def test_a_partition_that_cannot_be_opened_again_says_so_and_is_not_tried_for_ever(
    opening: LockstepError,
) -> None:
    store = BreakingStore()
    async with running_owner(store) as owner:
        await owner.create(SESSIONS, requires_session=True)
        store.is_breaking, store.opening = True, opening
        with pytest.raises(StoreUnavailable):
            await owner.send(SESSIONS, session="s")

        await owner.pass_time(1_000)

        with pytest.raises(type(opening), match=opening.message):
            await owner.send(SESSIONS, session="s")
        assert owner.supervisor.not_ready() == [f"partition 0 has stopped: {opening.message}"]


async def test_add_14_looking_is_refused_under_load_and_a_holder_is_not() -> None:
    store = BreakingStore()
    async with running_owner(store, ActorLimits(inbox_commands_max=1)) as owner:
        await owner.create(SESSIONS, requires_session=True)
        lock = await owner.accept("s")
        store.is_slow.clear()
        call = owner.supervisor.call
        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):  # one is being committed, one waits
                tasks.create_task(call(PARTITION, Send(SESSIONS, (b"x",), ("s",))))
                await owner.pass_time(1)
            with pytest.raises(ServerBusy):
                await call(PARTITION, GetRuntime(SESSIONS))
            renewal = tasks.create_task(call(PARTITION, RenewSession(SESSIONS, lock)))
            await owner.pass_time(1)
            assert not renewal.done()
            store.is_slow.set()
        await renewal


async def test_race_3_renewals_that_fill_several_rounds_are_all_in_time() -> None:
    store = BreakingStore()
    async with running_owner(store, ActorLimits(round_commands_max=4)) as owner:
        await owner.create(SESSIONS, requires_session=True, lock_duration_ms=5_000)
        locks = [await owner.accept(f"s{number}") for number in range(20)]
        store.is_slow.clear()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(owner.send(SESSIONS, session="s0"))
            await owner.pass_time(4_900)
            renewals = [
                tasks.create_task(owner.supervisor.call(PARTITION, RenewSession(SESSIONS, lock)))
                for lock in locks
            ]
            await owner.pass_time(1_000)
            store.is_slow.set()
            await owner.pass_time(1)

        assert all(renewal.exception() is None for renewal in renewals)


async def test_a_partition_that_was_lost_is_not_kept_while_it_is_opened_anew() -> None:
    store = BreakingStore()
    async with running_owner(store) as owner:
        await owner.create(SESSIONS, requires_session=True)
        lost = weakref.ref(owner.supervisor._actors[PARTITION].partition)
        store.is_breaking, store.opening = True, StoreUnavailable("still broken for the test")
        with pytest.raises(StoreUnavailable):
            await owner.send(SESSIONS, session="s")

        await owner.pass_time(1_000)

        assert owner.supervisor.not_ready() == [
            "partition 0 is not open: still broken for the test"
        ]
        gc.collect()
        assert lost() is None
        store.is_breaking, store.opening = False, None
        await owner.pass_time(1_000)
        assert owner.supervisor.not_ready() == []


@pytest.mark.parametrize("name", sorted(HOLDERS_CALLS))
async def test_add_14_no_call_of_a_holder_is_refused_for_load(name: str) -> None:
    store = BreakingStore()
    async with running_owner(store, ActorLimits(inbox_commands_max=1)) as owner:
        await owner.create(SESSIONS, requires_session=True)
        lock = await owner.accept("s")
        store.is_slow.clear()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):  # one is being committed, one waits
                tasks.create_task(owner.send(SESSIONS, session="s"))
                await owner.pass_time(1)
            asked = tasks.create_task(owner.supervisor.call(PARTITION, HOLDERS_CALLS[name](lock)))
            await owner.pass_time(1)
            store.is_slow.set()

        assert asked.exception() is None


async def test_add_14_calls_of_a_holder_go_ahead_of_others() -> None:
    store = BreakingStore()
    async with running_owner(store, ActorLimits(round_commands_max=1)) as owner:
        await owner.create(SESSIONS, requires_session=True)
        lock = await owner.accept("s")
        store.is_slow.clear()
        send, renewal = Send(SESSIONS, (b"x",), ("s",)), RenewSession(SESSIONS, lock)
        answered: list[str] = []
        async with asyncio.TaskGroup() as tasks:
            for name, command in (("send", send), ("another send", send), ("renewal", renewal)):
                task = tasks.create_task(owner.supervisor.call(PARTITION, command), name=name)
                task.add_done_callback(lambda task: answered.append(task.get_name()))
                await owner.pass_time(1)
            store.is_slow.set()

        assert answered == ["send", "renewal", "another send"]


async def test_add_14_more_bytes_than_the_inbox_takes_are_refused() -> None:
    store = BreakingStore()
    async with running_owner(store, ActorLimits(inbox_bytes_max=2_000)) as owner:
        await owner.create(SESSIONS, requires_session=True)
        store.is_slow.clear()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):  # one is being committed, one waits
                tasks.create_task(owner.send(SESSIONS, 1_000, session="s"))
                await owner.pass_time(1)
            with pytest.raises(ServerBusy) as refused:
                await owner.send(SESSIONS, 1_000, session="s")
            store.is_slow.set()

        assert refused.value.details["limit"] == "bytes of commands"


async def refusal_of_a_send(owner: Owner) -> str:
    with pytest.raises(LockstepError) as refused:
        await owner.send(SESSIONS, session="s")
    return refused.value.reason


async def test_a_partition_whose_right_is_over_does_not_wait_for_its_store() -> None:
    """The store may be silent for long; another owner reads what the commit did there."""
    store = BreakingStore()
    async with running_owner(store) as owner:
        await owner.create(SESSIONS, requires_session=True)
        store.is_slow.clear()
        async with asyncio.TaskGroup() as tasks:
            sends = []
            for _ in range(2):  # one is being committed, one waits
                sends.append(tasks.create_task(refusal_of_a_send(owner)))
                await owner.pass_time(1)

            owner.supervisor._actors[PARTITION].drop(Moved("over for the test"))

        assert [send.result() for send in sends] == ["PARTITION_MOVED"] * 2
        store.is_slow.set()


async def test_an_opening_whose_grant_is_over_does_not_wait_for_its_store() -> None:
    class SilentStore(MemoryStore):
        async def open(self, partition: PartitionId, epoch: PartitionEpoch) -> Snapshot:
            asked.set()
            await asyncio.Event().wait()
            return await super().open(partition, epoch)

    asked, ownership = asyncio.Event(), EndingOwnership()
    parts = OwnerParts(
        store=SilentStore(),
        ownership=ownership,
        clock=ManualClock(),
        limits=Limits(),
        actor_limits=ActorLimits(),
        metrics=Metrics(CollectorRegistry(), version="test"),
    )
    supervisor = Supervisor(parts, 1)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        await asked.wait()

        ownership.end()
        await supervisor.close()  # ends only when nothing is being opened

    assert ownership.released == []


async def test_i_3_an_owner_whose_lease_is_over_answers_nothing() -> None:
    lease = WatchedLease()
    async with running_owner(lease=lease) as owner:
        await owner.create(SESSIONS, requires_session=True)
        lease.is_over = True

        with pytest.raises(Moved):
            await owner.accept("s")


@pytest.mark.parametrize("is_answered", [False, True], ids=["unanswered", "answered"])
async def test_ses_15_an_accept_whose_caller_goes_while_it_is_granted_is_undone(
    is_answered: bool,
) -> None:
    """The caller goes after the commit: before its answer is there, or after that and before it is read."""
    lease = WatchedLease()
    async with running_owner(lease=lease) as owner:
        await owner.create(SESSIONS, requires_session=True)
        accept = Accept(SESSIONS, SessionId("s"), "gone")
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            going = tasks.create_task(owner.supervisor.call(PARTITION, accept))
            leave = going.cancel
            lease.when_asked = (lambda: loop.call_soon(leave)) if is_answered else leave
        await owner.pass_time(1)

        assert going.cancelled()
        assert (await owner.accept("s")).grant == 2
