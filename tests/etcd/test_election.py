"""Who owns what: claims, planned moves, names that are taken, outcomes that are not known. Over a real etcd."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter

import pytest

from lockstep.cluster.keys import Node, write_claim, write_node
from lockstep.cluster.node import NodeSettings
from lockstep.cluster.reach import STEADY, Reach
from lockstep.cluster.registry import KeyValue, LeaseCalls
from lockstep.core.errors import InternalError, InvalidRequest, StoreRefused
from lockstep.core.ids import PartitionId
from lockstep.core.placement import assign
from lockstep.runtime.clock import SystemClock
from tests.etcd.cluster_rig import PARTITIONS, ClusterRig, Faults, TestNode, eventually

ALL = set(range(PARTITIONS))


async def a_lease(rig: ClusterRig) -> int:
    """Return a lease of somebody else."""
    return (await asyncio.to_thread(rig.leases.grant, 60_000, timeout_ms=5_000))[0]


async def revoke(rig: ClusterRig, lease: int) -> None:
    await asyncio.to_thread(rig.leases.revoke, lease, timeout_ms=5_000)


# --- claims ----------------------------------------------------------------------------------------


async def test_one_node_owns_everything(rig: ClusterRig) -> None:
    node = rig.node("a", generation=3)

    await node.owns(ALL)

    epochs = {lease.epoch for lease in node.ownership.grants.values()}
    assert len(epochs) == PARTITIONS
    assert {(epoch.generation, epoch.reopened) for epoch in epochs} == {(3, 0)}


async def test_an_epoch_is_the_revision_that_created_the_key(rig: ClusterRig) -> None:
    node = rig.node("a")
    await node.owns(ALL)

    listing = await rig.client.list_prefix(f"{rig.prefix}partitions/")
    assert [item.create_revision for item in listing.items] == [
        node.ownership.grants[PartitionId(p)].epoch.revision for p in range(PARTITIONS)
    ]


async def test_partitions_are_shared_as_the_assignment_says(rig: ClusterRig) -> None:
    nodes = {name: rig.node(name) for name in "abc"}

    await rig.settled(*nodes.values())

    desired = assign(["a", "b", "c"], PARTITIONS)
    assert {p: name for name, node in nodes.items() for p in node.granted} == dict(
        enumerate(desired)
    )


async def test_claims_race_and_one_wins(rig: ClusterRig) -> None:
    key = f"{rig.prefix}partitions/00000"

    found = await asyncio.gather(*(rig.client.create(key, b"{}", lease=0) for _ in range(50)))

    assert len({kv.create_revision for kv in found if kv is not None}) == 1


@pytest.mark.parametrize("seed", range(3))
async def test_no_two_nodes_ever_own_one_partition(rig: ClusterRig, seed: int) -> None:
    """Nodes come, leave and die at random; without a wait for additions, so that they disagree often."""
    chance = random.Random(seed)
    nodes = [rig.node(name, settle_ms=0) for name in "abcd"]
    overlaps: list[Counter[int]] = []

    def check() -> None:
        owned = Counter(p for node in rig.nodes for p in node.granted)
        if owned and max(owned.values()) > 1:
            overlaps.append(owned)

    async def follow(node: TestNode) -> None:
        seen = -1
        while True:
            seen = await node.ownership.wait_changed(seen)
            check()

    followers = [rig.tasks.create_task(follow(node)) for node in nodes]
    for n in range(8):
        node = chance.choice(nodes)
        nodes.remove(node)
        if chance.random() < 0.5:
            node.ownership.leave()
            await node.until(lambda node=node: not node.granted, "all is handed over")  # type: ignore[misc]
        await node.stop()
        nodes.append(rig.node(f"n{n}", settle_ms=0))
        followers.append(rig.tasks.create_task(follow(nodes[-1])))
    await rig.settled(*nodes)
    for follower in followers:
        follower.cancel()

    assert overlaps == []
    assert [node.granted_twice for node in rig.nodes] == [0] * len(rig.nodes)


async def test_a_claim_whose_outcome_is_not_known_is_found_out(rig: ClusterRig) -> None:
    faults = Faults()
    node = rig.node("a", faults=faults)
    await node.owns(ALL)
    old = node.ownership.grants[PartitionId(2)]

    faults.answers_lost = 1
    await node.ownership.release(PartitionId(2))
    await node.owns(ALL)
    await eventually(lambda: faults.answers_lost == 0, "the answer was lost")

    items = (await rig.client.list_prefix(f"{rig.prefix}partitions/00002")).items
    grant = node.ownership.grants[PartitionId(2)]
    assert items[0].create_revision == grant.epoch.revision > old.epoch.revision


async def test_a_claim_that_comes_too_late_gets_nothing(rig: ClusterRig) -> None:
    faults, two = Faults(), PartitionId(2)
    node = rig.node("a", faults=faults)
    await node.owns(ALL)

    asked, answered = faults.asked, faults.answered
    faults.passes.clear()
    await node.ownership.release(two)
    await eventually(lambda: faults.asked > asked, "the claim is under way")
    theirs = await rig.client.create(
        f"{rig.prefix}partitions/00002", write_claim("x", "x.test:7710", 0), lease=0
    )
    faults.passes.set()
    await eventually(lambda: faults.answered > answered, "the claim is answered")

    assert node.granted == ALL - {2}
    assert theirs is not None
    await rig.client.delete(theirs.key, create_revision=theirs.create_revision)
    await node.owns(ALL)


async def test_what_was_released_is_granted_again_only_by_another_key(rig: ClusterRig) -> None:
    """The node is the only one, so it wants back at once what it has released."""
    node = rig.node("a")
    await node.owns(ALL)

    for _ in range(20):
        old = node.ownership.grants[PartitionId(2)].epoch
        await node.ownership.release(PartitionId(2))
        await node.owns(ALL)
        assert node.ownership.grants[PartitionId(2)].epoch > old

    assert node.granted_twice == 0


async def test_a_claim_that_arrives_after_it_was_given_up_is_deleted(rig: ClusterRig) -> None:
    """A transaction may be carried out long after its caller has lost patience."""
    node, other = rig.node("a"), rig.node("b")
    await rig.settled(node, other)
    lease = node.ownership.grants[PartitionId(min(node.granted))].life.id
    theirs = PartitionId(min(other.granted))
    old = other.ownership.grants[theirs].epoch
    key = f"{rig.prefix}partitions/{theirs:05}"
    await rig.client.delete(key, create_revision=old.revision)
    late = await rig.client.create(key, write_claim("a", "a.test:7710", 0), lease=lease)

    await rig.settled(node, other)

    assert late is not None
    assert other.ownership.grants[theirs].epoch > old
    assert theirs not in node.granted


# --- planned moves -----------------------------------------------------------------------------------


async def test_a_node_that_leaves_keeps_its_partitions_until_it_releases_them(
    rig: ClusterRig,
) -> None:
    leaving, staying = rig.node("a", hands_over=False), rig.node("b")
    await rig.settled(leaving, staying)
    mine = leaving.granted

    leaving.ownership.leave()

    assert leaving.granted == mine
    assert set(leaving.ownership.unwanted) == mine
    partition = PartitionId(min(mine))
    old = leaving.ownership.grants[partition]
    await leaving.ownership.release(partition)
    assert not old.is_valid()
    await staying.until(lambda: partition in staying.granted, "it moves")
    assert staying.ownership.grants[partition].epoch > old.epoch
    assert leaving.granted == mine - {partition}


async def test_a_node_that_comes_gets_its_share_as_it_is_given_up(rig: ClusterRig) -> None:
    first = rig.node("a", hands_over=False)
    await first.owns(ALL)

    second = rig.node("b")
    await first.until(lambda: first.ownership.unwanted, "the first is asked for some")

    asked_for: set[int] = set(first.ownership.unwanted)
    assert asked_for == {p for p, n in enumerate(assign("ab", PARTITIONS)) if n == "b"}
    assert first.granted == ALL
    for partition in list(first.ownership.unwanted):
        await first.ownership.release(partition)
    await second.owns(asked_for)


async def test_releasing_what_is_not_granted_does_nothing(rig: ClusterRig) -> None:
    node = rig.node("a")
    await node.owns(ALL)
    version = node.ownership.version

    await node.ownership.release(PartitionId(PARTITIONS + 1))

    assert node.ownership.version == version
    assert node.granted == ALL


async def test_a_stop_gives_everything_back_at_once(rig: ClusterRig) -> None:
    node, other = rig.node("a"), rig.node("b")
    await rig.settled(node, other)
    held = list(node.ownership.grants.values())

    await node.stop()

    assert not any(lease.is_valid() for lease in held)
    assert node.granted == set()
    await other.owns(
        ALL
    )  # within no lease's time: the lease of the test lasts longer than its limit


async def test_a_node_that_is_cancelled_gives_everything_back_too(rig: ClusterRig) -> None:
    node, other = rig.node("a"), rig.node("b")
    await rig.settled(node, other)
    held = list(node.ownership.grants.values())

    node.task.cancel()

    await other.owns(ALL)
    assert not any(lease.is_valid() for lease in held)


# --- databases that a node does not reach ----------------------------------------------------------

CUT_OFF = Reach(cut_off=frozenset({0}), doubtful=frozenset({0}))


async def test_a_node_without_its_database_gives_up_at_once_what_another_one_can_have(
    rig: ClusterRig,
) -> None:
    """It need not release them: nothing can be drained."""
    cut_off, other = rig.node("a", hands_over=False), rig.node("b")
    await rig.settled(cut_off, other)
    held = list(cut_off.ownership.grants.values())

    cut_off.ownership.note_reach(CUT_OFF)

    await other.owns(ALL)
    assert not any(lease.is_valid() for lease in held)
    cut_off.ownership.note_reach(STEADY)
    await rig.settled(cut_off, other)


async def test_only_the_partitions_of_that_database_are_given_up(rig: ClusterRig) -> None:
    cut_off, other = [rig.node(name, databases=2) for name in "ab"]
    await rig.settled(cut_off, other)
    of_first = {p for p in ALL if p % 2 == 0}
    mine = cut_off.granted

    cut_off.ownership.note_reach(CUT_OFF)

    await other.until(lambda: of_first <= other.granted, "the other has the first database's")
    await cut_off.until(lambda: len(cut_off.granted) == PARTITIONS // 2, "it has the second's")
    assert mine - of_first <= cut_off.granted == ALL - of_first


async def test_a_database_that_nobody_reaches_moves_nothing(rig: ClusterRig) -> None:
    first, second = rig.node("a"), rig.node("b")
    await rig.settled(first, second)
    keys = await rig.keys()
    held = {**first.ownership.grants, **second.ownership.grants}
    doubtful = Reach(doubtful=frozenset({0}))

    for node, reach in [
        (second, doubtful),
        (first, doubtful),
        (first, CUT_OFF),
        (second, CUT_OFF),
        (first, doubtful),
        (second, doubtful),
        (first, STEADY),
        (second, STEADY),
    ]:
        node.ownership.note_reach(reach)
        await eventually(lambda: _seen(first, second) == _told(first, second), "all know")

    assert {**first.ownership.grants, **second.ownership.grants} == held
    assert await rig.keys() == keys
    assert (first.ended, second.ended) == (0, 0)


def _told(*nodes: TestNode) -> list[dict[str, Reach]]:
    reach = {node.ownership._settings.node: node.ownership._reach for node in nodes}
    return [reach] * len(nodes)


def _seen(*nodes: TestNode) -> list[dict[str, Reach]]:
    return [{n.name: n.reach for n in node.ownership._state.nodes.values()} for node in nodes]


async def test_nodes_that_start_together_move_nothing(rig: ClusterRig) -> None:
    nodes = [rig.node(name, settle_ms=1_000) for name in "abc"]

    await rig.settled(*nodes)

    revisions = [
        item.create_revision - item.mod_revision
        for item in (await rig.client.list_prefix(f"{rig.prefix}partitions/")).items
    ]
    assert revisions == [0] * PARTITIONS
    assert [node.ended for node in nodes] == [0, 0, 0]


# --- a grant's end -----------------------------------------------------------------------------------


async def test_a_grant_whose_key_is_deleted_ends_at_once_and_is_claimed_anew(
    rig: ClusterRig,
) -> None:
    node = rig.node("a")
    await node.owns(ALL)
    old = node.ownership.grants[PartitionId(1)]

    await rig.client.delete(f"{rig.prefix}partitions/00001", create_revision=old.epoch.revision)
    await node.until(lambda: not old.is_valid(), "the grant ends")

    await node.owns(ALL)
    assert node.ownership.grants[PartitionId(1)].epoch > old.epoch
    assert not old.is_valid()


async def test_a_grant_whose_key_is_somebody_elses_ends(rig: ClusterRig) -> None:
    node = rig.node("a")
    await node.owns(ALL)
    old = node.ownership.grants[PartitionId(1)]
    key = f"{rig.prefix}partitions/00001"
    theirs = write_claim("x", "x.test:7710", 0)

    found: KeyValue | None = None
    while found is None or found.value != theirs:  # the node claims it again, if it is faster
        if found is not None:
            await rig.client.delete(key, create_revision=found.create_revision)
        else:
            await rig.client.delete(key, create_revision=old.epoch.revision)
        found = await rig.client.create(key, theirs, lease=0)
    await node.until(lambda: node.granted == ALL - {1}, "the grant ends")

    assert not old.is_valid()


async def test_a_node_whose_key_is_deleted_registers_again(rig: ClusterRig) -> None:
    node = rig.node("a")
    await node.owns(ALL)
    listing = await rig.client.list_prefix(f"{rig.prefix}nodes/")

    await rig.client.delete(
        f"{rig.prefix}nodes/a", create_revision=listing.items[0].create_revision
    )

    async with asyncio.timeout(20):
        while "nodes/a" not in await rig.keys():
            await SystemClock().sleep(5)
    await node.owns(ALL)


# --- names and keys of others ------------------------------------------------------------------------


async def test_a_name_that_is_taken_is_waited_for(rig: ClusterRig) -> None:
    first = rig.node("a")
    await first.owns(ALL)

    second = rig.node("a")
    await second.told("another process is registered as node a, at a.test:7710")
    assert second.granted == set()
    assert first.granted == ALL

    await first.stop()
    await second.owns(ALL)
    assert second.ownership.not_ready() == []


async def test_keys_of_a_former_life_are_not_ours(rig: ClusterRig) -> None:
    lease = await a_lease(rig)
    former = Node("a", "a.test:7710", "1.0", is_leaving=False, lease=lease)
    await rig.client.create(f"{rig.prefix}nodes/a", write_node(former), lease=lease)
    claim = write_claim("a", "a.test:7710", 0)
    await rig.client.create(f"{rig.prefix}partitions/00000", claim, lease=lease)

    node = rig.node("a")
    await node.told("another process is registered as node a")
    assert node.granted == set()

    await revoke(rig, lease)
    await node.owns(ALL)


async def test_a_partition_under_a_key_that_nobody_can_read_is_not_claimed(
    rig: ClusterRig,
) -> None:
    await rig.client.create(f"{rig.prefix}partitions/00003", b"mine!", lease=0)

    node = rig.node("a")

    await node.owns(ALL - {3})
    assert node.ownership.not_ready() == [
        f"The value of {rig.prefix}partitions/00003 is not JSON. Delete the key in etcd."
    ]


async def test_a_newer_format_ends_the_election_for_this_release(rig: ClusterRig) -> None:
    node = rig.node("a")
    await node.owns(ALL)
    held = list(node.ownership.grants.values())

    await rig.client.create(f"{rig.prefix}nodes/b", json.dumps({"format": 2}).encode(), lease=0)

    with pytest.raises(StoreRefused, match="upgrade this one"):
        await node.outcome()
    assert not any(lease.is_valid() for lease in held)
    assert set(await rig.keys()) == {"nodes/b"}


# --- bugs and bad settings -----------------------------------------------------------------------------


class BrokenLeases:
    """A lease whose code has a bug."""

    def grant(self, ttl_ms: int, *, timeout_ms: int) -> tuple[int, int]:
        raise ValueError("a bug")

    def keep_alive(self, lease: int, *, timeout_ms: int) -> int:
        raise ValueError("a bug")

    def revoke(self, lease: int, *, timeout_ms: int) -> None:
        raise ValueError("a bug")


async def test_a_bug_in_the_thread_of_the_lease_ends_the_node(rig: ClusterRig) -> None:
    def break_leases(_calls: LeaseCalls) -> LeaseCalls:
        return BrokenLeases()

    node = rig.node("a", leases=break_leases)

    with pytest.raises(InternalError, match="thread of the node's lease"):
        await node.outcome()


@pytest.mark.parametrize(
    ("node", "address", "partitions"),
    [("A", "a:1", 1), ("a", "a", 1), ("a", "a:1", 0), ("a", "a:1", 65_537)],
)
def test_wrong_settings_are_refused(node: str, address: str, partitions: int) -> None:
    with pytest.raises(InvalidRequest):
        NodeSettings("c", node, address, "1.0", partitions)
