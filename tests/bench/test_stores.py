"""The bench of stores measures each of them, and reports."""

from __future__ import annotations

import pytest

from bench import stores
from tests.postgres.server import running_server


async def test_every_store_does_the_whole_life_of_messages_and_has_its_figures() -> None:
    with running_server() as server:
        found = await stores.compared(server, repetitions=2, seconds=0.0)

    assert set(found) == {"SQLite", "PostgreSQL", stores.HELD}
    for runs in found.values():
        assert len(runs) == 2
        assert all(value > 0 for run in runs for value in run.values())
    report = list(stores.lines(found))
    assert any("commits_per_second" in line for line in report)
    assert "snapshot grew older" in report[-1]


def test_what_is_no_number_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        stores.parse_arguments(["--repetitions", "many"])

    assert "invalid int value" in capsys.readouterr().err
