"""Corners of jobs, explanations, repeats and idle states that need the core's own figures to be seen."""

from __future__ import annotations

import pytest

from lockstep.core.commands import (
    AdvanceJob,
    Explain,
    LookForJob,
    Outcome,
    Receive,
    ReleaseSession,
    SetState,
    Settle,
    Settlement,
    StartJob,
)
from lockstep.core.errors import InvalidOperation, InvalidRequest, LimitExceeded
from lockstep.core.ids import RequestId, SessionId
from lockstep.core.jobs import Job, JobKind, JobOptions, Selector
from lockstep.core.limits import Limits
from lockstep.core.replies import Cause, Delivered, Explained, JobIs, JobLook, Released, Settled
from tests.unit.core.partition_rig import PLAIN, SESSIONS, Rig

DELAY_MS = 60_000
DAY_MS = 86_400_000


def start(rig: Rig, kind: JobKind, selector: Selector, options: JobOptions | None = None) -> Job:
    command = StartJob(SESSIONS, kind, selector, options or JobOptions(), uid="u")
    return rig.step(command, JobIs).job


def look(rig: Rig, job: Job) -> JobLook:
    return rig.step(LookForJob(SESSIONS, job.number, 512), JobLook)


def finish(rig: Rig, job: Job) -> Job:
    while job.is_running:
        seen = look(rig, job)
        command = AdvanceJob(
            SESSIONS, job.number, seen.job.cursor, seen.cursor, seen.sequences, uid="u"
        )
        job = rig.step(command, JobIs).job
    return job


def test_add_3_the_repeat_of_a_refused_settlement_is_refused_for_the_same_reason() -> None:
    rig = Rig()
    rig.create(PLAIN)
    rig.send(PLAIN, b"x")

    def abandon(name: str) -> Settle:
        got, most = rig.receive(None), {name: b"y" * 40_000}
        settlement = Settlement(Outcome.ABANDON, got.grant, got.sequences, properties=most)
        return Settle(
            PLAIN, False, None, (settlement,), request=RequestId("c", len(name)), fingerprint=1
        )

    rig.step(abandon("first"), Settled)
    command = abandon("second")
    failed = rig.step(command, Settled).failures
    assert isinstance(failed[0].error, LimitExceeded)

    again = rig.step(command, Settled).failures

    assert [type(failure.error) for failure in again] == [LimitExceeded]
    assert again[0].error.message == failed[0].error.message
    assert again[0].error.details == failed[0].error.details
    assert again[0].sequence == failed[0].sequence


def test_rsb_1_a_selection_by_session_needs_sessions() -> None:
    rig = Rig()
    rig.create(PLAIN)
    command = StartJob(
        PLAIN, JobKind.PURGE, Selector(session_id=SessionId("s")), JobOptions(), uid="u"
    )

    with pytest.raises(InvalidOperation, match="has no sessions"):
        rig.decide(command)


def test_rsb_1_what_a_holder_has_in_hand_is_left_and_counted() -> None:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True)
    rig.send(SESSIONS, b"1", b"2", b"3", session="s")
    rig.receive(rig.accept("s"), 2)

    ended = finish(rig, start(rig, JobKind.DEAD_LETTER, Selector(session_id=SessionId("s"))))

    assert (ended.matched, ended.skipped) == (1, 2)


def test_rsb_1_a_deferred_dead_letter_of_the_session_is_not_taken_again() -> None:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True)
    rig.send(SESSIONS, b"1", b"2", session="s")
    job = start(rig, JobKind.DEAD_LETTER, Selector(session_id=SessionId("s")))
    seen = look(rig, job)  # both are there; then one is made a dead letter, and deferred as one
    lock = rig.accept("s")
    got = rig.receive(lock, 1)
    rig.settle(lock, Outcome.DEAD_LETTER, got.grant, got.sequences)
    dead = rig.step(Receive(SESSIONS, True, None, 1), Delivered)
    defer = Settlement(Outcome.DEFER, dead.grant, dead.sequences)
    rig.step(Settle(SESSIONS, True, None, (defer,)), Settled)

    command = AdvanceJob(SESSIONS, job.number, job.cursor, seen.cursor, seen.sequences, uid="u")
    ended = rig.step(command, JobIs).job

    assert (ended.matched, ended.skipped) == (1, 0)
    assert len(rig.partition.queues[SESSIONS].dead_order) == 2


def test_add_11_dead_lettering_a_session_takes_no_edits() -> None:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True)
    whole = Selector(session_id=SessionId("s"))

    for options in (JobOptions(new_message_id=True), JobOptions(max_resubmits=1)):
        with pytest.raises(InvalidRequest, match="leave"):
            rig.decide(StartJob(SESSIONS, JobKind.DEAD_LETTER, whole, options, uid="u"))


def test_rsb_1_a_job_names_only_so_many_numbers() -> None:
    rig = Rig(limits=Limits(settle_messages_max=10))
    rig.create(PLAIN)

    with pytest.raises(LimitExceeded, match="sequence numbers"):
        rig.decide(StartJob(PLAIN, JobKind.PURGE, Selector(((1, 11),)), JobOptions(), uid="u"))


def test_snd_11_the_same_property_again_takes_no_more_room() -> None:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True, max_size_in_megabytes=1)
    rig.send(SESSIONS, *[b"x"] * 20, session="s")
    edit = JobOptions(properties={"p": b"y" * 30_000})

    for _ in range(2):
        lock = rig.accept("s")
        got = rig.receive(lock, 20)
        rig.settle(lock, Outcome.DEAD_LETTER, got.grant, got.sequences)
        rig.step(ReleaseSession(SESSIONS, lock), Released)
        ended = finish(rig, start(rig, JobKind.RESUBMIT, Selector(), edit))
        assert (ended.matched, ended.error) == (20, "")


def test_add_6_a_holder_is_woken_when_a_job_takes_what_kept_it_waiting() -> None:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True)
    rig.send(SESSIONS, b"1", session="s")
    lock = rig.accept("s")
    got = rig.receive(lock)
    delayed = Settlement(Outcome.ABANDON, got.grant, got.sequences, delay_ms=DELAY_MS)
    rig.step(Settle(SESSIONS, False, lock, (delayed,)), Settled)
    job = start(rig, JobKind.DEAD_LETTER, Selector(session_id=SessionId("s")))
    rig.send(SESSIONS, b"2", session="s")
    seen = look(rig, job)

    command = AdvanceJob(
        SESSIONS, job.number, seen.job.cursor, seen.cursor, seen.sequences, uid="u"
    )
    woken = [wake.session_id for wake in rig.decide(command).wake]

    assert "s" in woken
    assert rig.receive(lock).sequences.tolist() == [2]


def test_add_10_a_delayed_dead_letter_delays_nothing() -> None:
    rig = Rig()
    rig.create(PLAIN)
    rig.send(PLAIN, b"x")
    got = rig.receive(None)
    rig.settle(None, Outcome.DEAD_LETTER, got.grant, got.sequences)
    dead = rig.step(Receive(PLAIN, True, None, 1), Delivered)
    delayed = Settlement(Outcome.ABANDON, dead.grant, dead.sequences, delay_ms=DELAY_MS)
    rig.step(Settle(PLAIN, True, None, (delayed,)), Settled)

    assert rig.step(Explain(PLAIN, None, 0), Explained).cause is Cause.EMPTY


def test_add_10_a_held_session_without_messages_keeps_nothing_from_delivery() -> None:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True)
    rig.send(SESSIONS, b"1", session="delayed")
    lock = rig.accept("delayed")
    got = rig.receive(lock)
    delayed = Settlement(Outcome.ABANDON, got.grant, got.sequences, delay_ms=DELAY_MS)
    rig.step(Settle(SESSIONS, False, lock, (delayed,)), Settled)
    rig.step(ReleaseSession(SESSIONS, lock), Released)
    rig.accept("empty")

    assert rig.step(Explain(SESSIONS, None, 0), Explained).cause is Cause.DELAYED


def test_ses_44_a_state_that_is_set_and_cleared_again_and_again_waits_for_one_time() -> None:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True, session_state_idle_ttl_ms=DAY_MS)
    rig.accept("client")  # so that what is counted below is there already
    before = len(rig.partition.deadlines)

    for _ in range(5):
        lock = rig.accept("s")
        rig.step(SetState(SESSIONS, lock, b"x", None), object)
        rig.step(SetState(SESSIONS, lock, None, None), object)
        rig.step(ReleaseSession(SESSIONS, lock), Released)
        rig.now_ms += 1

    assert len(rig.partition.deadlines) - before == 1 + 5  # of the state, and of each lock
