"""What the holder of a session gets, in which order (sections 4.3 and 5.4 of the contract)."""

from __future__ import annotations

import pytest

from lockstep.core.commands import Outcome
from lockstep.core.errors import MessageLockLost
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


async def test_c01_ten_messages_of_a_session_arrive_in_order_and_are_done(broker: Broker) -> None:
    """C01: in send order, each with session id s, sequence numbers rising, count 0."""
    held = await hold(broker, *numbered(10))

    got = []
    while batch := await broker.receive(held, 1):
        got += batch
        await complete(broker, held, batch)

    assert bodies(got) == numbered(10)
    assert {message.session_id for message in got} == {"s"}
    assert [message.sequence for message in got] == sorted({m.sequence for m in got})
    assert counts(got) == [0] * 10
    await broker.release_session(held)
    assert await broker.sessions("orders") == []


async def test_ses_5_interleaved_sessions_are_independent_ordered_streams(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    for number in range(1, 5):
        for name in ("a", "b", "c"):
            await broker.send("orders", f"{name}{number}".encode(), session=name)
    held = {name: await broker.accept("orders", name) for name in ("a", "b", "c")}

    got: dict[str, list[bytes]] = {"a": [], "b": [], "c": []}
    for _ in range(4):
        for name in ("c", "a", "b"):
            batch = await broker.receive(held[name], 1)
            got[name] += bodies(batch)
            await complete(broker, held[name], batch)

    assert got == {name: [f"{name}{n}".encode() for n in range(1, 5)] for name in ("a", "b", "c")}


async def test_c14_a_closed_session_gives_its_message_back_uncounted(broker: Broker) -> None:
    """C14, DCN-4 (b): receive one, close without settling → re-accept → same message, count 0."""
    held = await hold(broker, b"1", b"2")
    await broker.receive(held, 1)

    assert await broker.release_session(held) == 1
    again = await broker.accept("orders", "s")
    got = await broker.receive(again)

    assert bodies(got) == [b"1", b"2"]
    assert counts(got) == [0, 0]


@needs_clock
async def test_c16_after_an_expiry_the_next_holder_gets_the_unsettled_one_first(
    broker: Broker,
) -> None:
    """C16, SES-31, DCN-4 (a), DCN-5: next is 5 (count 1), then 6–9 (count 0)."""
    held = await hold(broker, *numbered(10, first=0), lock_duration_ms=5_000)
    got = await broker.receive(held, 6)
    await complete(broker, held, got[:5])

    await broker.advance(5_000)
    again = await broker.accept("orders", "s")
    rest = await broker.receive(again)

    assert bodies(rest) == numbered(5, first=5)
    assert counts(rest) == [1, 0, 0, 0, 0]


async def test_c22_an_abandoned_message_comes_again_first_and_counted(broker: Broker) -> None:
    """C22, SES-28: receive 1, abandon, receive → 1 again (same sequence number), count 1."""
    held = await hold(broker, b"1", b"2")
    first = await broker.receive(held, 1)

    await abandon(broker, held, first)
    again = await broker.receive(held, 1)
    then = await broker.receive(held, 1)

    assert bodies([*first, *again, *then]) == [b"1", b"1", b"2"]
    assert counts([*first, *again, *then]) == [0, 1, 0]
    assert again[0].sequence == first[0].sequence


async def test_c23_nothing_younger_is_delivered_before_an_abandoned_one(broker: Broker) -> None:
    """C23, SES-29: abandon 1 of 10 in hand → it comes before 11; the other nine stay valid."""
    held = await hold(broker, *numbered(12))
    in_hand = await broker.receive(held, 10)

    await abandon(broker, held, in_hand[:1])
    after = await broker.receive(held, 2)

    assert bodies(after) == [b"1", b"11"]
    await complete(broker, held, in_hand[1:])
    await complete(broker, held, after)
    assert bodies(await broker.receive(held)) == [b"12"]


async def test_race_9_an_abandoned_one_from_the_middle_comes_before_the_younger(
    broker: Broker,
) -> None:
    held = await hold(broker, *numbered(6))
    in_hand = await broker.receive(held, 4)

    await abandon(broker, held, [in_hand[2]])
    await give_back(broker, held, [in_hand[0]])

    assert bodies(await broker.receive(held)) == [b"1", b"3", b"5", b"6"]


async def test_ses_29_what_came_back_is_in_sequence_order_whatever_the_order_it_came(
    broker: Broker,
) -> None:
    held = await hold(broker, *numbered(5))
    in_hand = await broker.receive(held, 4)

    for place in (3, 0, 2, 1):
        await abandon(broker, held, [in_hand[place]])

    assert bodies(await broker.receive(held, 2)) == [b"1", b"2"]
    assert bodies(await broker.receive(held)) == [b"3", b"4", b"5"]


async def test_ses_29_an_abandoned_message_cannot_be_settled_until_it_comes_again(
    broker: Broker,
) -> None:
    held = await hold(broker, b"1", b"2")
    in_hand = await broker.receive(held)
    await abandon(broker, held, in_hand[:1])

    failures = await broker.settle(held, Outcome.COMPLETE, in_hand)

    assert [failure.sequence for failure in failures] == [in_hand[0].sequence]
    assert isinstance(failures[0].error, MessageLockLost)
    assert bodies(await broker.receive(held)) == [b"1"]


async def test_a_released_message_comes_again_first_and_uncounted(broker: Broker) -> None:
    """Section 4.2, outcome Release; DCN-3."""
    held = await hold(broker, b"1", b"2", b"3")
    in_hand = await broker.receive(held, 2)

    await give_back(broker, held, in_hand)
    again = await broker.receive(held)

    assert bodies(again) == numbered(3)
    assert counts(again) == [0, 0, 0]


async def test_ses_30_what_is_in_hand_is_not_delivered_again_with_an_older_one_that_came_back(
    broker: Broker,
) -> None:
    held = await hold(broker, *numbered(4))
    got = await broker.receive(held, 3)
    await abandon(broker, held, got[:1])

    assert bodies(await broker.receive(held, 1)) == [b"1"]
    assert bodies(await broker.receive(held)) == [b"4"]


@needs_clock
async def test_ses_30_an_unsettled_message_is_not_delivered_again_while_the_session_is_held(
    broker: Broker,
) -> None:
    """SES-30: message 5 unsettled, 6–9 done, 5 reappears at the next accept."""
    held = await hold(broker, *numbered(9, first=1), lock_duration_ms=5_000)
    await complete(broker, held, await broker.receive(held, 4))
    await broker.receive(held, 1)
    for _ in range(5):
        await broker.advance(4_000)
        await broker.renew(held)
    rest = await broker.receive(held)
    await complete(broker, held, rest)
    await broker.advance(4_000)
    nothing = await broker.receive(held)
    await broker.release_session(held)

    again = await broker.receive(await broker.accept("orders", "s"))

    assert bodies(rest) == [b"6", b"7", b"8", b"9"]
    assert nothing == []
    assert bodies(again) == [b"5"]
    assert counts(again) == [0]


@needs_clock
@pytest.mark.parametrize("expires", [False, True])
async def test_ses_32_everything_in_hand_returns_to_its_place(
    broker: Broker, expires: bool
) -> None:
    """SES-32, RACE-8: with holes by completion, abandon and dead-lettering; counted by expiry only."""
    held = await hold(broker, *numbered(8), lock_duration_ms=5_000)
    got = await broker.receive(held, 6)
    await complete(broker, held, [got[1]])
    await abandon(broker, held, [got[2]])
    await dead_letter(broker, held, [got[3]])

    if expires:
        await broker.advance(5_000)
    else:
        assert await broker.release_session(held) == 3
    again = await broker.receive(await broker.accept("orders", "s"))

    assert bodies(again) == [b"1", b"3", b"5", b"6", b"7", b"8"]
    more = 1 if expires else 0
    assert counts(again) == [more, 1, more, more, 0, 0]


async def test_ses_34_completed_and_dead_lettered_messages_leave_gaps_that_hold_nothing_back(
    broker: Broker,
) -> None:
    held = await hold(broker, *numbered(6))
    got = await broker.receive(held, 4)
    await complete(broker, held, [got[0], got[3]])
    await dead_letter(broker, held, [got[1]])

    assert bodies(await broker.receive(held)) == [b"5", b"6"]


@needs_restart
async def test_ses_28_what_came_back_comes_first_after_a_restart_too(broker: Broker) -> None:
    held = await hold(broker, *numbered(6))
    in_hand = await broker.receive(held, 4)
    await abandon(broker, held, [in_hand[2], in_hand[0]])

    await broker.restart()

    assert bodies(await broker.receive(held)) == [b"1", b"3", b"5", b"6"]
    await complete(broker, held, [in_hand[1], in_hand[3]])
    await broker.release_session(held)
    assert bodies(await broker.receive(await broker.accept("orders", "s"))) == [
        b"1",
        b"3",
        b"5",
        b"6",
    ]


async def test_completing_in_any_order_completes_exactly_those(broker: Broker) -> None:
    held = await hold(broker, *numbered(10))
    got = await broker.receive(held)

    for place in (9, 0, 5, 4, 1):
        await complete(broker, held, [got[place]])
    await complete(broker, held, [got[8], got[2]])
    await broker.release_session(held)

    again = await broker.receive(await broker.accept("orders", "s"))
    assert bodies(again) == [b"4", b"7", b"8"]


async def test_dcn_7_the_session_goes_on_after_a_message_that_failed_too_often(
    broker: Broker,
) -> None:
    held = await hold(broker, b"bad", b"good", max_delivery_count=3)

    for _ in range(3):
        await abandon(broker, held, await broker.receive(held, 1))
    rest = await broker.receive(held)

    assert bodies(rest) == [b"good"]
    assert counts(rest) == [0]
    assert bodies(await broker.receive(DeadLetters("orders"))) == [b"bad"]


async def test_race_7_a_message_sent_while_the_holder_closes_goes_to_the_next_holder(
    broker: Broker,
) -> None:
    """RACE-7, the send first: it lies behind what the closed holder gave back."""
    held = await hold(broker, b"1")
    await broker.receive(held)
    await broker.send("orders", b"2", session="s")

    await broker.release_session(held)

    assert bodies(await broker.receive(await broker.accept("orders", "s"))) == [b"1", b"2"]


async def test_race_7_a_message_sent_after_the_close_goes_to_the_next_holder(
    broker: Broker,
) -> None:
    """RACE-7, the close first."""
    held = await hold(broker, b"1")
    await broker.receive(held)
    await broker.release_session(held)

    await broker.send("orders", b"2", session="s")

    assert bodies(await broker.receive(await broker.accept("orders", "s"))) == [b"1", b"2"]
