"""Receiving messages for good (RCV-1)."""

from __future__ import annotations

import asyncio

import pytest

from lockstep.core.errors import InvalidOperation
from lockstep.core.ids import RequestId
from tests.spec.driver import (
    Broker,
    DeadLetters,
    Plain,
    bodies,
    dead_letter,
    hold,
    needs_requests,
    needs_restart,
    needs_wire,
    numbered,
)

PLAIN, DEAD = Plain("orders"), DeadLetters("orders")


async def test_rcv_1_a_message_is_gone_when_it_was_delivered(broker: Broker) -> None:
    await broker.create_queue("orders")
    await broker.send("orders", *numbered(5))

    got = await broker.receive(PLAIN, 3, deletes=True)

    assert bodies(got) == [b"1", b"2", b"3"]
    assert [message.token for message in got] == [b""] * 3
    runtime = await broker.runtime("orders")
    assert (runtime.active, runtime.locked) == (2, 0)
    assert bodies(await broker.receive(PLAIN)) == [b"4", b"5"]


@needs_wire  # the other drivers have nobody who reads bodies between a step and its commit
async def test_rcv_1_a_waiting_receiver_gets_what_comes(broker: Broker) -> None:
    await broker.create_queue("orders")
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(broker.receive(PLAIN, wait_ms=60_000, deletes=True))
        await broker.parked()
        await broker.send("orders", b"1")

    assert bodies(waiting.result()) == [b"1"]
    assert (await broker.runtime("orders")).size_bytes == 0


async def test_dlq_3_dead_letters_can_be_received_for_good(broker: Broker) -> None:
    held = await hold(broker, *numbered(3))
    await dead_letter(broker, held, await broker.receive(held), reason="why")

    got = await broker.receive(DEAD, deletes=True)

    assert bodies(got) == [b"1", b"2", b"3"]
    assert {message.reason for message in got} == {"why"}
    assert (await broker.runtime("orders")).dead_letters == 0


async def test_rcv_3_a_session_queue_wants_a_session_in_this_mode_too(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)

    with pytest.raises(InvalidOperation):
        await broker.receive(PLAIN, deletes=True)


@needs_requests
async def test_c02_ses_36_a_session_is_received_for_good_in_order(broker: Broker) -> None:
    held = await hold(broker, *numbered(4))

    first = await broker.receive(held, 2, deletes=True)
    rest = await broker.receive(held, deletes=True)

    assert bodies(first + rest) == [b"1", b"2", b"3", b"4"]
    await broker.release_session(held)
    assert (await broker.runtime("orders")).sessions == 0


@needs_requests
async def test_add_3_a_repeat_finds_what_was_delivered_for_good_no_more(broker: Broker) -> None:
    await broker.create_queue("orders")
    await broker.send("orders", *numbered(2))
    request = RequestId("c", 1)
    await broker.receive(PLAIN, 1, request=request, deletes=True)

    assert await broker.receive(PLAIN, 1, request=request, deletes=True) == []
    assert (await broker.runtime("orders")).active == 1


@needs_restart
async def test_rcv_1_what_was_delivered_for_good_stays_gone_after_a_restart(broker: Broker) -> None:
    await broker.create_queue("orders")
    await broker.send("orders", *numbered(5))
    await broker.receive(PLAIN, 3, deletes=True)

    await broker.restart()

    assert bodies(await broker.receive(PLAIN)) == [b"4", b"5"]
