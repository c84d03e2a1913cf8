"""The order in which accept-next hands out sessions (SES-13)."""

from __future__ import annotations

import pytest

from lockstep.core.ids import SessionId
from lockstep.core.session import Session
from lockstep.core.turns import RunnableSessions


def session(name: str, *, turn: int, oldest: int) -> Session:
    made = Session(SessionId(name), turn)
    made.add([oldest])
    return made


def test_ses_13_a_lower_turn_goes_first_and_then_the_older_message() -> None:
    sessions = RunnableSessions()
    for made in (
        session("released", turn=2, oldest=1),
        session("young", turn=1, oldest=9),
        session("old", turn=1, oldest=3),
    ):
        sessions.offer(made)

    assert sessions.in_order() == ["old", "young", "released"]
    assert sessions.first() == "old"


def test_a_session_that_is_withdrawn_leaves_nothing_behind() -> None:
    sessions = RunnableSessions()
    made = session("s", turn=0, oldest=1)
    for turn in range(5):
        made.turn = turn
        sessions.offer(made)
        sessions.withdraw(made)

    assert (len(sessions), sessions.first(), made.offered_at) == (0, None, None)


def test_a_session_is_withdrawn_from_where_it_was_put() -> None:
    sessions = RunnableSessions()
    made = session("s", turn=0, oldest=5)
    sessions.offer(made)
    made.put_back([1])

    sessions.withdraw(made)

    assert len(sessions) == 0


def test_what_was_not_offered_cannot_be_withdrawn() -> None:
    with pytest.raises(AssertionError, match="was not offered"):
        RunnableSessions().withdraw(session("s", turn=0, oldest=1))
