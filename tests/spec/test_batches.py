"""Batch receive, waiting and cancelling (section 6 of the contract)."""

from __future__ import annotations

from tests.spec.driver import Broker, bodies, numbered


async def test_c46_five_messages_of_one_session_arrive_in_one_receive(broker: Broker) -> None:
    """C46, BAT-2: five of five, after accept-next, in one answer."""
    await broker.create_queue("orders", requires_session=True)
    await broker.send("orders", *numbered(5), session="s")

    held = await broker.accept("orders")
    got = await broker.receive(held, 100, wait_ms=5_000)

    assert bodies(got) == numbered(5)
