"""Jobs on dead letters go out and come back by their names; a wait for one looks from time to time."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from lockstep import (
    AdministrationClient,
    DeadLetterJob,
    DeadLetterJobKind,
    DeadLetterJobStatus,
    DeadLetterSelector,
    aio,
)
from lockstep.errors import (
    ClientClosed,
    ConnectionFailed,
    InternalError,
    InvalidRequest,
    JobNotFound,
    LimitExceeded,
    OperationTimeout,
)
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import dead_letter_job_pb2 as wire
from lockstep.v1 import message_pb2
from tests.unit.client.scripted import START_MS, Answer, ScriptedTransport, connect

RUNNING = wire.DEAD_LETTER_JOB_STATUS_RUNNING
DONE = wire.DEAD_LETTER_JOB_STATUS_DONE
SINCE = datetime(2026, 1, 31, 12, tzinfo=UTC)


def administer(*answers: Answer) -> tuple[AdministrationClient, ScriptedTransport]:
    transport = ScriptedTransport(*answers)
    return AdministrationClient._sharing(connect(transport)), transport


def shown(
    status: wire.DeadLetterJobStatus.ValueType = RUNNING, matched: int = 0, **more: Any
) -> wire.DeadLetterJob:
    job = wire.DeadLetterJob(
        queue="orders",
        number=3,
        kind=wire.DEAD_LETTER_JOB_KIND_RESUBMIT,
        status=status,
        matched_messages=matched,
        **more,
    )
    job.start_time.FromMilliseconds(START_MS)
    return job


def looked_at(*jobs: wire.DeadLetterJob) -> list[Answer]:
    return [admin.GetDeadLetterJobResponse(job=job) for job in jobs]


def started(**more: Any) -> admin.StartDeadLetterJobResponse:
    return admin.StartDeadLetterJobResponse(job=shown(**more))


# --- what goes out -----------------------------------------------------------------------------------


def test_all_that_a_resubmission_can_be_told_goes_out_by_its_name() -> None:
    administration, transport = administer(started())

    administration.resubmit_dead_letters(
        "orders",
        DeadLetterSelector(
            sequence_numbers=[5, 7],
            session_id="",
            reason="late",
            dead_lettered_since_utc=SINCE,
            dead_lettered_until_utc=SINCE.replace(hour=13),
            application_properties={"kind": "a"},
            max_count=9,
        ),
        to_session_id="repaired",
        application_properties={"size": 3},
        new_message_id=True,
        max_resubmits=4,
        messages_per_second=50,
        dry_run=True,
        requested_by="ann",
    )

    (call,) = transport.calls
    expected = admin.StartDeadLetterJobRequest(
        namespace="shop",
        queue="orders",
        kind=wire.DEAD_LETTER_JOB_KIND_RESUBMIT,
        selector=wire.DeadLetterSelector(
            sequence_numbers=[5, 7],
            session_id="",
            reason="late",
            properties={"kind": message_pb2.PropertyValue(string_value="a")},
            max_count=9,
        ),
        options=wire.DeadLetterJobOptions(
            session_id="repaired",
            properties={"size": message_pb2.PropertyValue(int_value=3)},
            new_message_id=True,
            max_resubmits=4,
            messages_per_second=50,
            dry_run=True,
        ),
        requested_by="ann",
        request_id=call.request.request_id,
    )
    expected.selector.dead_lettered_since.FromDatetime(SINCE)
    expected.selector.dead_lettered_until.FromDatetime(SINCE.replace(hour=13))
    assert call.request == expected
    assert transport.counters() == [1]


def test_nothing_given_selects_everything() -> None:
    administration, transport = administer(started(), started(), started())

    administration.resubmit_dead_letters("orders")
    administration.purge_dead_letters("orders", DeadLetterSelector())
    administration.move_dead_letters("orders", "other")

    assert [call.request.selector for call in transport.calls] == [wire.DeadLetterSelector()] * 3
    assert [call.request.kind for call in transport.calls] == [
        wire.DEAD_LETTER_JOB_KIND_RESUBMIT,
        wire.DEAD_LETTER_JOB_KIND_PURGE,
        wire.DEAD_LETTER_JOB_KIND_MOVE,
    ]
    assert transport.calls[2].request.options == wire.DeadLetterJobOptions(target="other")


def test_a_session_is_dead_lettered_by_its_id_alone() -> None:
    administration, transport = administer(started())

    administration.dead_letter_session("orders", "A", reason="stuck", requested_by="ann")

    (call,) = transport.calls
    assert call.request.kind == wire.DEAD_LETTER_JOB_KIND_DEAD_LETTER_SESSION
    assert call.request.selector == wire.DeadLetterSelector(session_id="A")
    assert call.request.options == wire.DeadLetterJobOptions(reason="stuck")


def test_a_retry_of_a_start_is_the_same_request() -> None:
    administration, transport = administer(ConnectionFailed("gone"), started())

    administration.resubmit_dead_letters("orders", at_head=True)

    assert transport.counters() == [1, 1]
    assert transport.calls[0].request == transport.calls[1].request


@pytest.mark.parametrize(
    ("selector", "options", "refused"),
    [
        (DeadLetterSelector(session_id="x" * 129), {}, LimitExceeded),
        (DeadLetterSelector(session_id=5), {}, TypeError),  # type: ignore[arg-type]
        (DeadLetterSelector(sequence_numbers=[2**63]), {}, InvalidRequest),
        (DeadLetterSelector(sequence_numbers=[]), {}, InvalidRequest),  # none, never all
        (DeadLetterSelector(max_count=0), {}, InvalidRequest),
        (DeadLetterSelector(max_count=-1), {}, InvalidRequest),
        (DeadLetterSelector(application_properties={"x": 2**64}), {}, InvalidRequest),
        (DeadLetterSelector(max_count="all"), {}, TypeError),  # type: ignore[arg-type]
        (None, {"to_session_id": "x" * 129}, LimitExceeded),
        (None, {"messages_per_second": 2**31}, InvalidRequest),
        (None, {"messages_per_second": 0.5}, TypeError),
        (None, {"application_properties": {"x": object()}}, TypeError),
    ],
)
def test_what_no_server_would_take_is_refused_before_it_is_asked(
    selector: DeadLetterSelector | None, options: dict[str, Any], refused: type[Exception]
) -> None:
    administration, transport = administer()

    with pytest.raises(refused):
        administration.resubmit_dead_letters("orders", selector, **options)
    assert transport.calls == []


# --- what comes back ---------------------------------------------------------------------------------


def test_a_job_shows_all_that_the_server_tells() -> None:
    told = shown(
        DONE,
        5,
        selector=wire.DeadLetterSelector(sequence_numbers=[1, 2], session_id="", max_count=8),
        options=wire.DeadLetterJobOptions(target="other", session_id="B", at_head=True),
        skipped_messages=2,
        requested_by="ann",
        error="why",
        order_note="how",
    )
    told.kind = wire.DEAD_LETTER_JOB_KIND_MOVE
    told.end_time.FromMilliseconds(START_MS + 1500)
    administration, _ = administer(*looked_at(told))

    job = administration.get_dead_letter_job("orders", 3)

    begun = datetime.fromtimestamp(START_MS / 1000, UTC)
    assert job == DeadLetterJob(
        queue="orders",
        number=3,
        kind=DeadLetterJobKind.MOVE,
        status=DeadLetterJobStatus.DONE,
        selector=DeadLetterSelector(sequence_numbers=(1, 2), session_id="", max_count=8),
        target="other",
        to_session_id="B",
        application_properties={},
        new_message_id=False,
        at_head=True,
        max_resubmits=0,
        messages_per_second=0,
        dry_run=False,
        reason="",
        requested_by="ann",
        matched_message_count=5,
        skipped_message_count=2,
        started_at_utc=begun,
        ended_at_utc=begun.replace(second=begun.second + 1, microsecond=500_000),
        error="why",
        order_note="how",
    )
    assert not job.is_running


def test_every_field_of_the_protos_has_its_attribute() -> None:
    renamed = {
        "dead_lettered_since": "dead_lettered_since_utc",
        "dead_lettered_until": "dead_lettered_until_utc",
        "properties": "application_properties",
        "session_id": "to_session_id",
        "matched_messages": "matched_message_count",
        "skipped_messages": "skipped_message_count",
        "start_time": "started_at_utc",
        "end_time": "ended_at_utc",
    }
    ours = {field.name for field in dataclasses.fields(DeadLetterJob)}
    options = {field.name for field in wire.DeadLetterJobOptions.DESCRIPTOR.fields}
    told = {field.name for field in wire.DeadLetterJob.DESCRIPTOR.fields} - {"options"}
    assert ours == {renamed.get(name, name) for name in told | options}

    selecting = [field.name for field in dataclasses.fields(DeadLetterSelector)]
    selector = [field.name for field in wire.DeadLetterSelector.DESCRIPTOR.fields]
    assert selecting == [
        name if name == "session_id" else renamed.get(name, name) for name in selector
    ]


@pytest.mark.parametrize("told", [shown(status=0), shown(status=99)])  # type: ignore[arg-type]
def test_a_status_of_a_later_release_asks_for_a_newer_client(told: wire.DeadLetterJob) -> None:
    administration, _ = administer(*looked_at(told))

    with pytest.raises(InternalError, match="newer client"):
        administration.get_dead_letter_job("orders", 3)


def test_jobs_are_listed_as_the_server_orders_them() -> None:
    response = admin.ListDeadLetterJobsResponse(jobs=[shown(RUNNING, 2), shown(DONE, 1)])
    administration, transport = administer(response)

    jobs = administration.list_dead_letter_jobs("orders")

    assert [job.matched_message_count for job in jobs] == [2, 1]
    assert (transport.calls[0].request.namespace, transport.calls[0].request.queue) == (
        "shop",
        "orders",
    )


def test_a_job_is_cancelled_by_its_number() -> None:
    cancelled = shown(wire.DEAD_LETTER_JOB_STATUS_CANCELLED, 1)
    administration, transport = administer(admin.CancelDeadLetterJobResponse(job=cancelled))

    job = administration.cancel_dead_letter_job("orders", 3)

    assert job.status is DeadLetterJobStatus.CANCELLED
    assert (transport.calls[0].request.queue, transport.calls[0].request.number) == ("orders", 3)


# --- waiting -----------------------------------------------------------------------------------------


def test_a_wait_tells_each_look_and_pauses_longer_and_longer() -> None:
    administration, transport = administer(
        started(), *looked_at(*(shown(RUNNING, n) for n in range(8)), shown(DONE, 8))
    )
    job = administration.resubmit_dead_letters("orders")
    seen: list[int] = []

    ended = administration.wait_for_dead_letter_job(
        job, on_progress=lambda look: seen.append(look.matched_message_count)
    )

    assert ended.status is DeadLetterJobStatus.DONE
    assert seen == list(range(9))
    assert transport.sleeps_ms == [20, 40, 80, 160, 320, 500, 500, 500]


def test_a_wait_ends_at_its_time_and_the_job_does_not() -> None:
    administration, transport = administer(started(), *looked_at(*[shown()] * 6))
    job = administration.resubmit_dead_letters("orders")

    with pytest.raises(OperationTimeout, match="goes on"):
        administration.wait_for_dead_letter_job(job, timeout=0.5)

    assert sum(transport.sleeps_ms) == 500
    assert set(transport.names()) == {"StartDeadLetterJob", "GetDeadLetterJob"}


def test_a_wait_sits_an_outage_out() -> None:
    away: list[Answer] = [ConnectionFailed("gone") for _ in range(20)]
    administration, transport = administer(started(), *away, *looked_at(shown(DONE)))
    transport.away_ms = 60_000
    job = administration.resubmit_dead_letters("orders")

    assert administration.wait_for_dead_letter_job(job).status is DeadLetterJobStatus.DONE


def test_a_wait_for_a_job_that_was_forgotten_ends() -> None:
    administration, _ = administer(started(), JobNotFound("forgotten"))
    job = administration.resubmit_dead_letters("orders")

    with pytest.raises(JobNotFound):
        administration.wait_for_dead_letter_job(job)


async def test_asyncio_waits_the_same_way() -> None:
    transport = ScriptedTransport(started(), *looked_at(shown(RUNNING, 1), shown(DONE, 2)))
    administration = aio.AdministrationClient._sharing(connect(transport))
    job = await administration.resubmit_dead_letters("orders")
    assert job.is_running

    ended = await administration.wait_for_dead_letter_job(job)

    assert (ended.is_running, ended.matched_message_count) == (False, 2)
    assert transport.sleeps_ms == [20]


def test_a_closed_client_begins_nothing() -> None:
    administration, transport = administer()
    administration._connection._is_closed = True

    for call in (
        lambda: administration.purge_dead_letters("orders"),
        lambda: administration.get_dead_letter_job("orders", 1),
        lambda: administration.list_dead_letter_jobs("orders"),
        lambda: administration.cancel_dead_letter_job("orders", 1),
    ):
        with pytest.raises(ClientClosed):
            call()
    assert transport.calls == []
