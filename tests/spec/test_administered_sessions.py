"""What ADD-5 and ADD-7 add to sessions: breaking a lock, and compare-and-set of the state."""

from __future__ import annotations

import pytest

from lockstep.core.errors import SessionLockLost, StateConflict
from tests.spec.driver import Broker, bodies, counts, hold, numbered


async def test_add_5_a_broken_lock_is_a_close_and_the_holder_learns_who_broke_it(
    broker: Broker,
) -> None:
    held = await hold(broker, *numbered(3))
    await broker.receive(held, 2)

    assert await broker.break_lock("orders", "s", by="ann")

    with pytest.raises(SessionLockLost, match=r"an administrator broke it \(ann\)") as lost:
        await broker.receive(held)
    assert lost.value.details["cause"] == "broken"
    again = await broker.accept("orders", "s")
    got = await broker.receive(again)
    assert (bodies(got), counts(got)) == (numbered(3), [0, 0, 0])


async def test_add_5_breaking_what_nobody_holds_does_nothing(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)

    assert not await broker.break_lock("orders", "s")
    assert (await broker.runtime("orders")).sessions == 0


async def test_add_7_a_state_is_set_only_if_nobody_set_it_since(broker: Broker) -> None:
    held = await hold(broker)
    first = await broker.set_state(held, b"1", if_version=0)
    second = await broker.set_state(held, b"2")

    with pytest.raises(StateConflict) as refused:
        await broker.set_state(held, b"3", if_version=first)

    assert refused.value.details["version"] == str(second)
    assert await broker.get_state(held) == (b"2", second)
    assert await broker.set_state(held, None, if_version=second) > second


async def test_add_7_a_state_is_the_first_only_if_nobody_set_one(broker: Broker) -> None:
    held = await hold(broker)
    first = await broker.set_state(held, b"1")

    with pytest.raises(StateConflict):
        await broker.set_state(held, b"2", if_version=0)

    assert await broker.get_state(held) == (b"1", first)
