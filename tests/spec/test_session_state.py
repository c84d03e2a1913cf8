"""The state of a session (section 5.5 of the contract)."""

from __future__ import annotations

import pytest

from lockstep.core.errors import MessageSizeExceeded, StateConflict
from tests.spec.driver import (
    Broker,
    DeadLetters,
    complete,
    dead_letter,
    hold,
    needs_clock,
    needs_restart,
)

KIB = 1024
IDLE_MS = 300_000


async def test_c37_a_new_session_has_no_state_and_returns_what_is_set(broker: Broker) -> None:
    """C37, SES-41."""
    held = await hold(broker, b"1")
    before = await broker.get_state(held)

    version = await broker.set_state(held, b"first_state")

    assert before == (None, 0)
    assert version > 0
    assert await broker.get_state(held) == (b"first_state", version)


async def test_c38_setting_none_clears_the_state(broker: Broker) -> None:
    held = await hold(broker)
    first = await broker.set_state(held, b"1")

    version = await broker.set_state(held, None)

    assert version > first
    assert await broker.get_state(held) == (None, version)


async def test_ses_41_an_empty_state_differs_from_none(broker: Broker) -> None:
    held = await hold(broker)

    version = await broker.set_state(held, b"")

    assert await broker.get_state(held) == (b"", version)
    assert (await broker.session("orders", "s")).state_bytes == 0
    await broker.release_session(held)
    assert (await broker.accept("orders", "s")).state == b""


async def test_ses_46_a_state_is_any_bytes(broker: Broker) -> None:
    held = await hold(broker)

    await broker.set_state(held, bytes(range(256)))

    assert (await broker.get_state(held))[0] == bytes(range(256))


async def test_add_7_every_set_makes_a_higher_version(broker: Broker) -> None:
    held = await hold(broker, b"1")

    versions = [await broker.set_state(held, value) for value in (b"1", b"1", None, b"", b"2")]

    assert versions[0] > 0
    assert versions == sorted(set(versions))
    await broker.release_session(held)
    assert (await broker.accept("orders", "s")).state_version == versions[-1]


async def test_add_7_a_version_does_not_come_again_after_the_session_was_forgotten(
    broker: Broker,
) -> None:
    held = await hold(broker)
    old = [await broker.set_state(held, value) for value in (b"mine", b"mine", None)]
    await broker.release_session(held)

    assert await broker.sessions("orders") == []  # nothing is left of it (SES-2)
    again = await broker.accept("orders", "s")
    new = [await broker.set_state(again, b"somebody else's") for _ in range(3)]

    assert again.state_version == 0
    assert min(new) > max(old)
    with pytest.raises(StateConflict):
        await broker.set_state(again, b"overwritten", if_version=old[0])


@needs_restart
async def test_add_7_nor_does_it_after_a_restart(broker: Broker) -> None:
    held = await hold(broker)
    old = [await broker.set_state(held, value) for value in (b"1", b"2", b"3", None)]
    await broker.release_session(held)

    await broker.restart()

    again = await broker.accept("orders", "s")
    assert await broker.set_state(again, b"4") > max(old)


@needs_clock
async def test_add_7_nor_does_it_after_an_idle_state_went(broker: Broker) -> None:
    """SES-44: the session is forgotten with its state."""
    held = await hold(broker, session_state_idle_ttl_ms=IDLE_MS)
    old = await broker.set_state(held, b"mine")
    await broker.release_session(held)
    await broker.advance(IDLE_MS)

    again = await broker.accept("orders", "s")

    assert (again.state, again.state_version) == (None, 0)
    assert await broker.set_state(again, b"somebody else's") > old


@needs_clock
async def test_c40_a_state_that_was_set_is_there_for_the_holder_after_an_expiry(
    broker: Broker,
) -> None:
    """C40, SES-42, SES-43, I-6: expiry of the holder does not roll back an acknowledged set."""
    held = await hold(broker, b"1", lock_duration_ms=5_000)
    await broker.receive(held)
    version = await broker.set_state(held, b"progress")
    await broker.advance(5_000)

    again = await broker.accept("orders", "s", holder="another")

    assert (again.state, again.state_version) == (b"progress", version)
    assert await broker.get_state(again) == (b"progress", version)


async def test_ses_42_a_state_is_visible_at_the_moment_of_acceptance(broker: Broker) -> None:
    held = await hold(broker, b"1")
    await broker.set_state(held, b"progress")
    await broker.release_session(held)

    assert (await broker.accept("orders")).state == b"progress"


async def test_ses_43_a_state_outlives_all_messages_until_it_is_cleared(broker: Broker) -> None:
    held = await hold(broker, b"1", b"2")
    await broker.set_state(held, b"kept")
    got = await broker.receive(held)
    await complete(broker, held, got[:1])
    await dead_letter(broker, held, got[1:])
    await broker.release_session(held)

    again = await broker.accept("orders", "s")
    kept = again.state
    await broker.set_state(again, None)
    await broker.release_session(again)

    assert kept == b"kept"
    assert await broker.sessions("orders") == []
    assert len(await broker.receive(DeadLetters("orders"))) == 1


async def test_ses_45_a_state_can_be_set_without_any_message(broker: Broker) -> None:
    held = await hold(broker)

    await broker.set_state(held, b"early")
    await broker.release_session(held)

    assert [view.session_id for view in await broker.sessions("orders")] == ["s"]


async def test_ses_3_states_of_two_queues_and_of_two_sessions_are_unrelated(
    broker: Broker,
) -> None:
    first = await hold(broker, queue="a")
    second = await hold(broker, queue="b")
    third = await broker.accept("a", "t")

    await broker.set_state(first, b"1")
    await broker.set_state(third, b"3")

    assert await broker.get_state(second) == (None, 0)
    assert (await broker.get_state(first))[0] == b"1"
    assert (await broker.get_state(third))[0] == b"3"


async def test_c41_a_state_that_is_too_large_is_refused_and_the_earlier_one_stays(
    broker: Broker,
) -> None:
    """C41, SES-39: 256 KiB accepted where that is the limit, one byte more refused."""
    held = await hold(broker, max_session_state_size_in_kilobytes=256)
    version = await broker.set_state(held, bytes(256 * KIB))

    with pytest.raises(MessageSizeExceeded) as refused:
        await broker.set_state(held, bytes(256 * KIB + 1))

    assert refused.value.details["limit"] == "max_session_state_size_in_kilobytes"
    assert refused.value.details["configured"] == str(256 * KIB)
    assert refused.value.details["observed"] == str(256 * KIB + 1)
    assert await broker.get_state(held) == (bytes(256 * KIB), version)


async def test_ses_44_states_are_counted_and_gone_states_are_not(broker: Broker) -> None:
    held = await hold(broker)
    empty = (await broker.runtime("orders")).size_bytes

    await broker.set_state(held, bytes(1000))
    larger = (await broker.runtime("orders")).size_bytes
    await broker.set_state(held, bytes(10))
    smaller = (await broker.runtime("orders")).size_bytes
    await broker.set_state(held, None)

    assert (larger - empty, smaller - empty) == (1000, 10)
    assert (await broker.runtime("orders")).size_bytes == empty


@needs_restart
async def test_states_survive_a_restart(broker: Broker) -> None:
    held = await hold(broker)
    await broker.set_state(held, b"old")
    kept = await broker.set_state(held, b"kept")
    other = await broker.accept("orders", "cleared")
    await broker.set_state(other, b"x")
    cleared = await broker.set_state(other, None)

    await broker.restart()

    assert await broker.get_state(held) == (b"kept", kept)
    assert await broker.get_state(other) == (None, cleared)
