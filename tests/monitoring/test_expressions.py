"""Rules and dashboards ask only for what there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from helm.monitoring.alerts import ALERTS
from helm.monitoring.expressions import OF_DASHBOARD, names_in, scoped
from helm.monitoring.files import DASHBOARDS
from helm.monitoring.recordings import RECORDINGS
from tests.monitoring.known import FAMILIES, LABELS, labels_in, matchers_in, series, values_of


def expressions() -> Iterator[tuple[str, str]]:
    """Give every expression, with where it is."""
    for recording in RECORDINGS:
        yield recording.name, recording.expression
    for alert in ALERTS:
        yield alert.name, alert.expression
    for dashboard in DASHBOARDS:
        for expression in dashboard.expressions():
            yield dashboard.uid, expression


ALL = list(expressions())
DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "metrics.md", DOCS / "operations.md", *sorted((DOCS / "runbooks").glob("Lock*.md"))]
PAGES = [page for page in PAGES if "`lockstep_" in page.read_text(encoding="utf-8")]
_CODE = re.compile(r"`([^`\n]*\blockstep[_:][^`\n]*)`")


@pytest.mark.parametrize(("where", "expression"), ALL, ids=[where for where, _ in ALL])
def test_an_expression_asks_for_series_labels_and_values_that_there_are(
    where: str, expression: str
) -> None:
    names = names_in(expression)

    assert names, f"{where} asks for nothing of ours: {expression}"
    assert set(names) <= series()
    assert labels_in(expression) <= LABELS
    _assert_values(expression)


@pytest.mark.parametrize("page", PAGES, ids=lambda one: one.name)
def test_what_a_page_asks_for_can_be_asked_for(page: Path) -> None:
    asked = [one for one in _CODE.findall(page.read_text(encoding="utf-8")) if "…" not in one]

    assert asked
    for expression in asked:
        assert {one for one in names_in(expression) if one not in FAMILIES} <= series(), expression
        assert labels_in(expression) <= LABELS, expression
        _assert_values(expression)


def _assert_values(expression: str) -> None:
    for metric, label, operator, value in matchers_in(expression):
        declared = values_of(metric, label)
        if declared is None or "$" in value:
            continue
        wanted = value.split("|") if "~" in operator else [value]
        assert declared.issuperset(wanted), f"{metric} has no {label} {operator} {value}"


def test_every_selector_looks_at_one_release_only() -> None:
    found = scoped('sum(lockstep_a{b="c"}) / lockstep:d:e offset 5m + process_f[5m]', OF_DASHBOARD)

    inside = 'namespace="$namespace"'
    assert found == (
        f'sum(lockstep_a{{{inside},b="c"}}) / lockstep:d:e{{{inside}}} offset 5m'
        f" + process_f{{{inside}}}[5m]"
    )


def test_recordings_use_those_before_them() -> None:
    order = [recording.name for recording in RECORDINGS]

    for place, recording in enumerate(RECORDINGS):
        used = [name for name in names_in(recording.expression) if ":" in name]
        assert set(used) <= set(order[:place]), recording.name


def test_every_recording_is_used() -> None:
    used = {name for _, expression in ALL for name in names_in(expression)}

    # For those who divide incoming and outgoing messages by hand, or draw percentiles of other services beside ours.
    for_people = {
        "lockstep:frontend_latency_seconds:p99_5m",
        "lockstep:time_in_queue_seconds:p95_5m",
    }
    assert {one.name for one in RECORDINGS} - used <= for_people


def test_names_of_recordings_say_whose_what_and_how() -> None:
    assert [
        one.name for one in RECORDINGS if not re.fullmatch(r"lockstep:\w+(:\w+)?", one.name)
    ] == []
