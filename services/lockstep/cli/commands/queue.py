"""`lockstep queue`: create, list, show, update and delete queues.

Here belong the options of a queue's settings and how a queue looks. Never here: what a setting
does or which values are allowed (the server says that). The law: a setting that is not named is
left to the server's default, or as it is.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from lockstep import QueueProperties, QueueRuntimeProperties
from lockstep.cli.context import DEFAULT_NAMESPACE, CommandLine, command_line
from lockstep.cli.exits import CommandFailed, ExitCode, Failure
from lockstep.cli.help import Command, Group
from lockstep.cli.options import QueueName, duration, wrong_usage
from lockstep.cli.output import Column
from lockstep.cli.values import (
    counted,
    described,
    format_duration,
    format_size,
    format_time,
    messages_fact,
)
from lockstep.core.errors import EntityAlreadyExists

app = typer.Typer(cls=Group, help="Create, list, show, update and delete queues.")


class Placement(StrEnum):
    """Where the messages of a queue live."""

    SINGLE = "single"
    SPREAD = "spread"


class SessionLockExtension(StrEnum):
    """Whether receiving keeps a session's lock alive."""

    ON_RECEIVE = "on-receive"
    OFF = "off"


class AcceptNext(StrEnum):
    """Whether receivers may ask for the next available session."""

    ENABLED = "enabled"
    DISABLED = "disabled"


LockDuration = Annotated[
    timedelta | None,
    typer.Option(
        "--lock-duration",
        parser=duration,
        metavar="DURATION",
        help="How long a lock is held without renewal: 60s, 5m, PT1M; 5 s to 5 min, default 60s.",
    ),
]
MaxDeliveryCount = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Failed deliveries before a message is dead-lettered; default 10."
    ),
]
MaxSize = Annotated[
    int | None,
    typer.Option(
        "--max-size-mib",
        metavar="MIB",
        help="The most that messages and states take; default 1024.",
    ),
]
MaxMessageSize = Annotated[
    int | None,
    typer.Option(
        "--max-message-size-kib",
        metavar="KIB",
        help="The most that one message takes; default 1024.",
    ),
]
MaxStateSize = Annotated[
    int | None,
    typer.Option(
        "--max-session-state-size-kib",
        metavar="KIB",
        help="The most that one session's state takes; default as much as a message.",
    ),
]
LockExtension = Annotated[
    SessionLockExtension | None,
    typer.Option(
        "--session-lock-extension",
        metavar="on-receive|off",
        help="Whether receiving keeps a session's lock alive; default on-receive.",
    ),
]
NextSession = Annotated[
    AcceptNext | None,
    typer.Option(
        "--accept-next",
        metavar="enabled|disabled",
        help="Whether receivers may ask for any available session; default enabled.",
    ),
]
UserMetadata = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Free text for the owner of the queue.")
]

_CREATE = """
Examples:
  lockstep queue create orders --session
  lockstep queue create replies --session --accept-next disabled
  lockstep queue create jobs --lock-duration 2m --max-delivery-count 5
  lockstep queue create jobs --if-not-exists
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
    placement: Annotated[
        Placement | None,
        typer.Option(
            metavar="single|spread",
            help="One partition and one order, or each session on its own; default spread with --session.",
        ),
    ] = None,
    lock_duration: LockDuration = None,
    max_delivery_count: MaxDeliveryCount = None,
    max_size: MaxSize = None,
    max_message_size: MaxMessageSize = None,
    max_state_size: MaxStateSize = None,
    lock_extension: LockExtension = None,
    accept_next: NextSession = None,
    user_metadata: UserMetadata = None,
    if_not_exists: Annotated[
        bool, typer.Option("--if-not-exists", help="Leave a queue of this name as it is; exit 0.")
    ] = False,
) -> None:
    """Create a queue.

    With --session every message carries a session id and a receiver holds a session's lock while it
    receives, so messages of one session are handled in order, by one receiver at a time. Whether a
    queue has sessions, and its placement, are fixed here; everything else can be updated later.
    """
    line = command_line(ctx)
    settings = _given(
        requires_session=session or None,
        placement=placement,
        lock_duration=lock_duration,
        max_delivery_count=max_delivery_count,
        max_size_in_megabytes=max_size,
        max_message_size_in_kilobytes=max_message_size,
        max_session_state_size_in_kilobytes=max_state_size,
        session_lock_extension=lock_extension,
        accept_next=accept_next,
        user_metadata=user_metadata,
    )
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
    if line.namespace != DEFAULT_NAMESPACE:
        flag += f" --namespace {line.namespace}"
    line.output.note(f"Next: lockstep send {queue.name}{flag} 'hello'")


def _given(**settings: object) -> dict[str, Any]:
    """Return the settings that were named on the command line; choices as the client spells them."""
    return {
        name: value.replace("-", "_") if isinstance(value, StrEnum) else value
        for name, value in settings.items()
        if value is not None
    }


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
    line.output.facts(_setting_facts(queue))
    line.output.say("")
    line.output.facts(_runtime_facts(queue, runtime))


_UPDATE = """
Examples:
  lockstep queue update orders --lock-duration 2m
  lockstep queue update orders --max-delivery-count 5 --user-metadata billing
"""


@app.command("update", cls=Command, epilog=_UPDATE)
def update(  # noqa: PLR0913 - a parameter for each option
    ctx: typer.Context,
    name: QueueName,
    *,
    lock_duration: LockDuration = None,
    max_delivery_count: MaxDeliveryCount = None,
    max_size: MaxSize = None,
    max_message_size: MaxMessageSize = None,
    max_state_size: MaxStateSize = None,
    lock_extension: LockExtension = None,
    accept_next: NextSession = None,
    user_metadata: UserMetadata = None,
) -> None:
    """Change settings of a queue; what is not named stays as it is.

    The change holds for what happens from now on: a lock that is held keeps its end until it is
    renewed. Whether a queue has sessions, and its placement, cannot be changed.
    """
    line = command_line(ctx)
    changes = _given(
        lock_duration=lock_duration,
        max_delivery_count=max_delivery_count,
        max_size_in_megabytes=max_size,
        max_message_size_in_kilobytes=max_message_size,
        max_session_state_size_in_kilobytes=max_state_size,
        session_lock_extension=lock_extension,
        accept_next=accept_next,
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
    line.output.facts(_setting_facts(queue))


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
) -> None:
    """Delete a queue with all its messages, dead letters and session states.

    On a terminal the command says how much would go, and asks. Nothing brings a deleted queue back;
    one that is created under its name later is another queue.
    """
    line = command_line(ctx)
    with line.connect() as client, client.get_administration_client() as administration:
        runtime = administration.get_queue_runtime_properties(name)
        if not is_sure:
            _ask(line, name, _contents(runtime))
        administration.delete_queue(name)
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
        str(runtime.active_message_count),
        str(runtime.locked_message_count),
        str(runtime.dead_letter_message_count),
        str(runtime.session_count) if has_sessions else "-",
        str(runtime.locked_session_count) if has_sessions else "-",
        format_size(runtime.size_in_bytes),
    )


def _setting_facts(queue: QueueProperties) -> list[tuple[str, str]]:
    """Return the settings for people; those of sessions only where there are any."""
    facts = [
        ("Lock duration", format_duration(queue.lock_duration)),
        ("Max delivery count", str(queue.max_delivery_count)),
        ("Max size", f"{queue.max_size_in_megabytes} MiB"),
        ("Max message size", f"{queue.max_message_size_in_kilobytes} KiB"),
        ("Placement", queue.placement.value),
    ]
    if queue.requires_session:
        facts += [
            ("Max session state size", f"{queue.max_session_state_size_in_kilobytes} KiB"),
            ("Session lock extension", queue.session_lock_extension.value.replace("_", "-")),
            ("Accept next session", queue.accept_next.value),
        ]
    if queue.user_metadata:
        facts.append(("User metadata", queue.user_metadata))
    return facts


def _runtime_facts(
    queue: QueueProperties, runtime: QueueRuntimeProperties
) -> list[tuple[str, str]]:
    """Return what a queue holds, for people."""
    facts = [
        ("Messages", messages_fact(runtime.active_message_count, runtime.locked_message_count)),
        ("Dead letters", str(runtime.dead_letter_message_count)),
    ]
    if queue.requires_session:
        held = (
            f", {runtime.locked_session_count} held by a receiver" if runtime.session_count else ""
        )
        facts.append(("Sessions", f"{runtime.session_count}{held}"))
    share = runtime.size_in_bytes / (queue.max_size_in_megabytes * 1024 * 1024)
    facts.append(("Size", f"{format_size(runtime.size_in_bytes)}, {share:.0%} of the most allowed"))
    return facts
