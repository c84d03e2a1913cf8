"""The command `lockstep-operator`.

Here belong its words, its signals and its exit codes. Never here: what the operator does (`operator`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

import kopf
import typer

from lockstep.runtime.clock import SystemClock
from lockstep.runtime.ids import SystemIds
from lockstep.runtime.logs import configure_logging
from lockstep_operator.kube import Kube, KubeError
from lockstep_operator.lease import Lease
from lockstep_operator.metrics import OperatorMetrics
from lockstep_operator.operator import LeaseLost, Operator
from lockstep_operator.releasing import release_finalizers
from lockstep_operator.settings import InvalidConfiguration, OperatorSettings, read_settings
from lockstep_operator.watching import WatchEnded, login

log = logging.getLogger(__name__)

_FAILED = 1
_MISUSED = 2

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Keeps queues as they are declared by Queue objects of Kubernetes.",
)
Config = Annotated[
    Path, typer.Option(help="The configuration, YAML; the chart makes it.", show_default=False)
]
LogFormat = Annotated[str, typer.Option(help="json for machines, console for people.")]
LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.")]


@app.command()
def run(config: Config, log_format: LogFormat = "json", log_level: LogLevel = "info") -> None:
    """Watch and work until SIGTERM. Of several operators, the one that holds the Lease works."""
    _prepare_logs(log_format, log_level)
    settings = _read(config)
    try:
        asyncio.run(_run(settings))
    except* (KubeError, LeaseLost, WatchEnded, kopf.LoginError) as group:
        for error in _leaves(group):
            log.error("operator.failed", extra={"error": str(error)})  # noqa: TRY400 - its text says all
        raise SystemExit(_FAILED) from None


@app.command("release-finalizers")
def release(config: Config, log_format: LogFormat = "json", log_level: LogLevel = "info") -> None:
    """Take the operator's finalizer out of all Queue objects, so that none waits for an operator that is gone.

    The queues stay in the broker, with their messages. The chart runs this before it is uninstalled.
    """
    _prepare_logs(log_format, log_level)
    settings = _read(config)

    async def work() -> int:
        clock = SystemClock()
        async with Kube(login, clock=clock, counted=OperatorMetrics().kube_request) as kube:
            # An operator that still works would put each finalizer back.
            lease = Lease(kube, settings.lease, _holder("release-finalizers"), clock)
            async with lease.seized():
                return await release_finalizers(kube, settings)

    try:
        released = asyncio.run(work())
    except (KubeError, kopf.LoginError) as error:
        log.error("release.failed", extra={"error": str(error)})  # noqa: TRY400 - its text says all
        raise SystemExit(_FAILED) from None
    log.info("release.done", extra={"objects": released})


async def _run(settings: OperatorSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stop.set)
    ids = SystemIds()
    holder = _holder(ids.uid()[:8])
    operator = Operator(settings, holder=holder, login=login, clock=SystemClock(), ids=ids)
    log.info("operator.started", extra={"holder": holder, "broker": settings.broker.address})
    await operator.run(stop)
    log.info("operator.stopped")


def _holder(unique: str) -> str:
    return f"{os.environ.get('POD_NAME') or socket.gethostname()}_{unique}"


def _prepare_logs(format: str, level: str) -> None:
    if format not in ("json", "console"):
        raise typer.BadParameter(f"--log-format is json or console, not '{format}'.")
    if level not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter(f"--log-level is debug, info, warning or error, not '{level}'.")
    configure_logging(format, level, sys.stderr)  # type: ignore[arg-type]
    # It tells of each request, and of each retry that `kube` makes too.
    logging.getLogger("kopf").setLevel(logging.WARNING)


def _read(config: Path) -> OperatorSettings:
    try:
        return read_settings(config)
    except InvalidConfiguration as error:
        typer.echo(f"Error: {error}", err=True)
        raise SystemExit(_MISUSED) from None


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for one in group.exceptions:
        found += _leaves(one) if isinstance(one, BaseExceptionGroup) else [one]
    return found


def main() -> None:
    """Run the command."""
    app()
