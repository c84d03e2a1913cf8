"""The bench of the operator finds what it should find, and runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench import operator
from bench.measure import Summary
from bench.operator_parts import PARTS, Sizes, writes_of
from bench.operator_site import Metrics, Watched, since
from lockstep_operator.metrics import OperatorMetrics

ROOT = Path(__file__).parents[2]
SIZES = Sizes(singles=1, queues=10, many=20, pending=5, outage_seconds=1, times=1)


def a_state(*, status: str, generation: int, observed: int) -> dict[str, Any]:
    told = {"type": "Ready", "status": status, "observedGeneration": observed}
    return {
        "metadata": {"name": "orders", "generation": generation},
        "status": {"conditions": [told]},
    }


# --- what is seen ---------------------------------------------------------------------------------


async def test_an_object_is_ready_when_it_says_so_of_its_last_generation() -> None:
    watched = Watched()
    watched.take(a_state(status="True", generation=2, observed=1))
    watched.take(a_state(status="False", generation=2, observed=2))
    assert watched.generation("orders") == 0

    watched.take(a_state(status="True", generation=2, observed=2))

    assert await watched.until({"orders": 2}) == watched.ready["orders"][1]
    assert not watched.lost


async def test_the_first_time_that_an_object_was_ready_counts() -> None:
    watched = Watched()
    watched.take(a_state(status="True", generation=1, observed=1))
    first = watched.ready["orders"]

    watched.take(a_state(status="True", generation=1, observed=1))

    assert watched.ready["orders"] is first


def test_an_object_that_is_not_ready_any_more_is_lost_unless_it_was_changed() -> None:
    watched = Watched()
    watched.take(a_state(status="True", generation=1, observed=1))

    watched.take(a_state(status="True", generation=2, observed=1))
    assert not watched.lost
    watched.take(a_state(status="Unknown", generation=1, observed=1))

    assert watched.lost == {"orders"}


# --- what is counted ------------------------------------------------------------------------------


def test_writes_are_told_by_target_and_reads_are_none() -> None:
    metrics = OperatorMetrics()
    for verb, target in (("patch", "object"), ("patch", "status"), ("update", "lease")):
        metrics.kube_request(verb, target, 200)
    metrics.kube_request("patch", "status", 409)
    metrics.kube_request("list", "object", 200)

    found = Metrics(list(metrics.registry.collect())).writes()

    assert found == {"object": 1, "status": 2, "lease": 1}
    assert since(Counter({"status": 1}), found) == {"object": 1, "status": 1}


def test_writes_are_told_for_each_object() -> None:
    found = writes_of(Counter({"object": 10, "status": 12, "event": 5}), 10)

    assert found["writes.per_object"] == 2.2
    assert found["writes.event_per_object"] == 0.5


# --- aims -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("median", "told"), [(2.1, "met"), (2.2, "MISSED")])
def test_a_figure_is_told_beside_its_aim(median: float, told: str) -> None:
    assert operator.verdict(Summary(median, 0, 9), 2.1) == f"aim: at most 2.1, {told}"


def test_each_pending_object_may_be_told_of_once_in_an_outage_and_so_may_the_broker() -> None:
    assert operator.aims_of("outage", SIZES)["during.status_writes"] == 6


def test_only_parts_that_there_are_have_aims() -> None:
    assert operator.AIMS.keys() <= PARTS.keys()


# --- flags ----------------------------------------------------------------------------------------


def test_flags_that_are_given_win_over_small() -> None:
    arguments = operator.parse_arguments(["--small", "--queues", "7"])

    assert (arguments.queues, arguments.times) == (7, 1)


def test_a_part_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        operator.parse_arguments(["--parts", "mass,speed"])

    assert "there is no part 'speed'" in capsys.readouterr().err


# --- all of it, tiny ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_tiny_run_measures_every_part_and_knows_every_figure_that_has_an_aim(
    tmp_path: Path,
) -> None:
    told = tmp_path / "figures.json"
    run = subprocess.run(
        [sys.executable, "-m", "bench.operator", "--small", "--json", str(told)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(told.read_text())["runs"]
    assert tuple(found) == operator.SMALL["parts"]
    for part, (figures,) in found.items():
        assert operator.aims_of(part, SIZES).keys() <= figures.keys()
    assert found["restart"][0]["unchanged_objects_written"] == 0
    assert found["outage"][0]["others_not_ready"] == 0
