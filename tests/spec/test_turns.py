"""The one-commit turn (ADD-8): complete, set the state and send, all or nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from lockstep.core.errors import (
    EntityDisabled,
    InvalidOperation,
    InvalidRequest,
    LockstepError,
    MessageLockLost,
    MessageSizeExceeded,
    QuotaExceeded,
    SessionLockLost,
    StateConflict,
)
from lockstep.core.ids import RequestId
from tests.spec.driver import (
    Broker,
    Got,
    Held,
    abandon,
    bodies,
    defer,
    hold,
    needs_clock,
    needs_requests,
    needs_restart,
    numbered,
)


async def test_add_8_a_turn_does_all_of_it(broker: Broker) -> None:
    held = await hold(broker, *numbered(3), placement="single")
    got = await broker.receive(held, 2)

    numbers, version = await broker.commit_turn(
        held, got, b"out", b"more", session="t", state=b"after 2", sets_state=True
    )
    assert version > 0
    assert await broker.get_state(held) == (b"after 2", version)
    assert bodies(await broker.receive(held)) == [b"3"]
    other = await broker.receive(await broker.accept("orders", "t"))
    assert (bodies(other), [m.sequence for m in other]) == ([b"out", b"more"], numbers)


@needs_restart
async def test_add_8_a_turn_is_durable_whole(broker: Broker) -> None:
    held = await hold(broker, *numbered(2))
    got = await broker.receive(held, 1)
    _, version = await broker.commit_turn(
        held, got, b"out", session="s", state=b"x", sets_state=True
    )

    await broker.restart()
    assert await broker.get_state(held) == (b"x", version)
    assert bodies(await broker.receive(held)) == [b"2", b"out"]


async def test_add_8_each_part_may_be_left_out(broker: Broker) -> None:
    held = await hold(broker, *numbered(1))
    await broker.commit_turn(held, await broker.receive(held))
    await broker.commit_turn(held, (), b"out", session="s")
    _, first = await broker.commit_turn(held, sets_state=True, state=b"x")
    sent, second = await broker.commit_turn(held, sets_state=True, state=None)
    assert (sent, second > first) == ([], True)
    assert bodies(await broker.receive(held)) == [b"out"]
    with pytest.raises(InvalidRequest):
        await broker.commit_turn(held)


async def test_add_8_a_deferred_message_in_hand_is_completed_too(broker: Broker) -> None:
    held = await hold(broker, *numbered(2))
    numbers = await defer(broker, held, (await broker.receive(held))[:1])
    (aside,) = await broker.receive_deferred(held, numbers)
    await broker.commit_turn(held, [aside], state=b"x", sets_state=True)
    assert (await broker.runtime("orders")).deferred == 0


Turn = Callable[[Broker, Held, list[Got]], Awaitable[object]]
REFUSED: list[tuple[str, Turn, type[LockstepError]]] = [
    (
        "the state has another version",
        lambda b, h, g: b.commit_turn(
            h, g, b"out", session="t", state=b"y", sets_state=True, if_version=0
        ),
        StateConflict,
    ),
    (
        "the state is too large",
        lambda b, h, g: b.commit_turn(
            h, g, b"out", session="t", state=bytes(1025), sets_state=True
        ),
        MessageSizeExceeded,
    ),
    (
        "an output is too large",
        lambda b, h, g: b.commit_turn(h, g, bytes(4096), session="t", state=b"y", sets_state=True),
        MessageSizeExceeded,
    ),
    (
        "an output has no session",
        lambda b, h, g: b.commit_turn(h, g, b"out", state=b"y", sets_state=True),
        InvalidOperation,
    ),
]


@pytest.mark.parametrize(
    ("turn", "refused"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
async def test_add_8_a_refused_part_refuses_all(
    broker: Broker, turn: Turn, refused: type[LockstepError]
) -> None:
    held = await hold(
        broker,
        *numbered(2),
        max_message_size_in_kilobytes=2,
        max_session_state_size_in_kilobytes=1,
        placement="single",
    )
    version = await broker.set_state(held, b"before")
    got = await broker.receive(held, 1)
    with pytest.raises(refused):
        await turn(broker, held, got)

    assert await broker.get_state(held) == (b"before", version)
    assert (await broker.runtime("orders")).active == 2
    assert (await broker.session("orders", "s")).locked == 1
    await broker.commit_turn(held, got)  # it is still in hand


async def test_add_8_a_message_that_is_not_in_hand_refuses_all(broker: Broker) -> None:
    held = await hold(broker, *numbered(2), placement="single")
    got = await broker.receive(held)
    await abandon(broker, held, got[1:])
    with pytest.raises(MessageLockLost):
        await broker.commit_turn(held, got, b"out", session="t", state=b"x", sets_state=True)

    assert await broker.get_state(held) == (None, 0)
    assert (await broker.runtime("orders")).active == 2


async def test_add_8_a_full_or_disabled_queue_refuses_all(broker: Broker) -> None:
    held = await hold(broker, bytes(500_000), max_size_in_megabytes=1, placement="single")
    got = await broker.receive(held)
    with pytest.raises(QuotaExceeded):
        await broker.commit_turn(held, got, bytes(600_000), session="t")
    await broker.update_queue("orders", status="send_disabled")
    with pytest.raises(EntityDisabled):
        await broker.commit_turn(held, got, b"out", session="t", state=b"x", sets_state=True)

    assert await broker.get_state(held) == (None, 0)
    await broker.commit_turn(held, got)


@needs_clock
async def test_add_8_who_lost_the_session_commits_nothing(broker: Broker) -> None:
    held = await hold(broker, *numbered(1), lock_duration_ms=5_000)
    got = await broker.receive(held)
    await broker.advance(5_000)
    with pytest.raises(SessionLockLost):
        await broker.commit_turn(held, got, b"out", session="t", state=b"x", sets_state=True)

    assert [view.session_id for view in await broker.sessions("orders")] == ["s"]
    again = await broker.accept("orders", "s")
    assert (again.state, bodies(await broker.receive(again))) == (None, [b"1"])


@needs_requests
async def test_add_3_a_repeated_turn_is_taken_once(broker: Broker) -> None:
    held = await hold(broker, *numbered(1))
    got = await broker.receive(held)
    request = RequestId("client", 1)
    first, again = [
        await broker.commit_turn(
            held, got, b"out", session="s", state=b"x", sets_state=True, request=request
        )
        for _ in range(2)
    ]
    assert first == again
    assert (await broker.runtime("orders")).active == 1
    assert await broker.get_state(held) == (b"x", first[1])


async def test_dup_2_an_output_that_is_a_duplicate_is_discarded(broker: Broker) -> None:
    held = await hold(broker, requires_duplicate_detection=True, placement="single")
    first, _ = await broker.commit_turn(held, (), b"1", b"2", session="s", ids=["a", "b"])
    again, _ = await broker.commit_turn(held, (), b"3", b"2", session="s", ids=["c", "b"])
    assert again[1] == first[1]
    assert bodies(await broker.receive(held)) == [b"1", b"2", b"3"]
