"""How long the properties are searched: HYPOTHESIS_PROFILE = quick (default), ci or deep.

`ci` draws the same examples every time, so a red run can be run again; it is the default where the
variable CI is set. `deep` is for long runs by hand.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres.database import SharedDatabase
from tests.properties.triplet import TripletRig

_DEFAULT = "ci" if os.environ.get("CI") else "quick"
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", _DEFAULT)

# An example is a whole history, so it is never "too slow"; what counts is how many there are.
_COMMON = settings(
    deadline=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("quick", _COMMON, max_examples=300, stateful_step_count=40)
settings.register_profile(
    "ci", _COMMON, max_examples=300, stateful_step_count=40, derandomize=True, database=None
)
settings.register_profile("deep", _COMMON, max_examples=5_000, stateful_step_count=100)
settings.load_profile(PROFILE)


@pytest.fixture
def triplet_database(shared_database: SharedDatabase) -> None:
    """Where a `TripletRig` keeps its third partition; a test case of hypothesis asks for no fixtures itself."""
    TripletRig.database = shared_database


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give a failing search the time to shrink what it found, and a deep one all the time it wants."""
    limit_s = 0 if PROFILE == "deep" else 600
    for item in items:
        if "properties" in item.path.parts:
            item.add_marker(pytest.mark.timeout(limit_s))
