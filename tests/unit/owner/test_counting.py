"""What is counted after histories that are known to the last message."""

from __future__ import annotations

import pytest

from lockstep.core.admin_commands import ClearStates, StartJob
from lockstep.core.commands import (
    BreakLock,
    CancelScheduled,
    Outcome,
    Receive,
    ReceiveDeferred,
    RenewMessages,
    RenewSession,
    Send,
    SetState,
    Settle,
    Settlement,
    UpdateQueue,
)
from lockstep.core.errors import (
    EntityDisabled,
    EntityNotFound,
    InvalidOperation,
    MessageSizeExceeded,
    NoSessionAvailable,
    QuotaExceeded,
    SessionCannotBeLocked,
    SessionLockLost,
)
from lockstep.core.ids import SessionId
from lockstep.core.jobs import JobKind, JobOptions, Selector
from lockstep.core.replies import Delivered
from lockstep.storage.memory import MemoryStore
from tests.unit.owner.owner_rig import PLAIN, SESSIONS, Owner, running_owner

LOCK_MS = 5_000


async def test_life_of_a_session_queue(owner: Owner) -> None:
    await owner.create(SESSIONS, lock_duration_ms=LOCK_MS, max_delivery_count=2)
    await owner.send(SESSIONS, 4, "a")
    await owner.send(SESSIONS, 2, "b")

    first = await owner.accept("a")
    one = await owner.receive(SESSIONS, first, maximum=1)
    await owner.settle(SESSIONS, Outcome.COMPLETE, one, first)
    await owner.settle(
        SESSIONS, Outcome.ABANDON, await owner.receive(SESSIONS, first, maximum=2), first
    )
    await owner.receive(SESSIONS, first)  # three: two of them again
    await owner.call(RenewSession(SESSIONS, first), object)
    await owner.pass_time(LOCK_MS)  # two reach the maximum, one is back
    second = await owner.accept()  # of "b", which waits longer
    got = await owner.receive(SESSIONS, second, maximum=1)
    await owner.settle(SESSIONS, Outcome.DEAD_LETTER, got, second)
    got = await owner.receive(SESSIONS, second)
    await owner.settle(SESSIONS, Outcome.RELEASE, got, second)
    await owner.release(second)

    counted = {
        name: owner.counted(SESSIONS, name)
        for name in (
            "messages_enqueued",
            "sends",
            "messages_delivered",
            "messages_settled",
            "messages_dead_lettered",
            "delivery_count_increments",
            "session_accepts",
            "locks_granted",
            "lock_renewals",
            "lock_expirations",
            "locks_released",
            "message_bytes",
        )
    }
    assert counted == {
        "messages_enqueued": {("client",): 6},
        "sends": {("accepted", ""): 6},
        "messages_delivered": {("first",): 6, ("redelivery",): 2},
        "messages_settled": {
            ("completed",): 1,
            ("abandoned",): 2,
            ("dead_lettered",): 1,
            ("released",): 1,
        },
        "messages_dead_lettered": {("max_delivery",): 2, ("application",): 1},
        "delivery_count_increments": {("abandoned",): 2, ("lock_expired",): 3},
        "session_accepts": {("granted",): 2},
        "locks_granted": {("session",): 2},
        "lock_renewals": {("session", "renewed"): 1},
        "lock_expirations": {("session",): 1},
        "locks_released": {("session", "expired"): 1, ("session", "closed"): 1},
        "message_bytes": {("in",): 6, ("out",): 8},
    }
    messages = {
        state: owner.of_queue(SESSIONS, "entity_messages", state=state)
        for state in ("ready", "locked", "dead_letter")
    }
    assert messages == {"ready": 2, "locked": 0, "dead_letter": 3}
    assert owner.of_process("session_lock_hold_seconds_sum", end="expired") == LOCK_MS / 1000
    assert owner.of_process("session_lock_hold_seconds_count", end="closed") == 1


async def test_locks_of_plain_messages(owner: Owner) -> None:
    await owner.create(PLAIN, lock_duration_ms=LOCK_MS)
    await owner.send(PLAIN, 3)

    got = await owner.receive(PLAIN, maximum=2)
    tokens = tuple((got.grant, sequence) for sequence in (*got.sequences, 99))
    await owner.call(RenewMessages(PLAIN, False, tokens), object)
    await owner.pass_time(LOCK_MS)
    await owner.settle(PLAIN, Outcome.COMPLETE, await owner.receive(PLAIN))

    assert owner.counted(PLAIN, "locks_granted") == {("message",): 5}
    assert owner.counted(PLAIN, "lock_renewals") == {
        ("message", "renewed"): 2,
        ("message", "lost"): 1,
    }
    assert owner.counted(PLAIN, "lock_expirations") == {("message",): 2}
    assert owner.counted(PLAIN, "locks_released") == {
        ("message", "expired"): 2,
        ("message", "settled"): 3,
    }
    assert owner.counted(PLAIN, "delivery_count_increments") == {("lock_expired",): 2}
    assert owner.counted(PLAIN, "messages_delivered") == {("first",): 3, ("redelivery",): 2}


async def test_lock_of_a_dead_letter_that_runs_out_expires_and_counts_no_delivery(
    owner: Owner,
) -> None:
    await owner.create(PLAIN, lock_duration_ms=LOCK_MS)
    await owner.send(PLAIN)
    await owner.settle(PLAIN, Outcome.DEAD_LETTER, await owner.receive(PLAIN))

    await owner.receive(PLAIN, dead_letter=True)
    await owner.pass_time(LOCK_MS)

    assert owner.counted(PLAIN, "lock_expirations") == {("message",): 1}
    assert owner.counted(PLAIN, "locks_released") == {
        ("message", "settled"): 1,
        ("message", "expired"): 1,
    }
    assert owner.counted(PLAIN, "delivery_count_increments") == {}


async def test_lock_whose_holder_an_outage_kept_away_does_not_expire() -> None:
    store = MemoryStore()
    async with running_owner(store) as before:
        await before.create(PLAIN, lock_duration_ms=LOCK_MS)
        await before.send(PLAIN)
        await before.receive(PLAIN)
    async with running_owner(store) as owner:
        await owner.pass_time(60_000)

        assert owner.counted(PLAIN, "lock_expirations") == {}
        assert owner.counted(PLAIN, "locks_released") == {("message", "disconnected"): 1}


async def test_accepts_by_their_result(owner: Owner) -> None:
    await owner.create(SESSIONS)
    await owner.send(SESSIONS, 1, "a")
    lock = await owner.accept()

    with pytest.raises(NoSessionAvailable):
        await owner.accept()
    with pytest.raises(SessionCannotBeLocked):
        await owner.accept("a")
    await owner.release(lock)
    with pytest.raises(SessionLockLost):
        await owner.call(RenewSession(SESSIONS, lock), object)

    assert owner.counted(SESSIONS, "session_accepts") == {
        ("granted",): 1,
        ("timeout",): 1,
        ("held",): 1,
    }
    assert owner.counted(SESSIONS, "lock_renewals") == {("session", "lost"): 1}


async def test_refused_messages_by_reason(owner: Owner) -> None:
    await owner.create(SESSIONS, max_size_in_megabytes=1)
    large = b"x" * 700_000
    await owner.call(Send(SESSIONS, (large,), ("s",)), object)

    with pytest.raises(QuotaExceeded):
        await owner.call(Send(SESSIONS, (large,), ("s",)), object)
    with pytest.raises(MessageSizeExceeded):
        await owner.call(Send(SESSIONS, (b"x" * 1_048_577,), ("s",)), object)
    with pytest.raises(InvalidOperation):
        await owner.send(SESSIONS, 3)
    with pytest.raises(EntityNotFound):
        await owner.send(PLAIN, 5)

    assert owner.counted(SESSIONS, "sends") == {
        ("accepted", ""): 1,
        ("rejected", "quota"): 1,
        ("rejected", "size"): 1,
        ("rejected", "session"): 3,
    }
    assert owner.counted(SESSIONS, "messages_enqueued") == {("client",): 1}


async def test_receive_that_finds_nothing_counts_nothing(owner: Owner) -> None:
    await owner.create(PLAIN)

    await owner.call(Receive(PLAIN, False, None, 10), object)

    assert owner.counted(PLAIN, "messages_delivered") == {}
    assert owner.counted(PLAIN, "locks_granted") == {}


async def test_deleted_queue_leaves_no_series_and_stays_in_the_sums(owner: Owner) -> None:
    await owner.create(SESSIONS)
    await owner.create(PLAIN)
    for key in (SESSIONS, PLAIN):
        await owner.send(key, 2, "s" if key == SESSIONS else None)

    await owner.delete(SESSIONS)

    entities = {
        sample.labels["entity"]
        for family in owner.metrics.entity_registry.collect()
        for sample in family.samples
        if "entity" in sample.labels
    }
    assert entities == {"plain"}
    assert owner.of_process("owner_messages_enqueued_total", origin="client") == 4


async def test_messages_that_wait_for_time_or_for_their_number(owner: Owner) -> None:
    await owner.create(
        PLAIN, requires_duplicate_detection=True, dead_lettering_on_message_expiration=True
    )
    due = owner.clock.now_ms() + 1_000
    send = Send(PLAIN, (b"1", b"2", b"3"), (None,), message_ids=("a", "b", "a"))
    await owner.call(send, object)
    await owner.call(Send(PLAIN, (b"4",), (None,), due_ms=(due,)), object)
    got = await owner.receive(PLAIN, maximum=1)
    await owner.settle(PLAIN, Outcome.DEFER, got)
    states = {
        state: owner.of_queue(PLAIN, "entity_messages", state=state)
        for state in ("ready", "locked", "deferred", "scheduled")
    }
    assert states == {"ready": 1, "locked": 0, "deferred": 1, "scheduled": 1}

    await owner.pass_time(1_000)
    await owner.call(Send(PLAIN, (b"5",), (None,), ttls_ms=(1,)), object)
    await owner.pass_time(1)
    await owner.receive(PLAIN)

    assert owner.counted(PLAIN, "messages_enqueued") == {("client",): 4, ("schedule",): 1}
    assert owner.counted(PLAIN, "sends")[("duplicate", "")] == 1
    assert owner.counted(PLAIN, "messages_dead_lettered") == {("ttl",): 1}
    assert owner.counted(PLAIN, "delivery_count_increments") == {("deferred",): 1}
    assert owner.counted(PLAIN, "messages_settled") == {("deferred",): 1}


async def test_a_broken_lock_and_a_disabled_queue(owner: Owner) -> None:
    await owner.create(SESSIONS)
    await owner.accept("s")
    await owner.call(BreakLock(SESSIONS, SessionId("s"), "ann"), object)
    await owner.call(UpdateQueue(SESSIONS, {"status": "send_disabled"}), object)
    with pytest.raises(EntityDisabled):
        await owner.send(SESSIONS, 2, "s")

    assert owner.counted(SESSIONS, "locks_released") == {("session", "broken"): 1}
    assert owner.counted(SESSIONS, "sends") == {("rejected", "disabled"): 2}


async def test_what_is_received_and_deleted_or_cancelled_is_counted(owner: Owner) -> None:
    await owner.create(PLAIN)
    await owner.send(PLAIN, 3)
    due = owner.clock.now_ms() + 60_000
    await owner.call(Send(PLAIN, (b"4", b"5"), (None,), due_ms=(due, due)), object)

    await owner.call(CancelScheduled(PLAIN, (4,)), object)
    await owner.call(Receive(PLAIN, False, None, 2, deletes=True), object)

    assert owner.counted(PLAIN, "schedules_cancelled") == {(): 1}
    assert owner.counted(PLAIN, "messages_settled") == {("received_and_deleted",): 2}
    assert owner.counted(PLAIN, "messages_delivered") == {("first",): 2}
    assert owner.counted(PLAIN, "locks_granted") == {}


async def test_deliveries_that_are_recalled_are_counted(owner: Owner) -> None:
    await owner.create(SESSIONS, recall_on_abandon=True)
    await owner.send(SESSIONS, 4, "s")
    lock = await owner.accept("s")
    got = await owner.receive(SESSIONS, lock)

    first = Settlement(Outcome.ABANDON, got.grant, got.sequences[1:2])
    await owner.call(Settle(SESSIONS, False, lock, (first,)), object)

    assert owner.counted(SESSIONS, "deliveries_recalled") == {(): 2}
    assert owner.counted(SESSIONS, "messages_settled") == {("abandoned",): 1}


async def test_states_are_counted_that_were_cleared_by_others_than_their_holders(
    owner: Owner,
) -> None:
    await owner.create(SESSIONS, session_state_idle_ttl_ms=300_000)
    for name in ("a", "b", "c"):
        lock = await owner.accept(name)
        await owner.call(SetState(SESSIONS, lock, b"state"), object)
        if name == "c":
            await owner.call(SetState(SESSIONS, lock, None), object)
        await owner.release(lock)

    await owner.call(ClearStates(SESSIONS, SessionId("a")), object)
    await owner.pass_time(600_000)

    assert owner.counted(SESSIONS, "session_states_cleared") == {
        ("administrator",): 1,
        ("idle",): 1,
    }


async def test_a_delay_holds_back_the_message_and_what_is_behind_it(owner: Owner) -> None:
    await owner.create(SESSIONS)
    await owner.send(SESSIONS, 3, "s")
    lock = await owner.accept("s")
    got = await owner.receive(SESSIONS, lock, maximum=1)
    again = Settlement(Outcome.ABANDON, got.grant, got.sequences, delay_ms=10_000)
    await owner.call(Settle(SESSIONS, False, lock, (again,)), object)
    held = _standing(owner)

    await owner.release(lock)
    waiting = _standing(owner)
    await owner.pass_time(10_000)

    assert held == {"ready": 0, "delayed": 3, "sessions": ("locked",)}
    assert waiting == {"ready": 0, "delayed": 3, "sessions": ("waiting_retry",)}
    assert _standing(owner) == {"ready": 3, "delayed": 0, "sessions": ("ready",)}


def _standing(owner: Owner) -> dict[str, object]:
    states = ("ready", "locked", "waiting_retry", "idle_with_state")
    messages = {
        state: owner.of_queue(SESSIONS, "entity_messages", state=state)
        for state in ("ready", "delayed")
    }
    sessions = [s for s in states if owner.of_queue(SESSIONS, "entity_sessions", state=s)]
    return {**messages, "sessions": tuple(sessions)}


async def test_a_job_on_dead_letters_is_shown_while_it_runs(owner: Owner) -> None:
    await owner.create(PLAIN)
    await owner.send(PLAIN, 3)
    await owner.settle(PLAIN, Outcome.DEAD_LETTER, await owner.receive(PLAIN))
    slowly = JobOptions(rate=1)

    job = StartJob(PLAIN, JobKind.RESUBMIT, Selector(), slowly, uid="uid")
    await owner.call(job, object)
    running = owner.of_queue(PLAIN, "resubmissions_running")
    await owner.pass_time(60_000)

    assert running == 1
    assert owner.of_queue(PLAIN, "resubmissions_running") == 0
    assert owner.counted(PLAIN, "dead_letters_taken") == {("resubmitted",): 3}


async def test_deferred_messages_that_are_received_are_locked_or_gone(owner: Owner) -> None:
    await owner.create(PLAIN)
    await owner.send(PLAIN, 3)
    await owner.settle(PLAIN, Outcome.DEFER, await owner.receive(PLAIN))

    got = await owner.call(ReceiveDeferred(PLAIN, False, None, (1, 2)), Delivered)
    await owner.settle(PLAIN, Outcome.COMPLETE, got)
    await owner.call(ReceiveDeferred(PLAIN, False, None, (3,), deletes=True), object)

    assert owner.counted(PLAIN, "locks_granted") == {("message",): 5}
    assert owner.counted(PLAIN, "locks_released") == {("message", "settled"): 5}
    assert owner.counted(PLAIN, "messages_settled") == {
        ("deferred",): 3,
        ("completed",): 2,
        ("received_and_deleted",): 1,
    }
