"""Dead letters: where they come from, their order, and how long they stay (section 10 of the contract)."""

from __future__ import annotations

import random

import pytest

from lockstep.core.commands import Outcome
from lockstep.core.errors import InvalidOperation, LimitExceeded
from tests.spec.driver import (
    Broker,
    DeadLetters,
    Plain,
    abandon,
    bodies,
    complete,
    counters,
    dead_letter,
    give_back,
    hold,
    needs_clock,
    needs_requests,
    needs_restart,
    numbered,
)
from tests.spec.stocked import L, both_kinds, stocked

DEAD = DeadLetters("orders")


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
    await broker.create_queue("orders", requires_session=True, placement="single")
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

    assert counters(message.sequence for message in dead) == list(order)
    assert bodies(dead) == [str(number).encode() for number in order]
    assert [message.reason for message in dead] == [str(number) for number in order]


@needs_clock
@pytest.mark.parametrize("ends", ["abandon", "release", "expiry"])
@pytest.mark.parametrize("restarts", [False, pytest.param(True, marks=needs_restart)])
async def test_dlq_4_a_dead_letter_that_comes_back_goes_to_its_place_in_the_order_of_arrival(
    broker: Broker, ends: str, restarts: bool
) -> None:
    source = await stocked(broker, numbered(5), has_sessions=False)
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
    source = await stocked(broker, numbered(3), has_sessions=False)
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
    source = await stocked(broker, numbered(4), has_sessions=False)
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
    source = await stocked(broker, [b"1"], has_sessions=has_sessions)
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
