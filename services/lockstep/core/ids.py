"""Identifiers and lock tokens.

Here belong the types that name things, and the layout of a lock token. Never here: how an id is made
(`runtime.ids`). The law: a lock token is derived from (grant, sequence number) and carries nothing of
the partition's epoch, so it stays valid when a partition moves.
"""

from __future__ import annotations

from typing import NamedTuple, NewType

from lockstep.core.errors import InvalidRequest

PartitionId = NewType("PartitionId", int)
"""A partition of the cluster, from 0."""

EntityNumber = NewType("EntityNumber", int)
"""An entity, given by the catalogue at creation and never used again."""

SessionId = NewType("SessionId", str)
"""A session of one entity, compared exactly (SES-17)."""

SequenceNumber = NewType("SequenceNumber", int)
"""A message of one entity: the upper 16 bits are the partition, the lower 48 count from 1 (ADD-1)."""

GrantNumber = NewType("GrantNumber", int)
"""One act of locking, of a session or of the messages of one receive; rises in its partition."""

ChunkId = NewType("ChunkId", int)
"""The messages of one send to one entity, stored together; rises in its partition."""

SEQUENCE_COUNTER_BITS = 48
TOKEN_BYTES = 16
NUMBER_MAX = 2**63 - 1
"""The largest number that storage keeps."""


class EntityKey(NamedTuple):
    """How an entity is found: its broker namespace and its name in lower case (ENT-8)."""

    namespace: str
    name: str


class PartitionEpoch(NamedTuple):
    """Who may write to a partition; compared field by field, the higher one wins."""

    generation: int
    revision: int
    reopened: int


class RequestId(NamedTuple):
    """One mutating call of one client (ADD-3)."""

    client_id: str
    counter: int


class SessionLock(NamedTuple):
    """What the holder of a session shows: the session and its grant."""

    session_id: SessionId
    grant: GrantNumber


def sequence_base(partition: PartitionId) -> int:
    """Return the number that a partition adds to its counter to make a sequence number."""
    return partition << SEQUENCE_COUNTER_BITS


def partition_of(sequence: int) -> PartitionId:
    """Return the partition that gave out a sequence number."""
    return PartitionId(sequence >> SEQUENCE_COUNTER_BITS)


def token_prefix(grant: GrantNumber) -> bytes:
    """Return the first 8 bytes of each lock token of a grant."""
    return grant.to_bytes(8, "big")


def lock_token(grant: GrantNumber, sequence: int = 0) -> bytes:
    """Return the token of one locked message, or with sequence 0 of a held session."""
    return ((grant << 64) | sequence).to_bytes(TOKEN_BYTES, "big")


def split_lock_token(token: bytes) -> tuple[GrantNumber, SequenceNumber]:
    """Return the grant and the sequence number that a lock token was made of.

    Raises:
        InvalidRequest: The token has the wrong length; send it as it was received.
    """
    if len(token) != TOKEN_BYTES:
        raise InvalidRequest(
            f"A lock token has {TOKEN_BYTES} bytes; this one has {len(token)}. Send the token as it was received.",
            details={"limit": str(TOKEN_BYTES), "observed": str(len(token))},
        )
    grant, sequence = int.from_bytes(token[:8], "big"), int.from_bytes(token[8:], "big")
    if grant > NUMBER_MAX or sequence > NUMBER_MAX:
        raise InvalidRequest(
            "These bytes are no lock token of ours. Send the token as it was received."
        )
    return GrantNumber(grant), SequenceNumber(sequence)
