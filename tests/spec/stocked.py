"""Queues with messages in them, with sessions or without, for tests that hold for both kinds."""

from __future__ import annotations

import pytest

from tests.spec.driver import Broker, Held, Plain, Source, hold

L = 5_000
both_kinds = pytest.mark.parametrize("has_sessions", [True, False])


async def stocked(
    broker: Broker, sent: list[bytes], *, has_sessions: bool, max_delivery_count: int = 10
) -> Source:
    """Make the queue "orders" with these messages in it, and return what to receive them from."""
    if has_sessions:
        return await hold(broker, *sent, lock_duration_ms=L, max_delivery_count=max_delivery_count)
    await broker.create_queue("orders", lock_duration_ms=L, max_delivery_count=max_delivery_count)
    await broker.send("orders", *sent)
    return Plain("orders")


async def held_again(broker: Broker, source: Source) -> Source:
    """Return what to receive from after the locks ended: a session must be accepted again."""
    return await broker.accept("orders", source.session_id) if isinstance(source, Held) else source
