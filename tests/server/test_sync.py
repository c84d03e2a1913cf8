"""A reply leaves after the sync of what it promises: nothing acknowledged is lost when the power goes.

kill -9 cannot show that, because the kernel keeps what a dead process wrote. So a library that is loaded
before the C library (power_cut.c) keeps a copy of the data directory with synced bytes only; the copy is
what a disk would have after a power cut. The same tests on a copy of the product that does not sync must,
and do, lose messages.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from tests.server import calls
from tests.server.load import QUEUE, Load
from tests.server.server_process import (
    SERVICES,
    MakeServer,
    ServerFailed,
    ServerProcess,
    wait_until,
)

SOURCE = Path(__file__).with_name("power_cut.c")
SYNCED = "PRAGMA synchronous = FULL"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library; without a C compiler these tests are left out."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) is installed, so power cuts cannot be shown")
    made = tmp_path_factory.mktemp("power_cut") / "power_cut.so"
    words = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror"]
    subprocess.run([compiler, *words, "-o", made, SOURCE, "-ldl"], check=True, timeout=60)
    return made


@pytest.fixture
def unsynced_services(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of the product whose store syncs less; the parameter says how much."""
    services = tmp_path / "services"
    shutil.copytree(SERVICES, services, ignore=shutil.ignore_patterns("__pycache__"))
    store = services / "lockstep" / "storage" / "sqlite.py"
    text = store.read_text()
    assert text.count(SYNCED) == 1
    store.write_text(text.replace(SYNCED, f"PRAGMA synchronous = {request.param}"))
    return services


Watch = Callable[..., ServerProcess]


@pytest.fixture
def watched(make_server: MakeServer, library: Path, tmp_path: Path) -> Watch:
    """Start servers whose synced bytes are kept."""

    def start(services: Path = SERVICES) -> ServerProcess:
        shadow = tmp_path / "shadow"
        shadow.mkdir()
        data = tmp_path / "server" / "data"
        environment = {
            "LD_PRELOAD": str(library),
            "POWER_CUT_WATCHED": str(data.resolve()),
            "POWER_CUT_SHADOW": str(shadow),
        }
        return make_server(environment=environment, services=services).start()

    return start


def disk_after_power_cut(tmp_path: Path, directory: Path) -> None:
    """Make the data directory that is left when the power goes now."""
    shadow = tmp_path / "shadow"
    directory.mkdir(parents=True)
    for line in (shadow / "names").read_text().splitlines():
        inode, _, name = line.partition(" ")
        kept = shadow / f"inode-{inode}"
        if kept.exists():
            shutil.copyfile(kept, directory / name)
        else:
            (directory / name).touch()


def lost_after_each_reply(
    server: ServerProcess, make_server: MakeServer, tmp_path: Path, *, steps_max: int = 4
) -> list[str]:
    """Cut the power after each of some acknowledged calls, and return those that left no trace."""
    stubs = server.stubs
    calls.create(stubs, "s", requires_session=True)
    held = calls.accept(stubs, "s", "x").session
    steps: list[tuple[str, Callable[[], object], Callable[[ServerProcess], object]]] = [
        (
            "send",
            lambda: calls.send(stubs, "s", b"1", b"2", session="x"),
            lambda after: calls.runtime(after.stubs, "s").active_messages == 2,
        ),
        (
            "state",
            lambda: calls.set_state(stubs, "s", held, b"v"),
            lambda after: calls.get_state(after.stubs, "s", held).value == b"v",
        ),
        (
            "complete",
            lambda: _complete_all(server, held),
            lambda after: calls.runtime(after.stubs, "s").total_messages == 0,
        ),
        (
            "create",
            lambda: calls.create(stubs, "later"),
            lambda after: calls.runtime(after.stubs, "later").total_messages == 0,
        ),
    ]
    lost = []
    for name, act, is_there in steps[:steps_max]:
        act()
        after = make_server(f"after-{name}")
        disk_after_power_cut(tmp_path, after.data_dir)
        try:
            after.start()
            found = is_there(after)
        except ServerFailed:
            lost.append(f"{name}: the store does not open")
        except grpc.RpcError as error:
            lost.append(f"{name}: {calls.refusal_of(error).reason}")
        else:
            lost += [] if found else [name]
        finally:
            after.close()
    return lost


def _complete_all(server: ServerProcess, held: object) -> None:
    received = calls.receive(server.stubs, "s", held)
    calls.settle(server.stubs, "s", "complete", numbers=received.sequence_numbers, session=held)


def test_each_reply_comes_after_the_sync_of_its_effect(
    watched: Watch, make_server: MakeServer, tmp_path: Path
) -> None:
    assert lost_after_each_reply(watched(), make_server, tmp_path) == []


@pytest.mark.parametrize(
    ("unsynced_services", "loss"),
    [("NORMAL", "send: ENTITY_NOT_FOUND"), ("OFF", "send: the store does not open")],
    indirect=["unsynced_services"],
)
def test_with_fewer_syncs_the_same_check_finds_losses(
    watched: Watch, make_server: MakeServer, tmp_path: Path, unsynced_services: Path, loss: str
) -> None:
    """NORMAL opens without the messages; OFF leaves nothing that opens."""
    server = watched(unsynced_services)

    assert lost_after_each_reply(server, make_server, tmp_path, steps_max=1) == [loss]


def messages_lost_under_load(server: ServerProcess, make_server: MakeServer, tmp_path: Path) -> int:
    """Cut the power under load and return how many acknowledged messages are not on the disk."""
    calls.create(server.stubs, QUEUE, requires_session=True)
    load = Load(server, senders=3, workers=0)
    load.start()
    after = make_server("after")
    try:
        wait_until(lambda: load.acknowledged > 300, "sends go on", within_ms=30_000)
        promised = {session: list(pairs) for session, pairs in list(load.book.sent.items())}
        server.kill()
    finally:
        load.abandon()
    disk_after_power_cut(tmp_path, after.data_dir)
    after.start()
    lost = 0
    for session_id, pairs in promised.items():
        held = calls.accept(after.stubs, QUEUE, session_id).session
        received = calls.receive(after.stubs, QUEUE, held, maximum=4000)
        stored = list(zip(calls.bodies_of(received), received.sequence_numbers, strict=True))
        lost += sum(1 for pair in pairs if pair not in stored)
        assert stored[: len(pairs)] == pairs or lost
    return lost


def test_a_power_cut_under_load_loses_nothing_that_was_acknowledged(
    watched: Watch, make_server: MakeServer, tmp_path: Path
) -> None:
    assert messages_lost_under_load(watched(), make_server, tmp_path) == 0
