"""The calls on keys and leases, against a real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from lockstep.cluster.endpoints import EtcdSettings, EtcdTls
from lockstep.cluster.etcd import EtcdClient, EtcdLeases
from lockstep.cluster.registry import KeyChange, KeyValue, RevisionCompacted, WatchBatch
from lockstep.core.errors import ClusterUnavailable, InvalidRequest
from tests.etcd.cluster_rig import ClusterRig
from tests.etcd.etcd_process import EtcdProcess, free_ports

CALL_MS = 5_000


@pytest.fixture
def leases(shared_etcd: EtcdProcess) -> Iterator[EtcdLeases]:
    calls = EtcdLeases(EtcdSettings((shared_etcd.endpoint,)))
    yield calls
    calls.close()


async def created(rig: ClusterRig, key: str, value: bytes = b"1", *, lease: int = 0) -> KeyValue:
    found = await rig.client.create(key, value, lease=lease)
    assert found is not None
    return found


async def watched(client: EtcdClient, prefix: str, after: int, count: int) -> list[KeyChange]:
    """Return so many changes after a revision, and a batch of nothing before them."""
    changes: list[KeyChange] = []
    stream = client.watch(prefix, after_revision=after, for_ms=60_000)
    async with asyncio.timeout(20), aclosing(stream) as batches:
        first = await anext(batches)
        assert first.changes == ()
        while len(changes) < count:
            batch: WatchBatch = await anext(batches)
            changes += batch.changes
    return changes


async def test_a_key_that_is_absent_is_created_and_comes_with_its_revision(
    rig: ClusterRig,
) -> None:
    found = await created(rig, f"{rig.prefix}a")

    listing = await rig.client.list_prefix(rig.prefix)
    assert listing.items == (found,)
    assert listing.revision == found.create_revision == found.mod_revision


async def test_a_key_that_is_there_is_not_touched(rig: ClusterRig) -> None:
    first = await created(rig, f"{rig.prefix}a", b"first")

    assert await created(rig, f"{rig.prefix}a", b"second") == first


async def test_a_key_is_created_only_while_another_is_under_the_lease(
    rig: ClusterRig, leases: EtcdLeases
) -> None:
    guard, key = f"{rig.prefix}guard", f"{rig.prefix}a"
    mine, other = (leases.grant(60_000, timeout_ms=CALL_MS)[0] for _ in range(2))
    assert await rig.client.create(key, b"1", lease=mine, while_leased=guard) is None

    await created(rig, guard, lease=other)
    assert await rig.client.create(key, b"1", lease=mine, while_leased=guard) is None

    found = await rig.client.create(key, b"1", lease=other, while_leased=guard)
    assert found is not None
    assert found.lease == other


async def test_nothing_is_created_under_a_lease_that_is_gone(
    rig: ClusterRig, leases: EtcdLeases
) -> None:
    lease, _ = leases.grant(60_000, timeout_ms=CALL_MS)
    leases.revoke(lease, timeout_ms=CALL_MS)

    assert await rig.client.create(f"{rig.prefix}a", b"1", lease=lease) is None


async def test_a_key_is_replaced_only_under_its_own_lease(
    rig: ClusterRig, leases: EtcdLeases
) -> None:
    mine, other = (leases.grant(60_000, timeout_ms=CALL_MS)[0] for _ in range(2))
    key = f"{rig.prefix}a"
    await created(rig, key, lease=mine)

    assert not await rig.client.replace(key, b"2", lease=other)
    assert await rig.client.replace(key, b"3", lease=mine)
    assert (await rig.client.list_prefix(rig.prefix)).items[0].value == b"3"


async def test_a_key_is_deleted_only_if_it_is_still_the_same(rig: ClusterRig) -> None:
    key = f"{rig.prefix}a"
    first = await created(rig, key)
    assert await rig.client.delete(key, create_revision=first.create_revision)
    second = await created(rig, key)

    assert not await rig.client.delete(key, create_revision=first.create_revision)
    assert (await rig.client.list_prefix(rig.prefix)).items == (second,)


async def test_a_prefix_ends_where_its_keys_end(rig: ClusterRig) -> None:
    await created(rig, f"/lockstep/{rig.cluster}0/a")

    assert (await rig.client.list_prefix(rig.prefix)).items == ()


async def test_a_watch_goes_on_after_the_revision_that_was_seen(rig: ClusterRig) -> None:
    first = await created(rig, f"{rig.prefix}a")
    second = await created(rig, f"{rig.prefix}b")
    await rig.client.delete(second.key, create_revision=second.create_revision)

    changes = await watched(rig.client, rig.prefix, first.create_revision, 2)

    assert [(change.key, change.now) for change in changes] == [
        (second.key, second),
        (second.key, None),
    ]


async def test_a_watch_ends_after_its_time(rig: ClusterRig) -> None:
    stream = rig.client.watch(rig.prefix, after_revision=1, for_ms=100)

    assert [batch.changes async for batch in stream] == [()]


async def test_a_watch_from_a_compacted_revision_is_told_so(own_etcd: EtcdProcess) -> None:
    client = EtcdClient(EtcdSettings((own_etcd.endpoint,)))
    for n in range(5):
        await client.create(f"/x/{n}", b"1", lease=0)
    own_etcd.compact(4)

    with pytest.raises(RevisionCompacted):
        async for _ in client.watch("/x/", after_revision=1, for_ms=60_000):
            pass
    await client.close()


async def test_a_lease_that_is_gone_cannot_be_renewed(leases: EtcdLeases) -> None:
    lease, ttl_ms = leases.grant(60_000, timeout_ms=CALL_MS)
    assert ttl_ms == leases.keep_alive(lease, timeout_ms=CALL_MS) == 60_000

    leases.revoke(lease, timeout_ms=CALL_MS)
    leases.revoke(lease, timeout_ms=CALL_MS)

    assert leases.keep_alive(lease, timeout_ms=CALL_MS) == 0


async def test_nobody_answers_and_the_error_says_where_and_what_to_do() -> None:
    port = free_ports(1)[0]
    client = EtcdClient(EtcdSettings((f"127.0.0.1:{port}",), call_timeout_ms=500))

    with pytest.raises(ClusterUnavailable, match=f"etcd at 127.0.0.1:{port} does not answer") as e:
        await client.list_prefix("/x/")

    assert e.value.details["endpoint"] == f"127.0.0.1:{port}"
    await client.close()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"endpoints": ()}, "at least one endpoint"),
        ({"endpoints": ("http://a:1",)}, "host:port"),
        ({"endpoints": ("a:1",), "user": "u"}, "both a user and a password"),
        ({"endpoints": ("a:1",), "call_timeout_ms": 0}, "1 ms or more"),
        ({"endpoints": ("a:1",), "tls": EtcdTls(ca_file=Path("/nowhere.pem"))}, "nowhere.pem"),
        ({"endpoints": ("a:1",), "tls": EtcdTls(key_file=Path("/k.pem"))}, "certificate and its"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        EtcdLeases(EtcdSettings(**settings))  # type: ignore[arg-type] # the cases are wrong on purpose


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(EtcdSettings(("a:1",), user="u", password="secret"))
