"""`lockstep queue`: create, list, show, update and delete queues.

Here belong the commands and how a queue looks. Never here: the options and looks of single settings
(`queue_settings`). The law: nobody loses messages by a command that was not sure.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from lockstep import QueueProperties, QueueRuntimeProperties
from lockstep.cli import queue_settings as options
from lockstep.cli.context import CommandLine, command_line
from lockstep.cli.exits import CommandFailed, ExitCode, Failure
from lockstep.cli.help import Command, Group
from lockstep.cli.options import QueueName, wrong_usage
from lockstep.cli.output import Column
from lockstep.cli.session_looks import age, now
from lockstep.cli.values import (
    described,
    format_size,
    format_time,
    messages_fact,
)
from lockstep.core.errors import EntityAlreadyExists
from lockstep.core.wording import counted

app = typer.Typer(
    cls=Group, help="Create, list, show, update and delete queues; stop sending or receiving."
)


_CREATE = """
Examples:
  lockstep queue create orders --session
  lockstep queue create replies --session --accept-next disabled
  lockstep queue create jobs --lock-duration 2m --max-delivery-count 5
  lockstep queue create jobs --default-ttl 14d --dead-letter-expired
  lockstep queue create jobs --duplicate-detection --duplicate-window 1h
"""


@app.command("create", cls=Command, epilog=_CREATE)
def create(  # noqa: PLR0913 - a parameter for each option
    ctx: typer.Context,
    name: QueueName,
    *,
    session: Annotated[
        bool,
        typer.Option(help="Whether every message has a session and every receiver holds one."),
    ] = False,
    placement: options.PlacementOption = None,
    duplicate_detection: options.DuplicateDetectionOption = False,
    duplicate_window: options.DuplicateWindowOption = None,
    lock_duration: options.LockDurationOption = None,
    max_delivery_count: options.MaxDeliveryCountOption = None,
    default_ttl: options.TimeToLiveOption = None,
    dead_letter_expired: options.DeadLetterExpiredOption = None,
    session_expiry: options.SessionExpiryOption = None,
    status: options.StatusOption = None,
    max_size: options.MaxSizeOption = None,
    max_message_size: options.MaxMessageSizeOption = None,
    max_state_size: options.MaxStateSizeOption = None,
    lock_extension: options.LockExtensionOption = None,
    accept_next: options.NextSessionOption = None,
    recall_on_abandon: options.RecallOption = None,
    release_on_disconnect: options.ReleaseOption = None,
    auto_delete: options.AutoDeleteOption = None,
    state_idle_ttl: options.StateIdleOption = None,
    user_metadata: options.UserMetadataOption = None,
    if_not_exists: Annotated[
        bool, typer.Option("--if-not-exists", help="Leave a queue of this name as it is; exit 0.")
    ] = False,
) -> None:
    """Create a queue.

    With --session every message carries a session id and a receiver holds a session's lock while it
    receives, so messages of one session are handled in order, by one receiver at a time. Whether a
    queue has sessions or duplicate detection, and its placement, are fixed here; everything else can
    be updated later.
    """
    settings = options.given(
        requires_session=session or None,
        placement=placement,
        requires_duplicate_detection=duplicate_detection or None,
        duplicate_detection_history_time_window=duplicate_window,
        lock_duration=lock_duration,
        max_delivery_count=max_delivery_count,
        default_message_time_to_live=default_ttl,
        dead_lettering_on_message_expiration=dead_letter_expired,
        session_expiry=session_expiry,
        status=status,
        max_size_in_megabytes=max_size,
        max_message_size_in_kilobytes=max_message_size,
        max_session_state_size_in_kilobytes=max_state_size,
        session_lock_extension=lock_extension,
        accept_next=accept_next,
        recall_on_abandon=recall_on_abandon,
        release_on_disconnect=release_on_disconnect,
        auto_delete_on_idle=auto_delete,
        session_state_idle_ttl=state_idle_ttl,
        user_metadata=user_metadata,
    )
    _create(command_line(ctx), name, settings, if_not_exists=if_not_exists)


def _create(line: CommandLine, name: str, settings: dict[str, Any], *, if_not_exists: bool) -> None:
    """Create a queue and say what to do next."""
    with line.connect() as client, client.get_administration_client() as administration:
        try:
            queue = administration.create_queue(name, **settings)
        except EntityAlreadyExists:
            if not if_not_exists:
                raise
            queue, verb = administration.get_queue(name), "exists"
        else:
            verb = "created"
    if line.output.is_json:
        line.output.data({**described(queue), "created": verb == "created"})
        return
    if verb == "exists":
        line.output.say(f"The {_kind(queue)} {queue.name} exists already; it was left as it is.")
        return
    line.output.say(f"Created the {_kind(queue)} {queue.name}.")
    flag = " --session A" if queue.requires_session else ""
    line.output.note(f"Next: lockstep send {queue.name}{flag}{line.where} 'hello'")


_LIST = """
Examples:
  lockstep queue list
  lockstep queue list --json | jq -r '.[].name'
"""


@app.command("list", cls=Command, epilog=_LIST)
def list_(ctx: typer.Context) -> None:
    """List the queues of the namespace and what each holds.

    Messages are those that are ready or being worked on; dead letters are what could not be processed
    and was set aside. Unsettled messages were received and neither completed nor given back yet.
    """
    line = command_line(ctx)
    with line.connect() as client, client.get_administration_client() as administration:
        runtimes = {r.name: r for r in administration.list_queues_runtime_properties()}
        queues = [queue for queue in administration.list_queues() if queue.name in runtimes]
    found = [(queue, runtimes[queue.name]) for queue in queues]
    if line.output.is_json:
        line.output.data([described(queue) | described(runtime) for queue, runtime in found])
        return
    if not found:
        line.output.note(
            f"The namespace {line.namespace} has no queues. Make one: lockstep queue create orders --session"
        )
        return
    line.output.table(
        (
            Column("QUEUE"),
            Column("KIND"),
            Column("STATUS"),
            Column("MESSAGES", is_number=True),
            Column("UNSETTLED", is_number=True),
            Column("DEAD LETTERS", is_number=True),
            Column("SESSIONS", is_number=True),
            Column("HELD", is_number=True),
            Column("SIZE", is_number=True),
        ),
        (_list_row(queue, runtime) for queue, runtime in found),
    )


_SHOW = """
Examples:
  lockstep queue show orders
  lockstep queue show orders --json | jq .active_message_count
"""


@app.command("show", cls=Command, epilog=_SHOW)
def show(ctx: typer.Context, name: QueueName) -> None:
    """Show a queue: its settings, and what it holds at this moment."""
    line = command_line(ctx)
    with line.connect() as client, client.get_administration_client() as administration:
        queue = administration.get_queue(name)
        runtime = administration.get_queue_runtime_properties(name)
    if line.output.is_json:
        line.output.data(described(queue) | described(runtime))
        return
    line.output.say(f"{queue.name}, a {_kind(queue)}, created {format_time(queue.created_at_utc)}")
    line.output.say("")
    line.output.facts(options.setting_facts(queue))
    line.output.say("")
    line.output.facts(_runtime_facts(queue, runtime))


_UPDATE = """
Examples:
  lockstep queue update orders --lock-duration 2m
  lockstep queue update orders --default-ttl 14d --dead-letter-expired
  lockstep queue update orders --max-delivery-count 5 --user-metadata billing
  lockstep queue update orders --state-idle-ttl 7d
"""


@app.command("update", cls=Command, epilog=_UPDATE)
def update(  # noqa: PLR0913 - a parameter for each option
    ctx: typer.Context,
    name: QueueName,
    *,
    duplicate_window: options.DuplicateWindowOption = None,
    lock_duration: options.LockDurationOption = None,
    max_delivery_count: options.MaxDeliveryCountOption = None,
    default_ttl: options.TimeToLiveOption = None,
    dead_letter_expired: options.DeadLetterExpiredOption = None,
    session_expiry: options.SessionExpiryOption = None,
    status: options.StatusOption = None,
    max_size: options.MaxSizeOption = None,
    max_message_size: options.MaxMessageSizeOption = None,
    max_state_size: options.MaxStateSizeOption = None,
    lock_extension: options.LockExtensionOption = None,
    accept_next: options.NextSessionOption = None,
    recall_on_abandon: options.RecallOption = None,
    release_on_disconnect: options.ReleaseOption = None,
    auto_delete: options.AutoDeleteOption = None,
    state_idle_ttl: options.StateIdleOption = None,
    user_metadata: options.UserMetadataOption = None,
) -> None:
    """Change settings of a queue; what is not named stays as it is.

    The change holds for what happens from now on: a lock that is held keeps its end until it is
    renewed, and a message that is stored keeps its time to live. Whether a queue has sessions or
    duplicate detection, and its placement, cannot be changed.
    """
    line = command_line(ctx)
    changes = options.given(
        duplicate_detection_history_time_window=duplicate_window,
        lock_duration=lock_duration,
        max_delivery_count=max_delivery_count,
        default_message_time_to_live=default_ttl,
        dead_lettering_on_message_expiration=dead_letter_expired,
        session_expiry=session_expiry,
        status=status,
        max_size_in_megabytes=max_size,
        max_message_size_in_kilobytes=max_message_size,
        max_session_state_size_in_kilobytes=max_state_size,
        session_lock_extension=lock_extension,
        accept_next=accept_next,
        recall_on_abandon=recall_on_abandon,
        release_on_disconnect=release_on_disconnect,
        auto_delete_on_idle=auto_delete,
        session_state_idle_ttl=state_idle_ttl,
        user_metadata=user_metadata,
    )
    if not changes:
        raise wrong_usage(ctx, "Name at least one setting to change.")
    with line.connect() as client, client.get_administration_client() as administration:
        queue = administration.update_queue(name, **changes)
    if line.output.is_json:
        line.output.data(described(queue))
        return
    line.output.say(f"Updated {queue.name}.")
    line.output.facts(options.setting_facts(queue))


_STATUS = """
Examples:
  lockstep queue status orders
  lockstep queue status orders receive-disabled
  lockstep queue status orders active
"""


@app.command("status", cls=Command, epilog=_STATUS)
def status_(
    ctx: typer.Context,
    name: QueueName,
    wanted: Annotated[
        options.Status | None,
        typer.Argument(
            metavar="[STATUS]",
            help="active, disabled, send-disabled or receive-disabled; none shows the status.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show or set what a queue allows: sending and receiving, one of them, or neither.

    What is refused fails at once and says so; messages, locks and settings stay as they are. Who has
    messages in hand when receiving is disabled can still complete them. Looking, with
    `lockstep peek`, is always allowed.
    """
    line = command_line(ctx)
    with line.connect() as client, client.get_administration_client() as administration:
        if wanted is None:
            queue = administration.get_queue(name)
        else:
            queue = administration.update_queue(name, **options.given(status=wanted))
    if line.output.is_json:
        line.output.data({"name": queue.name, "status": queue.status.value})
        return
    meaning = options.STATUS_MEANING[queue.status]
    line.output.say(f"{queue.name} is {options.choice_text(queue.status)}: {meaning}.")


_DELETE = """
Examples:
  lockstep queue delete orders
  lockstep queue delete orders --yes
"""


@app.command("delete", cls=Command, epilog=_DELETE)
def delete(
    ctx: typer.Context,
    name: QueueName,
    *,
    is_sure: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask; needed where nobody can be asked.")
    ] = False,
    if_empty: Annotated[
        bool,
        typer.Option(
            "--if-empty",
            help="Only if it holds no message, no dead letter and no session state; does not ask.",
        ),
    ] = False,
) -> None:
    """Delete a queue with all its messages, dead letters and session states.

    On a terminal the command says how much would go, and asks. Nothing brings a deleted queue back;
    one that is created under its name later is another queue.
    """
    line = command_line(ctx)
    with line.connect() as client, client.get_administration_client() as administration:
        runtime = administration.get_queue_runtime_properties(name)
        if not is_sure and not if_empty:
            _ask(line, name, _contents(runtime))
        administration.delete_queue(name, if_empty=if_empty)
    if line.output.is_json:
        line.output.data({**described(runtime), "deleted": True})
        return
    line.output.say(f"Deleted {name} with {_contents(runtime)}.")


def _ask(line: CommandLine, name: str, contents: str) -> None:
    """Ask a person whether the queue should go.

    Raises:
        CommandFailed: There is nobody to ask, or the answer was no.
    """
    if line.output.is_json or not sys.stdin.isatty():
        message = (
            f"Deleting {name} takes {contents} with it; nothing was deleted. Confirm with --yes."
        )
        raise CommandFailed(Failure("NOT_CONFIRMED", message, ExitCode.USAGE))
    if not typer.confirm(f"Delete {name} with {contents}?", err=True):
        raise CommandFailed(Failure("NOT_CONFIRMED", "Nothing was deleted.", ExitCode.FAILED))


def _kind(queue: QueueProperties) -> str:
    return "session queue" if queue.requires_session else "plain queue"


def _contents(runtime: QueueRuntimeProperties) -> str:
    """Return what a queue holds, in words."""
    parts = [counted(runtime.active_message_count, "message")]
    if runtime.scheduled_message_count:
        parts.append(counted(runtime.scheduled_message_count, "scheduled message"))
    if runtime.dead_letter_message_count:
        parts.append(counted(runtime.dead_letter_message_count, "dead letter"))
    if runtime.session_count:
        parts.append(counted(runtime.session_count, "session"))
    return ", ".join(parts)


def _list_row(queue: QueueProperties, runtime: QueueRuntimeProperties) -> tuple[str, ...]:
    has_sessions = queue.requires_session
    return (
        queue.name,
        "sessions" if has_sessions else "plain",
        options.choice_text(queue.status),
        str(runtime.active_message_count),
        str(runtime.locked_message_count),
        str(runtime.dead_letter_message_count),
        str(runtime.session_count) if has_sessions else "-",
        str(runtime.locked_session_count) if has_sessions else "-",
        format_size(runtime.size_in_bytes),
    )


def _runtime_facts(
    queue: QueueProperties, runtime: QueueRuntimeProperties
) -> list[tuple[str, str]]:
    """Return what a queue holds, for people."""
    facts = [
        ("Messages", messages_fact(runtime.active_message_count, runtime.locked_message_count)),
        ("Delayed", _delayed_text(runtime)),
        ("Deferred", _deferred_text(runtime)),
        ("Scheduled", f"{runtime.scheduled_message_count:,}"),
        ("Dead letters", f"{runtime.dead_letter_message_count:,}"),
    ]
    if queue.requires_session:
        held = (
            f", {runtime.locked_session_count} held by a receiver" if runtime.session_count else ""
        )
        facts.append(("Sessions", f"{runtime.session_count}{held}"))
    share = runtime.size_in_bytes / (queue.max_size_in_megabytes * 1024 * 1024)
    facts.append(("Size", f"{format_size(runtime.size_in_bytes)}, {share:.0%} of the most allowed"))
    if runtime.accessed_at_utc is not None:
        used = f"{format_time(runtime.accessed_at_utc)} ({age(runtime.accessed_at_utc, now())} ago)"
        facts.append(("Last used", used))
    return facts


def _delayed_text(runtime: QueueRuntimeProperties) -> str:
    count = runtime.delayed_message_count
    return f"{count:,} of these, for an abandon with a delay" if count else "0"


def _deferred_text(runtime: QueueRuntimeProperties) -> str:
    count = runtime.deferred_message_count
    return f"{count:,} of these, received by their numbers only" if count else "0"
