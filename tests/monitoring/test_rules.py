"""The rules of the chart: fresh, tunable, and each with a page that says what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from helm.monitoring.alerts import ALERTS, THRESHOLDS
from helm.monitoring.expressions import thresholds_in
from helm.monitoring.files import DIRECTORY, files
from helm.monitoring.recordings import RECORDINGS
from tests.monitoring.chart import NAMESPACE, RUNBOOKS, alerts, rules, rules_file, thresholds

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "runbooks"
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
_THRESHOLD_ON_PAGE = re.compile(r"`monitoring\.alerts\.(\w+)`")
_LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def page(alert: str) -> str:
    """Return the runbook of an alert."""
    return (PAGES / f"{alert}.md").read_text(encoding="utf-8")


def test_the_files_of_the_chart_are_what_the_generator_makes() -> None:
    made = files()
    directory = ROOT / DIRECTORY
    dashboards = {f"dashboards/{one.name}" for one in (directory / "dashboards").glob("*.json")}

    stale = [
        name
        for name, text in made.items()
        if not (directory / name).exists() or (directory / name).read_text("utf-8") != text
    ]

    assert stale == [], "run 'make monitoring' and commit the result"
    assert dashboards == {name for name in made if name.startswith("dashboards/")}


def test_helm_renders_every_rule() -> None:
    names = [rule.get("alert") or rule["record"] for rule in rules()]

    assert names == [*(one.name for one in RECORDINGS), *(one.name for one in ALERTS)]
    for rule in rules():
        assert "{{" not in rule["expr"], rule
        assert f'namespace="{NAMESPACE}"' in rule["expr"], rule


def test_an_alert_keeps_the_templates_of_prometheus() -> None:
    summary = alerts()["LockstepQueueAlmostFull"]["annotations"]["summary"]

    assert summary.startswith("{{ $labels.entity_namespace }}/{{ $labels.entity }} is {{ $value | ")


@pytest.mark.parametrize("alert", ALERTS, ids=lambda one: one.name)
def test_an_alert_says_how_bad_it_is_and_where_its_runbook_is(alert: object) -> None:
    declared = next(one for one in ALERTS if one == alert)
    rule = alerts()[declared.name]

    assert rule["labels"] == {"severity": declared.severity}
    assert declared.severity in ("critical", "warning", "info")
    assert rule["annotations"]["runbook_url"] == f"{RUNBOOKS}/{declared.name}.md"
    assert rule["annotations"]["summary"].endswith(".")


def test_thresholds_are_values() -> None:
    changed = yaml.safe_load(rules_file({"deadLetters": 7, "errorBudget": 0.00001}))
    by_name = {r.get("alert"): r["expr"] for g in changed["groups"] for r in g["rules"]}

    assert by_name["LockstepDeadLetterBacklog"].endswith(" > 7")
    assert by_name["LockstepErrorBudgetFast"].endswith("> 14.4 * 1e-05")
    assert thresholds() == {"disabled": [], **{one.name: one.default for one in THRESHOLDS}}


def test_every_threshold_is_used_by_one_alert_or_by_alerts_of_a_kind() -> None:
    used = [name for alert in ALERTS for name in set(thresholds_in(alert.expression))]

    assert set(used) == {one.name for one in THRESHOLDS}
    assert {name for name in used if used.count(name) > 1} == {"errorBudget"}


def test_an_alert_can_be_left_out_and_the_others_stay() -> None:
    rendered = rules_file({"disabled": ["LockstepStorageSlow", "LockstepDriftRepeated"]})

    left = {r.get("alert") for g in yaml.safe_load(rendered)["groups"] for r in g["rules"]}
    assert alerts().keys() - left == {"LockstepStorageSlow", "LockstepDriftRepeated"}


def test_without_an_operator_there_are_no_alerts_on_it() -> None:
    groups = {group["name"] for group in yaml.safe_load(rules_file(operator=False))["groups"]}

    assert "lockstep-operator" not in groups
    assert "lockstep-queues" in groups


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    pages = {one.stem for one in PAGES.glob("*.md")} - {"README"}

    assert pages == alerts().keys()
    assert set(re.findall(r"\((Lockstep\w+)\.md\)", page("README"))) == pages


@pytest.mark.parametrize("alert", [one.name for one in ALERTS])
def test_a_runbook_says_what_it_means_what_it_does_and_what_to_do(alert: str) -> None:
    text = page(alert)
    declared = next(one for one in ALERTS if one.name == alert)

    assert text.startswith(f"# {alert}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert "```sh\n" in text.split("## Diagnosis")[1].split("## Mitigation")[0]
    assert set(_THRESHOLD_ON_PAGE.findall(text)) == set(thresholds_in(declared.expression))


@pytest.mark.parametrize("name", sorted(one.name for one in PAGES.glob("*.md")))
def test_what_a_runbook_links_to_is_there(name: str) -> None:
    targets = [one for one in _LINK.findall((PAGES / name).read_text()) if "://" not in one]

    assert [one for one in targets if not (PAGES / one).exists()] == []
