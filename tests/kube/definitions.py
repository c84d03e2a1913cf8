"""Our custom resource definitions, as the operator carries them."""

from __future__ import annotations

from typing import Any

from lockstep_operator.definitions import built_definitions


def definitions() -> list[dict[str, Any]]:
    """Return all of them."""
    return [dict(one) for one in built_definitions()]
