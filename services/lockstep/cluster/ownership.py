"""The election: which partitions this node owns, by keys in etcd under its lease.

Here belong registering, claiming, and the end of grants. Never here: what an owner does with a partition, or
how a lease is kept (`lease`). The laws: a partition is granted only after a transaction has created its key
under our lease, and the revision of that is part of its epoch; a grant ends here no later than its key can
end in etcd; what shall be is worked out anew from all keys after every change, so nothing hangs on one event.

Exclusive are the keys, safe are the stores: two nodes that see different sets of nodes for a moment wish for
the same partition, but only one can create the key, and stores refuse an owner of a lower epoch.

A node whose name is taken waits until the other's lease ends and goes on then: so does a process that was
killed and started again at once. `not_ready` says so meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence

from lockstep.cluster.changes import Changes, wait_at_most
from lockstep.cluster.identity import Identity, refuse_stranger
from lockstep.cluster.keys import (
    Claim,
    ClusterState,
    KeyLayout,
    Node,
    namesake_told,
    write_claim,
    write_identity,
    write_node,
)
from lockstep.cluster.lease import LeaseLife, NodeLease
from lockstep.cluster.mirror import Mirror
from lockstep.cluster.node import NodeSettings
from lockstep.cluster.reach import STEADY, Reach, barred
from lockstep.cluster.registry import KeyValue, Registry
from lockstep.cluster.settling import SettledNodes
from lockstep.core.errors import ClusterUnavailable, InternalError, LockstepError
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.placement import assign
from lockstep.runtime.clock import Clock

log = logging.getLogger(__name__)

"""Long enough for the processes of one rollout step to see each other; short beside the start of a process."""

_RETRY_MS = 200
_AT_ONCE_MAX = 64
_LOOKS_PER_TTL = 10  # the sleep of an event loop stops in a suspend, the lease does not


class PartitionLease:
    """The right to own one partition: its key in etcd, under the node's lease. A `Lease`."""

    __slots__ = ("_is_over", "epoch", "era", "life")

    def __init__(self, epoch: PartitionEpoch, life: LeaseLife, era: int) -> None:
        self.epoch = epoch
        self.life = life
        self.era = era
        self._is_over = False

    def is_valid(self) -> bool:
        """Whether the right still holds. Safe in every thread."""
        return not self._is_over and self.life.is_valid()

    def end(self) -> None:
        """Let it be over for good."""
        self._is_over = True


class EtcdOwnership:
    """An `Ownership` by keys in etcd; for one event loop."""

    def __init__(
        self,
        registry: Registry,
        lease: NodeLease,
        clock: Clock,
        settings: NodeSettings,
        *,
        generation: Callable[[], int] = lambda: 0,
    ) -> None:
        """Prepare; `run` does the rest.

        Args:
            registry: etcd.
            lease: Of this node; started and stopped by `run`.
            clock: For waiting, and what lasts how long.
            settings: Who this node is.
            generation: Returns the first part of the epochs of what is claimed from now on.
        """
        self._registry = registry
        self._lease = lease
        self._clock = clock
        self._settings = settings
        self._generation = generation
        self._layout = KeyLayout(settings.cluster)
        self._identity = Identity(settings.cluster_id, settings.partitions)
        self._mirror = Mirror(registry, clock, self._layout.prefix, changed=self._look)
        self._nodes = SettledNodes(settings.settle_ms)
        self._changes = Changes()
        self._state = ClusterState()
        self._read_items: Mapping[str, KeyValue] = {}
        self._counted: frozenset[str] = frozenset()
        self._barred: Mapping[int, frozenset[str]] = {}
        self._reach = STEADY
        self._desired: tuple[str, ...] = ()
        self._grants: dict[PartitionId, PartitionLease] = {}
        self._unwanted: frozenset[PartitionId] = frozenset()
        # The lease and the create revision of each partition's key that was last given back.
        self._released: dict[PartitionId, tuple[int, int]] = {}
        self._told: tuple[object, ...] = ()
        self._is_leaving = False
        self._is_cut_off = False
        self._wake = asyncio.Event()
        self._time_changed = asyncio.Event()
        self._ending = asyncio.Event()
        self._failure: LockstepError | None = None

    # --- what an owner follows -------------------------------------------------------------------

    @property
    def grants(self) -> Mapping[PartitionId, PartitionLease]:
        """As `Ownership` says."""
        return {p: grant for p, grant in self._grants.items() if grant.is_valid()}

    @property
    def unwanted(self) -> Collection[PartitionId]:
        """As `Ownership` says."""
        return self._unwanted & self.grants.keys()

    @property
    def version(self) -> int:
        """As `Ownership` says."""
        return self._changes.version

    async def wait_changed(self, seen: int) -> int:
        """As `Ownership` says."""
        return await self._changes.wait(seen)

    async def release(self, partition: PartitionId) -> None:
        """As `Ownership` says. When etcd does not answer, `run` deletes the key as soon as it does."""
        grant = self._grants.get(partition)
        if grant is None:
            return
        revision = grant.epoch.revision
        self._end(partition, "released")
        self._released[partition] = (grant.life.id, revision)
        self._look()
        try:
            await self._registry.delete(self._layout.partition(partition), create_revision=revision)
        except ClusterUnavailable:
            self._wake.set()

    def leave(self) -> None:
        """Be no candidate any more: others shall have its partitions, which are kept until released."""
        self._is_leaving = True
        self._look()

    def note_reach(self, reach: Reach) -> None:
        """Tell the others how well this node reaches the databases; they may have to take partitions over."""
        self._reach = reach
        self._look()

    def is_kept_away(self, database: int) -> bool:
        """Whether others shall have the partitions of a database, because this node does not reach it."""
        return self._settings.node in self._barred.get(database, ())

    def not_ready(self) -> list[str]:
        """Return why this node cannot own what it should; empty = it can, for as long as its lease lasts."""
        reasons = list(self._state.unreadable.values())
        life, problem = self._lease.current, self._mirror.problem
        if problem is not None and (life is None or self._mirror.revision == 0):
            reasons.append(problem.message)
        elif self._mirror.revision == 0:
            reasons.append("the keys of the cluster were not read yet")
        if life is None:
            reasons.append("this node has no lease at etcd")
        elif (namesake := self._namesake(life)) is not None:
            reasons.append(namesake_told(namesake))
        return reasons

    # --- life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take part in the election until `stop`; then give everything back at once.

        Raises:
            StoreRefused: Another process has written keys of a newer format. Upgrade this one.
            InternalError: The thread of the lease failed.
        """
        self._lease.start(self._look)
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(self._mirror.run()),
                    tasks.create_task(self._act_always()),
                    tasks.create_task(self._follow_time()),
                ]
                await self._ending.wait()
                for task in running:
                    task.cancel()
        finally:
            self._ending.set()
            for partition in list(self._grants):
                self._end(partition, "stopped")
            self._tell()
            await self._lease.stop()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Let `run` end. Whatever is still granted ends at once, so `leave` and release first."""
        self._ending.set()

    async def _follow_time(self) -> None:
        """Look again when a lease may have ended, and when nodes have settled."""
        while True:
            self._time_changed.clear()
            await wait_at_most(self._time_changed, self._clock, self._next_look_ms())
            self._look()

    def _next_look_ms(self) -> int:
        delays = [self._lease.ttl_ms // _LOOKS_PER_TTL]
        life = self._lease.current
        if life is not None:
            delays.append(life.left_ms)
        due_ms = self._nodes.due_ms
        if due_ms is not None:
            delays.append(due_ms - self._clock.monotonic_ms())
        return max(min(delays), 1)

    # --- what is and what shall be ---------------------------------------------------------------

    def _look(self) -> None:
        """Work out everything anew from keys, lease and time. Never waits."""
        if self._ending.is_set():
            return
        try:
            if self._lease.failure is not None:
                raise InternalError(
                    "The thread of the node's lease failed. Report this."
                ) from self._lease.failure
            self._read()
        except LockstepError as error:
            self._failure = error
            self._ending.set()
            return
        life = self._lease.current
        self._end_what_is_over(life)
        self._wish(life)
        self._end_what_is_cut_off(life)
        self._tell()
        self._wake.set()

    def _read(self) -> None:
        items = self._mirror.items
        if items is not self._read_items:
            state = self._layout.read(items.values())
            refuse_stranger(self._layout.prefix, state.identity, self._identity)
            for key in state.unreadable.keys() - self._state.unreadable.keys():
                log.warning("ownership.unreadable_key", extra={"key": key})
            self._state, self._read_items = state, items

    def _end_what_is_over(self, life: LeaseLife | None) -> None:
        for partition, grant in list(self._grants.items()):
            if life is None or grant.life is not life:
                self._end(partition, "lease_ended")
            elif grant.era != self._mirror.era or self._is_taken(partition, grant):
                self._end(partition, "key_lost")

    def _end_what_is_cut_off(self, life: LeaseLife | None) -> None:
        """Give up at once what another node should have and cannot be drained, because its database is silent."""
        own = self._state.nodes.get(self._settings.node)
        if life is None or own is None or own.lease != life.id:
            return
        for partition, grant in list(self._grants.items()):
            is_cut_off = partition % self._settings.databases in own.reach.cut_off
            if is_cut_off and not self._is_wanted(partition):
                self._end(partition, "database_cut_off")
                self._released[partition] = (life.id, grant.epoch.revision)

    def _is_taken(self, partition: PartitionId, grant: PartitionLease) -> bool:
        """Whether the keys, as far as they are known, show that a partition's key is not ours any more."""
        if self._mirror.revision < grant.epoch.revision:
            return False
        item = self._mirror.items.get(self._layout.partition(partition))
        return item is None or item.create_revision != grant.epoch.revision

    def _wish(self, life: LeaseLife | None) -> None:
        """Share out the partitions among the nodes that count."""
        present = frozenset(
            node.name
            for node in self._state.nodes.values()
            if not node.is_leaving and self._may_count(node, life)
        )
        due_ms = self._nodes.due_ms
        counted = self._nodes.look(present, self._clock.monotonic_ms())
        if self._nodes.due_ms != due_ms:
            self._time_changed.set()
        if counted != self._counted:
            log.info("ownership.nodes", extra={"nodes": sorted(counted)})
        bars = barred(
            {name: self._state.nodes[name].reach for name in counted},
            databases=self._settings.databases,
            partitions=self._settings.partitions,
        )
        if (counted, bars) != (self._counted, self._barred):
            self._counted, self._barred = counted, bars
            self._desired = assign(counted, self._settings.partitions, bars)

    def _may_count(self, node: Node, life: LeaseLife | None) -> bool:
        """Whether a node is a candidate; under our name, only what has our lease."""
        if node.name != self._settings.node:
            return True
        return life is not None and node.lease == life.id and not self._is_leaving

    def _is_wanted(self, partition: PartitionId) -> bool:
        """Whether this node should own a partition, as far as anybody should."""
        if self._is_leaving:
            return False
        return not self._desired or self._desired[partition] == self._settings.node

    def _ours(self, life: LeaseLife) -> Iterator[tuple[PartitionId, Claim]]:
        """All partitions whose keys are under our lease."""
        for partition, claim in self._state.claims.items():
            if claim.lease == life.id and partition < self._settings.partitions:
                yield partition, claim

    def _grant(self, partition: PartitionId, life: LeaseLife, claim: Claim) -> None:
        """Grant a partition by its key, unless that was given back, or is known to be gone."""
        epoch = PartitionEpoch(claim.generation, claim.create_revision, 0)
        grant = PartitionLease(epoch, life, self._mirror.era)
        if self._is_released(partition, claim) or self._is_taken(partition, grant):
            return
        self._grants[partition] = grant
        log.info("ownership.granted", extra={"partition": partition, "epoch": str(tuple(epoch))})
        self._tell()

    def _is_released(self, partition: PartitionId, claim: Claim) -> bool:
        """Whether a key under our lease was given back, and is only still there."""
        return self._released.get(partition) == (claim.lease, claim.create_revision)

    def _end(self, partition: PartitionId, why: str) -> None:
        grant = self._grants.pop(partition)
        grant.end()
        log.info("ownership.ended", extra={"partition": partition, "why": why})

    def _tell(self) -> None:
        """Count a change of what the owner sees, if there is one."""
        self._unwanted = frozenset(p for p in self._grants if not self._is_wanted(p))
        told = (dict(self._grants), self._unwanted)
        if told != self._told:
            self._told = told
            self._changes.note()

    # --- what is done about it -------------------------------------------------------------------

    async def _act_always(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            life = self._lease.current
            if life is None or self._mirror.revision == 0:
                continue
            if not await self._all_done(self._deeds(life)):
                await self._clock.sleep(_RETRY_MS)
                self._wake.set()

    def _deeds(self, life: LeaseLife) -> list[Callable[[], Awaitable[None]]]:
        """Return what is to be done now."""
        if self._state.identity is None and self._settings.cluster_id:
            return [self._identify]
        deeds: list[Callable[[], Awaitable[None]]] = []
        own = self._state.nodes.get(self._settings.node)
        if own is None and not self._is_leaving:
            deeds.append(lambda: self._register(life))
        elif own is not None and own.lease == life.id and own != self._as_node(life):
            deeds.append(lambda: self._renew_registration(life))
        for partition, claim in self._ours(life):
            if partition in self._grants:
                continue
            if self._is_wanted(partition) and not self._is_released(partition, claim):
                deeds.append(self._claim_of(partition, life))  # its outcome was not known
            else:
                deeds.append(self._deletion(partition, claim.create_revision))
        if self._settings.node in self._counted:
            for number, node in enumerate(self._desired):
                partition = PartitionId(number)
                is_free = self._layout.partition(partition) not in self._mirror.items
                if node == self._settings.node and is_free and partition not in self._grants:
                    deeds.append(self._claim_of(partition, life))
        return deeds

    async def _all_done(self, deeds: Sequence[Callable[[], Awaitable[None]]]) -> bool:
        """Do several things at once, and return whether etcd answered to all of them."""
        failed: list[ClusterUnavailable] = []

        async def attempt(deed: Callable[[], Awaitable[None]]) -> None:
            try:
                await deed()
            except ClusterUnavailable as error:
                failed.append(error)

        for start in range(0, len(deeds), _AT_ONCE_MAX):
            async with asyncio.TaskGroup() as tasks:
                for deed in deeds[start : start + _AT_ONCE_MAX]:
                    tasks.create_task(attempt(deed))
        if failed and not self._is_cut_off:
            log.warning("ownership.not_done", extra={"deeds": len(failed), **failed[0].details})
        self._is_cut_off = bool(failed)
        return not failed

    def _as_node(self, life: LeaseLife) -> Node:
        settings = self._settings
        return Node(
            name=settings.node,
            address=settings.address,
            release=settings.release,
            is_leaving=self._is_leaving,
            lease=life.id,
            reach=self._reach,
        )

    async def _identify(self) -> None:
        """Say which cluster this is, unless somebody has; all read then who was first."""
        value = write_identity(self._identity)
        await self._registry.create(self._layout.identity, value, lease=0)

    async def _register(self, life: LeaseLife) -> None:
        value = write_node(self._as_node(life))
        await self._registry.create(self._layout.node(self._settings.node), value, lease=life.id)

    async def _renew_registration(self, life: LeaseLife) -> None:
        value = write_node(self._as_node(life))
        await self._registry.replace(self._layout.node(self._settings.node), value, lease=life.id)

    def _claim_of(self, partition: PartitionId, life: LeaseLife) -> Callable[[], Awaitable[None]]:
        return lambda: self._claim(partition, life)

    async def _claim(self, partition: PartitionId, life: LeaseLife) -> None:
        settings, era = self._settings, self._mirror.era
        found = await self._registry.create(
            self._layout.partition(partition),
            write_claim(settings.node, settings.address, self._generation()),
            lease=life.id,
            while_leased=self._layout.node(settings.node),
        )
        if found is None or found.lease != life.id or self._mirror.era != era:
            return
        if not self._is_wanted(partition):  # wishes have changed meanwhile
            await self._registry.delete(found.key, create_revision=found.create_revision)
        elif self._lease.current is life:
            self._grant(partition, life, self._layout.read([found]).claims[partition])

    def _deletion(self, partition: PartitionId, revision: int) -> Callable[[], Awaitable[None]]:
        key = self._layout.partition(partition)

        async def delete() -> None:
            await self._registry.delete(key, create_revision=revision)

        return delete

    def _namesake(self, life: LeaseLife) -> Node | None:
        """Return the node that has our name and another lease."""
        own = self._state.nodes.get(self._settings.node)
        return None if own is None or own.lease == life.id else own
