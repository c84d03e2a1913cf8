"""`lockstep owner`, `lockstep frontend`, `lockstep cluster`: the processes of a cluster, and a look at them.

Here belong their flags and what they print. Never here: how a process is put together (`cli.cluster_processes`). The
law: nothing is started before the configuration was read and found right.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from typing import Annotated

import typer

from lockstep.cli.commands.serve import (
    AdminPort,
    ConfigFile,
    HealthPort,
    Host,
    LogFormatChoice,
    LogLevelChoice,
    MetricsPort,
    Port,
    Settings,
    ShowConfig,
    settings_given,
)
from lockstep.cli.context import CommandLine, command_line
from lockstep.cli.help import Group
from lockstep.core.errors import SettingNotAvailable
from lockstep.runtime.config import ServerConfig, load_config, render_config

OWNER_EPILOG = """
Examples:
  lockstep owner --node owner-1 --etcd 127.0.0.1:2379 --postgres postgresql:///lockstep
  lockstep owner --node owner-2 --owner-port 7711 --metrics-port off --health-port off

LOCKSTEP_CLUSTER__POSTGRES_DSNS keeps a password off the command line. Several
databases, as shards, stand with semicolons between them. How long PostgreSQL may
take, and by how much its clock may differ, is set with
  --set cluster.postgres_call_timeout_ms=30000     a commit, or a load
  --set cluster.postgres_open_timeout_ms=300000    the opening of a partition
  --set cluster.postgres_skew_max_ms=5000          its clock and this machine's
"""
FRONTEND_EPILOG = """
Examples:
  lockstep frontend --etcd 127.0.0.1:2379
  lockstep frontend --port 7705 --metrics-port off --health-port off

Any number of front ends may run; clients may use any of them.
"""
PARTITIONS_DEFAULT = "16"
_PACKAGES = ("aetcd", "msgspec", "psycopg")  # the extra `cluster` of pyproject.toml

Etcd = Annotated[
    str | None,
    typer.Option(
        "--etcd", metavar="HOST:PORT,…", help="The members of etcd; default 127.0.0.1:2379."
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option("--cluster", metavar="NAME", help="Name of the cluster; default lockstep."),
]
Partitions = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help=f"Partitions of the cluster; fixed at its creation; default {PARTITIONS_DEFAULT}.",
    ),
]
Node = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Name of this process, unique; default the host's name."),
]
OwnerHost = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Address of the owner service; default 127.0.0.1."),
]
OwnerPort = Annotated[
    str | None, typer.Option(metavar="PORT", help="Port of the owner service; default 7710.")
]
Postgres = Annotated[
    str | None,
    typer.Option("--postgres", metavar="DSN;…", help="The databases, one a shard."),
]

Frontends = Annotated[
    str | None,
    typer.Option(
        "--frontend", metavar="HOST:PORT,…", help="Front ends to ask; they are not in etcd."
    ),
]

app = typer.Typer(cls=Group, name="cluster", help="Look at a cluster, and mend it.")


def _loaded(
    ctx: typer.Context, config: ConfigFile, settings: Settings, named: dict[str, str | None]
) -> ServerConfig:
    flags = {key: str(value) for key, value in named.items() if value is not None}
    given = {**settings_given(ctx, settings or []), **flags}
    chosen = load_config(config, given)
    if chosen.source_of("partitions") == "default":
        chosen = load_config(config, {**given, "partitions": PARTITIONS_DEFAULT})
    return chosen


def require_cluster_packages() -> None:
    """Refuse to go on where the packages are missing that only a cluster needs.

    Raises:
        SettingNotAvailable: One cannot be imported; the message says what to install.
    """
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise SettingNotAvailable(
                f"The commands of a cluster need the package {name}, which is not installed here. Install Lockstep with"
                " its extra `cluster`: pip install 'lockstep-broker[cluster]'; in a checkout: make setup.",
                details={"package": name},
            ) from error


def _show(line: CommandLine, chosen: ServerConfig) -> None:
    if line.output.is_json:
        line.output.data(chosen.model_dump(mode="json"))
    else:
        typer.echo(render_config(chosen), nl=False)


def owner(  # noqa: PLR0913 - a parameter for each option
    ctx: typer.Context,
    *,
    node: Node = None,
    etcd: Etcd = None,
    postgres: Postgres = None,
    cluster: Cluster = None,
    partitions: Partitions = None,
    owner_host: OwnerHost = None,
    owner_port: OwnerPort = None,
    metrics_port: MetricsPort = None,
    health_port: HealthPort = None,
    log_format: LogFormatChoice = None,
    log_level: LogLevelChoice = None,
    config: ConfigFile = None,
    settings: Settings = None,
    show_config: ShowConfig = False,
) -> None:
    """Own partitions of a cluster until Ctrl-C or SIGTERM.

    Owners share the partitions among themselves by leases in etcd and keep them in PostgreSQL. An
    orderly stop hands them over to the others. Clients talk to `lockstep frontend`.
    """
    line = command_line(ctx)
    chosen = _loaded(
        ctx,
        config,
        settings,
        {
            "partitions": partitions,
            "metrics_port": metrics_port,
            "health_port": health_port,
            "log_format": log_format,
            "log_level": log_level,
            "cluster.node": node,
            "cluster.name": cluster,
            "cluster.etcd_endpoints": etcd,
            "cluster.postgres_dsns": postgres,
            "cluster.owner_host": owner_host,
            "cluster.owner_port": owner_port,
        },
    )
    if show_config:
        _show(line, chosen)
        return
    require_cluster_packages()
    from lockstep.cli.cluster_processes import OwnerProcess
    from lockstep.cli.process import run_process

    def greet(served: ServerConfig) -> None:
        if line.output.is_json:
            line.output.data(served.model_dump(mode="json"))
        else:
            line.output.say(f"This owner listens on {chosen.cluster.owner_host}:{served.port}.")

    raise typer.Exit(run_process(chosen, lambda: OwnerProcess(chosen), greet))


def frontend(  # noqa: PLR0913 - a parameter for each option
    ctx: typer.Context,
    *,
    host: Host = None,
    port: Port = None,
    etcd: Etcd = None,
    cluster: Cluster = None,
    partitions: Partitions = None,
    admin_port: AdminPort = None,
    metrics_port: MetricsPort = None,
    health_port: HealthPort = None,
    log_format: LogFormatChoice = None,
    log_level: LogLevelChoice = None,
    config: ConfigFile = None,
    settings: Settings = None,
    show_config: ShowConfig = False,
) -> None:
    """Answer clients over the owners of a cluster, until Ctrl-C or SIGTERM.

    A front end keeps nothing: any of them serves any call. It finds the owners in etcd.
    """
    line = command_line(ctx)
    chosen = _loaded(
        ctx,
        config,
        settings,
        {
            "host": host,
            "port": port,
            "partitions": partitions,
            "admin_port": admin_port,
            "metrics_port": metrics_port,
            "health_port": health_port,
            "log_format": log_format,
            "log_level": log_level,
            "cluster.name": cluster,
            "cluster.etcd_endpoints": etcd,
        },
    )
    if show_config:
        _show(line, chosen)
        return
    require_cluster_packages()
    from lockstep.cli.cluster_processes import FrontendProcess
    from lockstep.cli.process import run_process

    def greet(served: ServerConfig) -> None:
        if line.output.is_json:
            line.output.data(served.model_dump(mode="json"))
        else:
            line.output.say(f"Lockstep serves on {served.host}:{served.port}.")

    raise typer.Exit(run_process(chosen, lambda: FrontendProcess(chosen), greet))


@app.command()
def status(
    ctx: typer.Context,
    *,
    etcd: Etcd = None,
    cluster: Cluster = None,
    partitions: Partitions = None,
    frontends: Frontends = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Show the nodes of a cluster, who owns which partition, and who lags behind.

    Of each node, when its lease was renewed; of each partition, since when it is open, what it holds,
    and how many changes of queue definitions it lacks; of each front end that is named, when etcd told
    it something last, and of which partitions it knows another owner than etcd. A question mark stands
    for what a process did not answer within 2 s; the state of such a node is `silent`, and it keeps its
    partitions until its lease ends. The exit code is 1 when a partition has no owner.
    """
    line = command_line(ctx)
    chosen = _loaded(
        ctx,
        config,
        settings,
        {"partitions": partitions, "cluster.name": cluster, "cluster.etcd_endpoints": etcd},
    )
    require_cluster_packages()
    from lockstep.cli.cluster_status import read_status
    from lockstep.cli.cluster_table import show_status

    named = [one.strip() for one in (frontends or "").split(",") if one.strip()]
    found = asyncio.run(read_status(chosen, named))
    show_status(line.output, found)
    found.refuse_too_few()
    if found.without_owner:
        raise typer.Exit(1)


@app.command(name="next-generation")
def next_generation(
    ctx: typer.Context,
    *,
    postgres: Postgres = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Go on after etcd has lost its data or was restored from a backup.

    Messages, locks and definitions are in PostgreSQL; etcd only says who owns what. An etcd that
    begins anew gives out low numbers, which the databases refuse as old. This command tells the
    databases that a new etcd counts from now on; owners notice within seconds.
    """
    line = command_line(ctx)
    chosen = _loaded(ctx, config, settings, {"cluster.postgres_dsns": postgres})
    require_cluster_packages()
    from lockstep.cli.cluster_status import raise_generation

    # What the store logs is said below; without a handler Python prints it bare.
    logging.getLogger("lockstep").addHandler(logging.NullHandler())
    generation = asyncio.run(raise_generation(chosen))
    if line.output.is_json:
        line.output.data({"generation": generation})
    else:
        line.output.say(f"The generation of etcd is {generation} now. Owners go on within seconds.")
