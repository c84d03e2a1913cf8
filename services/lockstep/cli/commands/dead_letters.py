"""`lockstep dlq`: look at dead letters, and at the jobs that repair them.

Here belongs what changes no message: list, jobs, wait, cancel. Never here: starting jobs (`repair`). The law: looking
locks nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from lockstep import SubQueue
from lockstep.cli.context import command_line
from lockstep.cli.help import Command, Group
from lockstep.cli.jobs import COLUMNS, follow, job_json, row, tell_end
from lockstep.cli.messages import Printer
from lockstep.cli.options import QueueName
from lockstep.cli.paging import Cursor, From, Look, check_begin, print_all, rest_of
from lockstep.core.wording import counted
from lockstep.runtime.clock import SystemClock

app = typer.Typer(
    cls=Group,
    help="Look at dead letters; resubmit, purge or move them with jobs that the server carries out.",
)

_LIST = """
Examples:
  lockstep dlq list orders
  lockstep dlq list orders --session A --max 100
  lockstep dlq list orders --reason MaxDeliveryCountExceeded
  lockstep dlq list orders --json | jq -r .dead_letter_reason | sort | uniq -c
"""
_JOBS = """
Examples:
  lockstep dlq jobs orders
  lockstep dlq jobs orders --running --json | jq -r '.[].number'
"""
_WAIT = """
Examples:
  lockstep dlq wait orders 3
  lockstep dlq wait orders 3 --json | jq .matched_message_count
"""
_CANCEL = """
Examples:
  lockstep dlq cancel orders 3
  lockstep dlq cancel orders 3 --json | jq .matched_message_count
"""

Number = Annotated[
    int,
    typer.Argument(
        metavar="JOB", min=1, help="The number of the job in its queue.", show_default=False
    ),
]


@app.command("list", cls=Command, epilog=_LIST)
def list_(
    ctx: typer.Context,
    queue: QueueName,
    *,
    session_id: Annotated[
        str | None, typer.Option("--session", metavar="ID", help="Only those of this session.")
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option("--reason", metavar="TEXT", help="Only those with exactly this reason."),
    ] = None,
    first: From = None,
    cursor: Cursor = None,
    messages_max: Annotated[
        int, typer.Option("--max", min=1, metavar="N", help="At most so many messages.")
    ] = 20,
) -> None:
    """Show dead letters and leave them as they are, in the order in which they were sent.

    Also those that somebody has locked. Nothing is locked, counted or moved. With --json each message
    is one line, with the reason and the description of its death.
    """
    check_begin(ctx, first, cursor)
    look = Look(messages_max, first, cursor, session_id, reason)
    line = command_line(ctx)
    printer = Printer(line.output, dead_letter=True)
    with line.connect() as client:
        receiver = client.get_queue_receiver(queue, sub_queue=SubQueue.DEAD_LETTER)
        print_all(receiver, printer, look)
        if line.output.is_json:
            return
        if not printer.count:
            line.output.note(f"{queue} has no such dead letters.")
        else:
            line.output.note(rest_of(receiver, printer.count, "dead letter", look))


@app.command("jobs", cls=Command, epilog=_JOBS)
def jobs(
    ctx: typer.Context,
    queue: QueueName,
    *,
    running: Annotated[
        bool, typer.Option("--running", help="Only jobs that have not ended.")
    ] = False,
) -> None:
    """List the last 100 jobs on the dead letters of a queue, the newest first.

    Each line shows what a job does and to which dead letters, how it stands, how many messages it took
    and how many it left: those that a receiver has locked, that were resubmitted too often, or that do
    not fit the target.
    """
    line = command_line(ctx)
    with line.connect() as client, client.get_administration_client() as administration:
        found = [
            job
            for job in administration.list_dead_letter_jobs(queue)
            if job.is_running or not running
        ]
    if line.output.is_json:
        line.output.data([job_json(job) for job in found])
        return
    if not found:
        kind = "running jobs" if running else "jobs"
        line.output.note(f"{queue} has no {kind} on its dead letters.")
        return
    now = datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC)
    line.output.table(COLUMNS, (row(job, now) for job in found))
    for job in found:
        if job.error:
            line.output.note(f"Job {job.number} could not go on: {job.error}")


@app.command("wait", cls=Command, epilog=_WAIT)
def wait(ctx: typer.Context, queue: QueueName, number: Number) -> None:
    """Wait for the end of a job, and say what it did.

    The job does not need the wait. Ctrl-C ends the wait and not the job.
    """
    line = command_line(ctx)
    with line.connect() as client, client.get_administration_client() as administration:
        job = administration.get_dead_letter_job(queue, number)
        if not job.is_running:
            tell_end(line, job)
            return
        follow(line, administration, job, None)


@app.command("cancel", cls=Command, epilog=_CANCEL)
def cancel(ctx: typer.Context, queue: QueueName, number: Number) -> None:
    """Let a job end where it is. What it did stays done, and the rest stays where it is.

    A job that has ended already stays as it ended.
    """
    line = command_line(ctx)
    with line.connect() as client, client.get_administration_client() as administration:
        job = administration.cancel_dead_letter_job(queue, number)
    if line.output.is_json:
        line.output.data(job_json(job))
        return
    line.output.say(
        f"Job {job.number} of {queue} is {job.status.value}, with"
        f" {counted(job.matched_message_count, 'message')} taken."
    )
