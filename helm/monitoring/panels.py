"""Panels and dashboards of Grafana, as JSON.

Here belongs what Grafana wants to read. Never here: what a dashboard shows (`dashboards`). The law: the same dashboard
comes out as the same text, with the same uid, so that links and permissions outlive an update.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from helm.monitoring.expressions import OF_DASHBOARD, scoped

_SCHEMA: Final = 39
_COLUMNS: Final = 24
_DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_HEIGHTS: Final = {"stat": 4}
_HEIGHT: Final = 8


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: Its title.
        queries: Expressions, without the release, each with the legend of its series.
        kind: timeseries, stat, table, heatmap or state-timeline.
        unit: Grafana's name of the unit: short, s, bytes, percentunit, ops.
        width: Of 24 columns.
        text: What to know about it.
        stacked: Whether series are stacked.
        red_above: Of a stat, above which value it is red; None = never.
    """

    title: str
    queries: Sequence[tuple[str, str]]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    text: str = ""
    stacked: bool = False
    red_above: float | None = None


@dataclass(frozen=True, slots=True)
class Variable:
    """What a reader chooses at the top: its values are those of a label of an expression."""

    name: str
    label: str
    expression: str
    all_too: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard: rows of panels.

    Attributes:
        uid: Never changes.
        title: Its title.
        rows: Titles and panels.
        variables: Beside the datasource and the namespace.
        namespace_of: The metric whose namespaces can be chosen.
    """

    uid: str
    title: str
    rows: Sequence[tuple[str, Sequence[Panel]]]
    variables: Sequence[Variable] = field(default=())
    namespace_of: str = "lockstep_build_info"

    def expressions(self) -> Iterator[str]:
        """Give every expression, those of variables too, without the release."""
        for _, panels in self.rows:
            for panel in panels:
                for expression, _ in panel.queries:
                    yield expression
        for variable in self.variables:
            yield variable.expression


def as_text(dashboard: Dashboard) -> str:
    """Return a dashboard as Grafana imports it."""
    return json.dumps(_dashboard(dashboard), indent=1, ensure_ascii=False) + "\n"


def _dashboard(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["lockstep"],
        "schemaVersion": _SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "links": [
            {
                "type": "dashboards",
                "tags": ["lockstep"],
                "title": "Lockstep",
                "asDropdown": True,
                "keepTime": True,
                "includeVars": True,
            }
        ],
        "templating": {"list": list(_variables(dashboard))},
        "panels": list(_laid_out(dashboard.rows)),
    }


def _variables(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }
    yield _variable(
        "namespace",
        "Namespace",
        f"label_values({dashboard.namespace_of}, namespace)",
        all_too=False,
    )
    for one in dashboard.variables:
        query = f"label_values({scoped(one.expression, OF_DASHBOARD)}, {one.name})"
        yield _variable(one.name, one.label, query, all_too=one.all_too)


def _variable(name: str, label: str, query: str, *, all_too: bool) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "includeAll": all_too,
        "multi": all_too,
        **({"allValue": ".*"} if all_too else {}),
    }


def _laid_out(rows: Sequence[tuple[str, Sequence[Panel]]]) -> Iterator[dict[str, Any]]:
    """Give rows and panels with their places: from left to right, then below."""
    number, top = 1, 0
    for title, panels in rows:
        place = {"h": 1, "w": _COLUMNS, "x": 0, "y": top}
        yield {"id": number, "type": "row", "title": title, "gridPos": place, "panels": []}
        number, top = number + 1, top + 1
        left, highest = 0, 0
        for panel in panels:
            if left + panel.width > _COLUMNS:
                left, top, highest = 0, top + highest, 0
            height = _HEIGHTS.get(panel.kind, _HEIGHT)
            place = {"h": height, "w": panel.width, "x": left, "y": top}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            number, left, highest = number + 1, left + panel.width, max(highest, height)
        top += highest


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": _DATASOURCE,
        "targets": [_target(panel, place) for place in range(len(panel.queries))],
        "fieldConfig": {"defaults": _field_defaults(panel), "overrides": []},
        "options": _options(panel),
        **({"transformations": _TABLE} if panel.kind == "table" else {}),
    }


def _target(panel: Panel, place: int) -> dict[str, Any]:
    expression, legend = panel.queries[place]
    now = panel.kind == "table"
    return {
        "refId": chr(ord("A") + place),
        "datasource": _DATASOURCE,
        "expr": scoped(expression, OF_DASHBOARD),
        "legendFormat": legend,
        "editorMode": "code",
        "range": not now,
        "instant": now,
        "format": {"table": "table", "heatmap": "heatmap"}.get(panel.kind, "time_series"),
    }


_TABLE: Final = [
    {
        "id": "organize",
        "options": {"excludeByName": {"Time": True, "namespace": True, "entity_type": True}},
    }
]


def _field_defaults(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        fill = 30 if panel.stacked else 5
        defaults["custom"] = {"fillOpacity": fill, "showPoints": "never", "stacking": stacking}
        defaults["min"] = 0
    if panel.kind == "stat":
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        if panel.red_above is not None:
            steps.append({"color": "red", "value": panel.red_above})
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return defaults


def _options(panel: Panel) -> dict[str, Any]:
    match panel.kind:
        case "stat":
            return {
                "reduceOptions": {"calcs": ["lastNotNull"]},
                "colorMode": "value",
                "graphMode": "area",
            }
        case "heatmap":
            return {
                "calculate": False,
                "yAxis": {"unit": panel.unit},
                "color": {"scheme": "Oranges"},
            }
        case "timeseries":
            return {
                "legend": {"displayMode": "list", "placement": "bottom"},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        case _:
            return {}
