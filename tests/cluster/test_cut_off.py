"""What becomes of partitions when an owner does not reach PostgreSQL, and etcd and the others do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from lockstep import LockstepClient, Message
from lockstep.core.ids import partition_of
from tests.cluster.local import LocalCluster, OwnerOfCluster
from tests.faults.proxy import Proxies, Proxy, SocketPlace
from tests.server.server_process import wait_until

LEASE_MS = 60_000  # no test waits for it: what moves here is given up by an owner that lives
SILENCE_MS = 2_000
PARTITIONS = 8
WAIT_MS = 60_000
Q = "orders"


class CutOffRig:
    """Two owners, each with a link of its own to PostgreSQL."""

    def __init__(self, directory: Path) -> None:
        self._sockets = Path(tempfile.mkdtemp(prefix="lockstep-links-"))
        self._links = Proxies()
        self.cluster = LocalCluster(
            directory,
            owners=2,
            frontends=1,
            partitions=PARTITIONS,
            lease_ms=LEASE_MS,
            settings={"cluster.postgres_silence_ms": SILENCE_MS},
            dsn_of=self._through_a_link,
        )

    def _through_a_link(self, name: str, dsn: str) -> str:
        real, place = self.cluster.postgres.socket, self._sockets / name
        place.mkdir()
        self._links.add(name, SocketPlace(place / real.name), SocketPlace(real))
        return dsn.replace(f"host={self.cluster.postgres.sockets} ", f"host={place} ")

    def link(self, owner: OwnerOfCluster) -> Proxy:
        return self._links[owner.directory.name]

    def claims(self) -> dict[int, tuple[str, int]]:
        """Return for each partition its owner and the revision of its claim."""
        partitions = self.cluster.status()["partitions"]
        return {one["partition"]: (one["node"], one["revision"]) for one in partitions}

    def owners(self) -> set[str]:
        return {node for node, _ in self.claims().values()}

    def is_settled(self) -> bool:
        names = {owner.directory.name for owner in self.cluster.owners}
        claims = self.claims()
        return len(claims) == PARTITIONS and self.owners() == names and self.cluster.is_ready()

    def settle(self) -> None:
        self._links.heal()
        wait_until(self.is_settled, "both own partitions again", within_ms=WAIT_MS)

    def close(self) -> None:
        self.cluster.close()
        self._links.close()
        shutil.rmtree(self._sockets)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CutOffRig]:
    rig = CutOffRig(tmp_path_factory.mktemp("cut-off"))
    try:
        rig.cluster.start()
        yield rig
    finally:
        rig.close()


@pytest.fixture
def rig(running: CutOffRig) -> Iterator[CutOffRig]:
    """The same cluster for all tests; each gets it whole, with an empty queue."""
    running.settle()
    with client_of(running) as client:
        client.get_administration_client().create_queue(Q, requires_session=True)
    yield running
    running.settle()
    with client_of(running) as client:
        client.get_administration_client().delete_queue(Q)


def client_of(rig: CutOffRig) -> LockstepClient:
    return LockstepClient(f"127.0.0.1:{rig.cluster.frontends[0].port}", retry_total=20)


def is_cut_off(owner: OwnerOfCluster) -> bool:
    """Whether an owner says that PostgreSQL gives no answer."""
    return "database 1 gives no answer here" in owner.http("health", "/readyz")[1]


def send(client: LockstepClient, session: str, *bodies: str) -> list[int]:
    messages = [Message(body, session_id=session) for body in bodies]
    return list(client.get_queue_sender(Q).send_messages(messages))


@pytest.mark.parametrize("how", ["cut", "hold"])
def test_an_owner_without_postgresql_leaves_its_partitions_to_one_that_reaches_it(
    rig: CutOffRig, how: str
) -> None:
    """Cut: every connection breaks. Hold: none does, and nothing answers, which a commit would wait for."""
    with client_of(rig) as client:
        numbers = send(client, "s", "1", "2")
        with client.get_queue_receiver(Q, session_id="s") as receiver:
            (first,) = receiver.receive_messages(max_message_count=1)
            cut_off = rig.cluster.owner_of(partition_of(numbers[0]))
            other = next(one for one in rig.cluster.owners if one is not cut_off)

            rig.link(cut_off).cut() if how == "cut" else rig.link(cut_off).hold()

            # Answered by the other one, with the same token, and nothing is lost.
            receiver.complete_message(first)
            assert send(client, "s", "3")
            rest = receiver.receive_messages(max_message_count=5)
            assert (str(rest[0]), rest[0].delivery_count) == ("2", 0)
            wait_until(
                lambda: rig.owners() == {other.directory.name}, "it moves", within_ms=WAIT_MS
            )
            wait_until(other.is_ready, "it is open", within_ms=WAIT_MS)
            assert is_cut_off(cut_off)
            receiver.complete_messages(rest)
        reasons = {event["why"] for event in cut_off.events("ownership.ended")}
        assert "database_cut_off" in reasons
    rig.settle()


def test_when_postgresql_is_away_for_all_nothing_moves(rig: CutOffRig) -> None:
    before = rig.claims()

    for owner in rig.cluster.owners:
        rig.link(owner).cut()
    for owner in rig.cluster.owners:
        wait_until(partial(is_cut_off, owner), "it knows", within_ms=WAIT_MS)
    assert rig.claims() == before
    rig.settle()

    with client_of(rig) as client:
        assert send(client, "s", "1")
    assert rig.claims() == before
