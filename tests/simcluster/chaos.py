"""What goes wrong in a cluster, and its healing.

Here belong the faults of processes, of etcd and of the ways between them, each with its end. Never here: faults of
single calls and commits, which strike where these are made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any

from tests.simcluster.etcd import MEMBERS
from tests.simcluster.faults import CHAOS, Faults
from tests.simcluster.nodes import TTL_MS, FrontNode, OwnerNode, World, names
from tests.simcluster.processes import sleep_ms

OWNERS = names("owner", 3)
FRONTENDS = names("front", 2)
_GUEST = "owner9"
_SKEW_MS = 2000
_STEP_MS = 30_000
_TURN_MS = (300, 2500)
_LEAVING_MS = 15_000
_KEY_GOES_UNNOTICED_MS = 10_000
_AT_ONCE_MAX = 4


class Chaos:
    """Lets faults happen until the calm."""

    def __init__(self, world: World, faults: Faults) -> None:
        self._world = world
        self._faults = faults
        self._random = world.trial.stream("chaos")
        self._running: dict[asyncio.Task[None], None] = {}
        self._starts = 0

    # --- processes ---------------------------------------------------------------------------------

    def start_all(self) -> None:
        """Start every process that does not run."""
        for name in OWNERS:
            if not self._lives(self._world.owners, name):
                self._start_owner(name)
        for name in FRONTENDS:
            if not self._lives(self._world.frontends, name):
                self._start_front(name)

    def _lives(self, nodes: dict[str, Any], name: str) -> bool:
        return name in nodes and not nodes[name].process.is_dead

    def _skew_ms(self) -> int:
        return self._random.randint(-_SKEW_MS, _SKEW_MS)

    def _start_owner(self, name: str) -> None:
        if not self._lives(self._world.owners, name):
            node = OwnerNode(self._world, name, self._skew_ms())
            self._begin(node)

    def _start_front(self, name: str) -> None:
        if not self._lives(self._world.frontends, name):
            self._starts += 1
            self._begin(FrontNode(self._world, name, self._skew_ms(), self._starts))

    def _begin(self, node: OwnerNode | FrontNode) -> None:
        if not self._world.is_calm:
            node.links.faults = self._faults
        node.start()

    def _owner(self, luck: Random) -> OwnerNode | None:
        living = [n for _, n in sorted(self._world.owners.items()) if n.process.runs]
        living = [node for node in living if not node.is_leaving]
        return luck.choice(living) if living else None

    def _front(self, luck: Random) -> FrontNode | None:
        living = [n for _, n in sorted(self._world.frontends.items()) if n.process.runs]
        return luck.choice(living) if living else None

    def _anybody(self, luck: Random) -> OwnerNode | FrontNode | None:
        return self._owner(luck) if luck.random() < 0.7 else self._front(luck)

    # --- the storm ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Let faults happen until the calm."""
        world = self._world
        for links in world.links.values():
            links.faults = self._faults
        world.network.faults = self._faults
        for court in world.courts:
            court.disk.faults = self._faults.of_disks
        while True:
            await sleep_ms(self._random.uniform(*_TURN_MS))
            if world.is_calm:
                return
            kinds = self._random.sample(CHAOS, k=len(CHAOS))
            for kind in kinds:
                if len(self._running) >= _AT_ONCE_MAX:
                    break
                probability = getattr(self._faults, kind) * 0.3
                if luck := world.trial.strike("chaos", kind, probability):
                    world.trial.note("chaos", kind)
                    self._go(getattr(self, f"_{kind}")(luck))
                    break

    def _go(self, fault: Coroutine[Any, Any, None]) -> None:
        task = self._world.loop.create_task(fault)
        self._running[task] = None
        task.add_done_callback(lambda done: self._running.pop(done, None))

    async def heal(self) -> None:
        """End every fault; whoever died starts again."""
        world = self._world
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(list(self._running))
        for links in world.links.values():
            links.faults = Faults()
            links.cut.clear()
        world.network.faults = Faults()
        world.network.cuts.clear()
        world.network.alone.clear()
        for court in world.courts:
            court.disk.faults = Faults().of_disks
        if not world.etcd.has_leader:
            world.etcd.elect()
        world.generation = world.etcd.generation
        for node in (*world.owners.values(), *world.frontends.values()):
            if isinstance(node, OwnerNode):
                node.store.is_cut = False
                if node.is_leaving or node.name == _GUEST:
                    node.kill()
            if node.process.is_stopped and not node.process.is_dead:
                node.process.go_on()
        world.owners.pop(_GUEST, None)
        self.start_all()
        world.trial.note("chaos", "healed")

    # --- owners ------------------------------------------------------------------------------------

    async def _crash(self, luck: Random) -> None:
        node = self._owner(luck)
        if node is not None:
            node.kill()
            await sleep_ms(luck.choice((luck.uniform(10, 500), luck.uniform(500, 2 * TTL_MS))))
            self._start_owner(node.name)

    async def _zombie(self, luck: Random) -> None:
        """Let an owner sleep through its lease, and perhaps a front end hear of no other owner meanwhile."""
        node, front = self._owner(luck), self._front(luck)
        is_known = front is None or luck.random() < 0.4
        if front is not None and not is_known:
            front.links.cut.update(range(MEMBERS))
        await self._stand_still(node, luck.uniform(TTL_MS, 3 * TTL_MS))
        if front is not None and not is_known:
            await sleep_ms(luck.uniform(0, 500))
            front.links.cut.clear()

    async def _pause(self, luck: Random) -> None:
        await self._stand_still(self._owner(luck), luck.uniform(20, TTL_MS))

    async def _stand_still(self, node: OwnerNode | FrontNode | None, for_ms: float) -> None:
        if node is None:
            return
        node.process.stand_still()
        try:
            await sleep_ms(for_ms)
        finally:
            if not node.process.is_dead:
                node.process.go_on()

    async def _leave(self, luck: Random) -> None:
        node = self._owner(luck)
        if node is None:
            return
        node.run(node.leave())
        await self._gone(node)
        await sleep_ms(luck.uniform(10, 2000))
        self._start_owner(node.name)

    async def _gone(self, node: OwnerNode) -> None:
        """Wait until a process has ended; one that takes too long is killed."""
        for _ in range(_LEAVING_MS // 50):
            if node.process.is_dead:
                return
            await sleep_ms(50)
        self._world.trial.count("fault leaving took too long")
        node.kill()

    async def _join(self, luck: Random) -> None:
        node = self._world.owners.get(_GUEST)
        if node is None or node.process.is_dead:
            self._start_owner(_GUEST)
        elif node.process.runs and not node.is_leaving and luck.random() < 0.7:
            node.run(node.leave())
            await self._gone(node)

    async def _vanish(self, luck: Random) -> None:
        node = self._owner(luck)
        if node is None:
            return
        network = self._world.network
        network.alone.add(node.name)
        node.links.cut.update(range(MEMBERS))
        node.store.is_cut = True
        await sleep_ms(luck.uniform(300, 3 * TTL_MS))
        is_killed = luck.random() < 0.4
        if is_killed:
            node.kill()
            await sleep_ms(luck.uniform(10, TTL_MS))
        network.alone.discard(node.name)
        node.links.cut.clear()
        node.store.is_cut = False
        if is_killed:
            self._start_owner(node.name)

    async def _cut_store(self, luck: Random) -> None:
        node = self._owner(luck)
        if node is not None:
            node.store.is_cut = True
            await sleep_ms(luck.uniform(100, 2 * TTL_MS))
            node.store.is_cut = False

    async def _clock_step(self, luck: Random) -> None:
        node = self._owner(luck)
        if node is not None:
            node.clock.step(luck.randint(-_STEP_MS, _STEP_MS))

    # --- front ends --------------------------------------------------------------------------------

    async def _frontend_crash(self, luck: Random) -> None:
        node = self._front(luck)
        if node is not None:
            node.kill()
            await sleep_ms(luck.uniform(10, 2000))
            self._start_front(node.name)

    async def _frontend_pause(self, luck: Random) -> None:
        await self._stand_still(self._front(luck), luck.uniform(20, 2 * TTL_MS))

    async def _cut_owner(self, luck: Random) -> None:
        owner, other = self._owner(luck), self._anybody(luck)
        if owner is None or other is None or owner is other:
            return
        pair = frozenset((owner.name, other.name))
        self._world.network.cuts.add(pair)
        await sleep_ms(luck.uniform(50, 3 * TTL_MS))
        self._world.network.cuts.discard(pair)

    # --- etcd --------------------------------------------------------------------------------------

    async def _cut_etcd(self, luck: Random) -> None:
        node = self._anybody(luck)
        if node is not None:
            node.links.cut.update(range(MEMBERS))
            await sleep_ms(luck.uniform(200, 2.5 * TTL_MS))
            node.links.cut.clear()

    async def _cut_member(self, luck: Random) -> None:
        node = self._anybody(luck)
        if node is not None:
            member = luck.randrange(MEMBERS)
            node.links.cut.add(member)
            await sleep_ms(luck.uniform(200, 5 * TTL_MS))
            node.links.cut.discard(member)

    async def _etcd_silent(self, luck: Random) -> None:
        world = self._world
        if not world.etcd.has_leader:
            return
        world.etcd.lose_leader()
        self._break_watches()
        await sleep_ms(luck.uniform(100, 2.5 * TTL_MS))
        world.etcd.elect()

    def _break_watches(self) -> None:
        for _, links in sorted(self._world.links.items()):
            links.break_watches()

    async def _compaction(self, luck: Random) -> None:
        """Forget what some have not seen yet."""
        cut = [links for _, links in sorted(self._world.links.items()) if luck.random() < 0.6]
        for links in cut:
            links.cut.update(range(MEMBERS))
            links.break_watches()
        await sleep_ms(luck.uniform(100, TTL_MS))
        self._world.etcd.compact()
        for links in cut:
            links.cut.clear()

    async def _wipe(self, luck: Random) -> None:
        world = self._world
        world.etcd.wipe(TTL_MS + 1000)
        self._break_watches()
        await sleep_ms(luck.uniform(100, TTL_MS))
        world.generation = world.etcd.generation
        world.trial.note("operator", "next generation", world.generation)

    async def _key_deleted(self, luck: Random) -> None:
        partition = luck.randrange(len(self._world.courts))
        key = f"/lockstep/sim/partitions/{partition:05}"
        self._world.etcd.delete_by_hand(key, _KEY_GOES_UNNOTICED_MS)
