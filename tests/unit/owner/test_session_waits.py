"""How long sessions wait for a holder: since they have a message and nobody holds them."""

from __future__ import annotations

from lockstep.core.commands import Outcome
from lockstep.storage.memory import MemoryStore
from tests.unit.owner.owner_rig import SESSIONS, Owner, running_owner


def waits(owner: Owner) -> tuple[float, float]:
    """Return the seconds of all waits, and how many there were."""
    name = "session_wait_seconds"
    return owner.of_process(f"{name}_sum"), owner.of_process(f"{name}_count")


async def test_session_waits_since_its_first_message_came(owner: Owner) -> None:
    await owner.create(SESSIONS)
    await owner.send(SESSIONS, 1, "s")
    await owner.pass_time(3_000)
    await owner.send(SESSIONS, 1, "s")

    await owner.accept()

    assert waits(owner) == (3, 1)


async def test_session_that_was_given_back_waits_anew(owner: Owner) -> None:
    await owner.create(SESSIONS)
    await owner.send(SESSIONS, 1, "s")
    lock = await owner.accept("s")
    await owner.pass_time(30_000)
    await owner.release(lock)
    await owner.pass_time(2_000)

    await owner.accept("s")

    assert waits(owner) == (2, 2)


async def test_session_whose_lock_ran_out_waits_since_then(owner: Owner) -> None:
    await owner.create(SESSIONS, lock_duration_ms=5_000)
    await owner.send(SESSIONS, 1, "s")
    await owner.accept("s")
    await owner.pass_time(7_000)

    await owner.accept("s")

    assert waits(owner) == (2, 2)


async def test_message_that_comes_to_a_free_session_begins_its_wait(owner: Owner) -> None:
    await owner.create(SESSIONS)
    await owner.send(SESSIONS, 1, "s")
    lock = await owner.accept("s")
    await owner.settle(SESSIONS, Outcome.COMPLETE, await owner.receive(SESSIONS, lock), lock)
    await owner.release(lock)
    await owner.pass_time(60_000)
    await owner.send(SESSIONS, 1, "s")
    await owner.pass_time(1_000)

    await owner.accept("s")

    assert waits(owner) == (1, 2)


async def test_session_without_messages_does_not_wait(owner: Owner) -> None:
    await owner.create(SESSIONS)

    await owner.accept("empty")

    assert waits(owner) == (0, 0)


async def test_wait_of_a_session_goes_on_over_a_restart() -> None:
    store = MemoryStore()
    async with running_owner(store) as before:
        await before.create(SESSIONS)
        await before.send(SESSIONS, 1, "held before")
        await before.send(SESSIONS, 1, "never held")
        await before.release(await before.accept("held before"))
        await before.pass_time(10_000)
        await before.send(SESSIONS, 1, "other")  # its commit stores the time
    async with running_owner(store) as owner:
        await owner.pass_time(1_000)

        await owner.accept("held before")
        first = waits(owner)
        await owner.accept("never held")

        assert (first, waits(owner)) == ((11, 1), (11 + 11, 2))
