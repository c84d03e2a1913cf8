"""What the conformance tests ask of a broker, whichever way it is built.

Here belong the driver interface, the values it speaks and which parts of it a driver may lack. Never here:
a driver, or a test. The law: a test speaks this interface only, so that one suite judges the bare core, the
core on each store, and the running server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Protocol

import pytest

from lockstep.core.commands import Outcome, SessionFilter
from lockstep.core.entity import QueueDefinition, SettingValue
from lockstep.core.errors import LockstepError
from lockstep.core.ids import SEQUENCE_COUNTER_BITS, RequestId
from lockstep.core.jobs import Job, JobKind, JobOptions, Selector
from lockstep.core.replies import Explained, Runtime, SessionView


class Ability(StrEnum):
    """What not every driver can do; the value says what a driver without it lacks."""

    CLOCK = "a clock that the test turns"
    JOBS = "jobs on dead letters that go on only when the test says so"
    FAULTS = "commits that fail when the test says so"
    LIMITS = "limits that the test chooses"
    REQUESTS = "request ids that the test chooses"
    RESTART = "a restart"
    WIRE = "paths, properties and client-side checks, which only the service has"


needs_clock = pytest.mark.needs(Ability.CLOCK)
needs_jobs = pytest.mark.needs(Ability.JOBS)
needs_faults = pytest.mark.needs(Ability.FAULTS)
needs_requests = pytest.mark.needs(Ability.REQUESTS)
needs_restart = pytest.mark.needs(Ability.RESTART)
needs_wire = pytest.mark.needs(Ability.WIRE)


@dataclass(frozen=True, slots=True)
class Plain:
    """A queue that is received from without sessions."""

    queue: str


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The dead-letter store of a queue."""

    queue: str


@dataclass(frozen=True, slots=True)
class Held:
    """A session that was accepted, with the token that proves it and the state that came along."""

    queue: str
    session_id: str
    token: bytes
    locked_until_ms: int
    state: bytes | None
    state_version: int


Source = Plain | DeadLetters | Held
"""Where messages are received from, and whose lock settles them."""


@dataclass(frozen=True, slots=True)
class Got:
    """A received message. `locked_until_ms` is the end of its own lock, or of its session's."""

    sequence: int
    body: bytes
    session_id: str | None
    count: int
    token: bytes
    locked_until_ms: int
    enqueued_ms: int
    expires_ms: int = 0
    reason: str = ""
    description: str = ""
    properties: Mapping[str, object] = field(default_factory=dict)
    resubmits: int = 0
    original: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """A message that was not settled or renewed, and why."""

    sequence: int
    error: LockstepError


def counters(numbers: Iterable[int]) -> list[int]:
    """Return what sequence numbers count: their lower 48 bits; the upper ones are the partition (ADD-1)."""
    return [number & (1 << SEQUENCE_COUNTER_BITS) - 1 for number in numbers]


class Broker(Protocol):
    """A broker under test. Durations and times are milliseconds.

    Every call raises a `LockstepError` when it was refused. Calls that wait may be made in a task of their
    own; `parked` says when they wait. Cancelling such a task undoes what its call did (BAT-9).
    """

    name: ClassVar[str]
    lacks: ClassVar[frozenset[Ability]]

    async def create_queue(self, queue: str, **settings: SettingValue) -> QueueDefinition:
        """Make a queue; it can be used at once."""

    async def update_queue(
        self, queue: str, *, if_revision: int = 0, **settings: SettingValue
    ) -> QueueDefinition:
        """Change settings; what is not named stays."""

    async def delete_queue(self, queue: str) -> None:
        """Remove a queue and everything in it."""

    async def get_queue(self, queue: str) -> QueueDefinition:
        """Return a queue's definition."""

    async def send(
        self,
        queue: str,
        *bodies: bytes,
        session: str | None = None,
        sessions: Sequence[str | None] = (),
        request: RequestId | None = None,
        ttls_ms: Sequence[int] = (),
        due_ms: Sequence[int] = (),
        ids: Sequence[str] = (),
    ) -> list[int]:
        """Send one batch and return the sequence numbers.

        Args:
            queue: Where to.
            bodies: The messages, oldest first.
            session: The session of all of them.
            sessions: The session of each of them, instead.
            request: The call's id; None = the driver makes one.
            ttls_ms: The time to live of each, 0 = none; empty = none for any.
            due_ms: When each becomes active, 0 = at once; empty = at once, all.
            ids: The message id of each, "" = none; empty = none for any.
        """

    async def cancel_scheduled(self, queue: str, sequences: Sequence[int]) -> None:
        """Take scheduled messages back, all or none."""

    async def accept(
        self,
        queue: str,
        session_id: str | None = None,
        *,
        wait_ms: int = 0,
        holder: str = "receiver",
        request: RequestId | None = None,
    ) -> Held:
        """Take a session's lock; `session_id` None = of the next available one, waiting for it.

        Raises:
            NoSessionAvailable: None became available in time.
        """

    async def receive(
        self,
        source: Source,
        max_messages: int = 100,
        *,
        wait_ms: int = 0,
        request: RequestId | None = None,
        deletes: bool = False,
    ) -> list[Got]:
        """Receive up to so many messages, waiting for the first; an empty list = none came in time.

        `deletes` = receive-and-delete; the messages then have no lock and no token.
        """

    async def settle(
        self,
        source: Source,
        outcome: Outcome,
        messages: Iterable[Got],
        *,
        reason: str = "",
        description: str = "",
        properties: Mapping[str, str] | None = None,
        delay_ms: int = 0,
        request: RequestId | None = None,
    ) -> list[Failed]:
        """Settle messages and return those that were not settled.

        `properties` are set on them (MSG-8); `delay_ms` is that of an abandon (ADD-6).
        """

    async def renew_messages(
        self, source: Source, messages: Iterable[Got]
    ) -> tuple[int, list[Failed]]:
        """Renew message locks; return until when they now are locked, and those that were not renewed."""

    async def renew(self, held: Held) -> int:
        """Renew a session's lock and return its new end."""

    async def release_session(self, held: Held, *, request: RequestId | None = None) -> int:
        """Give a session back and return how many messages went back with it."""

    async def get_state(self, held: Held) -> tuple[bytes | None, int]:
        """Return a session's state and its version."""

    async def set_state(
        self,
        held: Held,
        value: bytes | None,
        *,
        request: RequestId | None = None,
        if_version: int | None = None,
    ) -> int:
        """Set a session's state, None = clear it, and return its version."""

    async def commit_turn(
        self,
        held: Held,
        complete: Iterable[Got] = (),
        *sent: bytes,
        session: str | None = None,
        ids: Sequence[str] = (),
        state: bytes | None = None,
        sets_state: bool = False,
        if_version: int | None = None,
        request: RequestId | None = None,
    ) -> tuple[list[int], int]:
        """Complete, send to a session and set the state, all or nothing; return numbers and the state's version."""

    async def receive_deferred(
        self, source: Source, sequences: Sequence[int], *, request: RequestId | None = None
    ) -> list[Got]:
        """Receive deferred messages by number, all or none."""

    async def break_lock(self, queue: str, session_id: str, *, by: str = "") -> bool:
        """End a session's lock, whoever holds it, and return whether somebody did."""

    async def browse(
        self,
        source: Plain | DeadLetters,
        maximum: int = 100,
        *,
        first: int = 1,
        session_id: str | None = None,
        reason: str | None = None,
    ) -> list[Got]:
        """Look at messages from a number on, of dead letters those with a reason; what is returned has no token."""

    async def look_on(
        self, source: Plain | DeadLetters, maximum: int, cursor: str = ""
    ) -> tuple[list[Got], str]:
        """Look at messages behind a cursor, "" = from the first on, and return where the next look goes on."""

    async def start_job(
        self,
        queue: str,
        kind: JobKind,
        selector: Selector | None = None,
        options: JobOptions | None = None,
        *,
        by: str = "",
    ) -> Job:
        """Begin work on dead letters and return the job."""

    async def finish_job(self, queue: str, number: int, *, batch: int = 512) -> Job:
        """Return a job when it has ended; `batch` = messages of each commit, where the test decides that."""

    async def cancel(self, queue: str, request: RequestId) -> bool:
        """Undo a call, or keep it from having an effect; return whether there was one to undo."""

    async def sessions(
        self, queue: str, *, after: str | None = None, maximum: int = 100
    ) -> list[SessionView]:
        """List sessions in the order of their ids."""

    async def session(self, queue: str, session_id: str) -> SessionView:
        """Show one session."""

    async def filtered(
        self, queue: str, shown: SessionFilter, *, state_since_ms: int = 0
    ) -> list[SessionView]:
        """List those sessions that a filter leaves, with a state that was set since then."""

    async def explain(
        self, queue: str, *, session_id: str | None = None, sequence: int = 0
    ) -> Explained:
        """Say why the next message is not delivered."""

    async def clear_states(
        self, queue: str, session_id: str | None = None, *, idle_ms: int = 0
    ) -> int:
        """Clear a state, or those of idle sessions that have nothing else; return how many."""

    async def runtime(self, queue: str) -> Runtime:
        """Count what a queue holds."""

    def now_ms(self) -> int:
        """Return the broker's time."""

    def new_request(self) -> RequestId:
        """Return a request id that was not used before."""

    async def parked(self, waiting: int = 1) -> None:
        """Return when so many calls wait."""

    async def advance(self, ms: int) -> None:
        """Turn the clock; everything that becomes due on the way happens at its time."""

    async def restart(self, *, after_ms: int = 0) -> None:
        """Let the owner go without a farewell, and a successor open what is stored, so much later."""

    def fail_next_commit(self, *, is_stored: bool) -> None:
        """Let the next commit end without saying whether it was stored; the partition then reopens."""

    async def aclose(self) -> None:
        """Let go of everything."""


def bodies(messages: Iterable[Got]) -> list[bytes]:
    """Return the bodies of messages."""
    return [message.body for message in messages]


def counts(messages: Iterable[Got]) -> list[int]:
    """Return the delivery counts of messages."""
    return [message.count for message in messages]


def numbered(count: int, *, first: int = 1) -> list[bytes]:
    """Return so many different bodies: b"1", b"2", …"""
    return [str(number).encode() for number in range(first, first + count)]


async def hold(
    broker: Broker,
    *sent: bytes,
    session: str = "s",
    queue: str = "orders",
    **settings: SettingValue,
) -> Held:
    """Make a session queue, send to one session and accept it."""
    await broker.create_queue(queue, requires_session=True, **settings)
    if sent:
        await broker.send(queue, *sent, session=session)
    return await broker.accept(queue, session)


async def complete(broker: Broker, source: Source, messages: Iterable[Got]) -> None:
    """Complete messages; raise the first refusal."""
    await _settle_all(broker, source, Outcome.COMPLETE, messages)


async def abandon(broker: Broker, source: Source, messages: Iterable[Got]) -> None:
    """Abandon messages; raise the first refusal."""
    await _settle_all(broker, source, Outcome.ABANDON, messages)


async def give_back(broker: Broker, source: Source, messages: Iterable[Got]) -> None:
    """Release messages, not counting; raise the first refusal."""
    await _settle_all(broker, source, Outcome.RELEASE, messages)


async def defer(broker: Broker, source: Source, messages: Iterable[Got]) -> list[int]:
    """Defer messages and return their numbers; raise the first refusal."""
    given = list(messages)
    await _settle_all(broker, source, Outcome.DEFER, given)
    return [message.sequence for message in given]


async def dead_letter(
    broker: Broker,
    source: Source,
    messages: Iterable[Got],
    *,
    reason: str = "",
    description: str = "",
) -> None:
    """Dead-letter messages; raise the first refusal."""
    failures = await broker.settle(
        source, Outcome.DEAD_LETTER, messages, reason=reason, description=description
    )
    for failure in failures:
        raise failure.error


async def _settle_all(
    broker: Broker, source: Source, outcome: Outcome, messages: Iterable[Got]
) -> None:
    for failure in await broker.settle(source, outcome, messages):
        raise failure.error
