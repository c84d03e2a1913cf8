"""`lockstep top`: queues and their oldest sessions, looked at again and again.

Here belong the looks and the loop. Never here: how a frame looks (`frames`), a terminal (`output`). The laws: looking
locks nothing and changes nothing; a server that is away for a while does not end the command.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import nsmallest
from itertools import islice
from typing import Annotated, Final

import typer

from lockstep import AdministrationClient, SessionProperties
from lockstep.cli import stored_counts
from lockstep.cli.context import CommandLine, command_line
from lockstep.cli.frames import Look, QueueLook, frame_json, frame_parts
from lockstep.cli.options import duration, wrong_usage
from lockstep.core.errors import EntityNotFound, Moved, OperationTimeout, Unavailable
from lockstep.runtime.clock import SystemClock

EPILOG = """
Examples:
  lockstep top
  lockstep top orders payments --interval 1s --sessions 10
  lockstep top orders --metrics 127.0.0.1:9464
  lockstep top --once
  lockstep top orders --json | jq -c '.queues[0].ready_message_count'
"""
_QUEUES_MAX: Final = 100
_SESSIONS_LOOKED_AT_MAX: Final = 1000
_WAITING: Final = "waiting_receivers"
_INTERVAL_MIN: Final = timedelta(milliseconds=100)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to look at.

    Attributes:
        queues: These, in their order; empty = all of the namespace.
        sessions_max: How many of the oldest sessions of each.
        metrics: Where the counters are; None = nowhere.
    """

    queues: Sequence[str]
    sessions_max: int
    metrics: str | None


def top(
    ctx: typer.Context,
    queues: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[QUEUE]...", help="The queues; none = all of them.", show_default=False
        ),
    ] = None,
    *,
    interval: Annotated[
        timedelta,
        typer.Option(parser=duration, metavar="DURATION", help="How long from look to look."),
    ] = timedelta(seconds=2),
    is_once: Annotated[
        bool, typer.Option("--once", help="Look once and end; one look has no rates.")
    ] = False,
    sessions_max: Annotated[
        int,
        typer.Option(
            "--sessions",
            min=0,
            metavar="N",
            help="How many sessions of each queue: those whose next message waits longest.",
        ),
    ] = 5,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            envvar="LOCKSTEP_METRICS",
            help="Where the server serves its metrics; for IN/S and OUT/S.",
        ),
    ] = None,
) -> None:
    """Show live what queues hold, how fast that changes, and their oldest sessions, until Ctrl-C.

    READY are messages that can be received, now or behind others of their session; RECEIVERS those that hold a
    session or wait for something to come. CHANGE/S is how many messages came per second more than went.
    With --metrics there are IN/S, what was stored, and OUT/S, what left: completed, received for good,
    expired or dead-lettered.

    On a terminal the screen is drawn again with every look. Elsewhere each look is printed; with --json
    it is one line.
    """
    if interval < _INTERVAL_MIN:
        raise wrong_usage(ctx, "--interval must be 100ms or more.")
    line = command_line(ctx)
    plan = _Plan(queues or (), sessions_max, metrics)
    with line.connect() as client, client.get_administration_client() as administration:
        look = _look(line, administration, plan)
        if is_once:
            _print(line, look, None)
            return
        if line.output.is_screen and not line.output.is_json:
            _watch_on_a_screen(line, administration, plan, look, interval)
        _watch(line, administration, plan, look, interval)


# --- the loop ----------------------------------------------------------------------------------------


def _watch(
    line: CommandLine,
    administration: AdministrationClient,
    plan: _Plan,
    look: Look,
    interval: timedelta,
) -> None:
    """Print one frame after the other."""
    before: Look | None = None
    is_away = False
    while True:
        if not is_away:
            _print(line, look, before)
            before = look
        _pause(look, interval)
        try:
            look = _look(line, administration, plan)
        except (Unavailable, Moved, OperationTimeout) as error:
            if not is_away:
                line.output.note(f"The server is away: {error.message}")
            is_away = True
        else:
            is_away = False


def _watch_on_a_screen(
    line: CommandLine,
    administration: AdministrationClient,
    plan: _Plan,
    look: Look,
    interval: timedelta,
) -> None:
    """Draw one frame over the other."""
    before: Look | None = None
    notice = ""
    with line.output.screen() as draw:
        while True:
            draw(frame_parts(look, before, server=line.server, notice=notice))
            _pause(look, interval)
            try:
                seen = _look(line, administration, plan)
            except (Unavailable, Moved, OperationTimeout) as error:
                notice = f"The server is away; this is what was seen last. {error.message}"
            else:
                before, look, notice = look, seen, ""


def _print(line: CommandLine, look: Look, before: Look | None) -> None:
    if line.output.is_json:
        line.output.data(frame_json(look, before))
    else:
        line.output.parts(frame_parts(look, before, server=line.server))


def _pause(look: Look, interval: timedelta) -> None:
    """Wait for the time of the next look; at least a moment, so that nothing is asked without end."""
    passed = timedelta(milliseconds=SystemClock().monotonic_ms() - look.at_ms)
    left = max(interval - passed, _INTERVAL_MIN)
    threading.Event().wait(left.total_seconds())


# --- looking -----------------------------------------------------------------------------------------


def _look(line: CommandLine, administration: AdministrationClient, plan: _Plan) -> Look:
    """Look at the queues once.

    Raises:
        EntityNotFound: A queue that was named is not there.
        Unavailable: The server is away, or its metrics cannot be read.
    """
    clock = SystemClock()
    stored = stored_counts.read(plan.metrics, line.namespace) if plan.metrics else None
    at, at_ms = datetime.fromtimestamp(clock.now_ms() / 1000, UTC), clock.monotonic_ms()
    names, left_out = plan.queues, 0
    if not names:
        all_names = [queue.name for queue in administration.list_queues()]
        names, left_out = all_names[:_QUEUES_MAX], max(0, len(all_names) - _QUEUES_MAX)
    queues: dict[str, QueueLook] = {}
    for name in names:
        try:
            queues[name] = _look_at(administration, name, plan.sessions_max, stored)
        except EntityNotFound:
            if plan.queues:
                raise
            # It was deleted since it was listed.
    return Look(at, at_ms, queues, is_counted=stored is not None, left_out=left_out)


def _look_at(
    administration: AdministrationClient,
    name: str,
    sessions_max: int,
    stored: Mapping[str, int] | None,
) -> QueueLook:
    queue = administration.get_queue(name)
    waiting = administration.explain(name).facts.get(_WAITING)
    sessions, is_cut = _oldest_sessions(
        administration, name, sessions_max if queue.requires_session else 0
    )
    return QueueLook(
        runtime=administration.get_queue_runtime_properties(name),
        has_sessions=queue.requires_session,
        waiting=None if waiting is None else int(waiting),
        sessions=sessions,
        is_cut=is_cut,
        stored=None if stored is None else stored.get(queue.name, 0),
    )


def _oldest_sessions(
    administration: AdministrationClient, name: str, most: int
) -> tuple[list[SessionProperties], bool]:
    """Return the sessions whose next message waits longest, and whether not all were looked at."""
    if not most:
        return [], False
    found = list(islice(administration.list_sessions(name), _SESSIONS_LOOKED_AT_MAX + 1))
    is_cut = len(found) > _SESSIONS_LOOKED_AT_MAX
    last = datetime.max.replace(tzinfo=UTC)
    oldest = nsmallest(
        most,
        found[:_SESSIONS_LOOKED_AT_MAX],
        key=lambda session: (session.oldest_deliverable_at_utc or last, session.session_id),
    )
    return oldest, is_cut
