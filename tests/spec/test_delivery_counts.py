"""How often a message was delivered without success, and what becomes of it (section 4.3 of the contract)."""

from __future__ import annotations

from tests.spec.driver import (
    Broker,
    DeadLetters,
    abandon,
    bodies,
    complete,
    counts,
    dead_letter,
    give_back,
    hold,
    needs_clock,
    needs_restart,
    numbered,
)
from tests.spec.stocked import L, both_kinds, held_again, stocked

DEAD = DeadLetters("orders")


@both_kinds
async def test_dcn_1_a_first_delivery_shows_0(broker: Broker, has_sessions: bool) -> None:
    source = await stocked(broker, numbered(2), has_sessions=has_sessions)

    assert counts(await broker.receive(source)) == [0, 0]


@both_kinds
async def test_dcn_2_every_abandon_counts_one(broker: Broker, has_sessions: bool) -> None:
    source = await stocked(broker, numbered(1), has_sessions=has_sessions)

    seen = []
    for _ in range(4):
        got = await broker.receive(source)
        seen += counts(got)
        await abandon(broker, source, got)

    assert seen == [0, 1, 2, 3]


@needs_clock
@both_kinds
async def test_dcn_2_every_expiry_counts_one(broker: Broker, has_sessions: bool) -> None:
    source = await stocked(broker, numbered(1), has_sessions=has_sessions)

    seen = []
    for _ in range(4):
        seen += counts(await broker.receive(source))
        await broker.advance(L)
        source = await held_again(broker, source)

    assert seen == [0, 1, 2, 3]


@both_kinds
async def test_dcn_3_releasing_counts_nothing(broker: Broker, has_sessions: bool) -> None:
    source = await stocked(broker, numbered(1), has_sessions=has_sessions)

    seen = []
    for _ in range(12):
        got = await broker.receive(source)
        seen += counts(got)
        await give_back(broker, source, got)

    assert seen == [0] * 12


@needs_clock
async def test_dcn_3_renewing_and_looking_count_nothing(broker: Broker) -> None:
    source = await stocked(broker, numbered(1), has_sessions=False)
    got = await broker.receive(source)
    await broker.renew_messages(source, got)
    await broker.runtime("orders")
    await give_back(broker, source, got)

    assert counts(await broker.receive(source)) == [0]


@needs_clock
async def test_dcn_4_a_an_expired_lock_counts_every_message_that_was_delivered_under_it(
    broker: Broker,
) -> None:
    """DCN-4 (a), DCN-5: and none of those that were never delivered to that holder."""
    held = await hold(broker, *numbered(6), lock_duration_ms=L)
    got = await broker.receive(held, 4)
    await complete(broker, held, got[1:2])
    await broker.advance(L)

    again = await broker.receive(await broker.accept("orders", "s"))

    assert bodies(again) == [b"1", b"3", b"4", b"5", b"6"]
    assert counts(again) == [1, 1, 1, 0, 0]


@needs_clock
async def test_dcn_4_a_an_expired_lock_does_not_count_again_what_was_abandoned_under_it(
    broker: Broker,
) -> None:
    held = await hold(broker, *numbered(2), lock_duration_ms=L)
    got = await broker.receive(held)
    await abandon(broker, held, got[:1])
    await broker.advance(L)

    again = await broker.receive(await broker.accept("orders", "s"))

    assert counts(again) == [1, 1]


@needs_clock
async def test_dcn_4_b_a_closed_session_counts_nothing(broker: Broker) -> None:
    held = await hold(broker, *numbered(3), lock_duration_ms=L)
    await broker.receive(held)
    await broker.advance(L - 1)
    await broker.release_session(held)

    assert counts(await broker.receive(await broker.accept("orders", "s"))) == [0, 0, 0]


async def test_dcn_4_c_what_was_completed_before_the_close_is_gone(broker: Broker) -> None:
    held = await hold(broker, *numbered(3))
    await complete(broker, held, await broker.receive(held))
    await broker.release_session(held)

    assert await broker.receive(await broker.accept("orders", "s")) == []


@needs_restart
@both_kinds
async def test_i_5_counts_survive_a_restart(broker: Broker, has_sessions: bool) -> None:
    source = await stocked(broker, numbered(3), has_sessions=has_sessions)
    for _ in range(3):
        await abandon(broker, source, await broker.receive(source, 1))

    await broker.restart()

    assert counts(await broker.receive(source)) == [3, 0, 0]


@both_kinds
async def test_c70_dcn_6_a_message_that_fails_ten_times_is_a_dead_letter_after_the_tenth(
    broker: Broker, has_sessions: bool
) -> None:
    """C70: with the defaults; the application sees it with the counts 0…9."""
    source = await stocked(broker, [b"bad"], has_sessions=has_sessions)

    seen = []
    for _ in range(12):
        got = await broker.receive(source)
        seen += counts(got)
        await abandon(broker, source, got)

    assert seen == list(range(10))
    (dead,) = await broker.receive(DEAD)
    assert (dead.body, dead.reason, dead.count) == (b"bad", "MaxDeliveryCountExceeded", 10)
    assert "10" in dead.description
    assert "abandoned" in dead.description


@needs_clock
@both_kinds
async def test_c70_expiries_count_like_abandons(broker: Broker, has_sessions: bool) -> None:
    source = await stocked(
        broker, [b"bad", b"good"], has_sessions=has_sessions, max_delivery_count=3
    )

    for ends_by_expiry in (True, False, True):
        got = await broker.receive(source, 1)
        assert bodies(got) == [b"bad"]
        if ends_by_expiry:
            await broker.advance(L)
            source = await held_again(broker, source)
        else:
            await abandon(broker, source, got)

    assert bodies(await broker.receive(source)) == [b"good"]
    (dead,) = await broker.receive(DEAD)
    assert (dead.body, dead.reason) == (b"bad", "MaxDeliveryCountExceeded")
    assert "ran out" in dead.description


@both_kinds
async def test_dcn_6_with_a_maximum_of_1_the_first_failure_is_the_last(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, [b"bad"], has_sessions=has_sessions, max_delivery_count=1)

    await abandon(broker, source, await broker.receive(source))

    assert await broker.receive(source) == []
    assert counts(await broker.receive(DEAD)) == [1]


@needs_clock
async def test_dcn_6_an_expiry_moves_only_those_that_failed_too_often(broker: Broker) -> None:
    held = await hold(broker, *numbered(5), lock_duration_ms=L, max_delivery_count=2)
    got = await broker.receive(held)
    await abandon(broker, held, [got[1], got[3]])
    await broker.receive(held)
    await broker.advance(L)

    again = await broker.receive(await broker.accept("orders", "s"))

    assert bodies(again) == [b"1", b"3", b"5"]
    assert counts(again) == [1, 1, 1]
    assert bodies(await broker.receive(DEAD)) == [b"2", b"4"]


async def test_dcn_6_a_lower_maximum_applies_to_the_next_failure(broker: Broker) -> None:
    source = await stocked(broker, [b"1"], has_sessions=False)
    for _ in range(5):
        await abandon(broker, source, await broker.receive(source))

    await broker.update_queue("orders", max_delivery_count=2)
    got = await broker.receive(source)
    await abandon(broker, source, got)

    assert counts(got) == [5]
    assert bodies(await broker.receive(DEAD)) == [b"1"]


async def test_dcn_10_a_message_that_is_sent_again_starts_at_0(broker: Broker) -> None:
    source = await stocked(broker, [b"1"], has_sessions=False, max_delivery_count=1)
    await abandon(broker, source, await broker.receive(source))
    (dead,) = await broker.receive(DEAD)

    await broker.send("orders", dead.body)
    await complete(broker, DEAD, [dead])

    assert counts(await broker.receive(source)) == [0]


@both_kinds
async def test_dcn_3_dead_lettering_carries_the_count_over_unchanged(
    broker: Broker, has_sessions: bool
) -> None:
    """Section 4.2; DLQ-5."""
    source = await stocked(broker, [b"1"], has_sessions=has_sessions)
    for _ in range(3):
        await abandon(broker, source, await broker.receive(source))

    await dead_letter(broker, source, await broker.receive(source))

    assert counts(await broker.receive(DEAD)) == [3]


@needs_clock
async def test_dcn_9_deliveries_inside_the_dead_letter_store_are_not_counted(
    broker: Broker,
) -> None:
    source = await stocked(broker, [b"1"], has_sessions=False, max_delivery_count=2)
    await dead_letter(broker, source, await broker.receive(source))

    for ends_by_expiry in (True, False) * 3:
        got = await broker.receive(DEAD)
        assert counts(got) == [0]
        if ends_by_expiry:
            await broker.advance(L)
        else:
            await abandon(broker, DEAD, got)

    assert bodies(await broker.receive(DEAD)) == [b"1"]
