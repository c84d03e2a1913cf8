"""Session calls on plain queues, plain calls on session queues (RCV-3, SES-4, DLQ-4)."""

from __future__ import annotations

import pytest

from lockstep.core.commands import Outcome
from lockstep.core.errors import InvalidOperation, LimitExceeded, SessionLockLost
from tests.spec.driver import (
    Broker,
    DeadLetters,
    Plain,
    abandon,
    bodies,
    complete,
    dead_letter,
    give_back,
    hold,
    needs_wire,
)


async def test_c31_rcv_3_a_plain_receive_on_a_session_queue_is_refused(broker: Broker) -> None:
    """C31: immediately, never a timeout."""
    await broker.create_queue("orders", requires_session=True)
    await broker.send("orders", b"1", session="s")

    with pytest.raises(InvalidOperation):
        await broker.receive(Plain("orders"), wait_ms=60_000)


@pytest.mark.parametrize("session_id", ["s", None])
async def test_c31_rcv_3_a_session_receiver_on_a_plain_queue_is_refused(
    broker: Broker, session_id: str | None
) -> None:
    await broker.create_queue("orders")
    await broker.send("orders", b"1", session="s")

    with pytest.raises(InvalidOperation):
        await broker.accept("orders", session_id, wait_ms=60_000)

    assert bodies(await broker.receive(Plain("orders"))) == [b"1"]


async def test_rcv_3_a_receive_with_another_queue_s_session_is_refused(broker: Broker) -> None:
    held = await hold(broker, b"1", queue="sessions")
    await broker.create_queue("orders")
    elsewhere = type(held)(
        "orders", held.session_id, held.token, held.locked_until_ms, None, held.state_version
    )

    with pytest.raises(InvalidOperation):
        await broker.receive(elsewhere)


async def test_ses_3_a_lock_of_one_queue_is_worth_nothing_in_another(broker: Broker) -> None:
    held = await hold(broker, b"1", queue="a")
    await hold(broker, b"2", queue="b")
    elsewhere = type(held)("b", "s", held.token, held.locked_until_ms, None, 0)

    with pytest.raises(SessionLockLost):
        await broker.receive(elsewhere)

    assert bodies(await broker.receive(held)) == [b"1"]


async def test_lck_5_settling_in_a_session_queue_needs_the_session(broker: Broker) -> None:
    held = await hold(broker, b"1")
    got = await broker.receive(held)

    for outcome in Outcome:
        with pytest.raises(InvalidOperation):
            await broker.settle(Plain("orders"), outcome, got)

    await complete(broker, held, got)


async def test_lck_5_settling_in_a_plain_queue_takes_no_session(broker: Broker) -> None:
    held = await hold(broker, queue="sessions")
    await broker.create_queue("orders")
    await broker.send("orders", b"1")
    got = await broker.receive(Plain("orders"))
    elsewhere = type(held)("orders", "s", held.token, held.locked_until_ms, None, 0)

    with pytest.raises(InvalidOperation):
        await complete(broker, elsewhere, got)

    await complete(broker, Plain("orders"), got)


async def test_ses_19_renewing_a_message_of_a_session_is_refused(broker: Broker) -> None:
    """C19, server side: the session's lock governs."""
    held = await hold(broker, b"1")
    got = await broker.receive(held)

    with pytest.raises(InvalidOperation):
        await broker.renew_messages(Plain("orders"), got)


async def test_c19_a_session_message_has_a_token_and_its_session_s_end(broker: Broker) -> None:
    """C19, server side: there is a lock token, and no lock end of the message's own."""
    held = await hold(broker, b"1", b"2")

    got = await broker.receive(held)

    assert len({message.token for message in got}) == 2
    assert {message.locked_until_ms for message in got} == {
        (await broker.session("orders", "s")).locked_until_ms
    }


async def test_dlq_4_a_dead_letter_store_has_no_sessions(broker: Broker) -> None:
    held = await hold(broker, b"1")
    await dead_letter(broker, held, await broker.receive(held))
    (dead,) = await broker.receive(DeadLetters("orders"))

    await abandon(broker, DeadLetters("orders"), [dead])
    (again,) = await broker.receive(DeadLetters("orders"))
    await give_back(broker, DeadLetters("orders"), [again])
    (last,) = await broker.receive(DeadLetters("orders"))
    await complete(broker, DeadLetters("orders"), [last])

    assert dead.session_id == "s"
    assert await broker.receive(DeadLetters("orders")) == []


@needs_wire
async def test_ses_16_accepting_on_a_dead_letter_path_is_refused(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)

    with pytest.raises(InvalidOperation):
        await broker.accept("orders/$DeadLetterQueue", "s")


async def test_c28_accepting_a_session_id_of_129_characters_is_refused(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)

    with pytest.raises(LimitExceeded):
        await broker.accept("orders", "x" * 129)

    assert (await broker.accept("orders", "x" * 128)).session_id == "x" * 128
    assert [view.session_id for view in await broker.sessions("orders")] == ["x" * 128]


async def test_a_holder_s_name_has_at_most_128_characters(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)

    with pytest.raises(LimitExceeded):
        await broker.accept("orders", "s", holder="x" * 129)

    assert await broker.sessions("orders") == []


@pytest.mark.parametrize("maximum", [0, -1, 4097])
async def test_a_receive_of_an_impossible_number_is_refused(broker: Broker, maximum: int) -> None:
    await broker.create_queue("orders")
    await broker.send("orders", b"1")

    with pytest.raises(LimitExceeded):
        await broker.receive(Plain("orders"), maximum)

    assert bodies(await broker.receive(Plain("orders"), 4096)) == [b"1"]
