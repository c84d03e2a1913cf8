"""The age of the oldest message: of those that a receiver could get now, and only of those."""

from __future__ import annotations

from lockstep.core.commands import Outcome
from lockstep.core.ids import EntityKey
from tests.unit.owner.owner_rig import PLAIN, SESSIONS, Owner


def age(owner: Owner, key: EntityKey, sub_queue: str = "main") -> float:
    return owner.of_queue(key, "entity_oldest_message_age_seconds", sub_queue=sub_queue)


async def test_oldest_message_ages_though_nothing_happens(owner: Owner) -> None:
    await owner.create(PLAIN)
    await owner.send(PLAIN)
    await owner.pass_time(1_500)
    await owner.send(PLAIN)

    first = age(owner, PLAIN)
    await owner.pass_time(3_600_000)

    assert (first, age(owner, PLAIN)) == (1.5, 3_601.5)


async def test_message_under_a_lock_has_no_age_until_it_is_given_back(owner: Owner) -> None:
    await owner.create(PLAIN)
    await owner.send(PLAIN)
    await owner.pass_time(1_000)
    await owner.send(PLAIN)
    await owner.pass_time(1_000)

    got = await owner.receive(PLAIN, maximum=1)
    while_locked = age(owner, PLAIN)
    await owner.settle(PLAIN, Outcome.ABANDON, got)

    assert (while_locked, age(owner, PLAIN)) == (1, 2)


async def test_age_of_a_session_queue_is_that_of_its_oldest_deliverable_message(
    owner: Owner,
) -> None:
    await owner.create(SESSIONS)
    for session in ("a", "b"):
        await owner.send(SESSIONS, 1, session)
        await owner.pass_time(1_000)
    await owner.send(SESSIONS, 1, "a")
    lock = await owner.accept("a")

    held_but_not_received = age(owner, SESSIONS)
    got = await owner.receive(SESSIONS, lock, maximum=1)
    other_session = age(owner, SESSIONS)
    await owner.settle(SESSIONS, Outcome.RELEASE, got, lock)
    given_back = age(owner, SESSIONS)
    await owner.receive(SESSIONS, lock)
    await owner.receive(SESSIONS, await owner.accept("b"))

    assert (held_but_not_received, other_session, given_back) == (2, 1, 2)
    assert age(owner, SESSIONS) == 0


async def test_dead_letters_have_an_age_of_their_own(owner: Owner) -> None:
    await owner.create(PLAIN)
    await owner.send(PLAIN)
    await owner.settle(PLAIN, Outcome.DEAD_LETTER, await owner.receive(PLAIN))
    await owner.pass_time(5_000)

    assert (age(owner, PLAIN), age(owner, PLAIN, "dead_letter")) == (0, 5)
    await owner.receive(PLAIN, dead_letter=True)
    assert age(owner, PLAIN, "dead_letter") == 0


async def test_time_of_day_that_is_set_back_makes_no_age_below_zero(owner: Owner) -> None:
    await owner.create(PLAIN)
    await owner.send(PLAIN)

    owner.clock.set_wall_clock(0)

    assert age(owner, PLAIN) == 0
