"""What many tests of the client do, in a line each."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from lockstep.aio import LockstepClient, Message, QueueReceiver, ReceivedMessage
from lockstep.runtime.clock import SystemClock

Q = "orders"


async def create(client: LockstepClient, *, sessions: bool = False, **settings: Any) -> None:
    """Make the queue of the test."""
    admin = client.get_administration_client()
    await admin.create_queue(Q, requires_session=sessions, **settings)


async def send(client: LockstepClient, *bodies: str, session: str | None = None) -> list[int]:
    """Send messages to it in one request."""
    messages = [Message(body, session_id=session) for body in bodies]
    return await client.get_queue_sender(Q).send_messages(messages)


def session_receiver(client: LockstepClient, session: str = "s", **options: Any) -> QueueReceiver:
    """Return a receiver of one session, not entered yet."""
    return client.get_queue_receiver(Q, session_id=session, **options)


def texts(messages: Iterable[ReceivedMessage]) -> list[str]:
    """Return the bodies."""
    return [str(message) for message in messages]


def numbered(count: int, *, first: int = 1) -> list[str]:
    """Return so many different bodies."""
    return [str(number) for number in range(first, first + count)]


def tomorrow() -> datetime:
    """Return a time that no test lives to see."""
    return datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC) + timedelta(days=1)
