"""What holds of a queue with many sessions, wherever they live (ENT-11, ADD-1): one listing, one set of counters."""

from __future__ import annotations

from lockstep.core.commands import Outcome, SessionFilter
from lockstep.core.replies import Cause
from tests.spec.driver import Broker, complete, dead_letter, defer

MINUTE_MS = 60_000
NAMES = [f"session {number:02}" for number in range(24)]


async def with_sessions(broker: Broker) -> None:
    """Make a queue with two messages in each of many sessions."""
    await broker.create_queue("orders", requires_session=True, lock_duration_ms=5 * MINUTE_MS)
    for name in NAMES:
        await broker.send("orders", b"1", b"2", session=name)


async def test_ent_11_the_listing_has_every_session_once_and_in_order(broker: Broker) -> None:
    await with_sessions(broker)
    for name in NAMES[::3]:
        await broker.accept("orders", name)

    shown = await broker.sessions("orders")
    held = await broker.filtered("orders", SessionFilter.HELD)

    assert [(view.session_id, view.active) for view in shown] == [(name, 2) for name in NAMES]
    assert [view.session_id for view in held] == NAMES[::3]
    assert await broker.sessions("orders", after=NAMES[9], maximum=5) == shown[10:15]


async def test_ent_11_counters_are_those_of_the_whole_queue(broker: Broker) -> None:
    await with_sessions(broker)
    before = await broker.runtime("orders")
    for number, name in enumerate(NAMES[:12]):
        held = await broker.accept("orders", name)
        got = await broker.receive(held, 1)
        if number % 3 == 0:
            await dead_letter(broker, held, got)
        elif number % 3 == 1:
            await defer(broker, held, got)
    later = broker.now_ms() + 60 * MINUTE_MS
    await broker.send("orders", b"later", b"later", sessions=["a", "b"], due_ms=[later, later])

    runtime = await broker.runtime("orders")

    assert (before.active, before.sessions, before.locked) == (48, 24, 0)
    assert (runtime.active, runtime.dead_letters, runtime.deferred) == (44, 4, 4)
    assert (runtime.locked, runtime.locked_sessions, runtime.scheduled) == (4, 12, 2)
    assert runtime.size_bytes > before.size_bytes > 0


async def test_ses_44_a_purge_of_states_reaches_every_session(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    for name in NAMES:
        held = await broker.accept("orders", name)
        await broker.set_state(held, b"state")
        if name != NAMES[5]:
            await broker.release_session(held)

    assert await broker.clear_states("orders", NAMES[7]) == 1
    assert await broker.clear_states("orders") == len(NAMES) - 2
    assert [view.session_id for view in await broker.sessions("orders")] == [NAMES[5]]


async def test_add_10_an_explanation_counts_the_whole_queue(broker: Broker) -> None:
    await with_sessions(broker)
    ready = await broker.explain("orders")
    holders = [await broker.accept("orders", name) for name in NAMES]
    held = await broker.explain("orders")
    for holder in holders:
        await complete(broker, holder, await broker.receive(holder))
        await broker.release_session(holder)
    drained = await broker.explain("orders")

    assert (ready.cause, dict(ready.facts)["free_sessions"]) == (Cause.NO_RECEIVER, "24")
    assert "Free sessions with messages: 24." in ready.sentence
    assert (held.cause, held.sentence.split()[0]) == (Cause.HELD, "24")
    assert (drained.cause, dict(drained.facts)["active"]) == (Cause.EMPTY, "0")


async def test_add_10_a_deferred_message_in_hand_is_all_that_a_queue_has(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    (number,) = await broker.send("orders", b"x", session="s")
    held = await broker.accept("orders", "s")
    await defer(broker, held, await broker.receive(held))
    await broker.receive_deferred(held, [number])

    found = await broker.explain("orders")

    assert (found.cause, found.until_ms) == (Cause.HELD, 0)


async def test_add_10_a_delay_that_ends_first_is_told(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    for minutes, name in ((9, "a"), (5, "b"), (7, "c"), (6, "d")):
        await broker.send("orders", b"x", session=name)
        held = await broker.accept("orders", name)
        got = await broker.receive(held)
        await broker.settle(held, Outcome.ABANDON, got, delay_ms=minutes * MINUTE_MS)
        await broker.release_session(held)

    found = await broker.explain("orders")

    assert found.cause == Cause.DELAYED
    assert found.sentence.endswith(" 4.")
    assert abs(found.until_ms - broker.now_ms() - 5 * MINUTE_MS) < MINUTE_MS
