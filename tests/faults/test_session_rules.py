"""Each rule about sessions reports a violation that was planted, and none in a history that keeps all promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.history import Kind, Outcome
from tests.faults.story import (
    LOCK_MS,
    PLAIN,
    Holder,
    Story,
    found,
    in_plain_queue,
    message,
    rules,
    well_behaved,
)


def test_an_effect_under_a_grant_after_the_next_one_was_given_is_interleaved() -> None:
    story = well_behaved()
    story.send(message(4))
    first = story.hold(3, writes=1, value="1:w1")
    first.do(Kind.RECEIVE, message(4))
    story.now_ms += LOCK_MS
    story.hold(4, writes=1, value="1:w1")
    first.do(Kind.COMPLETE, message(4))

    assert rules(story) == {"interleaved"}


@pytest.mark.parametrize("grant", [2, 1], ids=["the same", "an older one"])
def test_grants_that_do_not_rise_are_interleaved(grant: int) -> None:
    story = well_behaved()
    story.hold(grant, writes=1, value="1:w1")

    assert "interleaved" in rules(story)


def test_a_session_that_is_given_away_while_it_is_held_is_seized() -> None:
    story = well_behaved()
    story.hold(3, writes=1, value="1:w1")
    story.hold(4, writes=1, value="1:w1")

    assert rules(story) == {"seized"}


def test_a_session_lock_that_ends_before_its_time_is_lost() -> None:
    story = well_behaved()
    holder = story.hold(3, writes=1, value="1:w1")
    holder.do(Kind.RENEW, outcome=Outcome.FAILED, reason="SESSION_LOCK_LOST")

    assert rules(story) == {"lock lost"}


def test_a_session_lock_may_end_at_its_time() -> None:
    story = well_behaved()
    holder = story.hold(3, writes=1, value="1:w1")
    story.now_ms += LOCK_MS
    holder.do(Kind.RENEW, outcome=Outcome.FAILED, reason="SESSION_LOCK_LOST")

    assert found(story) == []


def test_a_session_lock_that_ends_in_an_outage_of_its_owner_is_lost() -> None:
    story = well_behaved()
    holder = story.hold(3, writes=1, value="1:w1")
    late_ms = story.now_ms + LOCK_MS + 1_000
    holder.do(Kind.RENEW, outcome=Outcome.FAILED, reason="SESSION_LOCK_LOST", ended_ms=late_ms)

    assert found(story) == []
    assert rules(story, locks_survive=True) == {"lock lost"}


def with_two_more(receive: Callable[[Holder], object]) -> Story:
    story = well_behaved()
    story.send(message(4), message(5))
    holder = story.hold(3, writes=1, value="1:w1")
    receive(holder)
    holder.do(Kind.COMPLETE, message(4), message(5))
    return story


@pytest.mark.parametrize(
    "receive",
    [
        lambda holder: holder.do(Kind.RECEIVE, message(5), message(4)),
        lambda holder: holder.do(Kind.RECEIVE, message(5)),
        lambda holder: [holder.do(Kind.RECEIVE, message(4)) for _ in range(2)],
    ],
    ids=["backwards", "passed over", "twice"],
)
def test_deliveries_out_of_order_are_misordered(receive: Callable[[Holder], object]) -> None:
    assert rules(with_two_more(receive)) == {"misordered"}


def test_an_abandoned_message_comes_before_younger_ones() -> None:
    def receive(holder: Holder) -> None:
        holder.do(Kind.RECEIVE, message(4))
        holder.do(Kind.ABANDON, message(4))
        holder.do(Kind.RECEIVE, message(5))

    assert rules(with_two_more(receive)) == {"misordered"}


def test_what_may_have_come_unseen_may_be_missing() -> None:
    def receive(holder: Holder) -> None:
        holder.do(Kind.RECEIVE, outcome=Outcome.UNKNOWN, reason="UNAVAILABLE")
        holder.do(Kind.RECEIVE, message(5))

    assert found(with_two_more(receive)) == []


@pytest.mark.parametrize("count", [0, 2])
def test_a_count_that_is_not_that_of_the_failed_deliveries_is_wrong(count: int) -> None:
    story = well_behaved()
    story.send(message(4))
    holder = story.hold(3, writes=1, value="1:w1")
    holder.do(Kind.RECEIVE, message(4))
    holder.do(Kind.ABANDON, message(4))
    holder.do(Kind.RECEIVE, message(4, count=count))
    holder.do(Kind.COMPLETE, message(4))

    assert rules(story) == {"miscounted"}


def given_back(count: int, *, after_ms: int = 0) -> Story:
    """A message is delivered, and again to the next holder, with this count."""
    story = well_behaved()
    story.send(message(4))
    first = story.hold(3, writes=1, value="1:w1")
    first.do(Kind.RECEIVE, message(4))
    story.now_ms += after_ms
    first.do(Kind.RELEASE)
    second = story.hold(4, writes=1, value="1:w1")
    second.do(Kind.RECEIVE, message(4, count=count))
    second.do(Kind.COMPLETE, message(4))
    return story


def test_a_session_that_is_given_back_counts_nothing() -> None:
    assert found(given_back(0)) == []
    assert rules(given_back(1)) == {"miscounted"}


def test_a_lock_that_ran_out_counts_once_unless_an_outage_made_it_a_close() -> None:
    late_ms = LOCK_MS + 500

    assert found(given_back(1, after_ms=late_ms), is_calm=True) == []
    assert found(given_back(0, after_ms=late_ms)) == []
    assert rules(given_back(0, after_ms=late_ms), is_calm=True) == {"miscounted"}
    assert rules(given_back(2, after_ms=late_ms)) == {"miscounted"}


def test_a_lock_of_a_message_that_ran_out_may_count_even_if_its_receiver_abandons_it_later() -> (
    None
):
    for count in (0, 1):
        story = well_behaved()
        story.add(Kind.SEND, "sender", PLAIN, items=(in_plain_queue(2),))
        story.plain(Kind.RECEIVE, in_plain_queue(2))
        story.now_ms += LOCK_MS
        story.plain(Kind.RECEIVE, in_plain_queue(2, count=count))
        story.plain(Kind.ABANDON, in_plain_queue(2))
        story.plain(Kind.RECEIVE, in_plain_queue(2, count=count + 1))
        story.plain(Kind.COMPLETE, in_plain_queue(2))

        assert found(story) == []


def test_what_came_to_a_client_that_stood_still_may_be_counted() -> None:
    def counted(*, for_ms: int) -> Story:
        story = well_behaved()
        story.add(Kind.SEND, "sender", PLAIN, items=(in_plain_queue(2),))
        story.plain(Kind.RECEIVE, ended_ms=story.now_ms + for_ms, worker="still")
        story.now_ms += for_ms
        story.plain(Kind.RECEIVE, in_plain_queue(2, count=1))
        story.plain(Kind.COMPLETE, in_plain_queue(2))
        return story

    assert found(counted(for_ms=LOCK_MS)) == []
    assert rules(counted(for_ms=100)) == {"miscounted"}


@pytest.mark.parametrize("count", [0, 2])
def test_counts_of_a_plain_queue_are_judged_too(count: int) -> None:
    story = well_behaved()
    story.add(Kind.SEND, "sender", PLAIN, items=(in_plain_queue(2),))
    story.plain(Kind.RECEIVE, in_plain_queue(2))
    story.plain(Kind.ABANDON, in_plain_queue(2))
    story.plain(Kind.RECEIVE, in_plain_queue(2, count=count))
    story.plain(Kind.COMPLETE, in_plain_queue(2))

    assert rules(story) == {"miscounted"}


# --- state ---------------------------------------------------------------------------------------


def test_writes_that_do_not_follow_on_each_other_are_reported() -> None:
    story = well_behaved()
    story.hold(3, writes=1, value="1:w1").write(1)

    assert rules(story) == {"state"}


def test_a_version_that_does_not_rise_is_reported() -> None:
    story = well_behaved()
    story.hold(3, writes=1, value="1:w1").write(2, version=1)

    assert rules(story) == {"state"}


def test_an_acknowledged_write_that_the_next_holder_does_not_see_is_lost() -> None:
    story = well_behaved()
    holder = story.hold(3, writes=1, value="1:w1")
    holder.write(2)
    holder.do(Kind.RELEASE)
    story.hold(4, writes=1, value="1:w1")

    assert rules(story) == {"state"}


def test_a_state_that_nobody_wrote_is_reported() -> None:
    story = well_behaved()
    story.hold(3, writes=2, value="2:somebody")

    assert rules(story) == {"state"}


def test_a_write_of_which_nothing_is_known_may_be_seen_or_not() -> None:
    for seen in ({"writes": 1, "value": "1:w1"}, {"writes": 2, "value": "2:w3"}):
        story = well_behaved()
        holder = story.hold(3, writes=1, value="1:w1")
        holder.write(2, outcome=Outcome.UNKNOWN, reason="UNAVAILABLE")
        story.now_ms += LOCK_MS
        story.hold(4, **seen)

        assert found(story) == []


def test_a_write_that_is_seen_must_not_vanish_again() -> None:
    story = well_behaved()
    holder = story.hold(3, writes=1, value="1:w1")
    holder.write(2, outcome=Outcome.UNKNOWN, reason="UNAVAILABLE")
    holder.do(Kind.GET_STATE, writes=2, value="2:w3")
    holder.do(Kind.GET_STATE, writes=1, value="1:w1")

    assert rules(story) == {"state"}


def test_a_holder_that_knows_the_state_is_not_refused() -> None:
    story = well_behaved()
    holder = story.hold(3, writes=1, value="1:w1")
    holder.write(2, outcome=Outcome.FAILED, reason="STATE_CONFLICT")

    assert rules(story) == {"state"}


# --- turns ---------------------------------------------------------------------------------------


def doubtful_turn(then: Callable[[Holder], object]) -> Story:
    """Message 4 is completed, message 5 sent, and the second state written in one commit of which nothing is known."""
    story = well_behaved()
    story.send(message(4))
    first = story.hold(3, writes=1, value="1:w1")
    first.do(Kind.RECEIVE, message(4))
    unknown = {"outcome": Outcome.UNKNOWN, "reason": "UNAVAILABLE", "turn": 1}
    first.do(Kind.COMPLETE, message(4), **unknown)
    first.do(Kind.SEND, message(0, body="body-5"), **unknown)
    first.write(2, **unknown)
    story.now_ms += LOCK_MS
    then(story.hold(4, writes=1, value="1:w1"))
    return story


def test_a_turn_that_did_not_happen_leaves_everything_as_it_was() -> None:
    def then(second: Holder) -> None:
        second.do(Kind.RECEIVE, message(4))
        second.do(Kind.COMPLETE, message(4))

    assert found(doubtful_turn(then)) == []


def test_a_turn_of_which_the_messages_are_seen_but_not_the_state_is_torn() -> None:
    def then(second: Holder) -> None:
        second.do(Kind.RECEIVE, message(5))
        second.write(2)
        second.do(Kind.COMPLETE, message(5))

    assert "state" in rules(doubtful_turn(then))


def test_a_turn_of_which_the_state_is_seen_but_not_the_messages_is_torn() -> None:
    def then(second: Holder) -> None:
        second.do(Kind.GET_STATE, writes=2, value="2:w3")
        second.do(Kind.RECEIVE, message(4))

    assert {"lost", "revived"} <= rules(doubtful_turn(then))
