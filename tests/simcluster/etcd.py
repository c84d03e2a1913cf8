"""An etcd in memory: keys with revisions, leases on a clock of its own, watches, compaction, and bad days.

Here belongs what etcd is and does, as its documentation says. Never here: how its callers reach it (`registry`). What a
call does it does in one moment; that a leader is missing, or that all data are gone, is decided by the chaos.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lockstep.cluster.registry import KeyChange, KeyValue, Listing, RevisionCompacted
from tests.sim.trial import Trial
from tests.simcluster.processes import Outside

MEMBERS = 3
ELECTION_MS = 1000
_OLD = 4000  # it has been there for a while


@dataclass(slots=True)
class _Lease:
    ttl_ms: int
    ends_ms: float  # by etcd's clock


class Etcd:
    """All members, seen from outside.

    Attributes:
        revision: The last one.
        generation: How often all data were lost.
        has_leader: Whether calls are answered.
        distrusted_until_ms: Until when leases may say more than is true, because keys went that leases held.
    """

    def __init__(self, trial: Trial, outside: Outside, rate: float) -> None:
        """Begin with nothing.

        Args:
            trial: The run.
            outside: For the ends of leases.
            rate: How fast its clock goes; 1 = as that of the processes.
        """
        self._trial = trial
        self._outside = outside
        self._rate = rate
        self.revision = _OLD
        self.generation = 0
        self.has_leader = True
        self.distrusted_until_ms = 0.0
        self._keys: dict[str, KeyValue] = {}
        self._leases: dict[int, _Lease] = {}
        self._granted = 0
        self._log: list[tuple[int, tuple[KeyChange, ...]]] = []
        self._compacted = 0
        self._watchers: dict[Callable[[], None], None] = {}

    def _now_ms(self) -> float:
        return self._outside.loop.time() * self._rate

    # --- keys ------------------------------------------------------------------------------------

    def list_prefix(self, prefix: str) -> Listing:
        """Return all keys under a prefix."""
        items = [kv for key, kv in sorted(self._keys.items()) if key.startswith(prefix)]
        return Listing(self.revision, tuple(items))

    def create(
        self, key: str, value: bytes, *, lease: int, while_leased: str | None
    ) -> KeyValue | None:
        """Put a key that is absent; see `Registry.create`."""
        found = self._keys.get(key)
        if found is not None:
            return found
        holds = while_leased is None or self._has_lease(while_leased, lease)
        if not holds or lease not in self._leases:
            return None
        return self._put(key, value, lease)

    def replace(self, key: str, value: bytes, *, lease: int) -> bool:
        """Put a key that is there under a lease."""
        if not self._has_lease(key, lease) or lease not in self._leases:
            return False
        self._put(key, value, lease)
        return True

    def delete(self, key: str, *, create_revision: int) -> bool:
        """Delete the key of a revision."""
        found = self._keys.get(key)
        if found is None or found.create_revision != create_revision:
            return False
        self._delete([key])
        return True

    def _has_lease(self, key: str, lease: int) -> bool:
        found = self._keys.get(key)
        return found is not None and found.lease == lease

    def _put(self, key: str, value: bytes, lease: int) -> KeyValue:
        self.revision += 1
        found = self._keys.get(key)
        created = found.create_revision if found is not None else self.revision
        put = KeyValue(key, value, lease, created, self.revision)
        self._keys[key] = put
        self._trial.note("etcd", "put", key, lease, self.revision)
        self._note(KeyChange(key, self.revision, put))
        return put

    def _delete(self, keys: list[str]) -> None:
        if not keys:
            return
        self.revision += 1
        for key in keys:
            del self._keys[key]
        self._trial.note("etcd", "deleted", *keys, self.revision)
        self._note(*(KeyChange(key, self.revision, None) for key in keys))

    def _note(self, *changes: KeyChange) -> None:
        self._log.append((self.revision, changes))
        for tell in list(self._watchers):
            tell()

    # --- leases ----------------------------------------------------------------------------------

    def grant(self, ttl_ms: int) -> tuple[int, int]:
        """Make a lease."""
        self._granted += 1
        lease = self._granted + 1000 * self.generation
        self._leases[lease] = _Lease(ttl_ms, self._now_ms() + ttl_ms)
        self._look_at(lease)
        return lease, ttl_ms

    def keep_alive(self, lease: int) -> int:
        """Renew a lease; 0 = it is gone."""
        found = self._leases.get(lease)
        if found is None:
            return 0
        found.ends_ms = self._now_ms() + found.ttl_ms
        return found.ttl_ms

    def revoke(self, lease: int) -> None:
        """End a lease, and delete its keys."""
        if self._leases.pop(lease, None) is not None:
            self._delete(sorted(key for key, kv in self._keys.items() if kv.lease == lease))

    def _look_at(self, lease: int) -> None:
        """End a lease whose time is over; where there is no leader nobody ends any."""
        found = self._leases.get(lease)
        if found is None:
            return
        left_ms = (found.ends_ms - self._now_ms()) / self._rate
        if left_ms <= 0 and self.has_leader:
            self._trial.count("fault a lease ran out")
            self.revoke(lease)
            return
        self._outside.later(max(left_ms, 50), lambda: self._look_at(lease))

    # --- watches ---------------------------------------------------------------------------------

    def follow(self, tell: Callable[[], None]) -> None:
        """Have a watch told when there is something new."""
        self._watchers[tell] = None

    def unfollow(self, tell: Callable[[], None]) -> None:
        """Tell a watch nothing any more."""
        self._watchers.pop(tell, None)

    def since(self, revision: int, prefix: str) -> list[tuple[int, tuple[KeyChange, ...]]]:
        """Return what changed after a revision.

        Raises:
            RevisionCompacted: Not all of it is known any more.
        """
        if revision < self._compacted:
            raise RevisionCompacted(f"compacted at {self._compacted}")
        found = []
        for at, changes in self._log:
            ours = tuple(change for change in changes if change.key.startswith(prefix))
            if at > revision and ours:
                found.append((at, ours))
        return found

    # --- bad days --------------------------------------------------------------------------------

    def lose_leader(self) -> None:
        """Answer nothing from now on."""
        self.has_leader = False

    def elect(self) -> None:
        """Answer again; the new leader gives every lease all of its time, and that of its election."""
        self.has_leader = True
        for lease in self._leases.values():
            lease.ends_ms = self._now_ms() + lease.ttl_ms + ELECTION_MS

    def compact(self) -> None:
        """Forget what was before now."""
        self._compacted = self.revision
        self._log.clear()

    def wipe(self, leases_ms: int) -> None:
        """Lose everything; for `leases_ms` there may be processes that believe in their leases all the same."""
        self.generation += 1
        self.revision //= 2  # it must go back, or a list a minute later tells (`cluster.mirror`)
        self._compacted = 0
        self._keys.clear()
        self._leases.clear()
        self._log.clear()
        self.distrust(leases_ms)

    def delete_by_hand(self, key: str, leases_ms: int) -> bool:
        """Delete a key that a lease holds; return whether it was there."""
        if key not in self._keys:
            return False
        self.distrust(leases_ms)
        self._delete([key])
        return True

    def distrust(self, for_ms: int) -> None:
        """Note that for a while processes may believe in leases that are over."""
        until_ms = self._outside.loop.time() + for_ms
        self.distrusted_until_ms = max(self.distrusted_until_ms, until_ms)

    def holder(self, key: str) -> KeyValue | None:
        """Return a key."""
        found = self._keys.get(key)
        return replace(found) if found is not None else None
