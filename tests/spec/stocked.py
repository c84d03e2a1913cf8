"""Queues with messages in them, with sessions or without, for tests that hold for both kinds."""

from __future__ import annotations

import pytest

from lockstep.core.entity import SettingValue
from tests.spec.driver import Broker, Held, Plain, Source

L = 5_000
both_kinds = pytest.mark.parametrize("has_sessions", [True, False])


async def stocked(
    broker: Broker, sent: list[bytes], *, has_sessions: bool, **settings: SettingValue
) -> Source:
    """Make the queue "orders" with these messages in it, and return what to receive them from."""
    settings = {"lock_duration_ms": L, **settings}
    await broker.create_queue("orders", requires_session=has_sessions, **settings)
    if has_sessions:
        await broker.send("orders", *sent, session="s")
        return await broker.accept("orders", "s")
    await broker.send("orders", *sent)
    return Plain("orders")


async def held_again(broker: Broker, source: Source) -> Source:
    """Return what to receive from after the locks ended: a session must be accepted again."""
    return await broker.accept("orders", source.session_id) if isinstance(source, Held) else source
