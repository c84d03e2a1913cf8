"""What befalls a cluster. Each fault begins, lasts and is over when its call returns: everything runs again then."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Sequence

from lockstep.runtime.clock import SystemClock
from tests.cluster.command import run_lockstep
from tests.cluster.local import OwnerOfCluster
from tests.faults.rig import LEASE_MS, ClientProcess, FaultRig
from tests.faults.workers import LOCK_S
from tests.server.server_process import ServerFailed, ServerProcess

_LONG_MS = 2 * LEASE_MS
_SHORT_MS = LEASE_MS // 3
_STORM_MS = 30_000
_STARTS_MAX = 10


class Nemesis:
    """Does the faults of one scenario; whom they befall follows from its name."""

    def __init__(
        self, rig: FaultRig, client: ClientProcess, name: str, tell: Callable[[str], None]
    ) -> None:
        self._rig = rig
        self._tell = tell
        self._client = client
        self._chance = random.Random(name)
        self._clock = SystemClock()

    @property
    def _owner(self) -> OwnerOfCluster:
        return self._chance.choice(self._rig.owners)

    async def _wait(self, ms: int) -> None:
        await self._clock.sleep(ms)

    async def leave_alone(self) -> None:
        """Nothing befalls the cluster."""
        await self._wait(3 * _LONG_MS)

    # --- processes -------------------------------------------------------------------------------

    async def kill_owner(self) -> None:
        """SIGKILL of an owner; it is started again when the others have its partitions."""
        await self._kill(self._owner, _LONG_MS)

    async def kill_owner_twice(self) -> None:
        """SIGKILL of an owner that is started again at once, under the lease of its predecessor."""
        await self._kill(self._owner, 0)

    async def kill_all_owners(self) -> None:
        """SIGKILL of all owners; nobody is there for longer than locks last."""
        for owner in self._rig.owners:
            await asyncio.to_thread(owner.kill)
        await self._wait(_LONG_MS)
        async with asyncio.TaskGroup() as tasks:
            for owner in self._rig.owners:
                tasks.create_task(self._start(owner))

    async def stop_owner(self) -> None:
        """SIGTERM of an owner, which hands its partitions over."""
        await self._stop(self._owner, _SHORT_MS)

    async def pause_owner(self) -> None:
        """SIGSTOP of an owner for twice the lease: it wakes as one that owns nothing any more."""
        await self._pause(self._owner, _LONG_MS)

    async def pause_owner_shortly(self) -> None:
        await self._pause(self._owner, _SHORT_MS)

    async def kill_frontend(self) -> None:
        await self._kill(self._chance.choice(self._rig.cluster.frontends), _SHORT_MS)

    async def stop_frontend(self) -> None:
        await self._stop(self._chance.choice(self._rig.cluster.frontends), _SHORT_MS)

    async def pause_frontend(self) -> None:
        await self._pause(self._chance.choice(self._rig.cluster.frontends), _LONG_MS)

    async def kill_client(self) -> None:
        """SIGKILL of the process of clients; what it held comes back when its locks have run out."""
        await asyncio.to_thread(self._client.kill)
        await self._wait(_SHORT_MS)
        self._client.launch()

    async def pause_client(self) -> None:
        """SIGSTOP of the process of clients for longer than its locks last."""
        self._client.send(signal.SIGSTOP)
        await self._wait(LOCK_S * 1000 + 1_500)
        self._client.send(signal.SIGCONT)

    async def roll_everything(self) -> None:
        """Stop and start every process, one after the other, as an upgrade does."""
        for process in (*self._rig.owners, *self._rig.cluster.frontends):
            await self._stop(process, 0)
            await self._until_ready()

    async def _kill(self, process: ServerProcess, away_ms: int) -> None:
        await asyncio.to_thread(process.kill)
        await self._wait(away_ms)
        await self._start(process)

    async def _stop(self, process: ServerProcess, away_ms: int) -> None:
        code = await asyncio.to_thread(process.stop)
        assert code == 0, process.last_log()
        await self._wait(away_ms)
        await self._start(process)

    async def _start(self, process: ServerProcess) -> None:
        """Start a process, again if it ended because something that it needs was away."""
        for _ in range(_STARTS_MAX):
            try:
                await asyncio.to_thread(process.start)
            except ServerFailed:
                await asyncio.to_thread(process.close)
            else:
                return
        raise AssertionError(f"it does not start: {process.last_log()}")

    async def _pause(self, process: ServerProcess, ms: int) -> None:
        process.pause()
        await self._wait(ms)
        process.go_on()

    async def _until_ready(self) -> None:
        while not await asyncio.to_thread(self._rig.cluster.is_ready):
            await self._wait(100)

    # --- etcd and PostgreSQL ---------------------------------------------------------------------

    async def restart_etcd(self) -> None:
        await self._restart_etcd(_SHORT_MS)

    async def restart_etcd_after_the_lease(self) -> None:
        await self._restart_etcd(_LONG_MS)

    async def _restart_etcd(self, away_ms: int) -> None:
        await asyncio.to_thread(self._rig.cluster.etcd.stop)
        await self._wait(away_ms)
        await asyncio.to_thread(self._rig.cluster.etcd.start)

    async def empty_etcd(self) -> None:
        """etcd loses all its data; an operator says that another one counts from now on."""
        etcd = self._rig.cluster.etcd
        await asyncio.to_thread(etcd.stop)
        etcd.forget()
        await asyncio.to_thread(etcd.start)
        await self._wait(_SHORT_MS)
        done = await asyncio.to_thread(
            run_lockstep, "cluster", "next-generation", "--postgres", self._rig.cluster.dsn
        )
        assert done.returncode == 0, done.stderr

    async def restart_postgres(self) -> None:
        """A crash of PostgreSQL, which recovers."""
        await self._restart_postgres(signal.SIGQUIT)

    async def restart_postgres_orderly(self) -> None:
        await self._restart_postgres(signal.SIGINT)

    async def _restart_postgres(self, how: signal.Signals) -> None:
        await asyncio.to_thread(self._rig.cluster.postgres.stop, how)
        await self._wait(_SHORT_MS)
        await asyncio.to_thread(self._rig.cluster.postgres.start)

    # --- links -----------------------------------------------------------------------------------

    async def cut_owner_from_postgres(self) -> None:
        link = self._rig.link(self._owner, "postgres")
        link.cut()
        await self._wait(_LONG_MS)
        link.heal()

    async def break_connections_to_postgres(self) -> None:
        """All connections of all owners break, again and again."""
        for _ in range(4):
            for owner in self._rig.owners:
                self._rig.link(owner, "postgres").reset()
            await self._wait(700)

    async def lose_answers_of_postgres(self) -> None:
        """Commits happen whose owner never hears of them."""
        for _ in range(3):
            link = self._rig.link(self._owner, "postgres")
            link.mute()
            await self._wait(700)
            link.lose()
            await self._wait(700)

    async def hold_owner_to_postgres(self) -> None:
        """Nothing passes for twice the lease, then everything that was held."""
        await self._hold("postgres")

    async def slow_down_postgres(self) -> None:
        for owner in self._rig.owners:
            self._rig.link(owner, "postgres").delay(60)
        await self._wait(_LONG_MS)
        for owner in self._rig.owners:
            self._rig.link(owner, "postgres").heal()

    async def cut_owner_from_etcd(self) -> None:
        link = self._rig.link(self._owner, "etcd")
        link.cut()
        await self._wait(_LONG_MS)
        link.heal()

    async def isolate_owner(self) -> None:
        """An owner loses its lease while a commit of it is on its way, and stays there until others have its place."""
        owner = self._owner
        links = [self._rig.link(owner, to) for to in ("postgres", "etcd")]
        for link in links:
            link.hold()
        await self._wait(_LONG_MS)
        for link in links:
            link.heal()

    async def lose_host(self) -> None:
        """The host of an owner is away without a word: nobody hears of it, and it hears of nobody."""
        owner = self._owner
        links = [self._rig.link(owner, to) for to in ("postgres", "etcd")]
        links.append(self._rig.link_to(owner))
        for link in links:
            link.hold()
        await self._wait(2 * _LONG_MS)
        for link in links:
            link.heal()

    async def hold_owner_to_etcd(self) -> None:
        await self._hold("etcd")

    async def _hold(self, to: str) -> None:
        link = self._rig.link(self._owner, to)
        link.hold()
        await self._wait(_LONG_MS)
        link.heal()

    async def cut_frontends_from_owner(self) -> None:
        link = self._rig.link_to(self._owner)
        link.cut()
        await self._wait(_LONG_MS)
        link.heal()

    async def hold_frontends_to_owner(self) -> None:
        link = self._rig.link_to(self._owner)
        link.hold()
        await self._wait(_LONG_MS)
        link.heal()

    async def lose_answers_of_owners(self) -> None:
        """Calls are carried out whose front end never hears of them."""
        for _ in range(4):
            link = self._rig.link_to(self._owner)
            link.mute()
            await self._wait(500)
            link.lose()
            await self._wait(500)

    async def slow_down_owners(self) -> None:
        for owner in self._rig.owners:
            self._rig.link_to(owner).delay(60)
        await self._wait(_LONG_MS)
        for owner in self._rig.owners:
            self._rig.link_to(owner).heal()

    # --- all at once -----------------------------------------------------------------------------

    async def storm(self) -> None:
        """Something befalls the processes, their links, and etcd or PostgreSQL, all at the same time."""
        ends_ms = self._clock.monotonic_ms() + _STORM_MS
        async with asyncio.TaskGroup() as tasks:
            for faults in (_OF_PROCESSES, _OF_LINKS, _OF_SERVERS):
                tasks.create_task(self._go_on_until(ends_ms, faults))

    async def _go_on_until(self, ends_ms: int, faults: Sequence[Fault]) -> None:
        while self._clock.monotonic_ms() < ends_ms:
            fault = self._chance.choice(faults)
            self._tell(told(fault))
            await fault(self)
            await self._wait(self._chance.randint(0, _SHORT_MS))


def told(fault: Fault) -> str:
    """Name a fault in words."""
    return fault.__name__.replace("_", " ")


Fault = Callable[[Nemesis], Awaitable[None]]
_OF_PROCESSES: tuple[Fault, ...] = (
    Nemesis.kill_owner,
    Nemesis.kill_owner_twice,
    Nemesis.pause_owner,
    Nemesis.pause_owner_shortly,
    Nemesis.kill_frontend,
    Nemesis.kill_client,
)
_OF_LINKS: tuple[Fault, ...] = (
    Nemesis.cut_owner_from_postgres,
    Nemesis.break_connections_to_postgres,
    Nemesis.lose_answers_of_postgres,
    Nemesis.hold_owner_to_postgres,
    Nemesis.cut_owner_from_etcd,
    Nemesis.hold_owner_to_etcd,
    Nemesis.cut_frontends_from_owner,
    Nemesis.hold_frontends_to_owner,
    Nemesis.lose_answers_of_owners,
    Nemesis.isolate_owner,
)
_OF_SERVERS: tuple[Fault, ...] = (
    Nemesis.restart_etcd,
    Nemesis.restart_etcd_after_the_lease,
    Nemesis.restart_postgres,
    Nemesis.leave_alone,
)
