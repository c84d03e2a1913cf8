"""Resubmission of dead letters (RSB-2 to RSB-9)."""

from __future__ import annotations

import pytest

from lockstep.core.commands import Outcome
from lockstep.core.jobs import JobKind, JobStatus
from tests.spec.core_driver import CoreBroker
from tests.spec.driver import (
    Broker,
    Held,
    abandon,
    bodies,
    complete,
    counts,
    dead_letter,
    defer,
    needs_clock,
    needs_jobs,
    needs_restart,
    numbered,
)
from tests.spec.job_stock import (
    DEAD,
    MINUTE_MS,
    PLAIN,
    properties,
    ready,
    run,
    with_dead_letters,
)
from tests.spec.stocked import both_kinds

# --- resubmission ------------------------------------------------------------------------------------


@both_kinds
async def test_c71_rsb_3_resubmitted_messages_start_afresh_at_the_tail(
    broker: Broker, has_sessions: bool
) -> None:
    numbers = await with_dead_letters(
        broker, numbered(3), has_sessions=has_sessions, max_delivery_count=1
    )
    await broker.send("orders", b"younger", session="s" if has_sessions else None)

    job = await run(broker, JobKind.RESUBMIT)
    assert (job.status, job.matched, job.skipped) == (JobStatus.DONE, 3, 0)

    source = await broker.accept("orders", "s") if has_sessions else PLAIN
    got = await broker.receive(source)
    assert bodies(got) == [b"younger", b"1", b"2", b"3"]  # RSB-7
    assert counts(got) == [0, 0, 0, 0]  # DCN-10
    assert min(m.sequence for m in got[1:]) > got[0].sequence
    assert [(m.resubmits, m.original, m.reason) for m in got[1:]] == [
        (1, number, "") for number in numbers
    ]  # RSB-4
    assert await broker.receive(DEAD) == []
    await complete(broker, source, got)
    assert (await broker.runtime("orders")).size_bytes == 0


@both_kinds
async def test_rsb_7_the_old_relative_order_is_kept_whatever_the_order_of_death(
    broker: Broker, has_sessions: bool
) -> None:
    await broker.create_queue("orders", requires_session=has_sessions)
    await broker.send("orders", *numbered(4), session="s" if has_sessions else None)
    source = await broker.accept("orders", "s") if has_sessions else PLAIN
    got = await broker.receive(source)
    for message in reversed(got):
        await dead_letter(broker, source, [message])
    if isinstance(source, Held):
        await broker.release_session(source)

    await run(broker, JobKind.RESUBMIT, batch=1)
    assert await ready(broker, has_sessions=has_sessions) == numbered(4)


@both_kinds
async def test_rsb_7_at_head_puts_messages_back_to_their_old_places(
    broker: Broker, has_sessions: bool
) -> None:
    numbers = await with_dead_letters(broker, numbered(2), has_sessions=has_sessions)
    await broker.send("orders", b"younger", session="s" if has_sessions else None)

    await run(broker, JobKind.RESUBMIT, at_head=True)
    source = await broker.accept("orders", "s") if has_sessions else PLAIN
    got = await broker.receive(source)
    assert bodies(got) == [b"1", b"2", b"younger"]
    assert [m.sequence for m in got[:2]] == numbers
    assert [m.resubmits for m in got] == [1, 1, 0]


async def test_rsb_7_at_head_goes_before_what_a_holder_has_not_received(broker: Broker) -> None:
    await with_dead_letters(broker, numbered(1), has_sessions=True)
    await broker.send("orders", *numbered(2, first=2), session="s")
    held = await broker.accept("orders", "s")
    first = await broker.receive(held, 1)

    await run(broker, JobKind.RESUBMIT, at_head=True)
    assert bodies(await broker.receive(held)) == [b"1", b"3"]
    await complete(broker, held, first)


@needs_jobs
@both_kinds
@needs_restart
async def test_rsb_2_a_job_goes_on_after_a_restart_where_it_stopped(
    broker: CoreBroker, has_sessions: bool
) -> None:
    await with_dead_letters(broker, numbered(5), has_sessions=has_sessions)
    started = await broker.start_job("orders", JobKind.RESUBMIT)
    job = await broker.advance_job("orders", started.number, batch=2)
    assert (job.is_running, job.matched) == (True, 2)
    runtime = await broker.runtime("orders")
    assert (runtime.active, runtime.dead_letters) == (2, 3)

    await broker.restart()
    job = await broker.finish_job("orders", started.number, batch=2)
    assert (job.status, job.matched) == (JobStatus.DONE, 5)
    assert await ready(broker, has_sessions=has_sessions) == numbered(5)


@needs_jobs
async def test_rsb_2_a_batch_that_comes_twice_is_taken_once(broker: CoreBroker) -> None:
    await with_dead_letters(broker, numbered(4))
    started = await broker.start_job("orders", JobKind.RESUBMIT)
    job = await broker.advance_job("orders", started.number, batch=2, times=2)
    assert (job.is_running, job.matched) == (True, 2)
    assert (await broker.runtime("orders")).active == 2


@needs_jobs
@both_kinds
async def test_a_message_that_bounces_back_is_not_taken_again_by_the_same_job(
    broker: CoreBroker, has_sessions: bool
) -> None:
    await with_dead_letters(broker, numbered(3), has_sessions=has_sessions)
    started = await broker.start_job("orders", JobKind.RESUBMIT)
    await broker.advance_job("orders", started.number, batch=1)
    source = await broker.accept("orders", "s") if has_sessions else PLAIN
    await dead_letter(broker, source, await broker.receive(source), reason="again")
    if isinstance(source, Held):
        await broker.release_session(source)

    job = await broker.finish_job("orders", started.number)
    assert job.matched == 3
    (bounced,) = await broker.receive(DEAD)
    assert (bounced.body, bounced.reason, bounced.resubmits) == (b"1", "again", 1)


@both_kinds
async def test_rsb_9_a_message_that_was_resubmitted_often_enough_is_left_alone(
    broker: Broker, has_sessions: bool
) -> None:
    await with_dead_letters(broker, numbered(1), has_sessions=has_sessions)
    for _ in range(2):
        assert (await run(broker, JobKind.RESUBMIT, max_resubmits=2)).matched == 1
        source = await broker.accept("orders", "s") if has_sessions else PLAIN
        await dead_letter(broker, source, await broker.receive(source))
        if isinstance(source, Held):
            await broker.release_session(source)

    job = await run(broker, JobKind.RESUBMIT, max_resubmits=2)
    assert (job.matched, job.skipped) == (0, 1)
    assert (await broker.receive(DEAD))[0].resubmits == 2


async def test_a_locked_dead_letter_is_left_to_its_receiver(broker: Broker) -> None:
    await with_dead_letters(broker, numbered(3))
    (locked,) = await broker.receive(DEAD, 1)

    job = await run(broker, JobKind.RESUBMIT)
    assert (job.matched, job.skipped) == (2, 1)
    await complete(broker, DEAD, [locked])
    assert await ready(broker, has_sessions=False) == [b"2", b"3"]


async def test_dead_letters_that_came_back_or_are_deferred_or_delayed_are_taken_too(
    broker: Broker,
) -> None:
    await with_dead_letters(broker, numbered(4))
    got = await broker.receive(DEAD, 3)
    await abandon(broker, DEAD, got[:1])
    await defer(broker, DEAD, got[1:2])
    await broker.settle(DEAD, Outcome.ABANDON, got[2:], delay_ms=MINUTE_MS)

    assert (await run(broker, JobKind.RESUBMIT)).matched == 4
    assert await ready(broker, has_sessions=False) == numbered(4)


async def test_rsb_5_duplicate_detection_lets_a_resubmitted_message_pass(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", requires_duplicate_detection=True)
    await broker.send("orders", b"1", b"2", ids=["a", "b"])
    await dead_letter(broker, PLAIN, await broker.receive(PLAIN))

    assert (await run(broker, JobKind.RESUBMIT)).matched == 2
    got = await broker.receive(PLAIN)
    assert bodies(got) == [b"1", b"2"]
    assert await broker.send("orders", b"again", ids=["a"]) == [got[0].sequence]  # DUP-2


@needs_clock
@needs_restart
async def test_rsb_5_the_id_is_registered_again(broker: Broker) -> None:
    await broker.create_queue(
        "orders",
        requires_duplicate_detection=True,
        duplicate_detection_history_time_window_ms=MINUTE_MS,
    )
    await broker.send("orders", b"1", ids=["a"])
    await dead_letter(broker, PLAIN, await broker.receive(PLAIN))
    await broker.advance(40_000)
    await run(broker, JobKind.RESUBMIT)

    await broker.advance(40_000)  # the first window is over, the second is not
    await broker.restart()
    await broker.send("orders", b"duplicate", ids=["a"])
    assert await ready(broker, has_sessions=False) == [b"1"]
    await broker.advance(20_000)
    await broker.send("orders", b"new", ids=["a"])
    assert await ready(broker, has_sessions=False) == [b"1", b"new"]


async def test_rsb_5_new_message_ids_free_the_old_ones_no_sooner(broker: Broker) -> None:
    await broker.create_queue("orders", requires_duplicate_detection=True)
    await broker.send("orders", b"1", ids=["a"])
    await dead_letter(broker, PLAIN, await broker.receive(PLAIN))

    job = await run(broker, JobKind.RESUBMIT, new_message_id=True)
    assert job.matched == 1
    await broker.send("orders", b"duplicate", ids=["a"])
    assert await ready(broker, has_sessions=False) == [b"1"]


@both_kinds
@needs_clock
@pytest.mark.parametrize("at_head", [False, True])
async def test_rsb_3_the_time_to_live_begins_anew(
    broker: Broker, has_sessions: bool, at_head: bool
) -> None:
    await broker.create_queue(
        "orders", requires_session=has_sessions, dead_lettering_on_message_expiration=True
    )
    session = "s" if has_sessions else None
    await broker.send("orders", b"1", session=session, ttls_ms=[MINUTE_MS])
    await broker.advance(MINUTE_MS)
    assert await ready(broker, has_sessions=has_sessions) == []

    await run(broker, JobKind.RESUBMIT, at_head=at_head)
    await broker.advance(MINUTE_MS - 1)
    assert await ready(broker, has_sessions=has_sessions) == [b"1"]
    await broker.advance(1)
    assert await ready(broker, has_sessions=has_sessions) == []
    assert (await broker.receive(DEAD))[0].reason == "TTLExpiredException"


async def test_edits_on_the_way_change_properties_and_session(broker: Broker) -> None:
    await with_dead_letters(broker, numbered(2), has_sessions=True, placement="single")

    await run(
        broker, JobKind.RESUBMIT, session_id="repaired", properties=properties(repaired="yes")
    )
    assert [s.session_id for s in await broker.sessions("orders")] == ["repaired"]
    got = await broker.receive(await broker.accept("orders", "repaired"))
    assert bodies(got) == numbered(2)
    assert {(m.session_id, m.properties["repaired"]) for m in got} == {("repaired", "yes")}
