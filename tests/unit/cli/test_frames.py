"""What `lockstep top` makes of one look, and of two."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from lockstep import QueueRuntimeProperties, SessionProperties
from lockstep.cli import stored_counts
from lockstep.cli.frames import Look, QueueLook, Rates, frame_json, frame_parts, rates
from lockstep.errors import Unavailable
from lockstep.runtime.metrics import Metrics

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def runtime(**counts: int) -> QueueRuntimeProperties:
    zeros = {
        "active_message_count": 0,
        "locked_message_count": 0,
        "deferred_message_count": 0,
        "scheduled_message_count": 0,
        "dead_letter_message_count": 0,
        "total_message_count": 0,
        "size_in_bytes": 0,
        "session_count": 0,
        "locked_session_count": 0,
        "delayed_message_count": 0,
    }
    values: dict[str, Any] = zeros | counts
    return QueueRuntimeProperties(name="orders", **values)


def look(at_s: float, *, stored: int | None = None, **counts: int) -> Look:
    seen = QueueLook(runtime(**counts), has_sessions=False, waiting=0, stored=stored)
    at = NOW + timedelta(seconds=at_s)
    return Look(at, round(at_s * 1000), {"orders": seen}, is_counted=stored is not None)


# --- rates -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        # 30 came and 20 are more there, so 10 left; in two seconds.
        (look(0, stored=100), look(2, stored=130, total_message_count=20), Rates(15, 5, 10)),
        # A dead letter has left.
        (
            look(0, stored=5, total_message_count=5),
            look(1, stored=5, total_message_count=5, dead_letter_message_count=2),
            Rates(0, 2, -2),
        ),
        # Without counters only the difference is known.
        (look(0, total_message_count=8), look(2, total_message_count=2), Rates(change=-3)),
        # A restarted server counts from 0.
        (look(0, stored=100), look(1, stored=3, total_message_count=3), Rates(change=3)),
        # It came between the two readings.
        (look(0, stored=5), look(1, stored=5, total_message_count=1), Rates(0, 0, 1)),
        # No time passed.
        (look(1), look(1), Rates()),
    ],
)
def test_two_looks_tell_how_fast_messages_come_and_go(
    before: Look, after: Look, expected: Rates
) -> None:
    assert rates("orders", after, before) == expected


def test_one_look_and_a_new_queue_have_no_rates() -> None:
    assert rates("orders", look(1, stored=1), None) == Rates()
    assert rates("orders", look(1, stored=1), replace(look(0), queues={})) == Rates()


def test_ready_is_what_is_neither_locked_nor_set_aside() -> None:
    seen = QueueLook(
        runtime(
            active_message_count=10,
            locked_message_count=1,
            delayed_message_count=2,
            deferred_message_count=3,
        ),
        has_sessions=False,
    )
    assert seen.ready == 4
    # A deferred message in the hand of a receiver counts as both.
    both = runtime(active_message_count=1, locked_message_count=1, deferred_message_count=1)
    assert replace(seen, runtime=both).ready == 0


# --- frames ------------------------------------------------------------------------------------------


def cells(seen: Look, before: Look | None = None) -> dict[str, str]:
    _, queues = frame_parts(seen, before, server="s")
    (row,) = queues.rows
    return {column.heading: cell for column, cell in zip(queues.columns, row, strict=True)}


def test_what_is_not_known_is_a_dash() -> None:
    shown = cells(look(0, active_message_count=1234))

    assert (shown["READY"], shown["CHANGE/S"], shown["SESSIONS"]) == ("1,234", "-", "-")
    assert "IN/S" not in shown
    seen = look(0)
    untold = replace(seen, queues={"orders": replace(seen.queues["orders"], waiting=None)})
    assert cells(untold)["RECEIVERS"] == "-"


def test_rates_are_shown_with_their_sign_or_in_two_columns() -> None:
    assert cells(look(2, total_message_count=1), look(0))["CHANGE/S"] == "+0.5"
    both = cells(look(1, stored=3000), look(0, stored=0))
    assert (both["IN/S"], both["OUT/S"]) == ("3,000.0", "3,000.0")
    assert "CHANGE/S" not in both


def test_the_oldest_sessions_stand_below_their_queue() -> None:
    session = SessionProperties(
        session_id="A",
        active_message_count=2,
        locked_message_count=0,
        holder_client_id=None,
        locked_until_utc=None,
        grant=0,
        state_size_in_bytes=None,
        state_version=0,
        scheduled_message_count=0,
        deferred_message_count=0,
        oldest_deliverable_at_utc=NOW - timedelta(minutes=1),
    )
    seen = QueueLook(
        runtime(session_count=2000, locked_session_count=3),
        has_sessions=True,
        waiting=2,
        sessions=[session],
        is_cut=True,
    )
    headline, notice, queues, sessions = frame_parts(
        Look(NOW, 0, {"orders": seen}, left_out=7), None, server="s:1", notice="It is away."
    )

    assert headline.sentence.startswith("s:1  2026-01-31T12:00:00.000Z  1 queue, 7 more not shown")
    assert notice.sentence == "It is away."
    assert queues.rows[0][-3:] == ("5", "2,000", "3")
    assert sessions.sentence == "Oldest sessions of orders of those that were looked at"
    assert "1m" in sessions.rows[0]


def test_a_frame_for_programs_has_the_names_of_the_client() -> None:
    frame = frame_json(look(2, stored=1, total_message_count=1), look(0, stored=0))

    (queue,) = frame["queues"]
    assert frame["time"] == "2026-01-31T12:00:02.000Z"
    assert (queue["name"], queue["total_message_count"]) == ("orders", 1)
    assert (queue["in_per_second"], queue["out_per_second"]) == (0.5, 0.0)
    assert queue["oldest_sessions"] == []


# --- counters ----------------------------------------------------------------------------------------


def entity(metrics: Metrics, name: str, namespace: str = "shop") -> Any:
    return metrics.register_entity(entity_namespace=namespace, entity=name, entity_type="queue")


def test_stored_messages_are_read_from_the_metrics_that_a_server_serves() -> None:
    metrics = Metrics(CollectorRegistry())
    orders = entity(metrics, "orders")
    orders.enqueued_client, orders.enqueued_resubmit, orders.enqueued_schedule = 5, 2, 100
    entity(metrics, "orders", "elsewhere").enqueued_client = 50
    entity(metrics, "idle")

    page = generate_latest(metrics.entity_registry).decode()

    assert stored_counts.parse(page, "shop") == {"orders": 7, "idle": 0}


def test_metrics_that_cannot_be_read_are_an_error_with_the_address() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1/metrics") as raised:
        stored_counts.read("127.0.0.1:1", "shop")

    assert raised.value.details == {"address": "127.0.0.1:1"}
