"""The memory of how locks ended."""

from __future__ import annotations

import pytest

from lockstep.core.commands import Accept, Tick
from lockstep.core.errors import SessionLockLost
from lockstep.core.ids import SessionId
from lockstep.core.locks import CLOSED, EXPIRED, GRACE_ENDED, LossMemory
from tests.unit.core.partition_rig import SESSIONS, Rig


@pytest.mark.parametrize("cause", [CLOSED, EXPIRED, GRACE_ENDED, "cancelled"])
def test_every_cause_is_remembered_with_a_sentence_and_a_time(cause: str) -> None:
    memory = LossMemory(10, since_ms=0)
    memory.note(3, cause, 77)

    found, sentence, at_ms = memory.explain(3, last_grant=5)

    assert (found, at_ms) == (cause, 77)
    assert "77" in sentence


def test_a_grant_that_was_never_given_is_unknown() -> None:
    memory = LossMemory(10, since_ms=0)

    assert [memory.explain(grant, last_grant=5)[0] for grant in (-1, 0, 6)] == ["unknown"] * 3


def test_a_grant_that_ended_before_the_opening_says_when_that_was() -> None:
    memory = LossMemory(10, since_ms=123)
    memory.forget_up_to(3)

    cause, sentence, at_ms = memory.explain(3, last_grant=5)

    assert (cause, at_ms) == ("ended_earlier", 0)
    assert "123" in sentence


def test_only_so_many_are_remembered_the_last_ones() -> None:
    memory = LossMemory(2, since_ms=0)
    for grant in (1, 2, 3):
        memory.note(grant, CLOSED, grant)

    causes = [memory.explain(grant, last_grant=3)[0] for grant in (1, 2, 3)]

    assert causes == ["ended_earlier", "closed", "closed"]


@pytest.mark.parametrize(("holder", "names_it"), [("worker", True), ("", False)])
def test_a_lost_lock_names_who_has_the_session_now_if_they_have_a_name(
    holder: str, names_it: bool
) -> None:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True)
    lost = rig.accept()
    rig.now_ms += 3_600_000
    rig.decide(Tick())
    rig.decide(Accept(SESSIONS, SessionId("s"), holder))

    with pytest.raises(SessionLockLost) as caught:
        rig.receive(lost)

    assert caught.value.details["holder"] == holder
    assert (f"for '{holder}'" in caught.value.message) is names_it
