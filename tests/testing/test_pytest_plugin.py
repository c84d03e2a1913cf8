"""The pytest plugin and the example, run as a user runs them: by a pytest of their own, outside of this repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lockstep.testing
from lockstep.testing import names

ROOT = Path(__file__).parents[2]
RUN_S = 60
# pytest-asyncio warns where it is not set.
LOOP_SCOPE = ("-o", "asyncio_default_fixture_loop_scope=function")

USER_TEST = """
from datetime import timedelta
import pytest
from lockstep import Message as BlockingMessage
from lockstep.aio import Message

@pytest.mark.asyncio
@pytest.mark.parametrize("time", [1, 2])
async def test_async(lockstep_broker, time):
    client = lockstep_broker.client()
    await client.get_administration_client().create_queue("jobs")
    await client.get_queue_sender("jobs").send_messages(Message("x", time_to_live=timedelta(hours=1)))
    await lockstep_broker.advance(3600)
    assert await client.get_queue_receiver("jobs").receive_messages(max_wait_time=0) == []

@pytest.mark.parametrize("time", [1, 2])
def test_blocking(lockstep_blocking_broker, time):
    client = lockstep_blocking_broker.client()
    client.get_administration_client().create_queue("jobs")
    client.get_queue_sender("jobs").send_messages(BlockingMessage("x"))
    assert len(client.get_queue_receiver("jobs").receive_messages()) == 1
"""

UNUSED = """
import sys

def test_nothing_was_loaded():
    assert "lockstep.testing.pytest_plugin" in sys.modules
    heavy = ("grpc", "google.protobuf", "lockstep.client.calls", "lockstep.core", "asyncio.runners")
    assert [name for name in heavy[:-1] if name in sys.modules] == []
"""


def run_pytest(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", *words],
        cwd=where,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_a_user_has_the_fixtures_without_declaring_anything(tmp_path: Path, mode: str) -> None:
    (tmp_path / "test_user.py").write_text(USER_TEST)

    ran = run_pytest(tmp_path, "-o", f"asyncio_mode={mode}", *LOOP_SCOPE)

    assert "4 passed" in ran.stdout, ran.stdout + ran.stderr


def test_without_pytest_asyncio_the_blocking_fixture_is_still_there(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(USER_TEST)

    ran = run_pytest(tmp_path, "-p", "no:asyncio", "-k", "blocking", "-W", "ignore")

    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr


def test_an_unused_plugin_loads_no_broker(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(UNUSED)

    ran = run_pytest(tmp_path, "-p", "no:hypothesispytest", *LOOP_SCOPE)

    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


def test_the_example_passes() -> None:
    ran = run_pytest(ROOT, "-q", "examples/test_with_virtual_clock.py")

    assert "3 passed" in ran.stdout, ran.stdout + ran.stderr


def test_each_public_name_can_be_loaded() -> None:
    assert sorted(lockstep.testing.__all__) == names.__dir__()
    for name in lockstep.testing.__all__:
        assert getattr(lockstep.testing, name).__name__ == name


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError):
        names.__getattr__("Nothing")
