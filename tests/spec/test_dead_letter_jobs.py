"""Dead letters in bulk: selection, purge, move, sessions, and jobs by themselves (section 10.4, ADD-11)."""

from __future__ import annotations

import pytest

from lockstep.core.commands import Outcome
from lockstep.core.errors import (
    EntityNotFound,
    InvalidOperation,
    InvalidRequest,
    JobNotFound,
    LimitExceeded,
)
from lockstep.core.ids import EntityKey, SessionId
from lockstep.core.jobs import JobKind, JobOptions, JobStatus, Selector
from lockstep.core.message import as_ranges
from tests.spec.core_driver import CoreBroker
from tests.spec.driver import (
    Broker,
    Plain,
    bodies,
    complete,
    dead_letter,
    defer,
    needs_clock,
    needs_jobs,
    numbered,
)
from tests.spec.job_stock import (
    DEAD,
    OTHER,
    PLAIN,
    properties,
    ready,
    run,
    with_dead_letters,
)
from tests.spec.stocked import both_kinds

# --- selection ---------------------------------------------------------------------------------------


async def stocked_for_selection(broker: Broker) -> dict[bytes, int]:
    """Make dead letters of two sessions and two reasons, a second apart; return the number of each body."""
    numbers: dict[bytes, int] = {}
    for session, reason in (("s", "broken"), ("t", "broken"), ("s", "late"), ("t", "late")):
        body = f"{session}-{reason}".encode()
        (number,) = await with_dead_letters(
            broker, [body], has_sessions=True, session=session, reason=reason
        )
        numbers[body] = number
    return numbers


@pytest.mark.parametrize(
    ("selector", "taken"),  # in place of a selector by numbers, the bodies of those that it names
    [
        (Selector(), [b"s-broken", b"t-broken", b"s-late", b"t-late"]),
        (Selector(session_id=SessionId("s")), [b"s-broken", b"s-late"]),
        (Selector(reason="late"), [b"s-late", b"t-late"]),
        (Selector(reason="late", session_id=SessionId("t")), [b"t-late"]),
        ((b"t-broken", b"s-late"), [b"t-broken", b"s-late"]),
        ((b"s-broken", b"t-late"), [b"s-broken", b"t-late"]),
        (Selector(reason="Late"), []),
    ],
)
@pytest.mark.parametrize("batch", [1, 512])
async def test_rsb_1_a_selector_takes_what_it_names(
    broker: Broker, selector: Selector | tuple[bytes, ...], taken: list[bytes], batch: int
) -> None:
    numbers = await stocked_for_selection(broker)
    if not isinstance(selector, Selector):
        selector = Selector(ranges=as_ranges(sorted(numbers[body] for body in selector)))

    job = await run(broker, JobKind.PURGE, selector, batch=batch)
    left = {b"s-broken", b"t-broken", b"s-late", b"t-late"} - set(taken)
    assert job.matched == len(taken)
    assert set(bodies(await broker.browse(DEAD))) == left


@both_kinds
async def test_rsb_1_a_count_takes_the_oldest(broker: Broker, has_sessions: bool) -> None:
    await with_dead_letters(broker, numbered(5), has_sessions=has_sessions)

    job = await run(broker, JobKind.PURGE, Selector(max_count=3))

    assert job.matched == 3
    assert bodies(await broker.receive(DEAD)) == [b"4", b"5"]


@needs_clock
async def test_rsb_1_a_time_range_is_that_of_death(broker: Broker) -> None:
    await with_dead_letters(broker, [b"1"])
    await broker.advance(1_000)
    since_ms = broker.now_ms()
    await with_dead_letters(broker, [b"2"])
    await broker.advance(1_000)
    await with_dead_letters(broker, [b"3"])

    await run(broker, JobKind.PURGE, Selector(since_ms=since_ms, until_ms=since_ms + 1_000))
    assert bodies(await broker.receive(DEAD)) == [b"1", b"3"]


async def test_rsb_1_properties_select_too(broker: Broker) -> None:
    await broker.create_queue("orders")
    await broker.send("orders", *numbered(3))
    got = await broker.receive(PLAIN)
    for message, kind in zip(got, ("a", "b", "a"), strict=True):
        changes = {"kind": kind}
        await broker.settle(PLAIN, Outcome.DEAD_LETTER, [message], properties=changes)

    selector = Selector(properties=properties(kind="a"))
    assert (await run(broker, JobKind.RESUBMIT, selector)).matched == 2
    assert await ready(broker, has_sessions=False) == [b"1", b"3"]


# --- other kinds -------------------------------------------------------------------------------------


@both_kinds
async def test_rsb_10_a_purge_removes_for_good(broker: Broker, has_sessions: bool) -> None:
    await with_dead_letters(broker, numbered(3), has_sessions=has_sessions)
    assert (await run(broker, JobKind.PURGE)).matched == 3
    runtime = await broker.runtime("orders")
    assert (runtime.dead_letters, runtime.active, runtime.size_bytes) == (0, 0, 0)


@both_kinds
@pytest.mark.parametrize("kind", [JobKind.RESUBMIT, JobKind.PURGE])
async def test_rsb_9_a_dry_run_only_counts(
    broker: Broker, has_sessions: bool, kind: JobKind
) -> None:
    await with_dead_letters(broker, numbered(3), has_sessions=has_sessions)
    job = await run(broker, kind, Selector(max_count=2), dry_run=True)
    assert (job.status, job.matched) == (JobStatus.DONE, 2)
    assert bodies(await broker.receive(DEAD)) == numbered(3)


@both_kinds
@pytest.mark.parametrize("target_has_sessions", [True, False])
async def test_add_11_a_move_goes_to_another_queue(
    broker: Broker, has_sessions: bool, target_has_sessions: bool
) -> None:
    await with_dead_letters(broker, numbered(2), has_sessions=has_sessions)
    await broker.create_queue("other", requires_session=target_has_sessions)

    job = await run(
        broker,
        JobKind.MOVE,
        target=OTHER,
        session_id="given" if target_has_sessions else None,
        properties=properties(moved="yes"),
    )
    assert (job.status, job.matched) == (JobStatus.DONE, 2)
    assert (await broker.runtime("orders")).size_bytes == 0
    source = await broker.accept("other", "given") if target_has_sessions else Plain("other")
    got = await broker.receive(source)
    assert bodies(got) == numbered(2)
    assert [(m.resubmits, m.count, m.properties["moved"]) for m in got] == [(1, 0, "yes")] * 2


async def test_add_11_a_move_keeps_sessions_and_leaves_what_has_none(broker: Broker) -> None:
    await broker.create_queue("orders")
    await broker.send("orders", b"1", b"2", sessions=["s", None])
    await dead_letter(broker, PLAIN, await broker.receive(PLAIN))
    await broker.create_queue("other", requires_session=True)

    job = await run(broker, JobKind.MOVE, target=OTHER)
    assert (job.matched, job.skipped) == (1, 1)
    assert bodies(await broker.receive(await broker.accept("other", "s"))) == [b"1"]
    assert bodies(await broker.receive(DEAD)) == [b"2"]


@needs_jobs
async def test_add_11_a_move_that_finds_no_room_fails_and_loses_nothing(broker: Broker) -> None:
    sent = [bytes(600_000), bytes(600_001)]
    await with_dead_letters(broker, sent)
    await broker.create_queue("other", max_size_in_megabytes=1)

    job = await run(broker, JobKind.MOVE, target=OTHER, batch=1)
    assert (job.status, job.matched) == (JobStatus.FAILED, 1)
    assert "max_size_in_megabytes" in job.error
    assert bodies(await broker.receive(DEAD)) == sent[1:]
    assert bodies(await broker.receive(Plain("other"))) == sent[:1]


async def test_a_session_is_dead_lettered_whole(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    await broker.send("orders", *numbered(5), session="s")
    await broker.send("orders", b"other", session="t")
    held = await broker.accept("orders", "s")
    got = await broker.receive(held, 2)
    await defer(broker, held, got[:1])

    selector = Selector(session_id=SessionId("s"))
    job = await run(broker, JobKind.DEAD_LETTER, selector, reason="stuck")
    assert job.matched == 4
    assert await broker.receive(held) == []
    await complete(broker, held, got[1:])  # what the holder has in hand stays its own
    dead = await broker.receive(DEAD)
    assert sorted(bodies(dead)) == [b"1", b"3", b"4", b"5"]
    assert {message.reason for message in dead} == {"stuck"}
    assert [s.session_id for s in await broker.sessions("orders")] == ["s", "t"]


# --- jobs --------------------------------------------------------------------------------------------


@needs_jobs
async def test_a_cancelled_job_goes_no_further(broker: CoreBroker) -> None:
    await with_dead_letters(broker, numbered(3))
    started = await broker.start_job("orders", JobKind.RESUBMIT)
    await broker.advance_job("orders", started.number, batch=1)
    await broker.cancel_job("orders", started.number)

    job = await broker.finish_job("orders", started.number)
    assert (job.status, job.matched) == (JobStatus.CANCELLED, 1)
    assert (await broker.runtime("orders")).dead_letters == 2


@pytest.mark.parametrize(
    ("kind", "selector", "options", "refused"),
    [
        (JobKind.MOVE, Selector(), JobOptions(), InvalidRequest),
        (JobKind.MOVE, Selector(), JobOptions(target=OTHER), EntityNotFound),
        (
            JobKind.MOVE,
            Selector(),
            JobOptions(target=EntityKey("default", "orders")),
            InvalidRequest,
        ),
        (
            JobKind.RESUBMIT,
            Selector(),
            JobOptions(at_head=True, session_id=SessionId("t")),
            InvalidRequest,
        ),
        (
            JobKind.DEAD_LETTER,
            Selector(session_id=SessionId("s")),
            JobOptions(),
            InvalidOperation,
        ),
        (
            JobKind.RESUBMIT,
            Selector(),
            JobOptions(session_id=SessionId("x" * 129)),
            LimitExceeded,
        ),
        (
            JobKind.RESUBMIT,
            Selector(ranges=tuple((2 * n, 2 * n) for n in range(1, 8194))),
            JobOptions(),
            LimitExceeded,
        ),
    ],
)
async def test_a_job_that_makes_no_sense_is_refused(
    broker: Broker,
    kind: JobKind,
    selector: Selector,
    options: JobOptions,
    refused: type[Exception],
) -> None:
    await _is_refused(broker, kind, selector, options, refused)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (JobKind.RESUBMIT, JobOptions(target=OTHER)),
        (JobKind.PURGE, JobOptions(new_message_id=True)),
        (JobKind.PURGE, JobOptions(session_id=SessionId("t"))),
        (JobKind.MOVE, JobOptions(target=OTHER, at_head=True)),
    ],
)
async def test_options_of_another_kind_of_job_are_refused(
    broker: Broker, kind: JobKind, options: JobOptions
) -> None:
    await _is_refused(broker, kind, Selector(), options, InvalidRequest)


async def _is_refused(
    broker: Broker,
    kind: JobKind,
    selector: Selector,
    options: JobOptions,
    refused: type[Exception],
) -> None:
    await with_dead_letters(broker, numbered(1))
    with pytest.raises(refused):
        await broker.start_job("orders", kind, selector, options)
    assert bodies(await broker.receive(DEAD)) == [b"1"]


async def test_rsb_h_a_wrong_name_is_told(broker: Broker) -> None:
    await broker.create_queue("orders")
    with pytest.raises(EntityNotFound):
        await broker.start_job("oders", JobKind.RESUBMIT)
    with pytest.raises(JobNotFound):
        await broker.finish_job("orders", 7)


async def test_rsb_1_a_locked_message_does_not_use_up_the_count(broker: CoreBroker) -> None:
    await with_dead_letters(broker, numbered(3))
    await broker.receive(DEAD, 1)

    job = await run(broker, JobKind.PURGE, Selector(max_count=1))
    assert (job.matched, job.skipped) == (1, 1)
    assert bodies(await broker.receive(DEAD)) == [b"3"]


@needs_jobs
async def test_add_12_a_batch_of_another_queue_s_job_does_nothing(broker: CoreBroker) -> None:
    await with_dead_letters(broker, numbered(2))
    started = await broker.start_job("orders", JobKind.PURGE)

    job = await broker.advance_as("orders", started.number, uid="of a queue that is gone")
    assert (job.is_running, job.matched) == (True, 0)
    assert (await broker.runtime("orders")).dead_letters == 2


@needs_jobs
async def test_a_job_that_cannot_go_on_says_why_and_loses_nothing(broker: CoreBroker) -> None:
    await with_dead_letters(broker, numbered(2))
    started = await broker.start_job("orders", JobKind.PURGE)

    job = await broker.advance_as("orders", started.number, uid=started.uid, error="unreadable")
    assert (job.status, job.error) == (JobStatus.FAILED, "unreadable")
    assert (await broker.runtime("orders")).dead_letters == 2


async def test_edits_that_the_queue_has_no_room_for_fail_the_job(broker: CoreBroker) -> None:
    await with_dead_letters(broker, numbered(100), max_size_in_megabytes=1)

    job = await run(broker, JobKind.RESUBMIT, properties=properties(big="x" * 30_000))
    assert (job.status, job.matched) == (JobStatus.FAILED, 0)
    assert "max_size_in_megabytes" in job.error
    assert (await broker.runtime("orders")).dead_letters == 100


async def test_msg_8_a_message_without_room_for_more_properties_is_left(broker: CoreBroker) -> None:
    await with_dead_letters(broker, numbered(2))
    for name in ("a", "b"):
        got = (await broker.receive(DEAD, 1))[:1]
        changes = {name: "x" * 30_000}
        await broker.settle(DEAD, Outcome.ABANDON, got, properties=changes)

    job = await run(broker, JobKind.RESUBMIT, properties=properties(c="x" * 30_000))
    assert (job.matched, job.skipped) == (1, 1)
