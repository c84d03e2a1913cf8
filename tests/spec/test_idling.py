"""States and queues that nobody uses (SES-44, section 16.3)."""

from __future__ import annotations

import pytest

from lockstep.core.errors import EntityNotFound, LimitExceeded, SessionCannotBeLocked
from tests.spec.core_driver import CoreBroker
from tests.spec.driver import Broker, Plain, complete, needs_clock, needs_restart

TTL_MS = 300_000


async def with_state(broker: Broker, session: str) -> None:
    """Give a session a state and give it back."""
    held = await broker.accept("orders", session)
    await broker.set_state(held, b"state")
    await broker.release_session(held)


async def states(broker: Broker) -> list[str]:
    """Return the sessions that have a state."""
    found = await broker.sessions("orders")
    return [view.session_id for view in found if view.state_bytes is not None]


# --- states ------------------------------------------------------------------------------------------


@needs_clock
@needs_restart
@pytest.mark.parametrize("with_a_restart", [False, True])
async def test_ses_44_an_idle_state_goes_after_its_time(
    broker: Broker, with_a_restart: bool
) -> None:
    await broker.create_queue("orders", requires_session=True, session_state_idle_ttl_ms=TTL_MS)
    await with_state(broker, "a")
    if with_a_restart:
        await broker.restart()
    await broker.advance(TTL_MS - 1)
    assert await states(broker) == ["a"]
    await broker.advance(1)
    assert await broker.sessions("orders") == []
    assert (await broker.runtime("orders")).size_bytes == 0


@needs_clock
async def test_ses_44_a_state_in_use_stays(broker: Broker) -> None:
    await broker.create_queue(
        "orders",
        requires_session=True,
        session_state_idle_ttl_ms=TTL_MS,
        lock_duration_ms=TTL_MS,
    )
    await with_state(broker, "with-message")
    await with_state(broker, "held")
    await with_state(broker, "set-again")
    await broker.send("orders", b"x", session="with-message")
    await broker.advance(TTL_MS - 1_000)
    await with_state(broker, "set-again")
    held = await broker.accept("orders", "held")
    await broker.advance(2_000)
    assert await states(broker) == ["held", "set-again", "with-message"]

    await broker.release_session(held)
    emptied = await broker.accept("orders", "with-message")
    await complete(broker, emptied, await broker.receive(emptied))
    await broker.release_session(emptied)
    await broker.advance(2 * TTL_MS)
    assert await states(broker) == []


@needs_clock
async def test_ses_44_a_setting_that_comes_later_counts_for_states_that_are_there(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", requires_session=True)
    await with_state(broker, "a")
    await broker.advance(10 * TTL_MS)
    assert await states(broker) == ["a"]
    await broker.update_queue("orders", session_state_idle_ttl_ms=TTL_MS)
    await broker.advance(1)
    assert await states(broker) == []


@needs_clock
async def test_ses_44_a_purge_takes_idle_states_that_are_alone(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    for name in ("a", "b", "with-message"):
        await with_state(broker, name)
    await broker.send("orders", b"x", session="with-message")
    await broker.advance(1_000)
    await with_state(broker, "young")

    assert isinstance(broker, CoreBroker)  # it has a clock
    assert await broker.clear_states("orders", idle_ms=1_000, maximum=1) == 2
    assert await broker.clear_states("orders", idle_ms=1_000) == 0
    assert await states(broker) == ["with-message", "young"]


async def test_ses_44_one_state_is_purged_by_name_unless_somebody_holds_it(
    broker: Broker,
) -> None:
    await broker.create_queue("orders", requires_session=True)
    await with_state(broker, "a")
    held = await broker.accept("orders", "a", holder="worker-1")
    with pytest.raises(SessionCannotBeLocked, match="worker-1"):
        await broker.clear_states("orders", "a")
    await broker.release_session(held)
    assert await broker.clear_states("orders", "a") == 1
    assert await broker.clear_states("orders", "a") == 0


async def test_ses_44_a_purge_leaves_states_that_are_not_alone(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    for name in ("alone", "held", "with-message"):
        await with_state(broker, name)
    await broker.send("orders", b"x", session="with-message")
    await broker.accept("orders", "held")

    assert await broker.clear_states("orders", idle_ms=TTL_MS) == 0
    assert await broker.clear_states("orders") == 1
    assert await states(broker) == ["held", "with-message"]
    assert await broker.clear_states("orders", "with-message") == 1


# --- queues ------------------------------------------------------------------------------------------


async def is_there(broker: Broker) -> bool:
    """Whether the queue "orders" can be used."""
    try:
        await broker.get_queue("orders")
        await broker.runtime("orders")
    except EntityNotFound:
        return False
    return True


@needs_clock
@needs_restart
@pytest.mark.parametrize("with_a_restart", [False, True])
async def test_an_idle_queue_is_deleted_with_everything_in_it(
    broker: Broker, with_a_restart: bool
) -> None:
    await broker.create_queue("orders", auto_delete_on_idle_ms=TTL_MS)
    await broker.send("orders", b"x")
    if with_a_restart:
        await broker.restart()
    await broker.advance(TTL_MS - 1)
    assert await is_there(broker)
    await broker.advance(1)
    assert not await is_there(broker)
    with pytest.raises(EntityNotFound):
        await broker.send("orders", b"y")


@needs_clock
@pytest.mark.parametrize("use", ["send", "receive", "browse", "update"])
async def test_use_keeps_a_queue(broker: Broker, use: str) -> None:
    await broker.create_queue("orders", auto_delete_on_idle_ms=TTL_MS)
    await broker.advance(TTL_MS - 1_000)
    match use:
        case "send":
            await broker.send("orders", b"x")
        case "receive":
            await broker.receive(Plain("orders"))
        case "browse":
            await broker.browse(Plain("orders"))
        case _:
            await broker.update_queue("orders", user_metadata="x")
    await broker.advance(TTL_MS - 1)
    assert await is_there(broker)
    await broker.advance(1)
    assert not await is_there(broker)


@needs_clock
async def test_looking_at_its_figures_does_not_keep_a_queue(broker: Broker) -> None:
    await broker.create_queue("orders", auto_delete_on_idle_ms=TTL_MS)
    await broker.advance(TTL_MS - 1_000)
    await broker.runtime("orders")
    await broker.explain("orders")
    await broker.advance(1_000)
    assert not await is_there(broker)


@needs_clock
async def test_a_scheduled_message_or_a_holder_keeps_a_queue(broker: Broker) -> None:
    await broker.create_queue(
        "orders",
        requires_session=True,
        auto_delete_on_idle_ms=TTL_MS,
        lock_duration_ms=TTL_MS,
    )
    due_ms = broker.now_ms() + 3 * TTL_MS
    await broker.send("orders", b"x", session="s", due_ms=[due_ms])
    await broker.advance(2 * TTL_MS)
    assert await is_there(broker)
    held = await broker.accept("orders", "s")
    await broker.advance(TTL_MS - 1)
    assert await is_there(broker)
    await broker.release_session(held)
    await broker.advance(2 * TTL_MS)
    assert not await is_there(broker)


@needs_clock
async def test_a_setting_that_was_taken_back_keeps_the_queue(broker: Broker) -> None:
    await broker.create_queue("orders", auto_delete_on_idle_ms=TTL_MS)
    await broker.update_queue("orders", auto_delete_on_idle_ms=None)
    await broker.advance(2 * TTL_MS)
    assert await is_there(broker)


async def test_idle_times_under_five_minutes_are_refused(broker: Broker) -> None:
    for setting in ("auto_delete_on_idle_ms", "session_state_idle_ttl_ms"):
        with pytest.raises(LimitExceeded, match="between 5m"):
            await broker.create_queue("orders", **{setting: TTL_MS - 1})
