"""PromQL as it is written here, and as rules and dashboards have it.

Here belongs what is done to every expression: the release that it looks at, thresholds that are values of the chart,
braces that Helm must leave alone. Never here: expressions. The laws: an expression is written without the namespace of
the release, and gets it on every selector, so that two releases in one Prometheus never mix; a number that people
tune is a threshold and stands nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

# A metric of ours, or a recording of ours, or one that each Python process has.
_SELECTOR: Final = re.compile(r"\b((?:lockstep[_:]|process_)[\w:]+)(\{)?")
_THRESHOLD: Final = re.compile(r"\[\[(\w+)\]\]")
_TEMPLATE: Final = re.compile(r"\{\{.*?\}\}")

OF_RELEASE: Final = 'namespace="{{ .Release.Namespace }}"'
OF_DASHBOARD: Final = 'namespace="$namespace"'
ENTITY: Final = "namespace, entity_namespace, entity, entity_type"
"""What sums over partitions and pods keep of an entity's series."""


def names_in(expression: str) -> list[str]:
    """Return the metrics and recordings that an expression looks at, in order."""
    return [found[1] for found in _SELECTOR.finditer(expression)]


def thresholds_in(text: str) -> list[str]:
    """Return the thresholds that a text names as [[name]]."""
    return _THRESHOLD.findall(text)


def scoped(expression: str, matcher: str) -> str:
    """Return an expression that looks at one release only."""

    def with_matcher(found: re.Match[str]) -> str:
        return f"{found[1]}{{{matcher}" + ("," if found[2] else "}")

    return _SELECTOR.sub(with_matcher, expression)


def for_helm(text: str) -> str:
    """Return a text of a rule in which Helm fills in thresholds and leaves the templates of Prometheus alone."""
    kept = _TEMPLATE.sub(lambda found: f"{{{{`{found[0]}`}}}}", text)
    return _THRESHOLD.sub(lambda found: value_of(found[1]), kept)


def value_of(threshold: str) -> str:
    """Return the Helm expression for a threshold."""
    return f"{{{{ .Values.monitoring.alerts.{threshold} }}}}"


def rule_expression(expression: str) -> str:
    """Return an expression as a rule of the chart has it."""
    return scoped(for_helm(expression), OF_RELEASE)


def filled_in(text: str, value: Callable[[str], str]) -> str:
    """Return a text with a value for each threshold."""
    return _THRESHOLD.sub(lambda found: value(found[1]), text)
