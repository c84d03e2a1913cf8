"""What can be seen without a lock: sessions and counts (sections 5.6 and 16.2 of the contract)."""

from __future__ import annotations

from tests.spec.driver import (
    Broker,
    DeadLetters,
    Plain,
    complete,
    dead_letter,
    hold,
    needs_clock,
    needs_restart,
    numbered,
)


async def test_c43_all_sessions_with_messages_are_listed(broker: Broker) -> None:
    """C43: an empty queue → an empty list."""
    await broker.create_queue("orders", requires_session=True)
    empty = await broker.sessions("orders")

    await broker.send("orders", b"1", b"2", b"3", sessions=("b", "a", "c"))

    assert empty == []
    assert [view.session_id for view in await broker.sessions("orders")] == ["a", "b", "c"]


async def test_ses_51_a_session_that_is_done_is_not_listed(broker: Broker) -> None:
    """SES-51: all messages consumed or dead-lettered, and no state."""
    held = await hold(broker, b"1", b"2")
    got = await broker.receive(held)
    await complete(broker, held, got[:1])
    await dead_letter(broker, held, got[1:])
    await broker.release_session(held)

    assert await broker.sessions("orders") == []


async def test_ses_52_a_session_is_shown_with_its_counts_its_holder_and_its_state(
    broker: Broker,
) -> None:
    held = await hold(broker, *numbered(5))
    await broker.receive(held, 3)
    version = await broker.set_state(held, b"12345")

    view = await broker.session("orders", "s")

    assert (view.active, view.locked, view.holder) == (5, 3, "receiver")
    assert (view.state_bytes, view.state_version) == (5, version)
    assert view.locked_until_ms >= held.locked_until_ms
    assert view.grant > 0
    assert [view] == await broker.sessions("orders")


async def test_a_session_that_nothing_is_known_of_is_shown_as_empty(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)

    view = await broker.session("orders", "never")

    assert (view.session_id, view.active, view.grant, view.state_bytes) == ("never", 0, 0, None)
    assert await broker.sessions("orders") == []


async def test_listing_pages_by_id_and_repeats_nothing(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)
    names = ["", "A", "a", "b", "ä", "😀"]
    for name in names:
        await broker.send("orders", b"1", session=name)

    pages = []
    after: str | None = None
    while page := await broker.sessions("orders", after=after, maximum=2):
        pages.append([view.session_id for view in page])
        after = page[-1].session_id

    assert pages == [["", "A"], ["a", "b"], ["ä", "😀"]]


@needs_clock
async def test_ses_53_listing_locks_nothing_and_extends_nothing(broker: Broker) -> None:
    await hold(broker, b"1", lock_duration_ms=5_000)

    for _ in range(4):
        await broker.advance(1_250)
        await broker.sessions("orders")
        await broker.session("orders", "s")

    assert (await broker.session("orders", "s")).holder == ""


async def test_cnt_1_a_session_queue_counts_what_it_holds(broker: Broker) -> None:
    """CNT-1, CNT-2: active includes locked ones."""
    held = await hold(broker, *numbered(5))
    got = await broker.receive(held, 3)
    await dead_letter(broker, held, got[:1])
    await broker.set_state(held, b"1")
    await broker.send("orders", b"6", session="t")
    await broker.release_session(await broker.accept("orders", "u"))

    counted = await broker.runtime("orders")

    assert (counted.active, counted.locked, counted.dead_letters) == (5, 2, 1)
    assert (counted.sessions, counted.locked_sessions, counted.runnable_sessions) == (2, 1, 1)


async def test_cnt_1_a_plain_queue_counts_what_it_holds(broker: Broker) -> None:
    await broker.create_queue("orders")
    await broker.send("orders", *numbered(6))
    got = await broker.receive(Plain("orders"), 4)
    await complete(broker, Plain("orders"), got[:1])
    await dead_letter(broker, Plain("orders"), got[1:2])
    await broker.receive(DeadLetters("orders"))

    counted = await broker.runtime("orders")

    assert (counted.active, counted.locked, counted.dead_letters) == (4, 2, 1)
    assert counted.sessions == 0


@needs_restart
async def test_counts_are_the_same_after_a_restart(broker: Broker) -> None:
    held = await hold(broker, *numbered(5))
    got = await broker.receive(held, 3)
    await dead_letter(broker, held, got[:1])
    await complete(broker, held, got[1:2])
    await broker.set_state(held, b"1")
    await broker.send("orders", b"6", session="t")
    before = (await broker.runtime("orders"), await broker.sessions("orders"))

    await broker.restart()

    assert (await broker.runtime("orders"), await broker.sessions("orders")) == before
