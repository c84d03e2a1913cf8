"""How long partitions are away when their owner is killed, stopped, or joined by another one.

Here belongs what happens to a cluster of real processes under a light load, and between which moments gaps are looked
for. Never here: the load and its gaps (`gaps`). The laws: nothing happens before everything is as it should be again;
how long that took is told by calls, not by what processes say of themselves.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from bench import measure
from bench.cluster_systems import SYNCED
from bench.gaps import QUEUE, LightLoad
from lockstep.aio import LockstepClient
from lockstep.cluster.directory import EtcdDirectory
from lockstep.cluster.endpoints import EtcdSettings
from lockstep.cluster.etcd import EtcdClient
from lockstep.core.placement import assign
from lockstep.runtime.clock import SystemClock
from lockstep.runtime.cluster_config import ClusterConfig
from tests.cluster.local import LocalCluster, OwnerOfCluster

KILLS, MOVES = "kills", "moves"
SETTLED_SECONDS_MAX = 90.0
SUCCESSES_AFTER = 3
"""So many calls must succeed on a partition until it counts as being back; the first may have been on its way."""
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Course:
    """What happens, and to what cluster.

    Attributes:
        times: How many owners are killed; how many are stopped, and join again.
        owners: How many there are.
        partitions: How many there are.
        lease_ms: How long a silent owner keeps its partitions.
        pace_seconds: How long each program of the load rests after a message.
        body_bytes: The length of a message.
        calm_seconds: How long nothing happens at first.
    """

    times: int
    owners: int
    partitions: int
    lease_ms: int
    pace_seconds: float
    body_bytes: int
    calm_seconds: float


@dataclass(slots=True)
class Found:
    """What was seen: gaps in seconds, one for each partition each time, by what happened to the partition.

    Attributes:
        gaps: They.
        failed: Calls that failed after all retries, by what happened and why.
        acknowledged: Messages that the broker said it has; all of them came.
        other_cores: How many cores programs that have nothing to do with it kept busy meanwhile.
    """

    gaps: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, Counter[str]] = field(default_factory=dict)
    acknowledged: int = 0
    other_cores: float = 0.0


class Scene:
    """A cluster under load, and what is seen of it.

    Attributes:
        cluster: Its processes.
        found: What was seen of the part that is under way.
    """

    def __init__(self, cluster: LocalCluster, directory: EtcdDirectory, load: LightLoad) -> None:
        self.cluster = cluster
        self.found = Found()
        self._directory = directory
        self._load = load

    def partitions_of(self, owner: OwnerOfCluster) -> list[int]:
        """Return what an owner owns now."""
        return [n for n, node in self._nodes().items() if node == name_of(owner)]

    def _nodes(self) -> dict[int, str]:
        return {int(n): one.node for n, one in self._directory.placements().items()}

    async def until_shared(self) -> None:
        """Wait until each partition is where it belongs with the owners that run, and answers."""
        names = [name_of(owner) for owner in self.cluster.owners if owner.is_running]
        wanted = dict(enumerate(assign(names, self.cluster.partitions)))
        await self._until(lambda: self._nodes() == wanted, "the partitions are shared out")
        await self.until_answered(list(wanted), time.perf_counter())

    async def until_elsewhere(self, partitions: Sequence[int], owner: OwnerOfCluster) -> None:
        """Wait until partitions are owned by others, and answer."""
        left = name_of(owner)
        await self._until(
            lambda: all(self._nodes().get(n, left) != left for n in partitions),
            f"others own what {left} owned",
        )
        await self.until_answered(partitions, time.perf_counter())

    async def until_answered(self, partitions: Sequence[int], since: float) -> None:
        """Wait until calls have succeeded on partitions since a moment."""
        tracks = [self._load.tracks[n] for n in partitions]
        await self._until(
            lambda: all(track.successes_since(since) >= SUCCESSES_AFTER for track in tracks),
            "all partitions answer",
        )

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        give_up_at = time.perf_counter() + SETTLED_SECONDS_MAX
        while not condition():
            if time.perf_counter() > give_up_at:
                self._give_up(what)
            await asyncio.sleep(_LOOK_SECONDS)

    def _give_up(self, what: str) -> NoReturn:
        raise RuntimeError(
            f"not within {SETTLED_SECONDS_MAX} s: {what}; the owners are {self._nodes()}"
        )

    def note(self, what: str, partitions: Sequence[int], since: float) -> None:
        """Note the gap of each partition from a moment until now, and which calls failed meanwhile."""
        now = time.perf_counter()
        tracks = [self._load.tracks[n] for n in partitions]
        self.found.gaps.setdefault(what, []).extend(track.gap(since, now) for track in tracks)
        self.found.failed.setdefault(what, Counter()).update(
            self._load.failures_between(since, now)
        )

    @property
    def acknowledged(self) -> int:
        """How many messages of the load the broker said it has."""
        return self._load.acknowledged


def name_of(owner: OwnerOfCluster) -> str:
    """Return the name of its node."""
    return owner.directory.name


CALM = "nothing happens"
KILLED = "its owner is killed"
KILLED_OTHERS = "… another owner is killed"
STOPPED = "its owner is stopped"
STOPPED_OTHERS = "… another owner is stopped"
JOINED = "it moves to one that joins"
JOINED_OTHERS = "… another one moves"


async def kill(scene: Scene, owner: OwnerOfCluster) -> None:
    """Kill an owner, wait for others to take over, and start it again."""
    theirs, since = scene.partitions_of(owner), time.perf_counter()
    owner.kill()
    await scene.until_elsewhere(theirs, owner)
    _note_all(scene, KILLED, theirs, since)
    await asyncio.to_thread(owner.start)
    await scene.until_shared()


async def move(scene: Scene, owner: OwnerOfCluster) -> None:
    """Stop an owner in order, and start it again.

    Raises:
        RuntimeError: It ended with an error.
    """
    theirs, since = scene.partitions_of(owner), time.perf_counter()
    if code := await asyncio.to_thread(owner.stop):
        raise RuntimeError(f"an owner that was stopped ended with {code}:\n{owner.last_log()}")
    await scene.until_shared()
    _note_all(scene, STOPPED, theirs, since)

    since = time.perf_counter()
    await asyncio.to_thread(owner.start)
    await scene.until_shared()
    _note_all(scene, JOINED, scene.partitions_of(owner), since)


_OTHERS = {KILLED: KILLED_OTHERS, STOPPED: STOPPED_OTHERS, JOINED: JOINED_OTHERS}


def _note_all(scene: Scene, what: str, partitions: Sequence[int], since: float) -> None:
    others = [n for n in range(scene.cluster.partitions) if n not in partitions]
    scene.note(what, partitions, since)
    scene.note(_OTHERS[what], others, since)


STEPS = {KILLS: kill, MOVES: move}


async def run(
    parts: Sequence[str], course: Course, tell: Callable[[str], None]
) -> dict[str, Found]:
    """Let things happen to a cluster, and return what was seen of each part.

    Args:
        parts: KILLS, MOVES or both.
        course: What happens.
        tell: Called after each step with its part.

    Raises:
        Violation: A promise was broken; it may be among the errors of a group.
    """
    with (
        tempfile.TemporaryDirectory(prefix="lockstep-bench-") as directory,
        LocalCluster(
            Path(directory),
            owners=course.owners,
            frontends=1,
            partitions=course.partitions,
            lease_ms=course.lease_ms,
            postgres=SYNCED,
        ) as cluster,
    ):
        await asyncio.to_thread(cluster.start)
        async with _watched(cluster, course) as scene:
            await scene.until_shared()
            return {part: await _run_part(part, scene, course, tell) for part in parts}


async def _run_part(part: str, scene: Scene, course: Course, tell: Callable[[str], None]) -> Found:
    found = scene.found = Found()
    acknowledged = scene.acknowledged
    with measure.other_programs([os.getpid()]) as others:
        since = time.perf_counter()
        await asyncio.sleep(course.calm_seconds)
        scene.note(CALM, range(course.partitions), since)
        for number in range(course.times):
            await STEPS[part](scene, scene.cluster.owners[number % course.owners])
            tell(part)
    found.acknowledged = scene.acknowledged - acknowledged
    found.other_cores = others[0]
    return found


@asynccontextmanager
async def _watched(cluster: LocalCluster, course: Course) -> AsyncIterator[Scene]:
    """Follow who owns what, and load every partition, for the time of the block."""
    registry = EtcdClient(EtcdSettings(endpoints=(cluster.etcd.endpoint,)))
    directory = EtcdDirectory(
        registry,
        SystemClock(),
        cluster=ClusterConfig().name,
        partitions=course.partitions,
        connect=_no_connection,
    )
    address = f"127.0.0.1:{cluster.frontends[0].port}"
    try:
        async with asyncio.TaskGroup() as tasks, LockstepClient(address) as client:
            following = tasks.create_task(directory.run())
            await client.get_administration_client().create_queue(QUEUE, requires_session=True)
            load = LightLoad(
                client,
                partitions=course.partitions,
                pace_seconds=course.pace_seconds,
                body_bytes=course.body_bytes,
            )
            async with load.running():
                yield Scene(cluster, directory, load)
            following.cancel()
    finally:
        await registry.close()


def _no_connection(_address: str) -> NoReturn:
    raise AssertionError("the directory is looked at, not called through")
