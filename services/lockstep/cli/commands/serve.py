"""`lockstep serve`: run a broker in this process.

Here belong the flags of the main settings and the text that says what to type next. Never here: what
a setting means (`runtime.config`), or how the server is put together (`cli.composition`). The laws:
nothing is started before the configuration was read and found right; nobody is told to use a server
before it serves.
"""

from __future__ import annotations

import os
import shutil
import sys
from enum import StrEnum
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from lockstep.cli.context import DEFAULT_SERVER, DISTRIBUTION, command_line
from lockstep.cli.output import Output
from lockstep.runtime.config import ServerConfig, load_config, render_config

EPILOG = """
Examples:
  lockstep serve
  lockstep serve --store memory --port 7800
  lockstep serve --host 0.0.0.0 --data-dir /var/lib/lockstep --log-format json
  lockstep serve --config lockstep.toml --set limits.queues_max=50
  lockstep serve --show-config > lockstep.toml

Each setting can come from a flag, from the environment (LOCKSTEP_PORT,
LOCKSTEP_LIMITS__QUEUES_MAX) or from the file; the first of these wins.
--show-config lists all settings.
"""

_EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Store(StrEnum):
    """Where messages are kept."""

    SQLITE = "sqlite"
    MEMORY = "memory"


class LogFormat(StrEnum):
    """How logs look."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The least severe events that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


Host = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Address to listen on; 0.0.0.0 = every interface; default 127.0.0.1.",
    ),
]
Port = Annotated[
    str | None, typer.Option(metavar="PORT", help="Port of data and admin calls; default 7700.")
]
AdminPort = Annotated[
    str | None,
    typer.Option(metavar="PORT|off", help="Port of the admin service alone; default off."),
]
HealthPort = Annotated[
    str | None, typer.Option(metavar="PORT|off", help="Port of /healthz and /readyz; default 7702.")
]
MetricsPort = Annotated[
    str | None, typer.Option(metavar="PORT|off", help="Port of /metrics; default 9464.")
]
DataDir = Annotated[
    str | None,
    typer.Option(
        metavar="DIRECTORY", help="Directory of the store's files; default ~/.local/share/lockstep."
    ),
]
StoreChoice = Annotated[
    Store | None,
    typer.Option(
        "--store",
        metavar="sqlite|memory",
        help="Where messages are kept; memory forgets them at exit; default sqlite.",
    ),
]
Partitions = Annotated[
    str | None,
    typer.Option(metavar="N", help="Partitions; fixed when the store is made; default 1."),
]
LogFormatChoice = Annotated[
    LogFormat | None,
    typer.Option("--log-format", metavar="json|console", help="How logs look; default console."),
]
LogLevelChoice = Annotated[
    LogLevel | None,
    typer.Option(
        "--log-level",
        metavar="debug|info|warning|error",
        help="The least severe events that are logged; default info.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar="LOCKSTEP_CONFIG",
        help="A TOML file with settings.",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any other setting, by its name in --show-config.",
        show_default=False,
    ),
]
ShowConfig = Annotated[
    bool,
    typer.Option(
        "--show-config",
        help="Print every setting, its value and where it came from; start nothing.",
    ),
]


def serve(  # noqa: PLR0913 - a parameter for each option
    ctx: typer.Context,
    *,
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    store: StoreChoice = None,
    partitions: Partitions = None,
    metrics_port: MetricsPort = None,
    health_port: HealthPort = None,
    admin_port: AdminPort = None,
    log_format: LogFormatChoice = None,
    log_level: LogLevelChoice = None,
    config: ConfigFile = None,
    settings: Settings = None,
    show_config: ShowConfig = False,
) -> None:
    """Run a broker in this process until Ctrl-C or SIGTERM.

    One process is a whole broker: it takes calls, keeps messages and session locks in files of its
    data directory, and needs nothing else installed. Logs go to standard error. An orderly stop
    finishes what was begun; what was acknowledged survives a crash too.
    """
    line = command_line(ctx)
    named = {
        "host": host,
        "port": port,
        "data_dir": data_dir,
        "store": store,
        "partitions": partitions,
        "metrics_port": metrics_port,
        "health_port": health_port,
        "admin_port": admin_port,
        "log_format": log_format,
        "log_level": log_level,
    }
    flags = {key: str(value) for key, value in named.items() if value is not None}
    chosen = load_config(config, {**settings_given(ctx, settings or []), **flags})
    if show_config:
        if line.output.is_json:
            line.output.data(chosen.model_dump(mode="json"))
        else:
            typer.echo(render_config(chosen), nl=False)
        return
    from lockstep.cli.composition import run_server

    raise typer.Exit(run_server(chosen, lambda served: _greet(line.output, served)))


def _greet(output: Output, served: ServerConfig) -> None:
    """Say that the server serves: to a person what to type next, to a program with which settings."""
    if output.is_json:
        output.data(served.model_dump(mode="json"))
    else:
        output.say(welcome(served))


def settings_given(ctx: typer.Context, given: list[str]) -> dict[str, str]:
    """Return the settings that --set gave.

    Raises:
        BadParameter: One is no KEY=VALUE.
    """
    settings: dict[str, str] = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not separator:
            raise typer.BadParameter(f"write KEY=VALUE, not {text!r}.", ctx, param_hint="--set")
        settings[key.strip()] = value.strip()
    return settings


def welcome(config: ServerConfig) -> str:
    """Return what a person should know who just started this server: where it is and what to type next.

    Args:
        config: With the ports that it listens on, none of them 0.
    """
    kept = (
        "in memory only: they are gone when the server stops"
        if config.store == "memory"
        else f"in {config.data_dir.absolute()}, synced to disk before they are acknowledged"
    )
    address = client_address(config)
    lines = [
        f"Lockstep {installed_version(DISTRIBUTION)} serves on {address}.",
        f"Messages are kept {kept}.",
        "",
        "What to type next, in another terminal:",
    ]
    if address != DEFAULT_SERVER:
        lines.append(f"  export LOCKSTEP_SERVER={address}")
    program = _program()
    lines += [
        f"  {program} queue create orders --session",
        f"  {program} send orders --session A --count 5 'step {{n}}'",
        f"  {program} receive orders",
        f"  {program} sessions list orders",
        "",
    ]
    if config.metrics_port is not None:
        lines.append(f"Metrics: {_url(config, config.metrics_port)}/metrics")
    if config.health_port is not None:
        lines.append(f"Health:  {_url(config, config.health_port)}/readyz")
    lines.append("Stop with Ctrl-C.")
    return "\n".join(lines) + "\n"


def _program() -> str:
    """Return what to type for this command line: its name where the shell finds it, else how it was started."""
    if shutil.which("lockstep"):
        return "lockstep"
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        python = Path(sys.executable)
        found = shutil.which(python.name)
        is_found = found is not None and Path(found) == python
        return f"{python.name if is_found else os.path.relpath(python)} -m lockstep"
    return os.path.relpath(started) if started.name == "lockstep" else "lockstep"


def client_address(config: ServerConfig) -> str:
    """Return the address at which a client on this machine reaches the server."""
    return f"{_reachable_host(config)}:{config.port}"


def _reachable_host(config: ServerConfig) -> str:
    host = _EVERY_INTERFACE.get(config.host, config.host)
    return f"[{host}]" if ":" in host else host


def _url(config: ServerConfig, port: int) -> str:
    return f"http://{_reachable_host(config)}:{port}"
