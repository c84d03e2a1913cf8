"""Durations and delivery counts: what is measured, once for each message, at no cost for each."""

from __future__ import annotations

import pytest

from lockstep.core.commands import Outcome
from lockstep.core.ids import EntityKey
from tests.unit.owner.owner_rig import PLAIN, SESSIONS, Owner

TIME_IN_QUEUE = "entity_time_in_queue_seconds"


def time_in_queue(owner: Owner, key: EntityKey) -> tuple[float, float]:
    return (
        owner.of_queue(key, f"{TIME_IN_QUEUE}_sum"),
        owner.of_queue(key, f"{TIME_IN_QUEUE}_count"),
    )


async def test_time_in_queue_is_from_the_store_of_a_message_to_its_completion(owner: Owner) -> None:
    await owner.create(SESSIONS)
    await owner.send(SESSIONS, 3, "s")
    await owner.pass_time(4_000)
    await owner.send(SESSIONS, 1, "s")
    lock = await owner.accept("s")
    got = await owner.receive(SESSIONS, lock)
    await owner.pass_time(2_000)

    await owner.settle(SESSIONS, Outcome.COMPLETE, got, lock)

    assert time_in_queue(owner, SESSIONS) == (3 * 6 + 2, 4)


async def test_time_in_queue_falls_into_the_buckets_of_its_seconds(owner: Owner) -> None:
    await owner.create(PLAIN)
    for count, pause_ms in ((1, 10_000), (2, 900), (3, 50), (4, 0)):
        await owner.send(PLAIN, count)
        await owner.pass_time(pause_ms)

    await owner.settle(PLAIN, Outcome.COMPLETE, await owner.receive(PLAIN))

    def up_to(seconds: str) -> float:
        labels = {"entity_type": "queue", "sessions": "false", "le": seconds}
        return owner.of_process("time_in_queue_seconds_bucket", **labels)

    bounds = ("0.01", "0.05", "0.1", "0.5", "1.0", "5.0", "15.0", "+Inf")
    assert [up_to(bound) for bound in bounds] == [4, 7, 7, 7, 9, 9, 10, 10]
    assert owner.of_process(
        "time_in_queue_seconds_sum", entity_type="queue", sessions="false"
    ) == pytest.approx(10.95 + 2 * 0.95 + 3 * 0.05)


@pytest.mark.parametrize("outcome", [Outcome.ABANDON, Outcome.RELEASE, Outcome.DEAD_LETTER])
async def test_message_that_is_not_completed_has_no_time_in_queue(
    owner: Owner, outcome: Outcome
) -> None:
    await owner.create(PLAIN)
    await owner.send(PLAIN)
    await owner.pass_time(1_000)

    await owner.settle(PLAIN, outcome, await owner.receive(PLAIN))

    assert time_in_queue(owner, PLAIN) == (0, 0)


async def test_completed_dead_letter_has_no_time_in_queue(owner: Owner) -> None:
    await owner.create(PLAIN)
    await owner.send(PLAIN)
    await owner.settle(PLAIN, Outcome.DEAD_LETTER, await owner.receive(PLAIN))
    await owner.pass_time(1_000)

    dead = await owner.receive(PLAIN, dead_letter=True)
    await owner.settle(PLAIN, Outcome.COMPLETE, dead, dead_letter=True)

    assert time_in_queue(owner, PLAIN) == (0, 0)
    assert owner.of_process("delivery_count_count") == 1


async def test_delivery_counts_are_those_before_the_settlement(owner: Owner) -> None:
    await owner.create(PLAIN)
    await owner.send(PLAIN, 3)
    got = await owner.receive(PLAIN, maximum=1)
    await owner.settle(PLAIN, Outcome.ABANDON, got)
    await owner.settle(PLAIN, Outcome.ABANDON, await owner.receive(PLAIN, maximum=1))

    await owner.settle(PLAIN, Outcome.COMPLETE, await owner.receive(PLAIN))

    def up_to(count: str) -> float:
        return owner.of_process("delivery_count_bucket", le=count)

    assert [up_to(bound) for bound in ("0.0", "1.0", "2.0", "+Inf")] == [3, 4, 5, 5]
    assert owner.of_process("delivery_count_sum") == 3


async def test_released_is_an_outcome(owner: Owner) -> None:
    await owner.create(PLAIN)
    await owner.send(PLAIN, 2)

    await owner.settle(PLAIN, Outcome.RELEASE, await owner.receive(PLAIN))

    assert owner.counted(PLAIN, "messages_settled") == {("released",): 2}
    assert owner.counted(PLAIN, "delivery_count_increments") == {}


async def test_locks_of_dead_letters_end_by_settlement_in_a_session_queue_too(
    owner: Owner,
) -> None:
    await owner.create(SESSIONS)
    await owner.send(SESSIONS, 1, "s")
    lock = await owner.accept("s")
    await owner.settle(SESSIONS, Outcome.DEAD_LETTER, await owner.receive(SESSIONS, lock), lock)

    dead = await owner.receive(SESSIONS, dead_letter=True)
    await owner.settle(SESSIONS, Outcome.COMPLETE, dead, dead_letter=True)

    assert owner.of_queue(SESSIONS, "locks_granted_total", kind="message") == 1
    assert owner.counted(SESSIONS, "locks_released") == {("message", "settled"): 1}
