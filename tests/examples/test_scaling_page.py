"""docs/scaling.md: its ScaledObject is one that the scaler understands, and its table names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from lockstep.core.ids import EntityKey
from lockstep.frontend import scaler_metadata

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")


def test_the_scaled_object_is_understood() -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    body = yaml.safe_load(text)
    [trigger] = body["spec"]["triggers"]

    asked = scaler_metadata.read_metadata(trigger["metadata"], body["metadata"]["namespace"])

    assert (asked.entity, asked.sessions_per_pod) == (EntityKey("shop", "orders"), 8.0)


def test_every_key_and_every_metric_is_told() -> None:
    told = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)

    metrics = [metric.value for metric in scaler_metadata.Metric]
    assert told == ["scalerAddress", *scaler_metadata.KEYS, *metrics]
