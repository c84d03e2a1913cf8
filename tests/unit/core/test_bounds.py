"""What a partition reads, remembers and says is bounded and true."""

from __future__ import annotations

import pytest

from lockstep.core import commands as c
from lockstep.core import replies
from lockstep.core.changes import RequestRow
from lockstep.core.commands import Outcome
from lockstep.core.errors import LimitExceeded, SessionLockLost
from lockstep.core.ids import GrantNumber, RequestId, SessionId, SessionLock
from lockstep.core.limits import Limits
from tests.unit.core.partition_rig import PLAIN, SESSIONS, Rig, changes_of


def test_law_6_a_receive_reads_only_so_many_bytes_of_chunks() -> None:
    rig = Rig(limits=Limits(load_bytes_max=3_000))
    rig.create(SESSIONS, requires_session=True)
    for _ in range(5):
        rig.step(c.Send(SESSIONS, (b"x", bytes(1_200)), ("s", "other")), replies.Sent)
    lock = rig.accept()

    got = rig.step(c.Receive(SESSIONS, False, lock, 10), replies.Delivered)

    assert (len(got.sequences), got.short) == (2, replies.Short.RESPONSE_SIZE)
    assert len(rig.receive(lock, 10).sequences) == 2


def test_p_4_a_live_token_shown_with_another_session_is_not_called_over() -> None:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True)
    lock = rig.accept("a")

    with pytest.raises(SessionLockLost, match="belongs to another session") as lost:
        rig.decide(c.RenewSession(SESSIONS, SessionLock(SessionId("b"), lock.grant)))

    assert lost.value.details["cause"] == "never_held"


def test_p_4_a_lock_that_ended_with_its_queue_says_so() -> None:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True)
    lock = rig.accept("a")
    gone = rig.step(c.DeleteQueue(SESSIONS), replies.Uncatalogued)
    rig.decide(c.ApplyDeletion(gone.entity, gone.revision))
    rig.create(SESSIONS, requires_session=True)

    with pytest.raises(SessionLockLost, match="its queue was deleted"):
        rig.decide(c.RenewSession(SESSIONS, lock))


def test_lim_1_a_queue_of_a_small_installation_has_settings_that_it_allows() -> None:
    rig = Rig(limits=Limits(message_bytes_max=512 * 1024))

    settings = rig.create(PLAIN).settings

    assert settings.max_message_size_in_kilobytes == 512
    assert settings.max_session_state_size_in_kilobytes == 512


def test_ent_9_a_queue_keeps_a_size_that_the_installation_allows_no_more() -> None:
    rig = Rig()
    rig.create(PLAIN)
    rig.partition.limits = Limits(message_bytes_max=512 * 1024)

    updated = rig.step(c.UpdateQueue(PLAIN, {"max_delivery_count": 3}), replies.Catalogued)

    assert updated.definition.settings.max_message_size_in_kilobytes == 1024
    with pytest.raises(LimitExceeded):
        rig.decide(c.UpdateQueue(PLAIN, {"max_message_size_in_kilobytes": 1025}))


def test_bat_10_stale_tokens_are_remembered_in_few_bytes() -> None:
    rig = Rig()
    rig.create(PLAIN)
    stale = c.Settlement(Outcome.COMPLETE, GrantNumber(3), range(1, 8_000))

    decision = rig.decide(c.Settle(PLAIN, False, None, (stale,), RequestId("c", 1)))

    (row,) = changes_of(decision, RequestRow)
    assert len(row.result) < 100
