"""The seam of a partition: time, definitions, wakes, and where it may not go (design section 2)."""

from __future__ import annotations

import pytest

from lockstep.core import commands as c
from lockstep.core import replies
from lockstep.core.changes import (
    CatalogueRow,
    DropEntity,
    EntityRow,
    LockRow,
    PartitionRow,
    SessionRow,
)
from lockstep.core.commands import Outcome
from lockstep.core.decision import Event, Wake
from lockstep.core.errors import (
    EntityNotFound,
    InvalidOperation,
    InvalidRequest,
    MessageSizeExceeded,
    RequestIdReused,
)
from lockstep.core.ids import EntityKey, GrantNumber, RequestId, SessionId, SessionLock
from lockstep.core.limits import Limits
from tests.unit.core.partition_rig import PLAIN, SESSIONS, Rig, changes_of


def _with_sessions(**settings: int) -> Rig:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True, **settings)
    return rig


def test_time_may_not_go_back() -> None:
    rig = Rig()
    rig.create(PLAIN)

    with pytest.raises(AssertionError, match="time went back"):
        rig.partition.step(c.Tick(), 999)


def test_a_tick_must_come_before_other_commands_when_one_is_due() -> None:
    rig = _with_sessions(lock_duration_ms=5_000)
    rig.accept()
    rig.now_ms += 5_000

    with pytest.raises(AssertionError, match="a tick is due"):
        rig.send(SESSIONS, b"1", session="s")


def test_a_tick_does_what_is_due_once() -> None:
    rig = _with_sessions(lock_duration_ms=5_000)
    rig.accept()
    rig.now_ms += 5_000

    first, second = rig.decide(c.Tick()), rig.decide(c.Tick())

    assert first.changes
    assert not second.changes
    assert not rig.partition.is_due(rig.now_ms)


def test_a_tick_that_comes_early_changes_nothing() -> None:
    rig = _with_sessions(lock_duration_ms=5_000)
    rig.accept()

    assert not rig.decide(c.Tick()).changes


def test_every_step_that_changes_something_stores_the_counters_and_the_time() -> None:
    rig = _with_sessions()
    rig.now_ms = 2_000

    rig.send(SESSIONS, b"1", session="s")
    decision = rig.decide(c.Accept(SESSIONS, SessionId("s"), "h"))

    assert decision.changes[-1] == PartitionRow(2_000, 1, 1, rig.partition.last_revision)


def test_a_step_that_only_looks_changes_nothing() -> None:
    rig = _with_sessions()
    rig.send(SESSIONS, b"1", session="s")
    looks: list[c.Command] = [
        c.GetRuntime(SESSIONS),
        c.ListSessions(SESSIONS, 10),
        c.GetSession(SESSIONS, SessionId("s")),
        c.ListDefinitions(),
        c.Accept(SESSIONS, None, "h"),
    ]

    assert [bool(rig.decide(look).changes) for look in looks] == [False] * 4 + [True]


def test_a_command_that_is_refused_does_not_move_time() -> None:
    rig = _with_sessions()

    with pytest.raises(InvalidOperation):
        rig.partition.step(c.Receive(SESSIONS, False, None, 1), 5_000)

    assert rig.partition.last_time_ms == 1_000


def test_numbers_carry_their_partition() -> None:
    rig = Rig(partition=3)
    definition = Rig().create(PLAIN)
    rig.decide(c.ApplyDefinition(definition))

    assert rig.send(PLAIN, b"1") == (3 << 48) + 1


def test_only_partition_0_keeps_the_catalogue() -> None:
    rig = Rig(partition=3)

    for command in (
        c.CreateQueue("default", "a", {}, "u"),
        c.UpdateQueue(PLAIN, {}),
        c.DeleteQueue(PLAIN),
        c.ListDefinitions(),
    ):
        with pytest.raises(InvalidRequest):
            rig.decide(command)


def test_the_catalogue_knows_a_queue_before_any_partition_holds_it() -> None:
    """ADD-12: changed there first, then applied."""
    rig = Rig()
    rig.decide(c.CreateQueue("default", "plain", {}, "u"))

    with pytest.raises(EntityNotFound):
        rig.send(PLAIN, b"1")


def test_a_created_queue_is_entered_with_a_new_number_and_revision() -> None:
    rig = Rig()

    decision = rig.decide(c.CreateQueue("Team", "Orders", {}, "u"))

    assert isinstance(decision.reply, replies.Catalogued)
    definition = decision.reply.definition
    assert (definition.key, definition.number, definition.revision) == (
        EntityKey("team", "orders"),
        1,
        1,
    )
    assert (definition.created_ms, definition.updated_ms) == (1_000, 1_000)
    (row,) = changes_of(decision, CatalogueRow)
    assert (row.entity, row.revision) == (1, 1)


def test_definitions_that_are_made_twice_under_one_request_are_the_same() -> None:
    """ADD-3 for the administration."""
    rig = Rig()
    request = RequestId("a", 1)
    create = c.CreateQueue("default", "plain", {}, "u1", request, 5)
    first = rig.step(create, replies.Catalogued)
    update = c.UpdateQueue(PLAIN, {"max_delivery_count": 2}, 0, RequestId("a", 2), 6)
    second = rig.step(update, replies.Catalogued)

    assert rig.step(create, replies.Catalogued).definition.uid == first.definition.uid
    assert rig.step(update, replies.Catalogued).definition == second.definition
    with pytest.raises(RequestIdReused):
        rig.decide(c.CreateQueue("default", "other", {}, "u2", request, 9))


def test_a_repeated_deletion_is_answered_and_does_not_delete_a_successor() -> None:
    rig = Rig()
    rig.create(PLAIN)
    delete = c.DeleteQueue(PLAIN, RequestId("a", 1), 5)
    first = rig.step(delete, replies.Uncatalogued)
    rig.step(c.CreateQueue("default", "plain", {}, "second"), replies.Catalogued)

    assert rig.step(delete, replies.Uncatalogued) == first
    assert len(rig.step(c.ListDefinitions(), replies.Definitions).queues) == 1


def test_definitions_are_applied_once_and_older_ones_do_nothing() -> None:
    rig = Rig()
    old = rig.create(PLAIN)
    new = rig.step(c.UpdateQueue(PLAIN, {"max_delivery_count": 2}), replies.Catalogued).definition

    assert rig.step(c.ApplyDefinition(new), replies.Applied).revision == new.revision
    assert not rig.decide(c.ApplyDefinition(new)).changes
    assert rig.step(c.ApplyDefinition(old), replies.Applied).revision == new.revision

    assert rig.partition.queues[PLAIN].definition == new


def test_a_successor_that_is_applied_before_the_deletion_drops_its_predecessor() -> None:
    """ADD-12: a partition that was closed may see only the last state of the catalogue."""
    rig = Rig()
    old = rig.create(PLAIN)
    rig.send(PLAIN, b"1")
    deleted = rig.step(c.DeleteQueue(PLAIN), replies.Uncatalogued)
    new = rig.step(c.CreateQueue("default", "plain", {}, "second"), replies.Catalogued).definition

    decision = rig.decide(c.ApplyDefinition(new))
    late = rig.decide(c.ApplyDeletion(deleted.entity, deleted.revision))

    assert DropEntity(old.number) in decision.changes
    assert [row.entity for row in changes_of(decision, EntityRow)] == [new.number]
    assert not late.changes
    assert rig.send(PLAIN, b"2") == 1


def test_a_predecessor_s_definition_that_comes_late_does_nothing() -> None:
    rig = Rig()
    old = rig.create(PLAIN)
    rig.decide(c.DeleteQueue(PLAIN))
    new = rig.step(c.CreateQueue("default", "plain", {}, "second"), replies.Catalogued).definition
    rig.decide(c.ApplyDefinition(new))

    assert not rig.decide(c.ApplyDefinition(old)).changes

    assert rig.partition.queues[PLAIN].number == new.number


def test_a_deleted_queue_s_definition_that_comes_late_does_nothing() -> None:
    """ADD-12: partitions apply revisions in order, idempotently; never back to an older one."""
    rig = Rig()
    definition = rig.create(PLAIN)
    deleted = rig.step(c.DeleteQueue(PLAIN), replies.Uncatalogued)
    rig.decide(c.ApplyDeletion(deleted.entity, deleted.revision))

    rig.decide(c.ApplyDefinition(definition))

    with pytest.raises(EntityNotFound):
        rig.send(PLAIN, b"1")


def test_an_unknown_setting_is_refused() -> None:
    rig = Rig()

    with pytest.raises(InvalidRequest):
        rig.decide(c.CreateQueue("default", "plain", {"unknown": 1}, "u"))


def test_a_message_for_a_free_session_wakes_those_who_wait_for_any() -> None:
    rig = _with_sessions()
    number = rig.partition.queues[SESSIONS].number

    decision = rig.decide(c.Send(SESSIONS, (b"1",), ("s",)))

    assert decision.wake == (Wake(number),)


def test_a_message_for_a_held_session_wakes_its_holder_only() -> None:
    rig = _with_sessions()
    number = rig.partition.queues[SESSIONS].number
    rig.accept()

    decision = rig.decide(c.Send(SESSIONS, (b"1",), ("s",)))

    assert decision.wake == (Wake(number, SessionId("s")),)


def test_a_lock_that_ends_wakes_its_holder_and_those_who_wait_for_any() -> None:
    """P-5: the holder's waiting receive must be told."""
    rig = _with_sessions(lock_duration_ms=5_000)
    number = rig.partition.queues[SESSIONS].number
    rig.send(SESSIONS, b"1", session="s")
    lock = rig.accept()
    closing = rig.decide(c.ReleaseSession(SESSIONS, lock))
    rig.accept()
    rig.now_ms += 5_000

    expiring = rig.decide(c.Tick())

    expected = {Wake(number, SessionId("s"), lost=True), Wake(number)}
    assert set(closing.wake) == expected
    assert set(expiring.wake) == expected


def test_a_deleted_queue_wakes_everybody_who_waits_on_it() -> None:
    rig = _with_sessions()
    number = rig.partition.queues[SESSIONS].number

    decision = rig.decide(c.ApplyDeletion(number, 9))

    assert decision.wake == (Wake(number, lost=True),)


def test_a_dead_letter_wakes_those_who_wait_for_dead_letters() -> None:
    rig = Rig()
    rig.create(PLAIN)
    rig.send(PLAIN, b"1")
    got = rig.receive(None)
    number = rig.partition.queues[PLAIN].number

    settlement = c.Settlement(Outcome.DEAD_LETTER, got.grant, (1,))
    decision = rig.decide(c.Settle(PLAIN, False, None, (settlement,)))

    assert Wake(number, dead_letter=True) in decision.wake


def test_a_whole_batch_is_one_session_row() -> None:
    """Design law 7: delivery bookkeeping is one row for each batch."""
    rig = _with_sessions()
    rig.send(SESSIONS, *([b"x"] * 100), session="s")
    lock = rig.accept()

    decision = rig.decide(c.Receive(SESSIONS, False, lock, 100))

    (row,) = changes_of(decision, SessionRow)
    assert (row.cursor, row.returned) == (100, b"")
    assert len(decision.changes) == 2


def test_what_a_receive_says_of_its_messages_is_what_was_sent() -> None:
    rig = _with_sessions()
    rig.send(SESSIONS, b"a", b"bb", session="s")
    rig.now_ms = 1_500
    rig.send(SESSIONS, b"ccc", session="s")
    lock = rig.accept()

    got = rig.receive(lock)

    assert got.sequences.tolist() == [1, 2, 3]
    assert got.chunks.tolist() == [1, 1, 2]
    assert got.places.tolist() == [0, 1, 0]
    assert got.enqueued_ms.tolist() == [1_000, 1_000, 1_500]
    assert got.counts == ()
    assert (got.grant, got.short) == (lock.grant, replies.Short.NO_MORE_MESSAGES)


def test_a_receive_says_why_it_is_short() -> None:
    rig = Rig(limits=Limits(response_bytes_max=100))
    rig.create(PLAIN)
    rig.send(PLAIN, *([b"x" * 40] * 5))

    reasons = [rig.receive(None, maximum).short for maximum in (1, 9, 9, 9)]

    assert reasons == [
        replies.Short.NO,
        replies.Short.RESPONSE_SIZE,
        replies.Short.NO_MORE_MESSAGES,
        replies.Short.NO_MORE_MESSAGES,
    ]


def test_facts_for_metrics_are_counted_with_their_causes() -> None:
    rig = _with_sessions(max_delivery_count=2)
    number = rig.partition.queues[SESSIONS].number
    rig.send(SESSIONS, b"1", session="s")
    lock = rig.accept()
    got = rig.receive(lock)

    settlement = c.Settlement(Outcome.ABANDON, got.grant, (1,))
    abandoned = rig.decide(c.Settle(SESSIONS, False, lock, (settlement,)))
    again = rig.decide(c.Receive(SESSIONS, False, lock, 9))
    last = rig.decide(c.Settle(SESSIONS, False, lock, (settlement,)))

    assert Event(number, "delivery_count", "abandoned") in abandoned.events
    assert Event(number, "delivered", "redelivery") in again.events
    assert Event(number, "dead_lettered", "max_delivery") in last.events


async def test_a_call_that_is_refused_changes_not_even_the_grace() -> None:
    """Design law 1: raised means nothing changed. What is in memory would differ after the next restart."""
    rig = _with_sessions(max_session_state_size_in_kilobytes=1)
    lock = rig.accept()
    reopened = await rig.reopened(2_000)

    with pytest.raises(MessageSizeExceeded):
        reopened.step(c.SetState(SESSIONS, lock, bytes(2_000)), 2_000)

    assert reopened.queues[SESSIONS].sessions[lock.session_id].grace


def test_an_id_of_another_kind_of_call_is_refused_though_its_payload_looks_the_same() -> None:
    rig = _with_sessions()
    rig.create(PLAIN)
    request = RequestId("a", 1)
    rig.decide(c.Send(PLAIN, (b"1",), (None,), request, 5))

    for command in (
        c.Receive(PLAIN, False, None, 1, request, 5),
        c.Accept(SESSIONS, None, "h", request, 5),
        c.Settle(PLAIN, False, None, (), request, 5),
        c.DeleteQueue(PLAIN, request, 5),
    ):
        with pytest.raises(RequestIdReused, match="send"):
            rig.decide(command)


def test_a_lock_of_a_partition_s_other_queue_opens_nothing() -> None:
    rig = _with_sessions()
    rig.create(PLAIN)
    lock = SessionLock(SessionId("s"), GrantNumber(1))

    with pytest.raises(InvalidOperation):
        rig.decide(c.Receive(PLAIN, False, lock, 1))


def test_add_3_a_repeated_update_that_changed_nothing_reverts_no_later_one() -> None:
    rig = Rig()
    rig.create(PLAIN, max_delivery_count=5)
    first = c.UpdateQueue(PLAIN, {"max_delivery_count": 5}, request=RequestId("a", 1))
    rig.step(first, replies.Catalogued)
    rig.step(c.UpdateQueue(PLAIN, {"max_delivery_count": 7}), replies.Catalogued)

    repeated = rig.step(first, replies.Catalogued)

    assert repeated.definition.settings.max_delivery_count == 7


def test_bat_6_the_reasons_of_dead_letters_count_toward_the_size_of_a_response() -> None:
    rig = Rig(limits=Limits(response_bytes_max=10_000))
    rig.create(PLAIN)
    rig.send(PLAIN, *[b"x"] * 10)
    delivered = rig.receive(None)
    dead = c.Settlement(Outcome.DEAD_LETTER, delivered.grant, delivered.sequences, "é" * 1000)
    rig.step(c.Settle(PLAIN, False, None, (dead,)), replies.Settled)

    received = rig.step(c.Receive(PLAIN, True, None, 100), replies.Delivered)

    assert len(received.sequences) == 4  # each has 1 byte and 2,000 of reason
    assert received.short is replies.Short.RESPONSE_SIZE


@pytest.mark.parametrize("key", [PLAIN, SESSIONS], ids=["plain", "sessions"])
def test_bat_10_a_call_writes_its_lock_once_however_many_settlements_it_has(
    key: EntityKey,
) -> None:
    rig = Rig()
    rig.create(key, requires_session=key == SESSIONS)
    rig.send(key, *[b"x"] * 20, session="s" if key == SESSIONS else None)
    lock = rig.accept() if key == SESSIONS else None
    got = rig.receive(lock, 20)
    each = tuple(c.Settlement(Outcome.ABANDON, got.grant, (s,)) for s in got.sequences[:10])

    decision = rig.decide(c.Settle(key, False, lock, each))

    assert len(changes_of(decision, SessionRow if lock else LockRow)) == 1


def test_lck_5_a_token_of_a_dead_letter_touches_no_lock_when_it_is_settled_elsewhere() -> None:
    rig = Rig()
    rig.create(PLAIN)
    rig.send(PLAIN, b"x")
    got = rig.receive(None)
    rig.settle(None, Outcome.DEAD_LETTER, got.grant, got.sequences)
    dead = rig.step(c.Receive(PLAIN, True, None, 1), replies.Delivered)

    wrong = c.Settlement(Outcome.COMPLETE, dead.grant, dead.sequences)
    decision = rig.decide(c.Settle(PLAIN, False, None, (wrong,)))

    assert not [change for change in decision.changes if not isinstance(change, PartitionRow)]


def test_a_delivery_out_of_order_is_noted_where_it_is_looked_for() -> None:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True)
    rig.send(SESSIONS, *(b"x" for _ in range(128)), session="s")
    lock = rig.accept()
    session = rig.partition.queues[SESSIONS].sessions[lock.session_id]
    session.take_out([127])
    session.add([127])  # which must be younger than all before, and is not

    decision = rig.decide(c.Receive(SESSIONS, False, lock, 128))

    wrong = [event.count for event in decision.events if event.name == "order_violations"]
    assert wrong == [2]


def test_a_delivery_in_order_is_not_noted() -> None:
    rig = Rig()
    rig.create(SESSIONS, requires_session=True)
    rig.send(SESSIONS, *(b"x" for _ in range(127)), session="s")

    decision = rig.decide(c.Receive(SESSIONS, False, rig.accept(), 128))

    names = {event.name for event in decision.events}
    assert "delivered" in names
    assert "order_violations" not in names
