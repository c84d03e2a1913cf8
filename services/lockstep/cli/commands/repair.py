"""`lockstep dlq resubmit`, `purge` and `move`, and `lockstep sessions dead-letter`: begin jobs, and wait for them.

Here belong the options of jobs. Never here: how a job looks (`jobs`). The law: what cannot be undone is asked for
twice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import typer

from lockstep import AdministrationClient, DeadLetterJob, DeadLetterSelector, PropertyValue
from lockstep.cli.commands.dead_letters import app
from lockstep.cli.context import CommandLine, command_line
from lockstep.cli.exits import CommandFailed, ExitCode, Failure
from lockstep.cli.help import Command
from lockstep.cli.interrupts import held_back
from lockstep.cli.jobs import follow, how_to_go_on, job_json, tell_interrupted, which
from lockstep.cli.options import QueueName, moment, numbers_of, wrong_usage
from lockstep.cli.values import parse_property
from lockstep.core.wording import counted

_RESUBMIT = """
Examples:
  lockstep dlq resubmit orders
  lockstep dlq resubmit orders --session A --at-head
  lockstep dlq resubmit orders --reason Timeout --max-resubmits 3 --rate 100
  lockstep dlq resubmit orders --sequence 5,8-9 --set repaired=yes --by ann
  lockstep dlq resubmit orders --since 2026-01-31T12:00:00Z --dry-run
"""
_PURGE = """
Examples:
  lockstep dlq purge orders --reason TTLExpiredException
  lockstep dlq purge orders --until 2026-01-01T00:00:00Z --dry-run
  lockstep dlq purge orders --property kind=test --yes
"""
_MOVE = """
Examples:
  lockstep dlq move orders orders-parked
  lockstep dlq move orders orders-parked --reason Poison --max 100
  lockstep dlq move orders orders-parked --to-session parked --no-wait
"""
DEAD_LETTER_SESSION = """
Examples:
  lockstep sessions dead-letter orders A --reason 'customer was deleted'
  lockstep sessions dead-letter orders A --by ann --no-wait
"""

Session = Annotated[
    str | None, typer.Option("--session", metavar="ID", help="Only those of this session.")
]
Reason = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help="Only those with exactly this reason."),
]
Since = Annotated[
    datetime | None,
    typer.Option(
        "--since",
        parser=moment,
        metavar="TIME",
        help="Only those that became dead letters then or later.",
    ),
]
Until = Annotated[
    datetime | None,
    typer.Option(
        "--until", parser=moment, metavar="TIME", help="Only those that became dead letters before."
    ),
]
Sequences = Annotated[
    list[str] | None,
    typer.Option(
        "--sequence",
        metavar="NUMBER",
        help="Only these sequence numbers: 5, 5-7 or 5,8-9; may be repeated.",
        show_default=False,
    ),
]
Having = Annotated[
    list[str] | None,
    typer.Option(
        "--property",
        metavar="NAME=TEXT",
        help="Only those with this application property; NAME:=JSON for a number. May be repeated.",
        show_default=False,
    ),
]
Max = Annotated[
    int | None, typer.Option("--max", min=1, metavar="N", help="At most so many, the oldest.")
]
ToSession = Annotated[
    str | None,
    typer.Option("--to-session", metavar="ID", help="Put them into this session, not their own."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=TEXT",
        help="Set this application property; NAME:=JSON for a number. May be repeated.",
        show_default=False,
    ),
]
NewMessageId = Annotated[
    bool, typer.Option("--new-message-id", help="Give them new message ids; default as they are.")
]
AtHead = Annotated[
    bool,
    typer.Option("--at-head", help="Put them back to their old places, not to the tail."),
]
MaxResubmits = Annotated[
    int | None,
    typer.Option(
        "--max-resubmits",
        min=1,
        metavar="N",
        help="Leave those alone that were resubmitted so often already.",
    ),
]
Rate = Annotated[
    int | None, typer.Option("--rate", min=1, metavar="N", help="At most so many in a second.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count; change nothing.")]
Wait = Annotated[
    bool,
    typer.Option("--wait/--no-wait", help="Whether to wait for the end of the job."),
]
By = Annotated[
    str,
    typer.Option("--by", metavar="WHO", help="Who asks, and why; the server's audit log has it."),
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask; needed where nobody can be asked.")
]


@app.command("resubmit", cls=Command, epilog=_RESUBMIT)
def resubmit(  # noqa: PLR0913 - a parameter for each option
    ctx: typer.Context,
    queue: QueueName,
    *,
    session_id: Session = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    sequences: Sequences = None,
    having: Having = None,
    max_count: Max = None,
    to_session_id: ToSession = None,
    setting: Set = None,
    new_message_id: NewMessageId = False,
    at_head: AtHead = False,
    max_resubmits: MaxResubmits = None,
    rate: Rate = None,
    dry_run: DryRun = False,
    waits: Wait = True,
    by: By = "",
) -> None:
    """Put dead letters back into their queue.

    The server does it, batch after batch, also when this command has ended and after a restart: a
    message is in one of the two stores at any time. What is resubmitted counts deliveries from 0 and is
    never taken for a duplicate. It goes to the tail of its session, or of the queue, in the old order;
    with --at-head back to its old place.

    Without a selection all dead letters are taken that are there now. Those that a receiver has locked
    are left to it. --max-resubmits keeps what fails again and again from going round for ever.
    """
    selector = _selector(ctx, session_id, reason, since, until, sequences, having, max_count)
    if at_head and to_session_id is not None:
        raise wrong_usage(ctx, "--at-head is a place in the old session; leave --to-session out.")
    edits = _properties(ctx, setting, "--set")
    _run(
        command_line(ctx),
        queue,
        selector,
        lambda administration: administration.resubmit_dead_letters(
            queue,
            selector,
            to_session_id=to_session_id,
            application_properties=edits,
            new_message_id=new_message_id,
            at_head=at_head,
            max_resubmits=max_resubmits or 0,
            messages_per_second=rate or 0,
            dry_run=dry_run,
            requested_by=by,
        ),
        waits=waits,
    )


@app.command("purge", cls=Command, epilog=_PURGE)
def purge(  # noqa: PLR0913 - a parameter for each option
    ctx: typer.Context,
    queue: QueueName,
    *,
    session_id: Session = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    sequences: Sequences = None,
    having: Having = None,
    max_count: Max = None,
    rate: Rate = None,
    dry_run: DryRun = False,
    is_sure: Yes = False,
    waits: Wait = True,
    by: By = "",
) -> None:
    """Remove dead letters for good.

    On a terminal the command says which, and asks. Nothing brings them back; --dry-run counts them
    first. Without a selection all dead letters are removed that are there now.
    """
    selector = _selector(ctx, session_id, reason, since, until, sequences, having, max_count)
    _run(
        command_line(ctx),
        queue,
        selector,
        lambda administration: administration.purge_dead_letters(
            queue, selector, messages_per_second=rate or 0, dry_run=dry_run, requested_by=by
        ),
        waits=waits,
        asks=not (is_sure or dry_run),
    )


@app.command("move", cls=Command, epilog=_MOVE)
def move(  # noqa: PLR0913 - a parameter for each option
    ctx: typer.Context,
    queue: QueueName,
    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="The queue that they go to.", show_default=False),
    ],
    *,
    session_id: Session = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    sequences: Sequences = None,
    having: Having = None,
    max_count: Max = None,
    to_session_id: ToSession = None,
    setting: Set = None,
    new_message_id: NewMessageId = False,
    max_resubmits: MaxResubmits = None,
    rate: Rate = None,
    dry_run: DryRun = False,
    waits: Wait = True,
    by: By = "",
) -> None:
    """Put dead letters into another queue.

    As resubmit, but for the place. A target with sessions needs --to-session for messages that have
    none; what does not fit the target is left where it is.
    """
    selector = _selector(ctx, session_id, reason, since, until, sequences, having, max_count)
    edits = _properties(ctx, setting, "--set")
    _run(
        command_line(ctx),
        queue,
        selector,
        lambda administration: administration.move_dead_letters(
            queue,
            target,
            selector,
            to_session_id=to_session_id,
            application_properties=edits,
            new_message_id=new_message_id,
            max_resubmits=max_resubmits or 0,
            messages_per_second=rate or 0,
            dry_run=dry_run,
            requested_by=by,
        ),
        waits=waits,
    )


def dead_letter_session(
    ctx: typer.Context,
    queue: QueueName,
    session: Annotated[
        str, typer.Argument(metavar="SESSION", help="The id of the session.", show_default=False)
    ],
    *,
    reason: Annotated[
        str,
        typer.Option("--reason", metavar="TEXT", help="Why; default DeadLetteredByAdministrator."),
    ] = "",
    waits: Wait = True,
    by: By = "",
) -> None:
    """Make the messages of a session dead letters.

    It takes those that are there now, deferred ones too. What a receiver has in hand stays with it, and
    so does the state of the session. `lockstep dlq resubmit --session` brings them back.
    """
    _run(
        command_line(ctx),
        queue,
        DeadLetterSelector(session_id=session),
        lambda administration: administration.dead_letter_session(
            queue, session, reason=reason, requested_by=by
        ),
        waits=waits,
    )


def _run(
    line: CommandLine,
    queue: str,
    selector: DeadLetterSelector,
    start: Callable[[AdministrationClient], DeadLetterJob],
    *,
    waits: bool,
    asks: bool = False,
) -> None:
    """Begin a job, after asking if that is wanted, and wait for its end if that is wanted."""
    with line.connect() as client, client.get_administration_client() as administration:
        count = administration.get_queue_runtime_properties(queue).dead_letter_message_count
        if asks:
            _ask(line, queue, count, selector)
        job = None
        try:
            with held_back():  # whoever interrupts is told the number of the job
                job = start(administration)
        except KeyboardInterrupt:
            if job is not None:
                tell_interrupted(line, job)
            raise
        if waits:
            follow(line, administration, job, None if which(selector) else count)
            return
    if line.output.is_json:
        line.output.data(job_json(job))
    line.output.say(f"Begun: {how_to_go_on(job)}")


def _ask(line: CommandLine, queue: str, count: int, selector: DeadLetterSelector) -> None:
    """Ask a person whether dead letters should go.

    Raises:
        CommandFailed: There is nobody to ask, or the answer was no.
    """
    chosen = which(selector)
    whose = f"the {counted(count, 'dead letter')} of {queue}"
    what = f"those of {whose} with {chosen}" if chosen else whose
    if line.output.is_json or not sys.stdin.isatty():
        message = f"This removes {what} for good; nothing was removed. Confirm with --yes."
        raise CommandFailed(Failure("NOT_CONFIRMED", message, ExitCode.USAGE))
    if not typer.confirm(f"Remove {what} for good?", err=True):
        raise CommandFailed(Failure("NOT_CONFIRMED", "Nothing was removed.", ExitCode.FAILED))


def _selector(
    ctx: typer.Context,
    session_id: str | None,
    reason: str | None,
    since: datetime | None,
    until: datetime | None,
    sequences: list[str] | None,
    having: list[str] | None,
    max_count: int | None,
) -> DeadLetterSelector:
    """Return what the options select."""
    if since is not None and until is not None and until <= since:
        raise wrong_usage(ctx, "--until must be later than --since.")
    return DeadLetterSelector(
        sequence_numbers=numbers_of(ctx, sequences, "--sequence") if sequences else None,
        session_id=session_id,
        reason=reason,
        dead_lettered_since_utc=since,
        dead_lettered_until_utc=until,
        application_properties=_properties(ctx, having, "--property"),
        max_count=max_count,
    )


def _properties(ctx: typer.Context, texts: list[str] | None, name: str) -> dict[str, PropertyValue]:
    """Read the properties of an option."""
    try:
        return dict(map(parse_property, texts or ()))
    except ValueError as error:
        raise typer.BadParameter(str(error), ctx, param_hint=name) from None
