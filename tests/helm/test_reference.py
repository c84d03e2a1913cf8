"""The reference of values and fields says what the schemas of today say."""

from __future__ import annotations

import json

from docs.kubernetes_reference import KINDS, pages
from tests.helm.chart import CHART, ROOT


def test_the_pages_are_made_of_the_schemas_of_today() -> None:
    for path, text in pages().items():
        assert path.read_text(encoding="utf-8") == text, "run make reference"


def test_they_name_every_value_and_every_kind() -> None:
    values, kinds = (text for _, text in sorted(pages().items(), reverse=True))
    schema = json.loads((CHART / "values.schema.json").read_text())
    for key, one in schema["properties"].items():
        assert key == "global" or f"`{key}" in values, (key, one)
    assert "`networkPolicy.apiServerPorts`" in values
    definitions = {one.stem for one in (ROOT / "operator" / "lockstep_operator" / "crds").iterdir()}
    assert definitions == set(KINDS)
    assert "`spec.selector.sequenceNumbers`" in kinds
    assert "`status.countDetails.deadLetterMessageCount`" in kinds
