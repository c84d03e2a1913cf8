"""The commands of a cluster: where only a single node was installed, and what their settings become."""

from __future__ import annotations

import socket
import sys
import traceback

import pytest
from pydantic import SecretStr

from lockstep.cli.cluster_processes import OwnerProcess, postgres_settings
from lockstep.cli.commands.cluster import require_cluster_packages
from lockstep.core.errors import InvalidRequest, SettingNotAvailable
from lockstep.runtime.cluster_config import ClusterConfig
from lockstep.runtime.config import ServerConfig, load_config
from lockstep.storage.postgres import PostgresSettings


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


def test_the_limits_of_postgresql_come_from_the_configuration() -> None:
    config = load_config(
        None,
        {
            "cluster.postgres_schema": "ours",
            "cluster.postgres_skew_max_ms": "700",
            "cluster.postgres_call_timeout_ms": "8000",
            "cluster.postgres_open_timeout_ms": "90000",
        },
    )

    assert postgres_settings(config.cluster) == PostgresSettings("ours", 700, 8_000, 90_000)


def test_the_limits_of_postgresql_are_by_default_those_of_the_store() -> None:
    assert postgres_settings(ClusterConfig()) == PostgresSettings()


@pytest.mark.parametrize("name", ["skew_max_ms", "call_timeout_ms", "open_timeout_ms"])
def test_a_limit_of_postgresql_has_a_range(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"postgres_{name}.*a whole number from"):
        load_config(None, {f"cluster.postgres_{name}": "1"})


@pytest.mark.parametrize(
    ("host", "option"),
    [
        ("127.0.0.1", "--owner-port"),
        ("no.such.host.invalid", "--owner-host"),
        ("192.0.2.1", "--owner-host"),  # of documentation, so of no machine (RFC 5737)
    ],
)
async def test_an_address_that_cannot_be_listened_on_names_the_options_of_the_command(
    host: str, option: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cluster = ClusterConfig(
            owner_host=host,
            owner_port=taken.getsockname()[1],
            postgres_dsns=SecretStr("dbname=lockstep"),
        )
        process = OwnerProcess(ServerConfig(cluster=cluster))

        with pytest.raises(InvalidRequest, match=rf"with {option}\."):
            await process.start()


@pytest.mark.parametrize(
    "dsn",
    [
        "hurz=1 password=geheim",
        "postgresqll://lockstep:geheim@db/lockstep",
        "postgresql://lockstep:geheim@db:5432x y/lockstep?hurz=geheim",
        "password=a geheim",
        "dbname=lockstep; password='geheim",
    ],
)
async def test_a_malformed_dsn_is_refused_at_the_start_and_not_shown(dsn: str) -> None:
    """What libpq says of it may quote the password."""
    config = ServerConfig(cluster=ClusterConfig(postgres_dsns=SecretStr(dsn)))

    with pytest.raises(InvalidRequest, match=r"cluster\.postgres_dsns.*--postgres") as refused:
        OwnerProcess(config)

    assert refused.value.details == {"setting": "cluster.postgres_dsns"}
    assert "geheim" not in "".join(traceback.format_exception(refused.value))
