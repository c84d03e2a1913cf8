"""The order in which a round steps its calls (SES-14, RACE-3), without an event loop and without a store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from lockstep.core.commands import (
    Accept,
    ApplyDefinition,
    ApplyDeletion,
    Command,
    CreateQueue,
    DeleteQueue,
    GetState,
    Receive,
    RenewSession,
    Send,
    SetState,
)
from lockstep.core.errors import SessionLockLost
from lockstep.core.ids import RequestId, SessionId
from lockstep.core.limits import Limits
from lockstep.core.replies import Accepted, Catalogued, Delivered, Uncatalogued
from lockstep.owner.answers import Contents
from lockstep.owner.bodies import BodyCache
from lockstep.owner.observer import Observer
from lockstep.owner.rounds import Round, Stepper
from lockstep.owner.waiters import Call, Waiters
from lockstep.runtime.clock import SystemClock
from lockstep.runtime.metrics import Metrics
from tests.unit.core.partition_rig import PLAIN, SESSIONS, Rig

LOCK_MS = 5_000


class Rounds:
    """One partition whose rounds the test composes."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.rig = Rig(limits=limits)
        self.rig.create(SESSIONS, requires_session=True, lock_duration_ms=LOCK_MS)
        self.rig.create(PLAIN, lock_duration_ms=LOCK_MS)
        self.waiters = Waiters()
        metrics = Metrics(CollectorRegistry(), version="test", entities_max=10)
        self.observer = Observer(metrics)
        self.stepper = Stepper(
            self.rig.partition, self.waiters, self.observer, SystemClock(), waiters_max=10
        )

    def call(self, command: Command, *, arrived_ms: int = 0, wait_ms: int = 0) -> Call:
        """Return a call whose caller waits, from its arrival on."""
        arrived_ms = arrived_ms or self.rig.now_ms
        return Call(command, None, arrived_ms + wait_ms if wait_ms else 0, 100, arrived_ms)

    async def run(self, *calls: Call) -> dict[Call, Exception | None]:
        """Step one round and return whom it answered, and with which error."""
        round_ = Round(self.rig.now_ms, Contents(BodyCache(1 << 20)))
        round_.taken = list(calls)
        await self.stepper.step_all(round_)
        return {call: error for call, error in round_.finished if call.bytes}


@pytest.fixture
def rounds() -> Iterator[Rounds]:
    rounds = Rounds()
    yield rounds
    rounds.observer.close()


async def test_race_3_a_renewal_that_came_in_time_is_in_time_after_a_slow_commit(
    rounds: Rounds,
) -> None:
    rig = rounds.rig
    lock = rig.accept()
    came_ms = rig.now_ms + LOCK_MS - 1
    rig.now_ms += LOCK_MS + 3_000
    renewal = rounds.call(RenewSession(SESSIONS, lock), arrived_ms=came_ms)

    assert await rounds.run(renewal) == {renewal: None}
    session = rig.partition.queues[SESSIONS].sessions[lock.session_id]
    assert session.locked_until_ms == came_ms + LOCK_MS


async def test_race_3_a_renewal_that_came_too_late_is_refused(rounds: Rounds) -> None:
    rig = rounds.rig
    lock = rig.accept()
    came_ms = rig.now_ms + LOCK_MS
    rig.now_ms += LOCK_MS + 3_000
    renewal = rounds.call(RenewSession(SESSIONS, lock), arrived_ms=came_ms)

    assert isinstance((await rounds.run(renewal))[renewal], SessionLockLost)


async def test_race_3_only_the_lock_that_was_renewed_in_time_is_kept(rounds: Rounds) -> None:
    rig = rounds.rig
    lost = rig.accept("lost")
    rig.now_ms += 100
    kept = rig.accept("kept")
    came_ms = (
        rig.now_ms + LOCK_MS - 50
    )  # after the end of the first lock, before that of the second
    rig.now_ms += LOCK_MS + 1_000
    calls = [rounds.call(RenewSession(SESSIONS, lock), arrived_ms=came_ms) for lock in (lost, kept)]

    errors = await rounds.run(*calls)

    assert isinstance(errors[calls[0]], SessionLockLost)
    assert errors[calls[1]] is None


async def test_ses_23_a_waiting_receive_keeps_its_session_over_a_slow_commit(
    rounds: Rounds,
) -> None:
    rig = rounds.rig
    lock = rig.accept()
    receive = rounds.call(Receive(SESSIONS, False, lock, 1), wait_ms=60_000)
    assert await rounds.run(receive) == {}

    rig.now_ms += LOCK_MS + 1_000
    assert await rounds.run() == {}

    assert rig.partition.queues[SESSIONS].sessions[lock.session_id].is_held


async def test_ses_14_who_waits_is_served_before_who_comes_in_the_same_round(
    rounds: Rounds,
) -> None:
    first = rounds.call(Accept(SESSIONS, None, "first"), wait_ms=60_000)
    assert await rounds.run(first) == {}
    send = rounds.call(Send(SESSIONS, (b"x",), ("s",)))
    second = rounds.call(Accept(SESSIONS, None, "second"), wait_ms=60_000)

    assert await rounds.run(send, second) == {send: None, first: None}

    assert isinstance(first.reply, Accepted)
    assert rounds.waiters.all() == [second]


async def test_ses_14_plain_receivers_are_served_in_the_order_they_came(rounds: Rounds) -> None:
    first = rounds.call(Receive(PLAIN, False, None, 5), wait_ms=60_000)
    assert await rounds.run(first) == {}
    sends = [rounds.call(Send(PLAIN, (b"x",), (None,))) for _ in range(2)]
    second = rounds.call(Receive(PLAIN, False, None, 5), wait_ms=60_000)

    await rounds.run(*sends, second)

    assert isinstance(first.reply, Delivered)
    assert len(first.reply.sequences) == 2
    assert rounds.waiters.all() == [second]


async def test_ses_14_of_two_who_wait_the_first_is_served(rounds: Rounds) -> None:
    first = rounds.call(Accept(SESSIONS, None, "first"), wait_ms=60_000)
    second = rounds.call(Accept(SESSIONS, None, "second"), wait_ms=60_000)
    await rounds.run(first, second)

    await rounds.run(rounds.call(Send(SESSIONS, (b"x",), ("s",))))

    assert rounds.waiters.all() == [second]


async def test_ses_14_who_was_woken_for_nothing_keeps_its_place(rounds: Rounds) -> None:
    first = rounds.call(Accept(SESSIONS, None, "first"), wait_ms=60_000)
    second = rounds.call(Accept(SESSIONS, None, "second"), wait_ms=60_000)
    await rounds.run(first, second)
    send = rounds.call(Send(SESSIONS, (b"x",), ("s",)))
    await rounds.run(send, rounds.call(Accept(SESSIONS, SessionId("s"), "by name")))
    assert rounds.waiters.all() == [first, second]

    await rounds.run(rounds.call(Send(SESSIONS, (b"y",), ("t",))))

    assert rounds.waiters.all() == [second]


async def test_ses_40_a_state_is_read_as_it_is_at_its_turn_in_the_round(rounds: Rounds) -> None:
    lock = rounds.rig.accept()
    await rounds.run(rounds.call(SetState(SESSIONS, lock, b"old")))
    sets = rounds.call(SetState(SESSIONS, lock, b"new"))
    reads = rounds.call(GetState(SESSIONS, lock))

    await rounds.run(sets, reads)

    assert reads.state == b"new"


async def test_add_3_a_call_that_found_nothing_in_time_is_noted_at_its_time(rounds: Rounds) -> None:
    rig = rounds.rig
    lock = rig.accept()
    asked = Receive(SESSIONS, False, lock, 1, RequestId("c", 1))
    receive = rounds.call(asked, wait_ms=LOCK_MS // 2 + 10)
    await rounds.run(receive)
    other = rig.accept("other")
    rig.now_ms += LOCK_MS + 1_000

    await rounds.run(rounds.call(RenewSession(SESSIONS, other), arrived_ms=rig.now_ms - 2_000))

    assert rig.partition.requests.peek(RequestId("c", 1)) is not None


async def test_who_gave_up_takes_nothing(rounds: Rounds) -> None:
    answer = asyncio.get_running_loop().create_future()
    gone = Call(Accept(SESSIONS, None, "gone"), answer, rounds.rig.now_ms + 60_000, 100, 1)
    await rounds.run(gone)
    answer.cancel()
    second = rounds.call(Accept(SESSIONS, None, "second"), wait_ms=60_000)
    await rounds.run(second)

    await rounds.run(rounds.call(Send(SESSIONS, (b"x",), ("s",))))

    assert isinstance(second.reply, Accepted)


async def test_rcv_1_who_gave_up_before_the_round_loses_no_message(rounds: Rounds) -> None:
    rounds.rig.send(PLAIN, b"x")
    answer = asyncio.get_running_loop().create_future()
    answer.cancel()

    await rounds.run(Call(Receive(PLAIN, False, None, 1, deletes=True), answer, 0, 100, 1))

    assert rounds.rig.receive(None).sequences.tolist() == [1]


async def test_race_16_who_waits_on_a_queue_waits_on_the_one_that_replaces_it(
    rounds: Rounds,
) -> None:
    rig = rounds.rig
    accept = rounds.call(Accept(SESSIONS, None, "me"), wait_ms=60_000)
    await rounds.run(accept)
    gone = rig.step(DeleteQueue(SESSIONS), Uncatalogued)
    made = rig.step(CreateQueue("default", "sessions", {"requires_session": True}, "u"), Catalogued)
    await rounds.run(
        rounds.call(ApplyDeletion(gone.entity, gone.revision)),
        rounds.call(ApplyDefinition(made.definition)),
    )
    assert rounds.waiters.all() == [accept]

    await rounds.run(rounds.call(Send(SESSIONS, (b"x",), ("s",))))

    assert isinstance(accept.reply, Accepted)


async def test_race_3_a_receive_that_came_in_time_keeps_its_session(rounds: Rounds) -> None:
    rig = rounds.rig
    lock = rig.accept()
    came_ms = rig.now_ms + LOCK_MS - 90
    rig.now_ms += LOCK_MS + 200
    receive = rounds.call(Receive(SESSIONS, False, lock, 1), arrived_ms=came_ms)

    assert await rounds.run(receive) == {receive: None}
    session = rig.partition.queues[SESSIONS].sessions[lock.session_id]
    assert session.locked_until_ms == came_ms + LOCK_MS


async def test_race_3_a_receive_is_not_answered_under_a_lock_that_is_over_by_now(
    rounds: Rounds,
) -> None:
    rig = rounds.rig
    rig.send(SESSIONS, b"x", session="s")
    lock = rig.accept()
    came_ms = rig.now_ms + LOCK_MS - 90
    rig.now_ms += 2 * LOCK_MS
    receive = rounds.call(Receive(SESSIONS, False, lock, 1), arrived_ms=came_ms)

    assert isinstance((await rounds.run(receive))[receive], SessionLockLost)
    assert not rig.partition.queues[SESSIONS].counts  # nothing was delivered, so nothing failed


async def test_add_3_a_wait_outlives_the_window_of_its_client_s_other_calls() -> None:
    rounds = Rounds(Limits(requests_per_client_max=8))
    waits = [
        rounds.call(Accept(SESSIONS, None, "me", RequestId("c", 1)), wait_ms=60_000),
        rounds.call(Receive(PLAIN, False, None, 1, RequestId("c", 2)), wait_ms=60_000),
    ]
    assert await rounds.run(*waits) == {}
    for counter in range(3, 60):
        await rounds.run(rounds.call(Send(PLAIN, (b"",), (None,), RequestId("c", counter))))
        rounds.rig.receive(None)
    await rounds.run(rounds.call(Send(SESSIONS, (b"x",), ("s",))))

    assert isinstance(waits[0].reply, Accepted)
    assert isinstance(waits[1].reply, Delivered)
    rounds.observer.close()


async def test_race_3_locks_that_end_together_let_others_have_the_processor(rounds: Rounds) -> None:
    rig = rounds.rig
    locks = [rig.accept(f"s{i}") for i in range(1_000)]
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while rig.partition.queues[SESSIONS].held_count:
            turns += 1
            await SystemClock().sleep(0)

    rig.now_ms += LOCK_MS
    late = rounds.call(RenewSession(SESSIONS, locks[-1]))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(count_turns())
        answered = await rounds.run(late)

    assert isinstance(answered[late], SessionLockLost)
    assert turns >= 3
