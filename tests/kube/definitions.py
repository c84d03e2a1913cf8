"""Our custom resource definitions, as the operator carries them."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml


def definitions() -> list[dict[str, Any]]:
    """Return all of them."""
    folder = resources.files("lockstep_operator").joinpath("crds")
    files = sorted(one.name for one in folder.iterdir() if one.name.endswith(".yaml"))
    return [yaml.safe_load(folder.joinpath(name).read_text()) for name in files]
