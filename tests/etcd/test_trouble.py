"""Troubles of etcd and of nodes: pauses, outages, lost members, lost data, dead and silent connections."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import lockstep
from lockstep.cluster.directory import READY_UNHEARD_MS
from lockstep.cluster.endpoints import EtcdSettings
from lockstep.cluster.registry import LeaseCalls
from lockstep.core.errors import ClusterUnavailable
from lockstep.core.ids import PartitionId
from lockstep.runtime.clock import SystemClock
from tests.etcd.cluster_rig import (
    PARTITIONS,
    Channel,
    ClusterRig,
    TestNode,
    TurnedClock,
    cluster,
    eventually,
    until,
)
from tests.etcd.etcd_process import EtcdMembers, EtcdProcess, free_ports
from tests.etcd.node_process import TTL_MS as PROCESS_TTL_MS
from tests.etcd.proxy import Wire, wire_to

ROOT = Path(__file__).resolve().parents[2]
# Where the tests have the product from: the tree, or a copy without one of its guards (`tests.mutation`).
SERVICES = Path(lockstep.__file__).resolve().parents[1]
ALL = set(range(PARTITIONS))
SHORT_TTL_MS = 2_000
RENEWED_SOON_MS = 5_000


@pytest.fixture
async def own_rig(own_etcd: EtcdProcess) -> AsyncIterator[ClusterRig]:
    """A cluster over an etcd that the test may disturb."""
    async with cluster(EtcdSettings((own_etcd.endpoint,)), "own") as rig:
        yield rig


async def wait_until_gone(rig: ClusterRig, key: str) -> int:
    """Return the revision in which a key was deleted."""
    listing = await rig.client.list_prefix(key)
    assert listing.items
    async for batch in rig.client.watch(key, after_revision=listing.revision, for_ms=60_000):
        for change in batch.changes:
            if change.now is None:
                return change.revision
    raise AssertionError(f"{key} is still there")


def left_ms(node: TestNode) -> int:
    life = node.lease.current
    return 0 if life is None else life.left_ms


async def renewals(node: TestNode, count: int) -> None:
    """Wait until the lease of a node was renewed so many times, from now on."""
    clock, life = SystemClock(), node.lease.current
    assert life is not None
    for _ in range(count):
        ends_ms = clock.monotonic_ms() + life.left_ms
        await eventually(
            lambda: clock.monotonic_ms() + life.left_ms > ends_ms + 100,  # noqa: B023 - awaited here
            "the lease is renewed",
        )


class Cut:
    """The calls of a lease, which a test may keep from reaching etcd."""

    def __init__(self, calls: LeaseCalls) -> None:
        self._calls = calls
        self.is_cut = False

    def grant(self, ttl_ms: int, *, timeout_ms: int) -> tuple[int, int]:
        return self._reached().grant(ttl_ms, timeout_ms=timeout_ms)

    def keep_alive(self, lease: int, *, timeout_ms: int) -> int:
        return self._reached().keep_alive(lease, timeout_ms=timeout_ms)

    def revoke(self, lease: int, *, timeout_ms: int) -> None:
        self._reached().revoke(lease, timeout_ms=timeout_ms)

    def _reached(self) -> LeaseCalls:
        if self.is_cut:
            raise ClusterUnavailable("cut")
        return self._calls


# --- nodes that die, stop or are cut off -------------------------------------------------------------


class NodeProcess:
    """A node in a process of its own, and what it prints."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[tuple[int, list[int]]] = []

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            fields = json.loads(line)
            self.lines.append((fields["now_ms"], fields["valid"]))

    @property
    def valid(self) -> list[int]:
        return self.lines[-1][1] if self.lines else []


@asynccontextmanager
async def node_process(rig: ClusterRig, name: str) -> AsyncIterator[NodeProcess]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.etcd.node_process"),
        *(rig.settings.endpoints[0], rig.cluster, name),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(SERVICES), str(ROOT)))},
    )
    node = NodeProcess(process)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(node.read())
            try:
                yield node
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()
    finally:
        assert process.returncode is not None


async def test_a_crash_is_taken_over_within_the_lease_and_a_second(rig: ClusterRig) -> None:
    """By etcd's own clock: a key under a lease of a second more goes later than the claims come."""
    async with node_process(rig, "a") as dying:
        await eventually(lambda: len(dying.valid) == PARTITIONS, "the process owns everything")
        other = rig.node("b")
        await eventually(lambda: other.ownership.not_ready() == [], "the other one is ready")

        dying.process.kill()
        await dying.process.wait()
        marker_ttl_ms = PROCESS_TTL_MS + 1_000
        lease, ttl_ms = await asyncio.to_thread(rig.leases.grant, marker_ttl_ms, timeout_ms=5_000)
        assert ttl_ms == marker_ttl_ms
        marker = f"/marker/{rig.cluster}"
        await rig.client.create(marker, b"", lease=lease)
        gone = await wait_until_gone(rig, marker)

    await other.owns(ALL)
    assert all(lease.epoch.revision < gone for lease in other.ownership.grants.values())


async def test_a_stopped_process_never_believes_what_another_owns(rig: ClusterRig) -> None:
    """SIGSTOP for longer than the lease, then SIGCONT. Both processes read the same clock."""
    clock = SystemClock()
    async with node_process(rig, "a") as zombie:
        await eventually(lambda: len(zombie.valid) == PARTITIONS, "the process owns everything")
        old = set(zombie.valid)

        zombie.process.send_signal(signal.SIGSTOP)
        other = rig.node("b", hands_over=False)
        await other.until(lambda: other.granted, "the other one owns something")
        taken_ms = clock.monotonic_ms()
        await other.until(lambda: other.granted == ALL, "the other one owns everything")
        zombie.process.send_signal(signal.SIGCONT)

        await eventually(lambda: zombie.lines[-1][0] > taken_ms, "the process goes on")
        before = len(zombie.lines)
        await eventually(lambda: len(zombie.lines) > before + 20, "it looks again and again")
        later = [valid for now_ms, valid in zombie.lines if now_ms >= taken_ms]
        assert len(later) >= 20
        assert not any(old.intersection(valid) for valid in later)


async def test_grants_end_before_the_lease_does_at_etcd(rig: ClusterRig) -> None:
    cuts: list[Cut] = []

    def cut(calls: LeaseCalls) -> LeaseCalls:
        cuts.append(Cut(calls))
        return cuts[-1]

    node = rig.node("a", ttl_ms=SHORT_TTL_MS, leases=cut)
    await node.owns(ALL)
    held = list(node.ownership.grants.values())
    life = held[0].life

    cuts[0].is_cut = True
    await node.until(lambda: not node.granted, "the grants end")

    assert not any(lease.is_valid() for lease in held)
    assert set((await rig.keys()).values()) == {life.id}  # etcd still keeps all keys
    cuts[0].is_cut = False
    await node.owns(ALL)
    assert node.lease.current is not life
    assert not any(lease.is_valid() for lease in held)


async def test_a_busy_event_loop_does_not_lose_the_lease(
    shared_etcd: EtcdProcess, rig: ClusterRig
) -> None:
    node = rig.node("a", ttl_ms=SHORT_TTL_MS)
    await node.owns(ALL)
    held = dict(node.ownership.grants)

    shared_etcd.wait_for_a_lease_to_end(SHORT_TTL_MS)  # the event loop does nothing else

    assert node.ownership.grants == held
    assert all(lease.is_valid() for lease in held.values())


# --- etcd goes and comes back ------------------------------------------------------------------------


async def test_an_outage_shorter_than_the_lease_is_not_noticed(
    own_etcd: EtcdProcess, own_rig: ClusterRig
) -> None:
    clock = TurnedClock()
    nodes = [own_rig.node(name, clock=clock, ttl_ms=10_000) for name in "ab"]
    directory = own_rig.directory(clock=clock)
    await own_rig.settled(*nodes)
    await until(directory, lambda: len(directory.placements()) == PARTITIONS, "all are known")
    held = [dict(node.ownership.grants) for node in nodes]
    versions = [node.ownership.version for node in nodes]

    own_etcd.stop()
    await eventually(lambda: directory.standing().problem, "it is noticed")
    clock.turn(5_000)
    assert all(0 < left_ms(node) < 4_000 for node in nodes)
    # Nobody takes owners, or front ends, out of service for that.
    assert not any(node.ownership.not_ready() for node in nodes)
    assert directory.not_ready() == []
    own_etcd.start()
    await eventually(lambda: all(left_ms(node) > 8_000 for node in nodes), "they are renewed")
    await eventually(lambda: not directory.standing().problem, "the watch stands")

    assert [node.ownership.grants for node in nodes] == held
    assert [node.ownership.version for node in nodes] == versions


async def test_an_outage_longer_than_the_lease_ends_grants_and_they_come_back(
    own_etcd: EtcdProcess, own_rig: ClusterRig
) -> None:
    clock = TurnedClock()
    nodes = [own_rig.node(name, clock=clock, ttl_ms=10_000) for name in "ab"]
    await own_rig.settled(*nodes)
    held = {p: lease for node in nodes for p, lease in node.ownership.grants.items()}

    own_etcd.stop()
    versions = [node.ownership.version for node in nodes]
    clock.turn(9_000)

    assert not any(lease.is_valid() for lease in held.values())
    for node, version in zip(nodes, versions, strict=True):
        async with asyncio.timeout(20):
            await node.ownership.wait_changed(version)
        assert node.granted == set()
        assert "this node has no lease at etcd" in node.ownership.not_ready()
    own_etcd.start()
    await own_rig.settled(*nodes)
    for node in nodes:
        for partition, lease in node.ownership.grants.items():
            assert lease.epoch > held[partition].epoch
    assert not any(lease.is_valid() for lease in held.values())


async def test_a_release_during_an_outage_is_made_up_for(
    own_etcd: EtcdProcess, own_rig: ClusterRig
) -> None:
    node, other = own_rig.node("a", hands_over=False), own_rig.node("b")
    await own_rig.settled(node, other)
    node.ownership.leave()
    own_etcd.stop()

    for partition in list(node.ownership.grants):
        await node.ownership.release(partition)

    assert node.granted == set()
    own_etcd.start()
    await other.owns(ALL)


async def test_the_directory_stays_in_use_while_etcd_is_away(
    own_etcd: EtcdProcess, own_rig: ClusterRig
) -> None:
    clock = TurnedClock()
    node, directory = own_rig.node("a"), own_rig.directory(clock=clock)
    await node.owns(ALL)
    await until(directory, lambda: len(directory.placements()) == PARTITIONS, "all are known")
    known = directory.placements()

    own_etcd.stop()
    await eventually(lambda: directory.standing().problem, "it is noticed")
    assert directory.not_ready() == []
    clock.turn(READY_UNHEARD_MS + 1)
    (reason,) = directory.not_ready()
    assert reason.startswith("etcd has told nothing for 3")

    assert directory.placements() == known
    channel = directory.owner_of(PartitionId(0))
    assert isinstance(channel, Channel)
    assert channel.address == "a.test:7710"


async def test_when_etcd_has_lost_its_data_nodes_register_again_with_low_revisions(
    own_etcd: EtcdProcess, own_rig: ClusterRig
) -> None:
    """Stores refuse such epochs as fenced, until somebody raises the generation."""
    for n in range(200):  # so that revisions before are higher than those after
        await own_rig.client.create(f"/other/{n}", b"", lease=0)
    nodes = [own_rig.node(name, ttl_ms=RENEWED_SOON_MS) for name in "ab"]
    directory = own_rig.directory()
    await own_rig.settled(*nodes)
    held = {p: lease for node in nodes for p, lease in node.ownership.grants.items()}

    own_etcd.stop()
    own_etcd.forget()
    own_etcd.start()
    for node in nodes:
        await node.until(lambda node=node: not node.granted, "grants end")  # type: ignore[misc]

    await own_rig.settled(*nodes)
    for node in nodes:
        for partition, lease in node.ownership.grants.items():
            assert lease.epoch.revision < held[partition].epoch.revision
    assert not any(lease.is_valid() for lease in held.values())
    epochs = {p: lease.epoch for node in nodes for p, lease in node.ownership.grants.items()}
    await until(
        directory,
        lambda: {p: place.epoch for p, place in directory.placements().items()} == epochs,
        "the directory follows",
    )


# --- members -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["the one in use", "the leader", "another"])
async def test_one_of_three_members_is_lost(three_members: EtcdMembers, lost: str) -> None:
    async with cluster(EtcdSettings(three_members.endpoints), "three") as rig:
        nodes = [rig.node(name, ttl_ms=RENEWED_SOON_MS) for name in "ab"]
        directory = rig.directory()
        await rig.settled(*nodes)
        held = [dict(node.ownership.grants) for node in nodes]

        leader = three_members.leader()
        in_use = three_members.members[0]
        member = {"the one in use": in_use, "the leader": leader}.get(lost)
        if member is None:
            member = next(m for m in three_members.members if m not in (in_use, leader))
        member.stop()
        for node in nodes:
            await renewals(node, 2)  # one may have been under way

        assert [node.ownership.grants for node in nodes] == held
        nodes[0].ownership.leave()
        await nodes[1].owns(ALL)
        await until(
            directory,
            lambda: {place.node for place in directory.placements().values()} == {"b"},
            "the directory follows",
        )


async def test_two_of_three_members_are_lost_and_come_back(three_members: EtcdMembers) -> None:
    """Without a majority etcd answers nothing; a watch at the member that is left must not keep silent."""
    left = EtcdSettings((three_members.members[0].endpoint,))
    async with cluster(EtcdSettings(three_members.endpoints), "three") as rig:
        node, directory = rig.node("a", ttl_ms=10_000), rig.directory(left)
        await node.owns(ALL)
        await until(directory, lambda: len(directory.placements()) == PARTITIONS, "all are known")
        await eventually(lambda: not directory.standing().problem, "the watch stands")
        held = dict(node.ownership.grants)

        for member in three_members.members[1:]:
            member.stop()
        await eventually(lambda: directory.standing().problem, "the directory notices")
        three_members.start()

        await eventually(lambda: not directory.standing().problem, "the directory is back")
        await renewals(node, 1)
        assert node.ownership.grants == held
        assert len(directory.placements()) == PARTITIONS


async def test_the_first_endpoint_is_dead(shared_etcd: EtcdProcess) -> None:
    endpoints = (f"127.0.0.1:{free_ports(1)[0]}", shared_etcd.endpoint)
    async with cluster(EtcdSettings(endpoints), "first-dead") as rig:
        node, directory = rig.node("a"), rig.directory()

        await node.owns(ALL)

        await until(directory, lambda: len(directory.placements()) == PARTITIONS, "all are known")


async def test_the_first_endpoint_takes_connections_and_is_silent(
    shared_etcd: EtcdProcess,
) -> None:
    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.transport.abort()

    ended = asyncio.Event()
    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        silent = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = EtcdSettings((silent, shared_etcd.endpoint), call_timeout_ms=300)
        async with cluster(settings, "first-silent") as rig:
            node, directory = rig.node("a", ttl_ms=SHORT_TTL_MS), rig.directory()

            await node.owns(ALL)

            await until(directory, lambda: len(directory.placements()) == PARTITIONS, "known")
        ended.set()


# --- watches -----------------------------------------------------------------------------------------


@pytest.fixture
async def wire(own_etcd: EtcdProcess) -> AsyncIterator[Wire]:
    """The way to an etcd, which the test may cut."""
    async with wire_to(own_etcd.port) as one:
        yield one


async def test_a_watch_that_was_cut_goes_on_where_it_was(own_rig: ClusterRig, wire: Wire) -> None:
    directory = own_rig.directory(EtcdSettings((wire.endpoint,)))
    node = own_rig.node("a")
    await until(directory, lambda: len(directory.placements()) == PARTITIONS, "all are known")

    wire.cut()
    await eventually(lambda: directory.standing().problem, "it is noticed")
    node.ownership.leave()
    await node.until(lambda: not node.granted, "all is given back")
    assert len(directory.placements()) == PARTITIONS
    wire.mend()

    await until(directory, lambda: not directory.placements(), "the directory follows")
    assert directory.nodes()["a"].is_leaving


async def test_a_watch_whose_revisions_were_compacted_starts_anew(
    own_etcd: EtcdProcess, own_rig: ClusterRig, wire: Wire
) -> None:
    directory = own_rig.directory(EtcdSettings((wire.endpoint,)))
    node = own_rig.node("a")
    await until(directory, lambda: len(directory.placements()) == PARTITIONS, "all are known")

    wire.cut()
    await eventually(lambda: directory.standing().problem, "it is noticed")
    node.ownership.leave()
    await node.until(lambda: not node.granted, "all is given back")
    own_etcd.compact((await own_rig.client.list_prefix("/")).revision)
    wire.mend()

    await until(directory, lambda: not directory.placements(), "the directory follows")
    await eventually(lambda: not directory.standing().problem, "the watch stands")


async def test_compaction_under_a_standing_watch_changes_nothing(
    own_etcd: EtcdProcess, own_rig: ClusterRig
) -> None:
    node, directory = own_rig.node("a"), own_rig.directory()
    await node.owns(ALL)
    own_etcd.compact((await own_rig.client.list_prefix("/")).revision)

    node.ownership.leave()

    await until(directory, lambda: directory.version and not directory.placements(), "it follows")


@pytest.mark.slow
async def test_a_connection_that_dies_without_a_word_is_found_out(
    own_rig: ClusterRig, wire: Wire
) -> None:
    directory = own_rig.directory(EtcdSettings((wire.endpoint,)))
    node = own_rig.node("a")
    await until(directory, lambda: len(directory.placements()) == PARTITIONS, "all are known")

    wire.silence()
    node.ownership.leave()

    await until(directory, lambda: not directory.placements(), "the directory follows")
