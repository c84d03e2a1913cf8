"""TLS to etcd, and its users."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from aetcd import rpc

from lockstep.cluster.endpoints import EtcdSettings, EtcdTls
from lockstep.cluster.etcd import EtcdClient, EtcdLeases
from lockstep.core.errors import ClusterUnavailable, InvalidRequest
from lockstep.core.ids import PartitionId
from lockstep.runtime.clock import SystemClock
from tests.etcd.cluster_rig import PARTITIONS, cluster, until
from tests.etcd.etcd_process import EtcdProcess

ALL = set(range(PARTITIONS))
SHORT_MS = 1_000


# --- TLS ---------------------------------------------------------------------------------------------


class Certificates:
    """An authority, and what it has signed for 127.0.0.1 and for a client."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._run(
            "req", "-x509", *self._key("ca"), "-subj", "/CN=ca", "-days", "2", "-out", "ca.pem"
        )
        self._sign("server", "subjectAltName=IP:127.0.0.1")
        self._sign("client", "extendedKeyUsage=clientAuth")

    def file(self, name: str) -> Path:
        return self.directory / name

    def _sign(self, name: str, extension: str) -> None:
        self._run("req", *self._key(name), "-subj", f"/CN={name}", "-out", f"{name}.csr")
        self.file(f"{name}.ext").write_text(extension)
        self._run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )

    def _key(self, name: str) -> tuple[str, ...]:
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        return (*curve, "-nodes", "-keyout", f"{name}.key")

    def _run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.directory, check=True, capture_output=True)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates, and is not here")
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls_etcd(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EtcdProcess]:
    """An etcd that speaks TLS only and wants to see a certificate."""
    flags = (
        *("--cert-file", str(certificates.file("server.pem"))),
        *("--key-file", str(certificates.file("server.key"))),
        *("--trusted-ca-file", str(certificates.file("ca.pem")), "--client-cert-auth"),
    )
    etcd = EtcdProcess(tmp_path_factory.mktemp("etcd"), scheme="https", flags=flags).start()
    yield etcd
    etcd.stop()


@pytest.fixture
def tls(certificates: Certificates) -> EtcdTls:
    return EtcdTls(
        ca_file=certificates.file("ca.pem"),
        certificate_file=certificates.file("client.pem"),
        key_file=certificates.file("client.key"),
    )


async def test_an_election_over_tls(tls_etcd: EtcdProcess, tls: EtcdTls) -> None:
    async with cluster(EtcdSettings((tls_etcd.endpoint,), tls=tls), "tls") as rig:
        node, directory = rig.node("a"), rig.directory()

        await node.owns(ALL)

        await until(directory, lambda: len(directory.placements()) == PARTITIONS, "all are known")


@pytest.mark.parametrize("missing", ["the authority", "our certificate", "TLS"])
async def test_without_the_right_certificates_nobody_answers(
    tls_etcd: EtcdProcess, tls: EtcdTls, missing: str
) -> None:
    wrong = {
        "the authority": replace(tls, ca_file=None),
        "our certificate": replace(tls, certificate_file=None, key_file=None),
        "TLS": None,
    }[missing]
    settings = EtcdSettings((tls_etcd.endpoint,), tls=wrong, call_timeout_ms=SHORT_MS)
    client, leases = EtcdClient(settings), EtcdLeases(settings)

    with pytest.raises(ClusterUnavailable, match="does not answer"):
        await client.list_prefix("/x/")
    with pytest.raises(ClusterUnavailable, match="does not answer"):
        leases.grant(60_000, timeout_ms=SHORT_MS)

    leases.close()
    await client.close()


def test_a_certificate_without_its_key_is_refused(tls: EtcdTls) -> None:
    with pytest.raises(InvalidRequest, match="both a certificate and its private key"):
        EtcdClient(EtcdSettings(("a:1",), tls=replace(tls, key_file=None)))


# --- users -------------------------------------------------------------------------------------------


@pytest.fixture
def etcd_with_users(own_etcd: EtcdProcess) -> EtcdProcess:
    """An etcd where `lockstep` may use its own prefix, and `guest` nothing."""
    with grpc.insecure_channel(own_etcd.endpoint) as channel:
        auth: Any = rpc.AuthStub(channel)
        for user in ("root", "lockstep", "guest"):
            auth.UserAdd(rpc.AuthUserAddRequest(name=user, password=f"{user}'s"), timeout=10)
        for role in ("root", "lockstep"):
            auth.RoleAdd(rpc.AuthRoleAddRequest(name=role), timeout=10)
            auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user=role, role=role), timeout=10)
        may = rpc.Permission(permType="READWRITE", key=b"/lockstep/", range_end=b"/lockstep0")
        granted = rpc.AuthRoleGrantPermissionRequest(name="lockstep", perm=may)
        auth.RoleGrantPermission(granted, timeout=10)
        auth.AuthEnable(rpc.AuthEnableRequest(), timeout=10)
    return own_etcd


def as_user(etcd: EtcdProcess, user: str | None, password: str | None) -> EtcdSettings:
    return EtcdSettings((etcd.endpoint,), user=user, password=password)


async def test_an_election_as_a_user(etcd_with_users: EtcdProcess) -> None:
    async with cluster(as_user(etcd_with_users, "lockstep", "lockstep's"), "users") as rig:
        node, other, directory = rig.node("a"), rig.node("b"), rig.directory()
        await rig.settled(node, other)

        node.ownership.leave()

        await other.owns(ALL)
        await until(
            directory,
            lambda: {place.node for place in directory.placements().values()} == {"b"},
            "the directory follows",
        )


async def test_a_token_that_etcd_has_forgotten_is_asked_for_again(
    etcd_with_users: EtcdProcess,
) -> None:
    """A member keeps its tokens in memory only."""
    settings = as_user(etcd_with_users, "lockstep", "lockstep's")
    client, leases = EtcdClient(settings), EtcdLeases(settings)
    lease, _ = await asyncio.to_thread(leases.grant, 60_000, timeout_ms=5_000)
    await client.create("/lockstep/x/a", b"1", lease=lease)

    etcd_with_users.stop()
    etcd_with_users.start()

    async with asyncio.timeout(20):
        while not await answers(client):
            await SystemClock().sleep(20)
    await asyncio.to_thread(leases.revoke, lease, timeout_ms=5_000)
    assert (await client.list_prefix("/lockstep/x/")).items == ()
    leases.close()
    await client.close()


async def answers(client: EtcdClient) -> bool:
    """Whether a call gets an answer; without a token it gets none, however often it is made."""
    try:
        await client.list_prefix("/lockstep/x/")
    except ClusterUnavailable:
        return False
    return True


async def test_an_election_goes_on_when_tokens_are_forgotten(
    etcd_with_users: EtcdProcess,
) -> None:
    async with cluster(as_user(etcd_with_users, "lockstep", "lockstep's"), "users") as rig:
        node, directory = rig.node("a"), rig.directory()
        await node.owns(ALL)
        old = node.ownership.grants[PartitionId(0)]

        etcd_with_users.stop()
        etcd_with_users.start()
        await node.ownership.release(PartitionId(0))

        await node.owns(ALL)
        epoch = node.ownership.grants[PartitionId(0)].epoch
        assert epoch > old.epoch
        await until(
            directory,
            lambda: (place := directory.placements().get(PartitionId(0))) and place.epoch == epoch,
            "the directory follows",
        )


@pytest.mark.parametrize(
    ("user", "password", "told"),
    [
        ("lockstep", "wrong", "refuses this user; check user and password"),
        ("nobody", "any", "refuses this user; check user and password"),
        (None, None, "wants a user; check user and password"),
        ("guest", "guest's", "grant its role readwrite on the prefix"),
    ],
)
async def test_a_user_who_may_not_is_told_what_to_do(
    etcd_with_users: EtcdProcess, user: str | None, password: str | None, told: str
) -> None:
    async with cluster(as_user(etcd_with_users, user, password), "users") as rig:
        with pytest.raises(ClusterUnavailable, match=told):
            await rig.client.list_prefix(rig.prefix)
        with pytest.raises(ClusterUnavailable):
            async for _ in rig.client.watch(rig.prefix, after_revision=1, for_ms=60_000):
                pass

        node = rig.node("a")

        await node.told(told)
        assert node.granted == set()
