"""Which messages a queue discards because it knows them (section 11 of the contract)."""

from __future__ import annotations

import pytest

from lockstep.core.errors import InvalidOperation, LimitExceeded, QuotaExceeded
from lockstep.core.ids import RequestId
from lockstep.core.limits import MIB
from tests.spec.driver import (
    Broker,
    Plain,
    bodies,
    complete,
    needs_clock,
    needs_requests,
    needs_restart,
)

PLAIN = Plain("orders")
WINDOW = 60_000


async def detecting(broker: Broker, **settings: object) -> None:
    """Make the queue "orders", which discards messages with known ids for a minute."""
    given = {"duplicate_detection_history_time_window_ms": WINDOW, **settings}
    await broker.create_queue("orders", requires_duplicate_detection=True, **given)  # type: ignore[arg-type]


async def test_c82_dup_2_of_five_messages_with_one_id_the_first_is_stored(broker: Broker) -> None:
    await detecting(broker)

    numbers = [(await broker.send("orders", str(n).encode(), ids=["a"]))[0] for n in range(5)]

    assert numbers == [numbers[0]] * 5
    assert bodies(await broker.receive(PLAIN)) == [b"0"]


async def test_dup_5_a_batch_stores_what_is_new_in_it(broker: Broker) -> None:
    await detecting(broker)
    (first,) = await broker.send("orders", b"1", ids=["a"])

    numbers = await broker.send("orders", b"2", b"3", b"4", b"5", ids=["b", "a", "b", "c"])

    assert numbers == [first + 1, first, first + 1, first + 2]
    assert bodies(await broker.receive(PLAIN)) == [b"1", b"2", b"5"]


async def test_dup_10_messages_without_an_id_are_no_duplicates(broker: Broker) -> None:
    await detecting(broker)

    await broker.send("orders", b"1", b"2", b"3", ids=["", "a", ""])
    await broker.send("orders", b"4")

    assert bodies(await broker.receive(PLAIN)) == [b"1", b"2", b"3", b"4"]


async def test_dup_10_messages_of_a_session_without_an_id_are_no_duplicates(
    broker: Broker,
) -> None:
    await detecting(broker, requires_session=True)

    await broker.send("orders", b"1", b"2", b"3", session="s", ids=["", "a", ""])

    held = await broker.accept("orders", "s")
    assert bodies(await broker.receive(held)) == [b"1", b"2", b"3"]


async def test_a_queue_that_does_not_detect_stores_everything(broker: Broker) -> None:
    await broker.create_queue("orders")

    await broker.send("orders", b"1", b"2", ids=["a", "a"])

    assert bodies(await broker.receive(PLAIN)) == [b"1", b"2"]


@needs_clock
async def test_c82_dup_3_an_id_is_known_for_the_window_even_after_its_message_was_completed(
    broker: Broker,
) -> None:
    await detecting(broker)
    await broker.send("orders", b"1", ids=["a"])
    await complete(broker, PLAIN, await broker.receive(PLAIN))
    await broker.advance(WINDOW - 1)
    await broker.send("orders", b"2", ids=["a"])
    assert await broker.receive(PLAIN) == []

    await broker.advance(1)
    await broker.send("orders", b"3", ids=["a"])

    assert bodies(await broker.receive(PLAIN)) == [b"3"]


@needs_clock
async def test_dup_3_every_send_has_a_window_of_its_own(broker: Broker) -> None:
    await detecting(broker)
    await broker.send("orders", b"1", ids=["a"])
    await broker.advance(500)
    await broker.send("orders", b"2", ids=["b"])
    await broker.advance(WINDOW - 500)

    await broker.send("orders", b"3", b"4", ids=["a", "b"])
    await broker.advance(500)
    await broker.send("orders", b"5", b"6", ids=["a", "b"])

    assert bodies(await broker.receive(PLAIN)) == [b"1", b"2", b"3", b"6"]


@needs_clock
async def test_dup_4_a_shorter_window_holds_for_what_is_known_already(broker: Broker) -> None:
    await detecting(broker)
    await broker.send("orders", b"1", ids=["a"])
    await broker.advance(30_000)
    await broker.update_queue("orders", duplicate_detection_history_time_window_ms=20_000)
    await broker.advance(1)

    await broker.send("orders", b"2", ids=["a"])

    assert bodies(await broker.receive(PLAIN)) == [b"1", b"2"]


@needs_clock
@needs_restart
async def test_dup_3_what_is_known_outlives_a_restart(broker: Broker) -> None:
    await detecting(broker)
    await broker.send("orders", b"1", b"2", ids=["a", "b"])
    await broker.restart()

    numbers = await broker.send("orders", b"3", b"4", ids=["a", "c"])

    assert numbers[0] < numbers[1]
    assert (await broker.runtime("orders")).active == 3
    await broker.advance(WINDOW)
    await broker.send("orders", b"5", ids=["a"])
    assert (await broker.runtime("orders")).active == 4


async def test_dup_1_in_a_spread_queue_an_id_belongs_to_its_session(broker: Broker) -> None:
    await detecting(broker, requires_session=True)

    await broker.send("orders", b"1", b"2", b"3", sessions=["s", "t", "s"], ids=["a", "a", "a"])

    assert bodies(await broker.receive(await broker.accept("orders", "s"))) == [b"1"]
    assert bodies(await broker.receive(await broker.accept("orders", "t"))) == [b"2"]


async def test_dup_1_in_a_single_session_queue_an_id_belongs_to_the_queue(broker: Broker) -> None:
    await detecting(broker, requires_session=True, placement="single")

    await broker.send("orders", b"1", b"2", sessions=["s", "t"], ids=["a", "a"])

    assert (await broker.runtime("orders")).active == 1


async def test_sch_8_dup_9_a_scheduled_message_is_known_even_when_it_was_cancelled(
    broker: Broker,
) -> None:
    await detecting(broker)
    due_ms = [broker.now_ms() + 3_600_000]
    numbers = await broker.send("orders", b"1", ids=["a"], due_ms=due_ms)
    assert await broker.send("orders", b"2", ids=["a"], due_ms=due_ms) == numbers
    await broker.cancel_scheduled("orders", numbers)

    await broker.send("orders", b"3", ids=["a"])

    assert await broker.receive(PLAIN) == []


@needs_requests
async def test_add_3_a_repeat_of_a_send_with_duplicates_gets_the_first_answer(
    broker: Broker,
) -> None:
    await detecting(broker)
    await broker.send("orders", b"1", ids=["a"])
    request = RequestId("c", 1)
    first = await broker.send("orders", b"2", b"3", ids=["a", "b"], request=request)

    assert await broker.send("orders", b"2", b"3", ids=["a", "b"], request=request) == first
    assert (await broker.runtime("orders")).active == 2


async def test_snd_11_a_full_queue_still_answers_what_it_knows(broker: Broker) -> None:
    await detecting(broker, max_size_in_megabytes=1)
    numbers = await broker.send("orders", bytes(MIB - 100), ids=["a"])

    assert await broker.send("orders", bytes(MIB - 100), ids=["a"]) == numbers
    with pytest.raises(QuotaExceeded):
        await broker.send("orders", bytes(MIB - 100), ids=["b"])
    with pytest.raises(QuotaExceeded):  # a refused send made nothing known
        await broker.send("orders", bytes(MIB - 100), ids=["b"])


async def test_dup_4_detection_is_fixed_at_creation(broker: Broker) -> None:
    await broker.create_queue("orders")

    with pytest.raises(InvalidOperation):
        await broker.update_queue("orders", requires_duplicate_detection=True)


@pytest.mark.parametrize("window_ms", [19_999, 7 * 86_400_000 + 1])
async def test_dup_4_the_window_is_20_seconds_to_7_days(broker: Broker, window_ms: int) -> None:
    with pytest.raises(LimitExceeded):
        await detecting(broker, duplicate_detection_history_time_window_ms=window_ms)
