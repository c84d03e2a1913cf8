"""How jobs on dead letters look."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockstep import DeadLetterJob, DeadLetterJobKind, DeadLetterJobStatus, DeadLetterSelector
from lockstep.cli.context import CommandLine
from lockstep.cli.exits import CommandFailed
from lockstep.cli.jobs import conclusion, job_json, row, tell_end, which
from lockstep.cli.output import Output

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
JOB = DeadLetterJob(
    queue="orders",
    number=3,
    kind=DeadLetterJobKind.RESUBMIT,
    status=DeadLetterJobStatus.DONE,
    selector=DeadLetterSelector(),
    target=None,
    to_session_id=None,
    application_properties={},
    new_message_id=False,
    at_head=False,
    max_resubmits=0,
    messages_per_second=0,
    dry_run=False,
    reason="",
    requested_by="",
    matched_message_count=12_000,
    skipped_message_count=0,
    started_at_utc=NOW,
    ended_at_utc=NOW + timedelta(seconds=1.5),
    error="",
    order_note="They are behind now.",
)


def job(**changed: Any) -> DeadLetterJob:
    return dataclasses.replace(JOB, **changed)


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        (JOB, "Resubmitted 12,000 dead letters of orders in 1s500ms, 8,000/s."),
        (
            job(kind=DeadLetterJobKind.PURGE, matched_message_count=1, skipped_message_count=2),
            "Removed 1 dead letter of orders in 1s500ms, 1/s; 2 messages left where they were.",
        ),
        (
            job(kind=DeadLetterJobKind.MOVE, target="other", dry_run=True),
            "Would move 12,000 dead letters from orders to other in 1s500ms.",
        ),
        (
            job(
                kind=DeadLetterJobKind.DEAD_LETTER_SESSION,
                matched_message_count=2,
                ended_at_utc=NOW,
            ),
            "Dead-lettered 2 messages of orders in 0s.",
        ),
        (job(matched_message_count=0), "Resubmitted 0 dead letters of orders in 1s500ms."),
    ],
)
def test_the_end_of_a_job_is_a_sentence_with_counts_and_pace(
    shown: DeadLetterJob, sentence: str
) -> None:
    assert conclusion(shown) == sentence


def test_all_that_a_selector_selects_by_is_named() -> None:
    selector = DeadLetterSelector(
        sequence_numbers=(5, 7, 8, 9),
        session_id="",
        reason="late",
        dead_lettered_since_utc=NOW,
        dead_lettered_until_utc=NOW,
        application_properties={"n": 3, "raw": b"\x00"},
        max_count=2_000,
    )

    assert which(selector) == (
        "session '', reason 'late', since 2026-01-31T12:00:00.000Z, until 2026-01-31T12:00:00.000Z, numbers 5,7-9,"
        " n=3, raw={'$bytes': 'AA=='}, at most 2,000"
    )
    assert which(DeadLetterSelector()) == ""
    assert which(DeadLetterSelector(sequence_numbers=tuple(range(1, 99, 2)))).endswith(", …")


def test_a_running_job_took_as_long_as_it_runs() -> None:
    shown = job(
        kind=DeadLetterJobKind.MOVE,
        target="other",
        status=DeadLetterJobStatus.RUNNING,
        ended_at_utc=None,
        requested_by="ann",
    )

    assert row(shown, NOW + timedelta(minutes=2)) == (
        "3",
        "move to other",
        "running",
        "12,000",
        "0",
        "2026-01-31T12:00:00.000Z",
        "2m",
        "ann",
        "all",
    )


def test_programs_get_the_names_of_the_client() -> None:
    shown = job(
        selector=DeadLetterSelector(session_id="A", application_properties={"at": NOW}),
        application_properties={"raw": b"\x00"},
    )

    facts = job_json(shown)

    assert set(facts) == {field.name for field in dataclasses.fields(DeadLetterJob)}
    assert facts["kind"] == "resubmit"
    assert facts["ended_at_utc"] == "2026-01-31T12:00:01.500Z"
    assert facts["application_properties"] == {"raw": {"$bytes": "AA=="}}
    assert facts["selector"]["session_id"] == "A"
    assert facts["selector"]["sequence_numbers"] is None
    assert facts["selector"]["application_properties"] == {
        "at": {"$time": "2026-01-31T12:00:00.000Z"}
    }


@pytest.mark.parametrize(
    ("status", "reason"),
    [(DeadLetterJobStatus.CANCELLED, "JOB_CANCELLED"), (DeadLetterJobStatus.FAILED, "JOB_FAILED")],
)
def test_a_job_that_did_not_take_everything_fails_the_command(
    status: DeadLetterJobStatus, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = CommandLine("server", "default", Output())

    with pytest.raises(CommandFailed) as failed:
        tell_end(line, job(status=status, error="other is full."))

    assert (failed.value.failure.reason, failed.value.failure.code) == (reason, 1)
    assert failed.value.failure.details == {"queue": "orders", "job": "3"}
    assert "Resubmitted 12,000 dead letters" in capsys.readouterr().out


def test_a_person_is_told_what_became_of_the_order_and_of_the_rest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell_end(CommandLine("server", "default", Output()), job(skipped_message_count=1))

    told = capsys.readouterr().err
    assert "They are behind now." in told
    assert "--max-resubmits" in told
