"""The commands of a cluster where only a single node was installed."""

from __future__ import annotations

import sys

import pytest

from lockstep.cli.commands.cluster import require_cluster_packages
from lockstep.core.errors import SettingNotAvailable


@pytest.mark.parametrize("package", ["aetcd", "msgspec", "psycopg"])
def test_a_missing_package_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    require_cluster_packages()
    monkeypatch.setitem(sys.modules, package, None)  # how Python marks what cannot be imported

    with pytest.raises(SettingNotAvailable, match=r"lockstep-broker\[cluster\]") as refused:
        require_cluster_packages()

    assert refused.value.details == {"package": package}
