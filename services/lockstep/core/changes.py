"""What a step changes in storage, as values.

Here belong one row type for each table of a partition, and the ways a row goes. Never here: SQL, or
how a store keeps rows (`storage`). The law: the changes of one commit become durable all or none, under
the owner's epoch; for one key the last change of a commit counts. A row is written as a whole.

The kinds in `RESERVED_TABLES` belong to work across partitions that is still to come (sends that are kept for another
partition; prepare and commit records) and must not be used for anything else.
"""

from __future__ import annotations

from typing import NamedTuple

from lockstep.core.ids import ChunkId, EntityNumber, GrantNumber

RESERVED_TABLES = ("outbox", "prepared", "resolved")


class PartitionRow(NamedTuple):
    """Written by every commit: how far the partition has counted, and the last time it used (design law 2).

    Every number only rises; a store may keep the highest that it was given. `last_grant` also numbers the versions of
    states.
    """

    last_time_ms: int
    last_chunk: int
    last_grant: int
    last_revision: int = 0

    @property
    def key(self) -> tuple[int]:
        """There is one such row."""
        return (0,)


class EntityRow(NamedTuple):
    """A definition that this partition has applied, as JSON."""

    entity: EntityNumber
    revision: int
    definition: str

    @property
    def key(self) -> tuple[int]:
        """The entity."""
        return (self.entity,)


class CatalogueRow(NamedTuple):
    """A definition of the catalogue (partition 0 only), as JSON; an empty text = deleted at this revision."""

    entity: EntityNumber
    revision: int
    definition: str

    @property
    def key(self) -> tuple[int]:
        """The entity."""
        return (self.entity,)


class CounterRow(NamedTuple):
    """How far an entity has counted in this partition; numbers are never used again."""

    entity: EntityNumber
    last_sequence: int
    last_dead_letter: int

    @property
    def key(self) -> tuple[int]:
        """The entity."""
        return (self.entity,)


class ChunkRow(NamedTuple):
    """The messages of one send to one entity.

    Attributes:
        chunk: Its number.
        entity: Where the messages are.
        first_sequence: The number of the first; the others follow, but for those that `MovedRow` names.
        enqueued_ms: When they were accepted.
        sizes: Their lengths, a native array of 32-bit numbers.
        sessions: Their sessions as a JSON list, one for all or one each; empty = they have none.
        ttls: Their times to live in ms, 0 = for ever: a native array of 64-bit numbers; empty = for ever, all.
        due_ms: When they become active, 0 = at once: a native array of 64-bit numbers; empty = at once, all. A
            message that is due at a time is scheduled as long as no `MovedRow` names it.
        messages: Their bytes.
    """

    chunk: ChunkId
    entity: EntityNumber
    first_sequence: int
    enqueued_ms: int
    sizes: bytes
    sessions: str
    ttls: bytes
    due_ms: bytes
    messages: tuple[bytes, ...]

    @property
    def key(self) -> tuple[int]:
        """The chunk."""
        return (self.chunk,)


class GoneRow(NamedTuple):
    """Messages of a chunk that are stored no more: places first … last, both counted from 0."""

    chunk: ChunkId
    first: int
    last: int

    @property
    def key(self) -> tuple[int, int]:
        """The chunk and the first place."""
        return (self.chunk, self.first)


class MovedRow(NamedTuple):
    """Messages of a chunk that were enqueued again under new numbers: activated, or resubmitted.

    Attributes:
        chunk: Where their bytes are.
        first_sequence: The new number of the first; the others follow. Of two rows for one place the higher counts.
        first: The place of the first in the chunk; the others follow.
        last: The place of the last.
        enqueued_ms: When they were enqueued again.
        session_id: The session they were moved to; None = they kept theirs.
    """

    chunk: ChunkId
    first_sequence: int
    first: int
    last: int
    enqueued_ms: int
    session_id: str | None

    @property
    def key(self) -> tuple[int, int]:
        """The chunk and the first new number."""
        return (self.chunk, self.first_sequence)


class SessionRow(NamedTuple):
    """A session that is held, was held, or has a state. `returned` is a native array of 64-bit numbers."""

    entity: EntityNumber
    session_id: str
    grant: int
    holder: str
    locked_until_ms: int
    granted_ms: int
    cursor: int
    returned: bytes
    turn: int
    state_version: int
    state_set_ms: int
    released_ms: int
    address: str
    renewals: int
    last_loss: str

    @property
    def key(self) -> tuple[int, str]:
        """The entity and the session."""
        return (self.entity, self.session_id)


class StateRow(NamedTuple):
    """The state of a session. A snapshot carries `value` as None; its length is in `size`."""

    entity: EntityNumber
    session_id: str
    size: int
    value: bytes | None

    @property
    def key(self) -> tuple[int, str]:
        """The entity and the session."""
        return (self.entity, self.session_id)


class LockRow(NamedTuple):
    """The messages that one receive locked. Both arrays are native and of 64-bit numbers.

    Messages that were completed since may still be named: a message that is stored no more is not locked.
    """

    entity: EntityNumber
    grant: GrantNumber
    dead_letter: bool
    sequences: bytes
    locked_until_ms: bytes

    @property
    def key(self) -> tuple[int, int]:
        """The entity and the grant."""
        return (self.entity, self.grant)


class CountRow(NamedTuple):
    """The delivery count of a message where it is not 0."""

    entity: EntityNumber
    sequence: int
    deliveries: int

    @property
    def key(self) -> tuple[int, int]:
        """The entity and the message."""
        return (self.entity, self.sequence)


class DeadLetterRow(NamedTuple):
    """A message in the dead-letter store; its bytes stay in their chunk. `position` is the order of arrival."""

    entity: EntityNumber
    sequence: int
    position: int
    reason: str
    description: str
    dead_lettered_ms: int

    @property
    def key(self) -> tuple[int, int]:
        """The entity and the message."""
        return (self.entity, self.sequence)


class DeferredRow(NamedTuple):
    """A message that is delivered by its number only. `grant` is who has it in hand; 0 = nobody."""

    entity: EntityNumber
    sequence: int
    grant: int

    @property
    def key(self) -> tuple[int, int]:
        """The entity and the message."""
        return (self.entity, self.sequence)


class DelayRow(NamedTuple):
    """A message that was abandoned with a delay, which ends at `until_ms` (ADD-6)."""

    entity: EntityNumber
    sequence: int
    until_ms: int

    @property
    def key(self) -> tuple[int, int]:
        """The entity and the message."""
        return (self.entity, self.sequence)


class AmendmentRow(NamedTuple):
    """What was changed about a stored message since it was sent, as `core.amendments` writes it."""

    entity: EntityNumber
    sequence: int
    amendment: str

    @property
    def key(self) -> tuple[int, int]:
        """The entity and the message."""
        return (self.entity, self.sequence)


class JobRow(NamedTuple):
    """A piece of work on dead letters, as JSON; `number` counts the jobs of an entity."""

    entity: EntityNumber
    number: int
    job: str

    @property
    def key(self) -> tuple[int, int]:
        """The entity and the job."""
        return (self.entity, self.number)


class ArrivalRow(NamedTuple):
    """The last transfer that this partition had of the dead letters of a queue on another one, and what it said of it.

    `number` only rises; `result` is JSON, as `core.transfers` writes it.
    """

    entity: EntityNumber
    source: int
    number: int
    result: str

    @property
    def key(self) -> tuple[int, int]:
        """The queue that the messages came from, and its partition."""
        return (self.entity, self.source)


class DuplicatesRow(NamedTuple):
    """The message ids of one send, kept for duplicate detection: JSON lists of session (or null), id and number."""

    entity: EntityNumber
    chunk: int
    at_ms: int
    keys: str

    @property
    def key(self) -> tuple[int, int]:
        """The entity and the chunk."""
        return (self.entity, self.chunk)


class RequestRow(NamedTuple):
    """The result of a mutating call, kept with its effect (ADD-3)."""

    client_id: str
    counter: int
    fingerprint: int
    result: str

    @property
    def key(self) -> tuple[str, int]:
        """The request id."""
        return (self.client_id, self.counter)


class ClientRow(NamedTuple):
    """Up to which counter a client's ids are refused because their results are forgotten (ADD-3)."""

    client_id: str
    floor: int
    last_seen_ms: int

    @property
    def key(self) -> tuple[str]:
        """The client."""
        return (self.client_id,)


Row = (
    PartitionRow
    | EntityRow
    | CatalogueRow
    | CounterRow
    | ChunkRow
    | GoneRow
    | MovedRow
    | SessionRow
    | StateRow
    | LockRow
    | CountRow
    | DeadLetterRow
    | DeferredRow
    | DelayRow
    | AmendmentRow
    | JobRow
    | ArrivalRow
    | DuplicatesRow
    | RequestRow
    | ClientRow
)


class Drop(NamedTuple):
    """A row goes. Dropping a chunk drops its gone and moved rows with it."""

    table: type[Row]
    key: tuple[int | str, ...]


class DropEntity(NamedTuple):
    """An entity goes with every row that names it, those of the same commit included, wherever they stand."""

    entity: EntityNumber


Change = Row | Drop | DropEntity
