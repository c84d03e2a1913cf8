"""The processes of a cluster where something is missing that they need."""

from __future__ import annotations

import sys

import pytest

from lockstep.cli.cluster_processes import OwnerProcess
from lockstep.cli.commands.cluster import require_cluster_packages
from lockstep.core.errors import InvalidRequest, SettingNotAvailable
from lockstep.runtime.cluster_config import ClusterConfig
from lockstep.runtime.config import ServerConfig


@pytest.mark.parametrize("package", ["aetcd", "msgspec", "psycopg"])
def test_a_missing_package_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    require_cluster_packages()
    monkeypatch.setitem(sys.modules, package, None)  # how Python marks what cannot be imported

    with pytest.raises(SettingNotAvailable, match=r"lockstep-broker\[cluster\]") as refused:
        require_cluster_packages()

    assert refused.value.details == {"package": package}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
async def test_an_owner_that_listens_everywhere_must_say_where_it_is_reached(host: str) -> None:
    """Others would call themselves."""
    config = ServerConfig(cluster=ClusterConfig(owner_host=host))

    with pytest.raises(InvalidRequest, match=r"cluster\.advertised_host"):
        OwnerProcess(config)
