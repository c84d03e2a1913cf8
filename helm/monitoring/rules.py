"""The rules as the chart has them: `files/rules.yaml`, and the thresholds' defaults: `files/alerts.yaml`.

Here belongs their text. Never here: what they say (`recordings`, `alerts`). The law: both are templates or values of
Helm, and come out the same from the same rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from helm.monitoring.alerts import BROKER, OPERATOR, QUEUES, STORES, THRESHOLDS, Alert
from helm.monitoring.expressions import for_helm, rule_expression
from helm.monitoring.recordings import RECORDINGS, Recording

_GROUPS: Final = (
    ("lockstep-broker", BROKER, ""),
    ("lockstep-stores", STORES, ""),
    ("lockstep-queues", QUEUES, ""),
    ("lockstep-operator", OPERATOR, ".Values.operator.enabled"),
)
_RULES_HEAD: Final = """\
# Made by `make monitoring` from helm/monitoring; do not edit.
# The groups of a PrometheusRule. A template: the chart renders it with tpl.
groups:
"""
_ALERTS_HEAD: Final = """\
# Made by `make monitoring` from helm/monitoring/alerts.py; do not edit.
# The values below monitoring.alerts, with their meanings.
"""
NO_ALERTS: Final = "disabled"


def rules_text() -> str:
    """Return rules.yaml."""
    lines = ["- name: lockstep-recordings", "  rules:"]
    for recording in RECORDINGS:
        lines += _recording(recording)
    for name, alerts, condition in _GROUPS:
        group = [f"- name: {name}", "  rules:"]
        for alert in alerts:
            group += _alert(alert)
        lines += _when(condition, group)
    return _RULES_HEAD + "".join(f"{line}\n" for line in lines)


def alerts_text() -> str:
    """Return alerts.yaml."""
    lines = ["# Names of alerts that are left out.", f"{NO_ALERTS}: []"]
    for threshold in THRESHOLDS:
        lines += [f"# {threshold.meaning}", f"{threshold.name}: {threshold.default:g}"]
    return _ALERTS_HEAD + "".join(f"{line}\n" for line in lines)


def _recording(recording: Recording) -> list[str]:
    return [
        f"  - record: {recording.name}",
        f"    expr: {_quoted(rule_expression(recording.expression))}",
    ]


def _alert(alert: Alert) -> list[str]:
    runbook = f"{{{{ .Values.monitoring.prometheusRule.runbookBaseUrl }}}}/{alert.name}.md"
    rule = [
        f"  - alert: {alert.name}",
        f"    expr: {_quoted(rule_expression(alert.expression))}",
        *([f"    for: {alert.lasting}"] if alert.lasting else []),
        "    labels:",
        f"      severity: {alert.severity}",
        "    annotations:",
        f"      summary: {_quoted(for_helm(alert.summary))}",
        f"      runbook_url: {_quoted(runbook)}",
    ]
    return _when(f'not (has "{alert.name}" .Values.monitoring.alerts.{NO_ALERTS})', rule)


def _when(condition: str, lines: Iterable[str]) -> list[str]:
    """Return lines that are there if a condition of Helm holds; "" = always."""
    if not condition:
        return list(lines)
    return [f"{{{{- if {condition} }}}}", *lines, "{{- end }}"]


def _quoted(text: str) -> str:
    """Return a YAML string on one line; what is between braces is Helm's and must not be escaped."""
    if "'" not in text and '"' in text:
        return f"'{text}'"
    return json.dumps(text, ensure_ascii=False)
