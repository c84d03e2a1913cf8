"""One session: its lock, its hand, its order."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.core.ids import SessionId
from lockstep.core.session import Session


def _held(sequences: Iterable[int] = (), *, grant: int = 1) -> Session:
    session = Session(SessionId("s"), turn=0)
    session.add(list(sequences))
    session.grant_to("holder", grant=grant, now_ms=1_000, lock_duration_ms=500)
    return session


def _receive(session: Session, maximum: int) -> list[int]:
    chosen = session.peek_deliverable(maximum)
    if chosen:
        session.deliver(chosen)
    return chosen.tolist()


def test_a_grant_holds_until_its_end_is_recorded() -> None:
    session = _held()

    assert session.is_held
    assert (session.grant, session.holder) == (1, "holder")
    assert (session.granted_ms, session.locked_until_ms) == (1_000, 1_500)


def test_a_held_session_cannot_be_granted() -> None:
    session = _held()

    with pytest.raises(AssertionError, match="held by grant 1"):
        session.grant_to("other", grant=2, now_ms=1_000, lock_duration_ms=500)


def test_a_renewal_moves_the_end_forward_and_never_back() -> None:
    session = _held()

    session.renew(now_ms=1_200, lock_duration_ms=500)
    later = session.locked_until_ms
    session.renew(now_ms=1_300, lock_duration_ms=5)

    assert (later, session.locked_until_ms) == (1_700, 1_700)


def test_a_renewal_ends_the_grace() -> None:
    session = _held()
    session.grace = True

    session.renew(now_ms=1_000, lock_duration_ms=500)

    assert not session.grace


def test_delivery_is_in_order_and_puts_into_the_hand() -> None:
    session = _held([1, 2, 5, 9])

    delivered = [_receive(session, 2), _receive(session, 10), _receive(session, 10)]

    assert delivered == [[1, 2], [5, 9], []]
    assert session.in_hand().tolist() == [1, 2, 5, 9]
    assert (session.in_hand_count, session.deliverable_count) == (4, 0)


def test_a_peek_takes_nothing() -> None:
    session = _held([1, 2])

    peeked = [session.peek_deliverable(1).tolist() for _ in range(2)]

    assert peeked == [[1], [1]]
    assert session.in_hand_count == 0


def test_the_beginning_of_a_peek_may_be_delivered() -> None:
    session = _held([1, 2, 3, 4])
    _receive(session, 3)
    session.give_back(1)
    session.give_back(2)

    session.deliver(session.peek_deliverable(4)[:1])

    assert session.returned == [2]
    assert session.in_hand().tolist() == [1, 3]
    assert _receive(session, 9) == [2, 4]


def test_what_came_back_is_delivered_before_anything_younger() -> None:
    session = _held([1, 2, 3, 4])
    _receive(session, 3)

    session.give_back(3)
    session.give_back(1)

    assert session.in_hand().tolist() == [2]
    assert [session.is_in_hand(sequence) for sequence in (1, 2, 3, 4)] == [
        False,
        True,
        False,
        False,
    ]
    assert _receive(session, 10) == [1, 3, 4]


def test_only_what_was_delivered_and_not_settled_is_in_hand() -> None:
    session = _held([2, 4, 6])
    _receive(session, 2)
    session.remove([2])

    assert [session.is_in_hand(s) for s in (0, 1, 2, 3, 4, 5, 6)] == [
        False,
        False,
        False,
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("sequences", "expected"),
    [
        ([1], True),
        ([1, 2, 3], True),
        ([1, 2, 3, 4], False),
        ([2, 3], False),
        ([1, 3], False),
        ([2, 1], False),
        ([1, 1], False),
        ([], False),
        ([0], False),
        ([2**63, 1], False),
        ([-1, 1], False),
    ],
)
def test_the_short_way_recognises_the_beginning_of_the_hand_only(
    sequences: list[int], expected: bool
) -> None:
    session = _held([1, 2, 3, 4])
    _receive(session, 3)

    assert session.has_in_hand(sequences) == expected


def test_the_short_way_is_not_taken_when_something_came_back() -> None:
    session = _held([1, 2, 3])
    _receive(session, 3)
    session.give_back(1)

    assert not session.has_in_hand([1])
    assert not session.has_in_hand([2])


def test_the_next_messages_in_order_are_not_misordered() -> None:
    session = _held([1, 2, 5, 9])
    _receive(session, 3)
    session.give_back(2)

    assert session.misordered([2, 9]) == 0
    assert session.misordered([2]) == 0


@pytest.mark.parametrize("delivered", [[9], [9, 2], [5, 9], [1, 2, 9]])
def test_a_message_that_is_skipped_overtaken_or_delivered_twice_is_misordered(
    delivered: list[int],
) -> None:
    session = _held([1, 2, 5, 9])
    _receive(session, 3)
    session.give_back(2)

    assert session.misordered(delivered) > 0


def test_a_release_returns_the_hand_and_forgets_the_lock() -> None:
    session = _held([1, 2, 3])
    _receive(session, 2)
    session.give_back(1)

    hand = session.release(turn=7, now_ms=2_000, cause="closed")

    assert hand.tolist() == [2]
    assert not session.is_held
    assert (session.holder, session.cursor, session.returned, session.turn) == ("", 0, [], 7)
    assert session.active().tolist() == [1, 2, 3]
    assert session.is_runnable


def test_a_new_grant_begins_with_the_oldest() -> None:
    session = _held([1, 2, 3])
    _receive(session, 3)
    session.remove([2])
    session.release(turn=1, now_ms=2_000, cause="closed")

    session.grant_to("next", grant=2, now_ms=2_000, lock_duration_ms=500)

    assert session.in_hand_count == 0
    assert _receive(session, 9) == [1, 3]


def test_a_session_is_runnable_when_it_is_free_and_has_a_message() -> None:
    session = Session(SessionId("s"), turn=0)
    empty = session.is_runnable
    session.add([4])
    free = session.is_runnable
    session.grant_to("h", grant=1, now_ms=1, lock_duration_ms=1)

    assert (empty, free, session.is_runnable) == (False, True, False)
    assert session.oldest_active == 4


def test_a_session_is_forgettable_when_nothing_would_be_lost() -> None:
    session = _held([1])
    held = session.is_forgettable
    _receive(session, 1)
    session.remove([1])
    session.state_bytes = 0
    session.release(turn=1, now_ms=2_000, cause="closed")
    with_state = session.is_forgettable
    session.state_bytes = None

    assert (held, with_state, session.is_forgettable) == (False, False, True)
    assert session.oldest_active == 0


def test_many_messages_are_removed_from_the_head_without_leftovers() -> None:
    session = _held(range(1, 3001))

    for first in range(1, 3001, 100):
        assert _receive(session, 100) == list(range(first, first + 100))
        session.remove(list(range(first, first + 100)))
        assert session.active_count == 3000 - first - 99

    session.add([3001])
    assert _receive(session, 9) == [3001]


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_session_is_what_two_sets_would_be(data: st.DataObject) -> None:
    session = _held()
    waiting: set[int] = set()
    hand: set[int] = set()
    last = 0
    for _ in range(data.draw(st.integers(1, 25))):
        match data.draw(st.sampled_from(["add", "receive", "remove", "give_back"])):
            case "add":
                new = list(range(last + 1, last + data.draw(st.integers(1, 6)) * 2, 2))
                last = new[-1]
                session.add(array("q", new))
                waiting.update(new)
            case "receive":
                maximum = data.draw(st.integers(1, 8))
                expected = sorted(waiting)[:maximum]
                assert _receive(session, maximum) == expected
                hand.update(expected)
                waiting.difference_update(expected)
            case "remove" if hand:
                going = sorted(data.draw(st.sets(st.sampled_from(sorted(hand)), min_size=1)))
                session.remove(going)
                hand.difference_update(going)
            case "give_back" if hand:
                back = data.draw(st.sampled_from(sorted(hand)))
                session.give_back(back)
                hand.remove(back)
                waiting.add(back)
        assert session.in_hand().tolist() == sorted(hand)
        assert session.active().tolist() == sorted(hand | waiting)
        assert (session.in_hand_count, session.deliverable_count) == (len(hand), len(waiting))
        assert all(session.is_in_hand(s) == (s in hand) for s in range(last + 2))
