"""One committed step before the referee: what was, what was written, and what the rules expect.

Here belongs what the rules of all kinds share. Never here: a rule (`rules`). A rule reads `book` (the partition as it
was before the step), `command` and `result`, and says what the step must have done by filling `gone`, `dead`,
`revived`, `counts`, `aside`, `delays`, `amended` and `hand`; the referee compares that with the rows. What no rule
expects is a broken promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lockstep.core.amendments import UNCHANGED, Amendment
from lockstep.core.commands import Command
from lockstep.core.entity import QueueSettings
from lockstep.core.ids import EntityKey
from tests.sim.book import Book, Message
from tests.sim.rows import Place, Step, Where

Check = Callable[..., None]
TransferKey = tuple[int, int, int]  # a partition, a queue of it, and a grant
CallKey = tuple[str, int, int]  # a client, its counter, and the hash of what it asked

MAX_DELIVERY = "MaxDeliveryCountExceeded"
EXPIRED = "TTLExpiredException"


@dataclass(frozen=True, slots=True)
class Parcel:
    """A dead letter that a job takes elsewhere, as it is there.

    Attributes:
        where: Where it comes from.
        body: Its bytes.
        session_id: Its session; None = it has none.
        ttl_ms: How long it may live, as its sender said; 0 = for ever.
        message_id: Its id; empty = it has none.
        amendment: What is changed about it.
    """

    where: Where
    body: bytes
    session_id: str | None
    ttl_ms: int
    message_id: str
    amendment: Amendment


@dataclass(slots=True)
class Sent:
    """What a job sent off to another partition.

    Attributes:
        queue: The number of the queue that it goes to.
        partition: Where that is.
        parcels: The messages.
        said: What became of it there: the places of those that were refused, and why none was taken; None = it has
            not arrived.
        is_over: Whether the partition that it came from knows.
    """

    queue: int
    partition: int
    parcels: list[Parcel]
    said: tuple[tuple[int, ...], str] | None = None
    is_over: bool = False


class Memory:
    """What the referee remembers of the whole history.

    Attributes:
        bodies: Under which number each body was stored first.
        commands: Every call that a client ever made.
        payloads: How many different calls came under one request id.
        cancelled: Calls that their own clients gave up.
        answered_nothing: Accepts and receives, by partition, whose client was told that they found nothing.
        completed: The last message that was completed of each orderly session.
        passed_over: Messages of orderly sessions that their receiver had in hand when it completed a younger one.
        ids: When each message id was accepted first, and its number (DUP-3); by partition, as who believes that a
            queue has sessions may send to another one than its own.
        numbers: The numbers that each send was answered with.
        put_back: Messages that were put back to their old places, behind which others may have been completed (RSB-7).
        taken: The messages that each deleting receive took.
        broken: The locks whose receiver's stream broke: the partition, the grant, and the message, 0 = a session's.
        partitions: How many there are.
        transfers: All that was sent off to another partition.
    """

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.transfers: dict[TransferKey, Sent] = {}
        self.bodies: dict[bytes, Where] = {}
        self.commands: dict[CallKey, Command] = {}
        self.payloads: dict[tuple[str, int], set[int]] = {}
        self.cancelled: set[tuple[str, int]] = set()
        self.answered_nothing: set[tuple[int, str, int, int]] = set()
        self.completed: dict[Place, int] = {}
        self.passed_over: set[Where] = set()
        self.ids: dict[tuple[int, int, str | None, str], tuple[int, int]] = {}
        self.numbers: dict[CallKey, list[int]] = {}
        self.put_back: set[Where] = set()
        self.taken: dict[CallKey, list[Where]] = {}
        self.broken: set[tuple[int, int, int]] = set()

    def note_command(self, command: Any) -> None:
        """Remember a call that a client makes."""
        request = getattr(command, "request", None)
        fingerprint = getattr(command, "fingerprint", None)
        if request is not None and fingerprint is not None:
            self.commands[(*request, fingerprint)] = command
            self.payloads.setdefault(tuple(request), set()).add(fingerprint)


@dataclass(slots=True)
class Case:
    """One step.

    Attributes:
        book: The partition before it, but for what it enqueued again.
        step: What it wrote.
        kind: The kind of call that took effect; None = none did: time passed, or a call found nothing.
        result: What is remembered of it.
        command: The call; None = none, or a cancellation.
        check: Notes a broken promise.
        memory: The whole history.
        gone: The messages that must be stored no more.
        dead: The messages that must be dead letters now, and why (None = for whatever reason).
        revived: The dead letters that must be back at their old places.
        counts: The delivery counts that must have been written.
        aside: The messages that must have been deferred, and who has them; None = that are deferred no more.
        delays: The delays that must have begun, and (None) ended.
        amended: What must be changed about messages from now on.
        back: Plain messages that came back to their places: those that expired meanwhile must be collected (TTL-5).
        looked: Sessions in which expired messages must have been collected (TTL-7).
        hands: What the holders of sessions must have in hand afterwards.
    """

    book: Book
    step: Step
    kind: str | None
    result: list[Any]
    command: Command | None
    check: Check
    memory: Memory
    gone: set[Where] = field(default_factory=set)
    dead: dict[Where, str | None] = field(default_factory=dict)
    revived: set[Where] = field(default_factory=set)
    counts: dict[Where, int] = field(default_factory=dict)
    aside: dict[Where, int | None] = field(default_factory=dict)
    delays: dict[Where, int | None] = field(default_factory=dict)
    amended: dict[Where, Amendment | None] = field(default_factory=dict)
    back: set[Where] = field(default_factory=set)
    looked: set[Place] = field(default_factory=set)
    hands: dict[Place, set[int]] = field(default_factory=dict)

    @property
    def now_ms(self) -> int:
        """The partition's time at the step."""
        return self.step.now_ms

    @property
    def key(self) -> tuple[str, int]:
        """The request id of the call that took effect."""
        assert self.step.request is not None
        return (self.step.request.client_id, self.step.request.counter)

    @property
    def call_key(self) -> CallKey:
        """The call that took effect."""
        assert self.step.request is not None
        return (*self.key, self.step.request.fingerprint)

    def settings(self, entity: int) -> QueueSettings:
        """Return the settings under which the step was taken."""
        return self.book.entities[entity].settings

    def entity(self) -> int:
        """Return the queue that the command names; one that is not there is a broken promise."""
        assert self.command is not None
        named = getattr(self.command, "entity", None)
        number = self.book.number_of(named) if isinstance(named, EntityKey) else None
        self.check(number is not None, "SND-4: took effect in a queue that is not there", self.kind)
        return number if number is not None else -1

    def message(self, where: Where) -> Message | None:
        """Return a stored message; one that is not there is a broken promise."""
        found = self.book.messages.get(where)
        self.check(found is not None, "I-1: acted on what is not stored", where, self.kind)
        return found

    def hand(self, place: Place) -> set[int]:
        """Return what a session's holder must have in hand afterwards, to be changed by rules."""
        if place not in self.hands:
            self.hands[place] = set(self.book.hand(self.book.sessions.get(place)))
        return self.hands[place]

    def set_properties(self, where: Where, properties: Mapping[str, bytes]) -> None:
        """Expect that a message has further properties; of one name the last counts (MSG-8)."""
        before = self.amended.get(where) or self.book.amendments.get(where, UNCHANGED)
        self.amended[where] = before._replace(properties={**before.properties, **properties})

    def fail(self, where: Where) -> bool:
        """Expect that a failed delivery is counted; return whether the message may be delivered again (DCN-6)."""
        message = self.book.messages[where]
        self.counts[where] = message.deliveries + 1
        if self.counts[where] < self.settings(where[0]).max_delivery_count:
            return True
        self.dead[where] = MAX_DELIVERY
        if message.grant is not None:
            self.aside[where] = None
        return False

    def put_back_deferred(self, wheres: Iterable[Where], *, counts: bool) -> None:
        """Expect that deferred messages are in nobody's hand again, or that they failed once too often (DEF-8)."""
        for where in wheres:
            if not counts or self.fail(where):
                self.aside[where] = 0

    def end_session(self, place: Place, *, counts: bool) -> None:
        """Expect that everything in the hand of a session's holder comes back (SES-32, DCN-4)."""
        row = self.book.sessions[place]
        for sequence in self.book.hand(row):
            if counts:
                self.fail((place[0], sequence))
        deferred = self.book.deferred_hand(row)
        self.put_back_deferred([(place[0], s) for s in deferred], counts=counts)
        self.hands[place] = set()
        self.looked.add(place)
