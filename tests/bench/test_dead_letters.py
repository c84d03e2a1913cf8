"""The bench of jobs on dead letters does what it says, and notices a job that left something."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import dead_letters
from bench.dead_letters import JOBS, Load, WrongCount
from lockstep import AdministrationClient, DeadLetterJob, DeadLetterSelector


@pytest.mark.parametrize(
    "shape", [dead_letters.PLAIN, dead_letters.SESSIONS, dead_letters.DUPLICATES]
)
def test_each_job_is_measured_on_a_queue_of_each_shape(shape: str, tmp_path: Path) -> None:
    load = Load(shape, messages=700, body_bytes=10, sessions=7)

    figures = dict(dead_letters.one_run(load, JOBS, tmp_path))

    assert list(figures) == list(JOBS)
    for found in figures.values():
        assert found["messages_per_second"] > 0
        assert found["slowest_call_ms"] > 0


def test_a_job_that_left_something_ends_the_bench(tmp_path: Path) -> None:
    def purge_one(administration: AdministrationClient) -> DeadLetterJob:
        selector = DeadLetterSelector(max_count=1)
        return administration.purge_dead_letters(dead_letters.QUEUE, selector)

    with pytest.raises(WrongCount):
        list(
            dead_letters.one_run(Load(dead_letters.PLAIN, 2, 10, 1), {"purge": purge_one}, tmp_path)
        )
