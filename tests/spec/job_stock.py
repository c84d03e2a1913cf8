"""A queue with dead letters in it, for the tests of jobs."""

from __future__ import annotations

from collections.abc import Sequence

from lockstep.core.commands import Outcome
from lockstep.core.entity import SettingValue
from lockstep.core.errors import (
    EntityNotFound,
)
from lockstep.core.ids import EntityKey
from lockstep.core.jobs import Job, JobKind, JobOptions, Selector
from lockstep.v1.message_pb2 import PropertyValue
from lockstep.wire.amending import encoded_properties
from tests.spec.driver import (
    Broker,
    DeadLetters,
    Held,
    Plain,
    bodies,
    dead_letter,
)

PLAIN, DEAD = Plain("orders"), DeadLetters("orders")
OTHER = EntityKey("default", "other")
MINUTE_MS = 60_000


async def with_dead_letters(
    broker: Broker,
    sent: Sequence[bytes],
    *,
    has_sessions: bool = False,
    session: str = "s",
    reason: str = "broken",
    **settings: SettingValue,
) -> list[int]:
    """Make the queue "orders", unless it is there, with these messages as dead letters; return their numbers."""
    try:
        await broker.get_queue("orders")
    except EntityNotFound:
        await broker.create_queue("orders", requires_session=has_sessions, **settings)
    await broker.send("orders", *sent, session=session if has_sessions else None)
    source: Plain | Held = await broker.accept("orders", session) if has_sessions else PLAIN
    got = (await broker.receive(source))[-len(sent) :]
    await dead_letter(broker, source, got, reason=reason)
    if isinstance(source, Held):
        await broker.release_session(source)
    return [message.sequence for message in got]


async def run(
    broker: Broker,
    kind: JobKind,
    selector: Selector | None = None,
    *,
    batch: int = 512,
    **options: object,
) -> Job:
    """Begin a job on "orders" and let it go on to its end."""
    job = await broker.start_job("orders", kind, selector, JobOptions(**options))  # type: ignore[arg-type]
    return await broker.finish_job("orders", job.number, batch=batch)


async def ready(broker: Broker, *, has_sessions: bool, session: str = "s") -> list[bytes]:
    """Return the bodies of what a receiver gets now, and give it back."""
    source: Plain | Held = await broker.accept("orders", session) if has_sessions else PLAIN
    got = await broker.receive(source)
    if isinstance(source, Held):
        await broker.release_session(source)
    else:
        await broker.settle(source, Outcome.RELEASE, got)
    return bodies(got)


def properties(**values: str) -> dict[str, bytes]:
    """Return application properties as the wire encodes them."""
    return encoded_properties({k: PropertyValue(string_value=v) for k, v in values.items()})
