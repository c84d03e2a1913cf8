"""Each rule about messages reports a violation that was planted, and none in a history that keeps all promises."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.checker import idle_run, longest_gap_ms, unknown_outcomes
from tests.faults.draining import Contents, Counts, Ending
from tests.faults.history import NEVER_MS, Item, Kind, Outcome, Recorder, read_history
from tests.faults.story import (
    LOCK_MS,
    ORDERS,
    PLAIN,
    Story,
    all_well,
    found,
    in_plain_queue,
    message,
    rules,
    well_behaved,
)


def test_a_history_that_keeps_all_promises_has_no_violations() -> None:
    assert found(well_behaved(), is_calm=True) == []


# --- messages ------------------------------------------------------------------------------------


def test_an_acknowledged_message_that_never_came_is_lost() -> None:
    story = well_behaved()
    story.send(message(4))

    assert rules(story) == {"lost"}


def test_a_message_whose_send_was_not_acknowledged_may_be_missing() -> None:
    story = well_behaved()
    story.send(message(0, body="perhaps"), outcome=Outcome.UNKNOWN, ended_ms=NEVER_MS)

    assert found(story) == []


def test_a_message_is_not_lost_while_it_is_seen_in_its_queue() -> None:
    story = well_behaved()
    story.send(message(4))
    left = Contents(Counts(1, 0, 0, 1), (message(4),))
    ending = Ending(0, NEVER_MS, {ORDERS: left}, {ORDERS: left.counts})

    assert rules(story, ending) == {"not drained"}


def test_a_message_that_nobody_sent_is_invented() -> None:
    story = well_behaved()
    story.hold(3, writes=1, value="1:w1").do(Kind.RECEIVE, message(9))

    assert rules(story) == {"invented"}


def test_a_message_in_another_session_than_its_own_is_invented() -> None:
    story = well_behaved()
    story.send(message(4))
    holder = story.hold(3, writes=1, value="1:w1")
    holder.do(Kind.RECEIVE, message(4, session_id="other"))
    holder.do(Kind.COMPLETE, message(4))

    assert rules(story) == {"invented"}


def test_a_message_that_comes_after_it_was_completed_is_revived() -> None:
    story = well_behaved()
    holder = story.hold(3, writes=1, value="1:w1")
    holder.do(Kind.RECEIVE, message(3))
    holder.do(Kind.RELEASE)

    assert rules(story) == {"revived"}


def test_a_message_that_one_call_stored_twice_is_doubled() -> None:
    story = well_behaved()
    holder = story.hold(3, writes=1, value="1:w1")
    holder.do(Kind.RECEIVE, message(4, body="body-3"))
    holder.do(Kind.COMPLETE, message(4, body="body-3"))

    assert rules(story) == {"doubled"}


def test_a_message_that_its_sender_sent_again_may_be_there_twice() -> None:
    story = Story()
    story.send(message(0, body="twice"), outcome=Outcome.UNKNOWN)
    story.send(message(2, body="twice"))
    holder = story.hold(1)
    both = message(1, body="twice"), message(2, body="twice")
    holder.do(Kind.RECEIVE, *both)
    holder.do(Kind.COMPLETE, *both)

    assert found(story) == []


@pytest.mark.parametrize("number", [2, 3], ids=["lower", "the same"])
def test_a_later_send_must_not_get_an_earlier_number(number: int) -> None:
    story = well_behaved()
    story.send(message(number, body="late"))
    story.add(Kind.COMPLETE, items=(message(number, body="late"),))

    assert rules(story) == {"misnumbered"}


def test_sends_at_the_same_time_may_get_numbers_in_any_order() -> None:
    story = Story()
    story.send(message(2), invoked_ms=900)
    story.send(message(1), invoked_ms=900)
    story.hold(1).do(Kind.COMPLETE, message(1), message(2))

    assert found(story) == []


def test_a_message_that_two_receivers_have_at_once_is_shared() -> None:
    story = well_behaved()
    story.add(Kind.SEND, "sender", PLAIN, items=(in_plain_queue(2),))
    story.plain(Kind.RECEIVE, in_plain_queue(2))
    story.plain(Kind.RECEIVE, in_plain_queue(2, count=1), worker="q")
    story.plain(Kind.COMPLETE, in_plain_queue(2), worker="q")

    assert rules(story) == {"shared"}


def test_a_message_may_come_to_another_receiver_when_its_lock_has_run_out() -> None:
    story = well_behaved()
    story.add(Kind.SEND, "sender", PLAIN, items=(in_plain_queue(2),))
    story.plain(Kind.RECEIVE, in_plain_queue(2))
    story.now_ms += LOCK_MS
    story.plain(Kind.RECEIVE, in_plain_queue(2, count=1), worker="q")
    story.plain(Kind.COMPLETE, in_plain_queue(2), worker="q")

    assert found(story) == []


def test_receivers_at_the_same_time_may_get_a_message_one_after_the_other() -> None:
    story = well_behaved()
    story.add(Kind.SEND, "sender", PLAIN, items=(in_plain_queue(2),))
    begun_ms = story.now_ms
    story.plain(Kind.RECEIVE, in_plain_queue(2), invoked_ms=begun_ms + 1)
    story.plain(Kind.ABANDON, in_plain_queue(2))
    second = in_plain_queue(2, count=1)
    story.plain(Kind.RECEIVE, second, worker="q", invoked_ms=begun_ms)
    story.plain(Kind.COMPLETE, second, worker="q")
    story.operations.sort(key=lambda one: one.invoked_ms)

    assert found(story) == []


def test_a_message_lock_that_ends_before_its_time_is_lost() -> None:
    story = well_behaved()
    story.add(Kind.SEND, "sender", PLAIN, items=(in_plain_queue(2),))
    story.plain(Kind.RECEIVE, in_plain_queue(2))
    lost = {"outcome": Outcome.FAILED, "reason": "MESSAGE_LOCK_LOST"}
    story.plain(Kind.COMPLETE, in_plain_queue(2), **lost)
    story.now_ms += LOCK_MS
    story.plain(Kind.COMPLETE, in_plain_queue(2), worker="q")

    assert rules(story) == {"lock lost"}


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [(Outcome.UNKNOWN, "INTERNAL"), (Outcome.FAILED, "REQUEST_ID_REUSED")],
)
def test_an_error_that_no_fault_explains_is_reported(outcome: Outcome, reason: str) -> None:
    story = well_behaved()
    story.send(message(0), outcome=outcome, reason=reason)

    assert rules(story) == {"unexpected error"}


def test_without_faults_no_call_may_fail_in_passing() -> None:
    story = well_behaved()
    story.send(message(0), outcome=Outcome.UNKNOWN, reason="PARTITION_MOVED")

    assert rules(story) == set()
    assert rules(story, is_calm=True) == {"unexpected error"}


def test_a_run_in_which_hardly_anything_was_done_proves_nothing() -> None:
    assert {one.rule for one in idle_run(well_behaved().operations)} == {"idle"}
    busy = [one for _ in range(100) for one in well_behaved().operations]
    assert idle_run(busy) == []


def test_a_queue_that_is_not_everywhere_after_its_definition_is_reported() -> None:
    story = well_behaved()
    story.add(Kind.USE, outcome=Outcome.FAILED, reason="ENTITY_NOT_FOUND")
    story.add(Kind.MISS, outcome=Outcome.FAILED, reason="ENTITY_NOT_FOUND")

    assert rules(story) == {"definitions"}


def test_a_queue_that_is_somewhere_after_its_end_is_reported() -> None:
    story = well_behaved()
    story.add(Kind.MISS)

    assert rules(story) == {"definitions"}


# --- the end -------------------------------------------------------------------------------------


def left_over(counts: Counts, items: Sequence[Item], deferred: Sequence[int] = ()) -> Ending:
    before = {ORDERS: Contents(counts, tuple(items), frozenset(deferred))}
    return Ending(0, 100, before, {ORDERS: Counts()})


def drained_later() -> Story:
    """Message 4 is left by the load and received by the drain."""
    story = well_behaved()
    story.send(message(4))
    holder = story.hold(3, writes=1, value="1:w1")
    receive = holder.do(Kind.RECEIVE, message(4))
    complete = holder.do(Kind.COMPLETE, message(4))
    story.operations[-2:] = [replace(one, worker="drain-1") for one in (receive, complete)]
    return story


def test_counters_that_say_what_is_there_are_right() -> None:
    assert found(drained_later(), left_over(Counts(1, 0, 0, 1), [message(4)])) == []


@pytest.mark.parametrize(
    ("counts", "items"),
    [
        (Counts(2, 0, 0, 2), [message(4)]),
        (Counts(1, 1, 0, 1), [message(4)]),
        (Counts(2, 0, 0, 2), [message(4), message(4)]),
        (Counts(2, 0, 0, 2), [message(3), message(4)]),
        (Counts(0, 0, 0, 0), []),
    ],
    ids=["too high", "deferred", "seen twice", "completed", "not seen"],
)
def test_counters_that_say_something_else_are_wrong(counts: Counts, items: list[Item]) -> None:
    assert rules(drained_later(), left_over(counts, items)) == {"counters"}


@pytest.mark.parametrize(
    "ending",
    [
        all_well(drained_ms=NEVER_MS),
        all_well(drained_ms=30_001),
        Ending(0, 100, {}, {ORDERS: Counts(dead=1)}),
    ],
    ids=["never", "late", "with a rest"],
)
def test_a_cluster_that_does_not_get_empty_in_time_is_reported(ending: Ending) -> None:
    assert rules(well_behaved(), ending) == {"not drained"}


# --- figures, and the files ----------------------------------------------------------------------


def test_figures_are_of_what_happened() -> None:
    story = well_behaved()
    story.now_ms = 1_000 + 7_000
    story.send(message(4))
    story.send(message(5), outcome=Outcome.UNKNOWN)

    assert longest_gap_ms(story.operations) == 7_000 - 20
    assert unknown_outcomes(story.operations) == 1


def test_what_a_client_had_begun_when_it_was_killed_is_known(tmp_path: Path) -> None:
    path = tmp_path / "history"
    with Recorder(path) as recorder:
        done = recorder.begin("w", Kind.SEND, ORDERS, items=(message(0, body="one"),))
        recorder.end(done, Outcome.OK, items=(message(1, body="one"),))
        recorder.begin("w", Kind.COMPLETE, ORDERS, session_id="s", grant=3)
    with path.open("a") as half:
        half.write(json.dumps({"worker": "w"})[:-3])

    sent, open_ = read_history([path])

    assert (sent.outcome, sent.items) == (Outcome.OK, (message(1, body="one"),))
    assert (open_.outcome, open_.ended_ms, open_.grant) == (Outcome.UNKNOWN, NEVER_MS, 3)
