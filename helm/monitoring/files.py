"""The files that are made, by where they are.

Here belongs the list. Never here: what is in them. The law: whoever makes them gets the same text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from helm.monitoring.dashboards.entity import ENTITY_PAGE
from helm.monitoring.dashboards.operator import OPERATOR
from helm.monitoring.dashboards.overview import OVERVIEW
from helm.monitoring.dashboards.partitions import PARTITIONS
from helm.monitoring.dashboards.sessions import SESSIONS
from helm.monitoring.panels import as_text
from helm.monitoring.rules import alerts_text, rules_text

DIRECTORY: Final = "helm/lockstep/files"
DASHBOARDS: Final = (OVERVIEW, ENTITY_PAGE, SESSIONS, PARTITIONS, OPERATOR)


def files() -> Mapping[str, str]:
    """Return the text of each file, by its path below `DIRECTORY`."""
    dashboards = {f"dashboards/{one.uid}.json": as_text(one) for one in DASHBOARDS}
    return {"rules.yaml": rules_text(), "alerts.yaml": alerts_text(), **dashboards}
