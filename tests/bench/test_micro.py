"""Each micro bench does what it says, and tells a figure for each of its parts."""

from __future__ import annotations

import pytest

from bench import micro

PARTS = {
    "core": {"send", "receive", "settle", "accept and release (a session)"},
    "storage-memory": {"commit"},
    "storage-sqlite": {"commit"},
    "wire": {"send", "receive"},
    "owner": {"send", "receive", "settle", "accept and release (a session)"},
    "client": {"encode", "decode"},
}


@pytest.mark.parametrize("name", micro.BENCHES)
async def test_a_bench_measures_all_of_its_parts(name: str) -> None:
    found = await micro.measured(name, micro.Effort(repetitions=2, seconds=0.0))

    assert set(found) == PARTS[name]
    assert all(0 < summary.low <= summary.median <= summary.high for summary in found.values())


def test_a_name_that_is_no_bench_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        micro.parse_arguments(["disk"])

    assert "there is no bench 'disk'" in capsys.readouterr().err
