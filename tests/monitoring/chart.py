"""The rules as Prometheus gets them: rendered by Helm from a chart that has nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from helm_python import Chart

FILES = Path(__file__).parents[2] / "helm" / "lockstep" / "files"
NAMESPACE = "messages"
RUNBOOKS = "https://example.org/runbooks"
_CHART = "apiVersion: v2\nname: rules\nversion: 0.1.0\n"
_TEMPLATE = '{{ tpl (.Files.Get "files/rules.yaml") . }}\n'


def thresholds() -> dict[str, Any]:
    """Return the defaults of what can be tuned."""
    read: dict[str, Any] = yaml.safe_load((FILES / "alerts.yaml").read_text(encoding="utf-8"))
    return read


def rules_file(values: Mapping[str, Any] | None = None, *, operator: bool = True) -> str:
    """Return the text of the rules; `values` are laid over the defaults of `monitoring.alerts`."""
    given = {
        "operator": {"enabled": operator},
        "monitoring": {
            "alerts": {**thresholds(), **(values or {})},
            "prometheusRule": {"runbookBaseUrl": RUNBOOKS},
        },
    }
    with TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "Chart.yaml").write_text(_CHART)
        (directory / "templates").mkdir()
        (directory / "templates" / "rules.yaml").write_text(_TEMPLATE)
        (directory / "files").mkdir()
        (directory / "files" / "rules.yaml").write_text((FILES / "rules.yaml").read_text())
        chart = Chart.load(str(directory))
        try:
            rendered = chart.render(given, name="lockstep", namespace=NAMESPACE)
        finally:
            chart.close()
    return next(text for path, text in rendered.items() if path.endswith("rules.yaml"))


@cache
def rules() -> list[dict[str, Any]]:
    """Return all rules with all defaults, recordings and alerts."""
    groups = yaml.safe_load(rules_file())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}
