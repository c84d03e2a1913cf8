"""What the cluster package needs of etcd: a few calls on keys, a watch, and leases.

Here belong the protocols and the values that pass through them, so that election and directory know no
client library. Never here: what the keys mean (`keys`), or a connection (`etcd`). The law: what a call
changes, it changes under a condition that makes it safe to make again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from lockstep.core.errors import LockstepError


class RevisionCompacted(LockstepError):
    """The registry does not remember changes from this revision on any more. List the keys again."""

    reason = "REVISION_COMPACTED"


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key as it was at a revision.

    Attributes:
        key: Its name.
        value: Its bytes.
        lease: The lease that it goes with; 0 = none.
        create_revision: The revision that created it; a key that was deleted and put again has a higher one.
        mod_revision: The revision that last changed it.
    """

    key: str
    value: bytes
    lease: int
    create_revision: int
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Listing:
    """All keys under a prefix, at one revision."""

    revision: int
    items: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What became of one key in one revision; `now` is None when it was deleted."""

    key: str
    revision: int
    now: KeyValue | None


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Changes in the order of revisions, whole revisions only.

    Attributes:
        revision: Where the registry was when it sent this; not a promise that all changes until then came.
        changes: What changed; empty in the first batch, which says that the watch stands.
    """

    revision: int
    changes: tuple[KeyChange, ...]


class Registry(Protocol):
    """Keys with revisions. Each call raises ClusterUnavailable when nobody answers in time."""

    async def list_prefix(self, prefix: str) -> Listing:
        """Return all keys under a prefix, as of now (linearizable)."""

    async def create(
        self, key: str, value: bytes, *, lease: int, while_leased: str | None = None
    ) -> KeyValue | None:
        """Put a key that is absent, under a lease, and return the key as it then is.

        A key of somebody else comes back with another lease. Made again after an unknown outcome, it returns
        what the first call put.

        Args:
            key: The key.
            value: Its bytes.
            lease: With which it goes.
            while_leased: A key that must be there under the same lease; None = no such condition.

        Returns:
            The key, ours or not; None when it is absent still, because `while_leased` does not hold or the
            lease is gone.
        """

    async def replace(self, key: str, value: bytes, *, lease: int) -> bool:
        """Put a key that is there under this very lease; return whether it was."""

    async def delete(self, key: str, *, create_revision: int) -> bool:
        """Delete a key if it is still the one of this revision; return whether it was."""

    def watch(self, prefix: str, *, after_revision: int, for_ms: int) -> AsyncGenerator[WatchBatch]:
        """Yield every change after a revision; first an empty batch that says that the watch stands.

        Args:
            prefix: Of which keys.
            after_revision: The last one seen.
            for_ms: How long to watch, in ms; then the iterator ends.

        Raises:
            RevisionCompacted: Changes are missing; list the keys again.
            ClusterUnavailable: The stream broke; watch again, from the last revision seen.
        """


class LeaseCalls(Protocol):
    """The calls of a lease, made from a thread of their own. Each raises ClusterUnavailable."""

    def grant(self, ttl_ms: int, *, timeout_ms: int) -> tuple[int, int]:
        """Make a lease; return its id and its time to live in ms, which may be longer than asked for."""

    def keep_alive(self, lease: int, *, timeout_ms: int) -> int:
        """Renew a lease; return its time to live from now in ms; 0 = it is gone."""

    def revoke(self, lease: int, *, timeout_ms: int) -> None:
        """End a lease, and delete its keys; does nothing when it is gone."""


class LeaseExchange(Protocol):
    """The calls of a lease as one exchange makes them. On the lease's thread they never give way (`LeaseCalls`)."""

    async def grant(self, ttl_ms: int, *, timeout_ms: int) -> tuple[int, int]:
        """As `LeaseCalls` says."""

    async def keep_alive(self, lease: int, *, timeout_ms: int) -> int:
        """As `LeaseCalls` says."""

    async def revoke(self, lease: int, *, timeout_ms: int) -> None:
        """As `LeaseCalls` says."""
