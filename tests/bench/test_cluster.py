"""The bench of the cluster finds what it should find, and runs."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench import cluster, gaps
from bench.cluster_faults import (
    CALM,
    JOINED,
    KILLED,
    KILLS,
    MOVES,
    STOPPED,
    Found,
)
from bench.cluster_hop import hop_of, store_of
from bench.cluster_systems import CLUSTER, POSTGRES, PROXY, SPREAD, SQLITE
from bench.gaps import QUEUE, Track
from bench.ledger import Violation
from lockstep.core.ids import EntityKey
from lockstep.core.placement import partition_of_session

ROOT = Path(__file__).parents[2]


def track_of(*successes: float) -> Track:
    track = Track("s")
    track.successes.extend(successes)
    return track


# --- gaps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "end", "longest"),
    [
        (1.5, 5.5, 4.0),  # from the last success before the moment to the first one after it
        (2.5, 3.0, 4.0),  # both moments within one gap
        (6.0, 8.5, 2.5),
        (6.0, 7.0, 1.0),
    ],
)
def test_a_gap_is_the_longest_time_without_a_success_around_two_moments(
    begin: float, end: float, longest: float
) -> None:
    track = track_of(1.0, 2.0, 6.0, 7.0, 9.5)

    assert track.gap(begin, end) == longest


def test_what_never_answered_has_no_gap_that_could_be_told() -> None:
    assert math.isnan(track_of().gap(1.0, 2.0))


def test_successes_are_counted_from_a_moment_on() -> None:
    assert track_of(1.0, 2.0, 3.0).successes_since(2.0) == 1


def test_the_distribution_of_gaps_shows_values_that_were_seen() -> None:
    seconds = [float(number) for number in range(20, 0, -1)]

    told = gaps.distribution(seconds)

    assert told == {"min": 1.0, "median": 10.0, "p95": 19.0, "max": 20.0}


def test_each_partition_has_a_session_of_its_own() -> None:
    sessions = gaps.sessions_of(16)

    entity = EntityKey("default", QUEUE)
    assert [partition_of_session(entity, name, 16) for name in sessions] == list(range(16))


# --- promises -------------------------------------------------------------------------------------


def test_an_acknowledged_message_that_never_came_is_lost() -> None:
    track = Track("s")
    track.acknowledged.update({0, 1})
    track.came([0])

    with pytest.raises(Violation, match=r"LOSS: s: 1 acknowledged messages never came: \[1\]"):
        track.check_nothing_lost()


def test_a_message_that_was_not_acknowledged_may_be_missing() -> None:
    track = Track("s")
    track.acknowledged.add(1)
    track.came([1])

    track.check_nothing_lost()


def test_an_acknowledged_message_that_comes_after_a_later_one_is_out_of_order() -> None:
    track = Track("s")
    track.acknowledged.update({0, 1})
    track.came([1])

    with pytest.raises(Violation, match="ORDER"):
        track.came([0])


def test_a_message_may_come_again_until_its_completion_is_acknowledged() -> None:
    track = Track("s")
    track.came([0, 1])
    track.came([0, 1])
    track.completed([0, 1])

    with pytest.raises(Violation, match="DUPLICATE"):
        track.came([1])


@pytest.mark.parametrize(("reasons", "is_failure"), [([], False), (["PARTITION_MOVED"], True)])
def test_a_call_that_fails_while_owners_move_makes_the_bench_fail(
    reasons: list[str], *, is_failure: bool
) -> None:
    moves = Found(failed={STOPPED: Counter(reasons)})

    assert cluster.any_call_failed(moves) is is_failure
    assert not cluster.any_call_failed(None)


# --- what is computed -----------------------------------------------------------------------------


def test_the_hop_is_what_front_end_and_owner_cost_beyond_one_process() -> None:
    server, frontend = "cpu.server_us_per_message", "cpu.frontend_us_per_message"
    turn = {
        SQLITE: {server: 30.0},
        POSTGRES: {server: 36.0},
        CLUSTER: {server: 34.0, frontend: 24.0},
        SPREAD: {server: 40.0, frontend: 26.0},
        PROXY: {server: 30.0, "cpu.proxy_us_per_message": 20.0},
    }

    assert hop_of(turn) == {
        "front end": 24.0,
        "owner, beyond one process": -2.0,
        "hop": 22.0,
        "hop, against SQLite": 28.0,
        "byte proxy": 20.0,
        "hop / byte proxy": 1.1,
        "hop, 16 partitions": 30.0,
    }


def test_stores_are_compared_with_sqlite() -> None:
    rate = "throughput.messages_per_second"
    turn = {SQLITE: {rate: 100.0}, POSTGRES: {rate: 70.0}, CLUSTER: {rate: 50.0}}

    assert list(store_of(turn).values()) == [0.7, 0.5]


# --- flags ----------------------------------------------------------------------------------------


def test_flags_that_are_given_win_over_small() -> None:
    arguments = cluster.parse_arguments(["--small", "--times", "7"])

    assert (arguments.times, arguments.runs) == (7, 1)


def test_a_part_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cluster.parse_arguments(["--parts", "hop,speed"])

    assert "there is no part 'speed'" in capsys.readouterr().err


# --- all of it, tiny ------------------------------------------------------------------------------


def tiny_run(parts: str, directory: Path) -> dict[str, Any]:
    told = directory / "figures.json"
    run = subprocess.run(
        [sys.executable, "-m", "bench.cluster", "--small", "--parts", parts, "--json", str(told)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "aim:" in run.stdout
    found: dict[str, Any] = json.loads(told.read_text())
    return found


@pytest.mark.slow
def test_a_tiny_run_measures_the_hop_and_the_store(tmp_path: Path) -> None:
    (turn,) = tiny_run("hop,store", tmp_path)["turns"]["100"]

    assert set(turn) == {SQLITE, POSTGRES, CLUSTER, PROXY}
    assert all(found["throughput.messages_per_second"] > 0 for found in turn.values())
    assert turn[CLUSTER]["cpu.frontend_us_per_message"] > 0
    assert turn[PROXY]["cpu.proxy_us_per_message"] > 0


@pytest.mark.slow
def test_a_tiny_run_kills_stops_and_joins_owners(tmp_path: Path) -> None:
    faults = tiny_run("kills,moves", tmp_path)["faults"]

    for part, what in ((KILLS, {KILLED}), (MOVES, {STOPPED, JOINED})):
        found = faults[part]
        assert {CALM, *what} <= set(found["gaps"])
        assert all(seconds > 0 for gaps in found["gaps"].values() for seconds in gaps)
        assert found["acknowledged"] > 0
