"""Delivery counts and dead letters (sections 4.3 and 10 of the contract)."""

from __future__ import annotations

import random

import pytest

from lockstep.core.commands import Outcome
from lockstep.core.errors import InvalidOperation, LimitExceeded
from tests.spec.driver import (
    Broker,
    DeadLetters,
    Held,
    Plain,
    Source,
    abandon,
    bodies,
    complete,
    counts,
    dead_letter,
    give_back,
    hold,
    needs_clock,
    needs_requests,
    needs_restart,
    numbered,
)

L = 5_000
DEAD = DeadLetters("orders")
both_kinds = pytest.mark.parametrize("has_sessions", [True, False])


async def _filled(
    broker: Broker, sent: list[bytes], *, has_sessions: bool, max_delivery_count: int = 10
) -> Source:
    if has_sessions:
        return await hold(broker, *sent, lock_duration_ms=L, max_delivery_count=max_delivery_count)
    await broker.create_queue("orders", lock_duration_ms=L, max_delivery_count=max_delivery_count)
    await broker.send("orders", *sent)
    return Plain("orders")


async def _held_again(broker: Broker, source: Source) -> Source:
    """Return what to receive from after the locks ended: a session must be accepted again."""
    return await broker.accept("orders", source.session_id) if isinstance(source, Held) else source


@both_kinds
async def test_dcn_1_a_first_delivery_shows_0(broker: Broker, has_sessions: bool) -> None:
    source = await _filled(broker, numbered(2), has_sessions=has_sessions)

    assert counts(await broker.receive(source)) == [0, 0]


@both_kinds
async def test_dcn_2_every_abandon_counts_one(broker: Broker, has_sessions: bool) -> None:
    source = await _filled(broker, numbered(1), has_sessions=has_sessions)

    seen = []
    for _ in range(4):
        got = await broker.receive(source)
        seen += counts(got)
        await abandon(broker, source, got)

    assert seen == [0, 1, 2, 3]


@needs_clock
@both_kinds
async def test_dcn_2_every_expiry_counts_one(broker: Broker, has_sessions: bool) -> None:
    source = await _filled(broker, numbered(1), has_sessions=has_sessions)

    seen = []
    for _ in range(4):
        seen += counts(await broker.receive(source))
        await broker.advance(L)
        source = await _held_again(broker, source)

    assert seen == [0, 1, 2, 3]


@both_kinds
async def test_dcn_3_releasing_counts_nothing(broker: Broker, has_sessions: bool) -> None:
    source = await _filled(broker, numbered(1), has_sessions=has_sessions)

    seen = []
    for _ in range(12):
        got = await broker.receive(source)
        seen += counts(got)
        await give_back(broker, source, got)

    assert seen == [0] * 12


@needs_clock
async def test_dcn_3_renewing_and_looking_count_nothing(broker: Broker) -> None:
    source = await _filled(broker, numbered(1), has_sessions=False)
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
    source = await _filled(broker, numbered(3), has_sessions=has_sessions)
    for _ in range(3):
        await abandon(broker, source, await broker.receive(source, 1))

    await broker.restart()

    assert counts(await broker.receive(source)) == [3, 0, 0]


@both_kinds
async def test_c70_dcn_6_a_message_that_fails_ten_times_is_a_dead_letter_after_the_tenth(
    broker: Broker, has_sessions: bool
) -> None:
    """C70: with the defaults; the application sees it with the counts 0…9."""
    source = await _filled(broker, [b"bad"], has_sessions=has_sessions)

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
    source = await _filled(
        broker, [b"bad", b"good"], has_sessions=has_sessions, max_delivery_count=3
    )

    for ends_by_expiry in (True, False, True):
        got = await broker.receive(source, 1)
        assert bodies(got) == [b"bad"]
        if ends_by_expiry:
            await broker.advance(L)
            source = await _held_again(broker, source)
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
    source = await _filled(broker, [b"bad"], has_sessions=has_sessions, max_delivery_count=1)

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
    source = await _filled(broker, [b"1"], has_sessions=False)
    for _ in range(5):
        await abandon(broker, source, await broker.receive(source))

    await broker.update_queue("orders", max_delivery_count=2)
    got = await broker.receive(source)
    await abandon(broker, source, got)

    assert counts(got) == [5]
    assert bodies(await broker.receive(DEAD)) == [b"1"]


async def test_dcn_10_a_message_that_is_sent_again_starts_at_0(broker: Broker) -> None:
    source = await _filled(broker, [b"1"], has_sessions=False, max_delivery_count=1)
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
    source = await _filled(broker, [b"1"], has_sessions=has_sessions)
    for _ in range(3):
        await abandon(broker, source, await broker.receive(source))

    await dead_letter(broker, source, await broker.receive(source))

    assert counts(await broker.receive(DEAD)) == [3]


@needs_clock
async def test_dcn_9_deliveries_inside_the_dead_letter_store_are_not_counted(
    broker: Broker,
) -> None:
    source = await _filled(broker, [b"1"], has_sessions=False, max_delivery_count=2)
    await dead_letter(broker, source, await broker.receive(source))

    for ends_by_expiry in (True, False) * 3:
        got = await broker.receive(DEAD)
        assert counts(got) == [0]
        if ends_by_expiry:
            await broker.advance(L)
        else:
            await abandon(broker, DEAD, got)

    assert bodies(await broker.receive(DEAD)) == [b"1"]


async def test_c68_ten_dead_letters_of_a_session_are_read_without_a_session(
    broker: Broker,
) -> None:
    """C68, DLQ-4, DLQ-5, DLQ-7: reason and description, session id and number kept."""
    held = await hold(broker, *numbered(10))
    got = await broker.receive(held)

    await dead_letter(broker, held, got, reason="Testing reason", description="Because ö")
    dead = await broker.receive(DEAD)

    assert bodies(dead) == numbered(10)
    assert {(message.reason, message.description) for message in dead} == {
        ("Testing reason", "Because ö")
    }
    assert {message.session_id for message in dead} == {"s"}
    assert [message.sequence for message in dead] == [message.sequence for message in got]
    assert [message.enqueued_ms for message in dead] == [message.enqueued_ms for message in got]


async def test_dlq_4_dead_letters_of_all_sessions_come_mixed_in_the_order_they_arrived(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", requires_session=True)
    await broker.send("orders", *numbered(6), sessions=("a", "b", "c", "a", "b", "c"))
    arrived = []
    for name in ("c", "a", "b"):
        held = await broker.accept("orders", name)
        for _ in range(2):
            got = await broker.receive(held, 1)
            arrived += bodies(got)
            await dead_letter(broker, held, got, reason=name)

    dead = await broker.receive(DEAD)

    assert bodies(dead) == arrived == [b"3", b"6", b"1", b"4", b"2", b"5"]
    assert [message.session_id for message in dead] == ["c", "c", "a", "a", "b", "b"]
    assert [message.reason for message in dead] == ["c", "c", "a", "a", "b", "b"]


@pytest.mark.parametrize("order", [(1, 3, 2, 4), (1, 4, 3), (2, 5, 3, 4, 1), (3, 1, 2, 5, 6, 4)])
@pytest.mark.parametrize("in_one_chunk", [True, False])
async def test_dlq_5_every_dead_letter_keeps_its_own_body_whatever_the_order_of_arrival(
    broker: Broker, order: tuple[int, ...], in_one_chunk: bool
) -> None:
    await broker.create_queue("orders")
    if in_one_chunk:
        await broker.send("orders", *numbered(6))
    else:
        for body in numbered(6):
            await broker.send("orders", body)
    got = await broker.receive(Plain("orders"))
    for number in order:
        await dead_letter(broker, Plain("orders"), [got[number - 1]], reason=str(number))

    dead = await broker.receive(DEAD)

    assert [message.sequence for message in dead] == list(order)
    assert bodies(dead) == [str(number).encode() for number in order]
    assert [message.reason for message in dead] == [str(number) for number in order]


@needs_clock
@pytest.mark.parametrize("ends", ["abandon", "release", "expiry"])
@pytest.mark.parametrize("restarts", [False, pytest.param(True, marks=needs_restart)])
async def test_dlq_4_a_dead_letter_that_comes_back_goes_to_its_place_in_the_order_of_arrival(
    broker: Broker, ends: str, restarts: bool
) -> None:
    source = await _filled(broker, numbered(5), has_sessions=False)
    got = await broker.receive(source)
    for number in (4, 1, 5, 2, 3):
        await dead_letter(broker, source, [got[number - 1]])
    dead = await broker.receive(DEAD, 4)
    if restarts:
        await broker.restart()

    for message in (dead[2], dead[3], dead[0]):
        if ends == "abandon":
            await abandon(broker, DEAD, [message])
        elif ends == "release":
            await give_back(broker, DEAD, [message])
    if ends == "expiry":
        await complete(broker, DEAD, [dead[1]])
        await broker.advance(3 * L)

    assert bodies(await broker.receive(DEAD)) == [b"4", b"5", b"2", b"3"]


@needs_requests
async def test_add_3_a_repeated_receive_of_unordered_dead_letters_returns_the_same(
    broker: Broker,
) -> None:
    await broker.create_queue("orders")
    await broker.send("orders", *numbered(9))
    got = await broker.receive(Plain("orders"))
    for place in (0, 8, 2):
        await dead_letter(broker, Plain("orders"), [got[place]])
    request = broker.new_request()
    first = await broker.receive(DEAD, request=request)

    assert await broker.receive(DEAD, request=request) == first


@needs_restart
@needs_clock
async def test_dlq_2_dead_letters_stay_until_they_are_settled(broker: Broker) -> None:
    """DLQ-2: no time to live, over restarts too; order and reasons kept."""
    await broker.create_queue("orders")
    await broker.send("orders", *numbered(5))
    got = await broker.receive(Plain("orders"))
    for place in (3, 0, 4):
        await dead_letter(broker, Plain("orders"), [got[place]], reason=f"r{place}")
    await broker.advance(365 * 86_400_000)

    await broker.restart()

    dead = await broker.receive(DEAD, 2)
    assert bodies(dead) == [b"4", b"1"]
    assert [message.reason for message in dead] == ["r3", "r0"]
    await complete(broker, DEAD, dead[1:])
    await abandon(broker, DEAD, dead[:1])
    assert bodies(await broker.receive(DEAD)) == [b"4", b"5"]


@needs_clock
async def test_dlq_3_dead_letters_are_locked_renewed_and_come_back_like_messages(
    broker: Broker,
) -> None:
    source = await _filled(broker, numbered(3), has_sessions=False)
    await dead_letter(broker, source, await broker.receive(source))
    dead = await broker.receive(DEAD, 2)
    assert bodies(await broker.receive(DEAD)) == [b"3"]

    await broker.advance(L - 1)
    until_ms, failed = await broker.renew_messages(DEAD, dead[:1])
    await broker.advance(L - 1)

    assert (until_ms, failed) == (broker.now_ms() + 1, [])
    assert bodies(await broker.receive(DEAD)) == [b"2", b"3"]
    await complete(broker, DEAD, dead[:1])


@needs_restart
async def test_dlq_3_locks_of_dead_letters_survive_a_restart(broker: Broker) -> None:
    source = await _filled(broker, numbered(4), has_sessions=False)
    got = await broker.receive(source)
    for place in (2, 0, 1, 3):
        await dead_letter(broker, source, [got[place]])
    dead = await broker.receive(DEAD, 3)
    await complete(broker, DEAD, dead[:1])

    await broker.restart()
    await give_back(broker, DEAD, dead[1:])

    assert bodies(await broker.receive(DEAD)) == [b"1", b"2", b"4"]


async def test_dlq_4_receiving_dead_letters_with_a_session_is_refused(broker: Broker) -> None:
    """DLQ-4: the store has no sessions, so a token of one settles nothing in it."""
    held = await hold(broker, *numbered(2))
    got = await broker.receive(held)
    await dead_letter(broker, held, got[:1])
    dead = await broker.receive(DEAD)

    failures = await broker.settle(held, Outcome.COMPLETE, dead)

    assert len(failures) == 1
    with pytest.raises(InvalidOperation):
        await broker.settle(Plain("orders"), Outcome.COMPLETE, dead)
    await complete(broker, DEAD, dead)


@pytest.mark.parametrize(("reason", "description"), [("x" * 4097, ""), ("", "x" * 4097)])
@both_kinds
async def test_dlq_7_reason_and_description_have_at_most_4096_characters(
    broker: Broker, reason: str, description: str, has_sessions: bool
) -> None:
    source = await _filled(broker, [b"1"], has_sessions=has_sessions)
    got = await broker.receive(source)

    with pytest.raises(LimitExceeded):
        await dead_letter(broker, source, got, reason=reason, description=description)
    await dead_letter(broker, source, got, reason="ö" * 4096, description="ü" * 4096)

    (dead,) = await broker.receive(DEAD)
    assert (dead.reason, dead.description) == ("ö" * 4096, "ü" * 4096)


@needs_restart
@pytest.mark.parametrize("seed", range(3))
async def test_i_1_every_message_is_in_exactly_one_place_whatever_is_done(
    broker: Broker, seed: int
) -> None:
    """I-1, I-5, I-9: a random walk over a session queue against a plain account of it."""
    chance = random.Random(seed)
    held = await hold(broker, *numbered(30), max_delivery_count=4)
    expected = {body: 0 for body in numbered(30)}
    dead: set[bytes] = set()
    done: set[bytes] = set()
    for _ in range(60):
        for message in await broker.receive(held, chance.randint(1, 6)):
            assert message.count == expected[message.body]
            match chance.choice(["complete", "abandon", "release", "dead", "keep"]):
                case "complete":
                    await complete(broker, held, [message])
                    done.add(message.body)
                case "abandon":
                    await abandon(broker, held, [message])
                    expected[message.body] += 1
                    if expected[message.body] == 4:
                        dead.add(message.body)
                case "release":
                    await give_back(broker, held, [message])
                case "dead":
                    await dead_letter(broker, held, [message])
                    dead.add(message.body)
        if chance.random() < 0.2:
            await broker.restart()
        if chance.random() < 0.2:
            await broker.release_session(held)
            held = await broker.accept("orders", "s")
    await broker.release_session(held)

    left = bodies(await broker.receive(await broker.accept("orders", "s")))

    assert left == [body for body in numbered(30) if body not in dead | done]
    assert set(bodies(await broker.receive(DEAD))) == dead
