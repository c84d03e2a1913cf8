"""Processors, as a program uses them against a server."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from lockstep import LockstepClient as BlockingClient
from lockstep import ProcessingFailure
from lockstep import ProcessorContext as BlockingContext
from lockstep.aio import LockstepClient, Message, ProcessorContext, ReceivedMessage
from lockstep.errors import SessionLockLost
from tests.client.calls import Q, create, numbered, send, session_receiver, texts


class Counted:
    """An event that is set when so many things happened."""

    def __init__(self, count: int) -> None:
        self.all = asyncio.Event()
        self._left = count

    def one(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.all.set()


def fail(failure: ProcessingFailure) -> None:
    raise AssertionError(failure)


async def left_over(client: LockstepClient) -> int:
    admin = client.get_administration_client()
    return (await admin.get_queue_runtime_properties(Q)).total_message_count


async def test_cli_2_every_message_is_worked_on_and_completed(client: LockstepClient) -> None:
    await create(client)
    await send(client, *numbered(40))
    seen: list[str] = []
    done = Counted(40)

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        seen.append(str(message))
        done.one()

    processor = client.get_queue_processor(
        Q, work, fail, max_concurrent_calls=4, auto_complete=True
    )
    async with processor, asyncio.timeout(20):
        await done.all.wait()

    assert sorted(seen, key=int) == numbered(40)
    assert await left_over(client) == 0


async def test_cli_2_a_call_that_raises_gives_its_message_back_counted(
    client: LockstepClient,
) -> None:
    await create(client, max_delivery_count=3)
    await send(client, "1")
    counts: list[int] = []
    failures: list[str] = []
    done = Counted(3)

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        counts.append(message.delivery_count)
        done.one()
        raise KeyError("bug")

    async def on_error(failure: ProcessingFailure) -> None:
        failures.append(failure.source.value)

    async with client.get_queue_processor(Q, work, on_error), asyncio.timeout(20):
        await done.all.wait()

    assert counts == [0, 1, 2]
    assert failures == ["handler"] * 3
    async with client.get_queue_receiver(Q, sub_queue="deadletter") as dead:
        assert texts(await dead.receive_messages(1, 5)) == ["1"]


async def test_dead_letters_are_worked_on_like_other_messages(client: LockstepClient) -> None:
    await create(client)
    await send(client, "1")
    async with client.get_queue_receiver(Q) as receiver:
        await receiver.dead_letter_messages(await receiver.receive_messages(), reason="why")
    done = Counted(1)

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        assert message.dead_letter_reason == "why"
        await context.complete_message(message)
        done.one()

    processor = client.get_queue_processor(Q, work, fail, sub_queue="deadletter")
    async with processor, asyncio.timeout(20):
        await done.all.wait()

    assert await left_over(client) == 0


@pytest.mark.slow
async def test_a_call_longer_than_the_lock_keeps_its_message(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create(client, lock_duration=timedelta(seconds=5))
    await send(client, "1")
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        begun.set()
        await may_end.wait()
        assert not context.lock_lost.is_set()

    async with client.get_queue_processor(Q, work, fail, auto_complete=True), asyncio.timeout(20):
        await begun.wait()
        async with other.get_queue_receiver(Q) as receiver:
            assert await receiver.receive_messages(1, 6) == []
        may_end.set()

    assert await left_over(client) == 0


async def test_sessions_are_worked_on_in_order_one_call_at_a_time(client: LockstepClient) -> None:
    await create(client, sessions=True)
    names = [f"s{number}" for number in range(6)]
    for name in names:
        await send(client, *numbered(5), session=name)
    seen: dict[str, list[str]] = defaultdict(list)
    running: set[str] = set()
    most = 0
    done = Counted(30)

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        nonlocal most
        name = context.session.session_id
        assert name not in running
        running.add(name)
        most = max(most, len(running))
        await context.session.set_state(str(message))
        seen[name].append(str(message))
        running.discard(name)
        done.one()

    processor = client.get_session_processor(
        Q, work, fail, max_concurrent_sessions=3, session_idle_timeout=0, auto_complete=True
    )
    async with processor, asyncio.timeout(30):
        await done.all.wait()

    assert seen == {name: numbered(5) for name in names}
    assert 2 <= most <= 3
    async with session_receiver(client, "s3") as receiver:
        assert receiver.session.state == b"5"


async def test_cli_5_an_idle_session_is_given_back_uncounted(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create(client, sessions=True)
    await send(client, "1", session="s")
    events: list[str] = []
    closing = asyncio.Event()

    def noting(what: str) -> Callable[..., None]:
        def note(*arguments: Any) -> None:
            events.append(what)
            if what == "closing":
                closing.set()

        return note

    processor = client.get_session_processor(
        Q,
        noting("message"),
        fail,
        noting("opening"),
        noting("closing"),
        max_concurrent_sessions=1,
        session_idle_timeout=0.2,
    )
    async with processor, asyncio.timeout(20):
        await closing.wait()
        await processor.stop()

    assert events[:3] == ["opening", "message", "closing"]
    async with session_receiver(other) as receiver:
        (message,) = await receiver.receive_messages(1, 0)
    assert (str(message), message.delivery_count) == ("1", 0)


@pytest.mark.slow
async def test_cli_6_a_call_is_told_that_its_session_was_taken_away(
    client: LockstepClient, other: LockstepClient
) -> None:
    await create(client, sessions=True, lock_duration=timedelta(seconds=5))
    await send(client, "1", session="s")
    failures: list[ProcessingFailure] = []
    lost = asyncio.Event()

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        await context.lock_lost.wait()
        lost.set()

    processor = client.get_session_processor(
        Q, work, failures.append, max_auto_lock_renewal_duration=0, stop_timeout=0
    )
    async with processor, asyncio.timeout(20):
        await lost.wait()
        await processor.stop()

    first = failures[0]
    assert (first.source.value, type(first.error)) == ("renew", SessionLockLost)
    assert first.session_id == "s"
    async with session_receiver(other) as receiver:
        assert texts(await receiver.receive_messages(1, 5)) == ["1"]


async def test_cli_11_an_idle_processor_is_silent_and_stops_at_once(
    client: LockstepClient, caplog: pytest.LogCaptureFixture
) -> None:
    await create(client, sessions=True)
    caplog.set_level(logging.INFO)

    async with client.get_session_processor(Q, fail, fail), asyncio.timeout(5):  # type: ignore[arg-type]
        await client.get_administration_client().get_queue(Q)

    assert [r for r in caplog.records if r.name.startswith("lockstep")] == []


async def test_what_is_sent_to_a_stopped_processor_waits_for_the_next(
    client: LockstepClient,
) -> None:
    await create(client, sessions=True)
    done = Counted(1)

    async def work(message: ReceivedMessage, context: ProcessorContext) -> None:
        assert message.delivery_count == 0
        done.one()

    processor = client.get_session_processor(Q, work, fail, auto_complete=True)
    await processor.start()
    await processor.stop()
    await send(client, "1", session="s")
    async with processor, asyncio.timeout(20):
        await done.all.wait()

    assert await left_over(client) == 0


def test_the_blocking_processors_do_the_same(blocking: BlockingClient) -> None:
    admin = blocking.get_administration_client()
    admin.create_queue(Q, requires_session=True)
    admin.create_queue("plain")
    from_sessions: list[str] = []
    from_plain: list[str] = []
    done = threading.Semaphore(0)

    def work(message: ReceivedMessage, context: BlockingContext) -> None:
        from_sessions.append(f"{context.session.session_id}{message}")
        done.release()

    def work_plain(message: ReceivedMessage, context: BlockingContext) -> None:
        from_plain.append(str(message))
        context.complete_message(message)
        done.release()

    sessions = blocking.get_session_processor(
        Q, work, fail, max_concurrent_sessions=1, session_idle_timeout=0, auto_complete=True
    )
    plain = blocking.get_queue_processor("plain", work_plain, fail, max_concurrent_calls=2)
    with sessions, plain:
        for name in ("a", "b"):
            messages = [Message(n, session_id=name) for n in numbered(3)]
            blocking.get_queue_sender(Q).send_messages(messages)
        blocking.get_queue_sender("plain").send_messages([Message(n) for n in numbered(5)])
        for _ in range(11):
            assert done.acquire(timeout=20)

    assert [text for text in from_sessions if text.startswith("a")] == ["a1", "a2", "a3"]
    assert [text for text in from_sessions if text.startswith("b")] == ["b1", "b2", "b3"]
    assert sorted(from_plain) == numbered(5)
    for queue in (Q, "plain"):
        assert admin.get_queue_runtime_properties(queue).total_message_count == 0
