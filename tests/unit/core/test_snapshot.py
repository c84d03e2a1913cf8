"""A partition comes back from its rows as it was (design sections 2 and 4, ADD-4)."""

from __future__ import annotations

from lockstep.core import commands as c
from lockstep.core import replies
from lockstep.core.commands import Outcome
from lockstep.core.ids import GrantNumber, RequestId, SessionId, SessionLock
from lockstep.core.invariants import check_partition
from lockstep.core.limits import Limits
from lockstep.core.partition import Partition
from tests.unit.core.partition_rig import PLAIN, SESSIONS, Rig


def _busy() -> Rig:
    """Return a partition in which everything occurs that can be stored."""
    rig = Rig()
    rig.create(SESSIONS, requires_session=True)
    rig.create(PLAIN)
    rig.send(SESSIONS, *([b"x"] * 8), session="s")
    rig.send(SESSIONS, b"1", b"2", session="waits")
    lock = rig.accept("s")
    got = rig.receive(lock, 5)
    rig.settle(lock, Outcome.COMPLETE, got.grant, [2])
    rig.settle(lock, Outcome.ABANDON, got.grant, [3])
    rig.settle(lock, Outcome.DEAD_LETTER, got.grant, [4])
    rig.decide(c.SetState(SESSIONS, lock, b"state"))
    free = rig.accept("free")
    rig.decide(c.SetState(SESSIONS, free, b""))
    rig.decide(c.ReleaseSession(SESSIONS, free))
    rig.send(PLAIN, *([b"y"] * 9))
    plain = rig.receive(None, 6)
    rig.settle(None, Outcome.COMPLETE, plain.grant, [2])
    rig.settle(None, Outcome.DEAD_LETTER, plain.grant, [5])
    rig.settle(None, Outcome.DEAD_LETTER, plain.grant, [3])
    rig.settle(None, Outcome.ABANDON, plain.grant, [1])
    rig.step(c.Receive(PLAIN, True, None, 1), replies.Delivered)
    rig.decide(c.Send(PLAIN, (b"z",), (None,), RequestId("client", 4), 99))
    return rig


async def test_sessions_come_back_with_lock_hand_and_state() -> None:
    rig = _busy()

    reopened = await rig.reopened(1_000)

    session = reopened.queues[SESSIONS].sessions[SessionId("s")]
    assert session.active().tolist() == [1, 3, 5, 6, 7, 8]
    assert session.in_hand().tolist() == [1, 5]
    assert session.returned == [3]
    assert (session.holder, session.grant, session.granted_ms) == ("holder", 1, 1_000)
    assert (session.state_bytes, session.state_version) == (5, 2)
    free = reopened.queues[SESSIONS].sessions[SessionId("free")]
    assert (free.is_held, free.state_bytes, free.state_version) == (False, 0, 4)
    assert reopened.queues[SESSIONS].sessions[SessionId("waits")].active().tolist() == [9, 10]


async def test_plain_messages_come_back_with_their_locks_and_their_order() -> None:
    rig = _busy()

    queue = (await rig.reopened(1_000)).queues[PLAIN]

    assert queue.main.ready().tolist() == [1, 7, 8, 9, 10]
    assert [sorted(held) for held in queue.main.grants.values()] == [[4, 6]]
    assert queue.counts == {1: 1}
    assert list(queue.dead_order) == [5, 3]
    assert [sorted(held) for held in queue.dead.grants.values()] == [[5]]
    assert queue.dead.ready().tolist() == [3]


async def test_counters_and_remembered_calls_come_back() -> None:
    rig = _busy()

    reopened = await rig.reopened(1_000)

    assert reopened.last_grant == rig.partition.last_grant
    assert reopened.last_chunk == rig.partition.last_chunk
    assert reopened.queues[PLAIN].log.last_sequence == 10
    assert reopened.queues[PLAIN].last_dead_letter == 2
    assert reopened.totals.messages == rig.partition.totals.messages
    assert reopened.requests.find(RequestId("client", 4), 99) is not None
    assert reopened.catalogue is not None
    assert rig.partition.catalogue is not None
    assert reopened.catalogue.queues == rig.partition.catalogue.queues
    assert reopened.catalogue.revision == rig.partition.catalogue.revision


async def test_what_comes_back_keeps_all_invariants() -> None:
    check_partition(await _busy().reopened(1_000))


async def test_figures_come_back() -> None:
    rig = _busy()
    reopened = await rig.reopened(1_000)

    for key in (SESSIONS, PLAIN):
        before = rig.step(c.GetRuntime(key), replies.Runtime)
        assert reopened.step(c.GetRuntime(key), 1_000).reply == before


async def test_every_lock_has_a_grace_and_somebody_watches_its_end() -> None:
    rig = Rig(limits=Limits(outage_grace_ms=7_000))
    rig.create(SESSIONS, requires_session=True, lock_duration_ms=5_000)
    rig.create(PLAIN, lock_duration_ms=60_000)
    rig.accept("s")
    rig.send(PLAIN, b"1")
    rig.receive(None)

    reopened = await rig.reopened(100_000)

    session = reopened.queues[SESSIONS].sessions[SessionId("s")]
    assert (session.locked_until_ms, session.grace) == (107_000, True)
    assert list(reopened.queues[PLAIN].main.grants.values()) == [{1: 107_000}]
    assert reopened.next_deadline_ms == 107_000


async def test_a_longer_lock_is_not_cut_to_the_grace() -> None:
    rig = Rig()
    rig.create(PLAIN, lock_duration_ms=60_000)
    rig.send(PLAIN, b"1")
    rig.receive(None)

    reopened = await rig.reopened(2_000)

    assert list(reopened.queues[PLAIN].main.grants.values()) == [{1: 61_000}]


async def test_the_end_of_a_grace_counts_nothing() -> None:
    rig = Rig()
    rig.create(PLAIN, max_delivery_count=1)
    rig.send(PLAIN, b"1")
    rig.receive(None)
    reopened = await rig.reopened(500_000)

    reopened.step(c.Tick(), 510_000)

    assert reopened.queues[PLAIN].main.ready().tolist() == [1]
    assert reopened.queues[PLAIN].counts == {}


async def test_an_empty_store_is_an_empty_partition() -> None:
    reopened: Partition = await Rig().reopened(1_000)

    assert reopened.queues == {}
    assert (reopened.last_chunk, reopened.last_grant, reopened.next_deadline_ms) == (0, 0, None)


async def test_time_goes_on_from_the_opening() -> None:
    reopened = await _busy().reopened(9_999)

    assert reopened.last_time_ms == 9_999


async def test_a_restored_partition_goes_on_like_the_one_before() -> None:
    """The same commands get the same answers, whether the partition was reopened in between or not."""
    plain, split = _busy(), _busy()
    split.partition = await split.reopened(1_000)
    lock = SessionLock(SessionId("s"), GrantNumber(1))
    commands: list[c.Command] = [
        c.Receive(SESSIONS, False, lock, 100),
        c.Accept(SESSIONS, None, "next"),
        c.Receive(PLAIN, False, None, 100),
        c.Receive(PLAIN, True, None, 100),
        c.Send(SESSIONS, (b"1", b"2"), ("s",)),
        c.Receive(SESSIONS, False, lock, 1),
        c.ReleaseSession(SESSIONS, lock),
        c.Accept(SESSIONS, SessionId("s"), "next"),
        c.Send(PLAIN, (b"z",), (None,), RequestId("client", 4), 99),
        c.GetRuntime(PLAIN),
        c.GetRuntime(SESSIONS),
    ]

    for command in commands:
        assert split.decide(command) == plain.decide(command)
