"""promtool: what Prometheus itself says of rules; `python -m tests.monitoring.promtool` (`make promtool`) builds it.

Here belongs how it is run. Never here: what is asked of it. Its version stands in `promtool_module/go.mod`; it is built
without the ways to discover targets, which need most of its modules.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.go_program import GoProgram, main

PROMTOOL = GoProgram(
    name="promtool",
    module=Path(__file__).parent / "promtool_module",
    package="github.com/prometheus/prometheus/cmd/promtool",
    versioned_by="github.com/prometheus/prometheus",
    target="promtool",
    takes="some 3 minutes",
    tags="remove_all_sd",
)
_RUN_S = 60


@dataclass(frozen=True, slots=True)
class Asked:
    """A question after some time: an expression, and what its samples are, by their labels.

    Attributes:
        expression: In PromQL.
        at: When, as Prometheus writes durations.
        samples: Labels, as Prometheus writes them, and values.
    """

    expression: str
    at: str
    samples: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Fired:
    """An alert that fires after some time: the only one of its name, with these labels and annotations."""

    alert: str
    at: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


def check(directory: Path, rules: str) -> str:
    """Return what is wrong with the text of rules; "" = nothing."""
    path = directory / "rules.yaml"
    path.write_text(rules)
    return _run("check", "rules", "--lint=all", "--lint-fatal", str(path))


def ask(
    directory: Path,
    rules: str,
    series: Mapping[str, str],
    asked: Sequence[Asked],
    fired: Sequence[Fired] = (),
) -> str:
    """Return in which questions the rules say something else of series than what is expected; "" = in none.

    Args:
        directory: Where files may be written.
        rules: The text of the rules.
        series: Values of each series, one a minute, as promtool writes them.
        asked: The questions.
        fired: Alerts that are expected.
    """
    (directory / "rules.yaml").write_text(rules)
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [_question(one) for one in asked],
        "alert_rule_test": [_alert(one) for one in fired],
    }
    path = directory / "test.yaml"
    path.write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]})
    )
    return _run("test", "rules", str(path))


def _question(asked: Asked) -> dict[str, Any]:
    samples = [{"labels": labels, "value": value} for labels, value in asked.samples.items()]
    return {"expr": asked.expression, "eval_time": asked.at, "exp_samples": samples}


def _alert(fired: Fired) -> dict[str, Any]:
    expected = {"exp_labels": dict(fired.labels), "exp_annotations": dict(fired.annotations)}
    return {"eval_time": fired.at, "alertname": fired.alert, "exp_alerts": [expected]}


def _run(*words: str) -> str:
    done = subprocess.run(
        [PROMTOOL.found(), *words],
        capture_output=True,
        text=True,
        timeout=_RUN_S,
        check=False,
    )
    return f"{done.stdout}{done.stderr}" if done.returncode else ""


if __name__ == "__main__":
    main(PROMTOOL.get)
