"""Taking back accepts and receives whose answer did not arrive (ADD-3, BAT-9, SES-15)."""

from __future__ import annotations

import pytest

from lockstep.core.commands import Accept, Cancel, GiveUp, RenewSession
from lockstep.core.errors import RequestCancelled, RequestIdExpired
from lockstep.core.ids import RequestId, SessionId
from lockstep.core.limits import Limits
from lockstep.core.replies import Accepted, Cancelled, Renewed
from tests.unit.core.partition_rig import SESSIONS, Rig

REQUEST = RequestId("c", 1)


def test_ses_15_a_lost_connection_undoes_an_accept_and_its_retry_is_granted() -> None:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True)
    accept = Accept(SESSIONS, SessionId("s"), "me", REQUEST)
    first = rig.step(accept, Accepted)

    assert rig.step(Cancel(SESSIONS, REQUEST, is_by_client=False), Cancelled).undone
    again = rig.step(accept, Accepted)

    assert again.session.grant > first.session.grant


def test_ses_15_a_lost_connection_takes_nothing_from_the_copy_that_was_answered() -> None:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True)
    accept = Accept(SESSIONS, SessionId("s"), "me", REQUEST)
    rig.step(accept, Accepted)
    copy = rig.step(accept, Accepted)

    assert not rig.step(Cancel(SESSIONS, REQUEST, is_by_client=False), Cancelled).undone

    rig.step(RenewSession(SESSIONS, copy.session), Renewed)


def test_bat_9_a_lost_connection_leaves_no_mark_for_a_call_that_has_not_come() -> None:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True)

    rig.step(Cancel(SESSIONS, REQUEST, is_by_client=False), Cancelled)

    rig.step(Accept(SESSIONS, SessionId("s"), "me", REQUEST), Accepted)


def test_ses_15_an_accept_that_the_client_cancelled_is_granted_no_more() -> None:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True)
    accept = Accept(SESSIONS, SessionId("s"), "me", REQUEST)
    rig.step(accept, Accepted)

    assert rig.step(Cancel(SESSIONS, REQUEST), Cancelled).undone

    with pytest.raises(RequestCancelled):
        rig.decide(accept)


def test_add_3_a_call_that_is_not_remembered_is_not_called_cancelled() -> None:
    """It may have had an effect, so its repeat must not hear that it had none."""
    rig = Rig(limits=Limits(requests_per_client_max=16))
    rig.create(SESSIONS, requires_session=True)
    accept = Accept(SESSIONS, SessionId("s"), "me", REQUEST)
    rig.step(accept, Accepted)
    for counter in range(2, 40):
        other = SessionId(f"s{counter}")
        rig.step(Accept(SESSIONS, other, "me", RequestId("c", counter)), Accepted)

    assert not rig.step(Cancel(SESSIONS, REQUEST), Cancelled).undone

    with pytest.raises(RequestIdExpired):
        rig.decide(accept)


def test_add_3_a_call_that_was_forgotten_is_not_remembered_as_given_up() -> None:
    rig = Rig(limits=Limits(requests_per_client_max=2))
    rig.create(SESSIONS, requires_session=True)
    given_up = GiveUp(SESSIONS, REQUEST, 0, "accept")
    rig.step(given_up, Cancelled)
    for counter in (2, 3, 4):
        rig.step(GiveUp(SESSIONS, RequestId("c", counter), 0, "accept"), Cancelled)
    assert rig.partition.requests.is_forgotten(REQUEST)

    assert rig.decide(given_up).changes == ()
