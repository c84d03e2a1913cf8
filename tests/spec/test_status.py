"""What the status of a queue allows (section 16.1 of the contract)."""

from __future__ import annotations

import asyncio

import pytest

from lockstep.core.errors import EntityDisabled
from tests.spec.driver import Broker, DeadLetters, Source, bodies, complete, defer, numbered
from tests.spec.stocked import both_kinds, stocked

DEAD = DeadLetters("orders")
every_status = pytest.mark.parametrize(
    ("status", "may_send", "may_receive"),
    [
        ("active", True, True),
        ("send_disabled", False, True),
        ("receive_disabled", True, False),
        ("disabled", False, False),
    ],
)


async def may(call: object) -> bool:
    """Whether a call is allowed."""
    try:
        await call  # type: ignore[misc]
    except EntityDisabled as error:
        assert error.details["status"]  # noqa: PT017 - what it says is a part of the rule
        return False
    return True


@both_kinds
@every_status
async def test_c97_the_status_says_who_may_send_and_who_may_receive(
    broker: Broker, has_sessions: bool, status: str, may_send: bool, may_receive: bool
) -> None:
    source = await stocked(broker, numbered(3), has_sessions=has_sessions)
    got = await broker.receive(source, 1)
    await broker.update_queue("orders", status=status)

    session = "s" if has_sessions else None
    assert await may(broker.send("orders", b"4", session=session)) == may_send
    assert await may(broker.receive(source, 1)) == may_receive
    assert await may(broker.receive(DEAD, 1)) == may_receive
    if has_sessions:
        assert await may(broker.accept("orders", "other")) == may_receive
    await complete(broker, source, got)  # what was delivered may always be settled


@both_kinds
async def test_a_status_that_is_taken_back_leaves_everything_as_it_was(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, numbered(3), has_sessions=has_sessions)
    await broker.update_queue("orders", status="disabled")
    await broker.update_queue("orders", status="active")

    assert bodies(await broker.receive(source)) == [b"1", b"2", b"3"]


@both_kinds
async def test_who_waits_is_told_when_receiving_is_forbidden(
    broker: Broker, has_sessions: bool
) -> None:
    source: Source = await stocked(broker, [b"1"], has_sessions=has_sessions)
    await broker.receive(source)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(may(broker.receive(source, wait_ms=60_000)))
        await broker.parked()
        await broker.update_queue("orders", status="receive_disabled")

    assert waiting.result() is False


@both_kinds
async def test_a_deferred_message_is_received_only_where_receiving_is_allowed(
    broker: Broker, has_sessions: bool
) -> None:
    source = await stocked(broker, [b"1"], has_sessions=has_sessions)
    numbers = await defer(broker, source, await broker.receive(source))
    await broker.update_queue("orders", status="receive_disabled")
    assert not await may(broker.receive_deferred(source, numbers))

    await broker.update_queue("orders", status="send_disabled")

    assert await may(broker.receive_deferred(source, numbers))
