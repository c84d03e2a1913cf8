"""The scale benchmark finds what it should find, and runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import scale, scale_load, scale_report
from bench.ledger import Violation
from bench.watched import Spans

ROOT = Path(__file__).parents[2]


def test_a_session_that_is_granted_while_it_is_held_ends_the_run() -> None:
    book = scale_load.new_book(2)
    book.accepted(1)

    with pytest.raises(Violation, match="EXCLUSIVITY"):
        book.accepted(1)


@pytest.mark.parametrize(
    ("sequences", "promise"), [([5, 4], "ORDER"), ([2], "ORDER"), ([3], "ORDER"), ([], "LOSS")]
)
def test_what_comes_too_late_or_not_at_all_ends_the_run(sequences: list[int], promise: str) -> None:
    book = scale_load.new_book(2)
    book.received(1, [2, 3])

    with pytest.raises(Violation, match=promise):
        book.received(1, sequences)


def test_order_counts_in_each_session_for_itself() -> None:
    book = scale_load.new_book(2)
    book.received(1, [7, 9])

    book.received(0, [1, 8])

    assert list(book.last) == [8, 9]


def test_spans_keep_the_longest_by_the_wall_and_by_processor_time() -> None:
    spans = Spans()

    spans.add(30_000_000, 1_000_000)
    spans.add(5_000_000, 4_000_000)

    assert spans.figures() == {
        "count": 2,
        "mean_ms": 17.5,
        "longest_ms": 30.0,
        "longest_cpu_ms": 4.0,
        "over_20_ms": 1,
        "freed": 0,
    }


def test_the_verdict_names_the_longest_pause_of_a_server_that_serves() -> None:
    found = {
        "few": {
            "start.pause.loop.longest_ms": 900.0,
            "start.pause.loop.longest_cpu_ms": 800.0,
            "large.pause.loop.longest_ms": 40.0,
            "large.pause.loop.longest_cpu_ms": 7.0,
            "small.pause.loop.longest_ms": 30.0,
            "small.pause.loop.longest_cpu_ms": 9.0,
        }
    }

    told = scale_report.longest(found, "loop")

    assert "40.0 ms (few: large)" in told
    assert "9.00 ms (few: small)" in told


def test_processor_time_is_compared_with_the_smallest_backlog() -> None:
    found = {"few": {"small.cpu.ratio": 2.0, "large.cpu.ratio": 3.0}}

    told = "\n".join(scale_report.verdicts(found))

    assert "few: large" in told
    assert "× 1.50" in told


def test_a_twentieth_is_a_twentieth_of_messages_and_sessions() -> None:
    whole, small = (scale.chosen_scale(scale.parse_arguments(words)) for words in ([], ["--small"]))

    assert (whole.messages, whole.sessions, whole.idle_sessions) == (1_000_000, 100_000, 100_000)
    assert (small.messages, small.sessions, small.idle_sessions) == (50_000, 5_000, 5_000)


@pytest.mark.slow
def test_a_tiny_run_measures_everything(tmp_path: Path) -> None:
    sizes = ["--messages", "2000", "--sessions", "200", "--idle-sessions", "50"]
    times = ["--seconds", "0.2", "--warmup-seconds", "0.1", "--workers", "2"]
    told = tmp_path / "figures.json"
    where = ["--data-dir", str(tmp_path), "--json", str(told)]

    run = subprocess.run(
        [sys.executable, "-m", "bench.scale", *sizes, *times, *where],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert "aims" in run.stdout
    parts = json.loads(told.read_text())["parts"]
    for part, backlogs in {
        "many": ("small", "large", "restarted"),
        "few": ("small", "large"),
    }.items():
        for backlog in backlogs:
            figures = parts[part]
            assert figures[f"{backlog}.messages_per_second"] > 0
            assert figures[f"{backlog}.probe.session.max_ms"] > 0
            assert figures[f"{backlog}.pause.step.Accept.count"] > 0
            assert figures[f"{backlog}.pause.loop.longest_ms"] > 0
    assert parts["many"]["start.ready_seconds"] > 0
    assert parts["many"]["rss.filled_mib"] > parts["many"]["rss.empty_mib"]
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
