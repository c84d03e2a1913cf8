"""`lockstep receive`: print messages and settle them.

Here belong the options, the loop and how a message looks. Never here: locks and their tokens (the
client's business). The law: a message is completed only after it was printed and flushed, so what
was removed from the queue was seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, NoReturn

import typer

from lockstep import (
    NEXT_AVAILABLE_SESSION,
    AutoLockRenewer,
    LockstepClient,
    QueueReceiver,
    ReceivedMessage,
    SubQueue,
)
from lockstep.cli.context import CommandLine, command_line
from lockstep.cli.exits import CommandFailed, nothing_there
from lockstep.cli.options import QueueName, duration, wrong_usage
from lockstep.cli.output import Column
from lockstep.cli.values import (
    body_to_json,
    body_to_text,
    counted,
    format_duration,
    format_time,
    property_to_json,
)
from lockstep.core.errors import LockstepError, NoSessionAvailable

EPILOG = """
Examples:
  lockstep receive orders
  lockstep receive orders --session A --max 100
  lockstep receive orders --follow
  lockstep receive orders --dead-letter-queue --no-complete
  lockstep receive orders --max 1000 --json > orders.jsonl

Exit code 6 says that nothing came, no message or no session, in the time of
--wait.
"""

_CALL_MESSAGES_MAX = 500
# Locks are kept as long as the command runs, however slowly its output is read.
_RENEWAL_S = 365 * 24 * 3600
_BROKER_PROPERTIES = ("DeadLetterReason", "DeadLetterErrorDescription", "DeadLetterSource")
_TEXT_PROPERTIES = (
    "session_id",
    "message_id",
    "correlation_id",
    "subject",
    "to",
    "reply_to",
    "reply_to_session_id",
    "content_type",
    "partition_key",
    "dead_letter_reason",
    "dead_letter_error_description",
)


_COLUMNS = (
    Column("SEQUENCE", is_number=True),
    Column("SESSION"),
    Column("ENQUEUED"),
    Column("TRIES", is_number=True),
    Column("BODY"),
)
_COLUMNS_OF_DEAD_LETTERS = (*_COLUMNS[:-1], Column("REASON"), _COLUMNS[-1])


class Outcome(Enum):
    """What happens to a message after it was printed."""

    COMPLETE = "completed: removed from the queue"
    ABANDON = "abandoned: given back, delivery count one higher"
    RELEASE = "given back: in place again, delivery count unchanged"


SessionId = Annotated[
    str | None, typer.Option("--session", metavar="ID", help="Receive from this session.")
]
NextSession = Annotated[
    bool,
    typer.Option("--next-session", help="Receive from any session that has messages; the default."),
]
Max = Annotated[
    int,
    typer.Option(
        "--max", min=1, metavar="N", help="At most so many messages; with --follow at a time."
    ),
]
Wait = Annotated[
    timedelta,
    typer.Option(
        "--wait",
        parser=duration,
        metavar="DURATION",
        show_default=False,
        help="How long to wait for a session, and for the first message; default 5s.",
    ),
]
Complete = Annotated[
    bool,
    typer.Option(
        "--complete/--no-complete", help="Whether messages are removed after they were printed."
    ),
]
Abandon = Annotated[
    bool,
    typer.Option("--abandon", help="Give the messages back at once; their delivery count rises."),
]
DeadLetter = Annotated[
    bool,
    typer.Option(
        "--dead-letter-queue",
        "--dlq",
        help="Receive what could not be processed and was set aside.",
    ),
]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Go on with whatever comes, until Ctrl-C.")
]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one run of the command does.

    Attributes:
        queue: The queue.
        session_id: The session, None = a plain queue or a dead-letter store.
        has_sessions: Whether messages come from sessions.
        dead_letter: Whether they come from the dead-letter store.
        messages_max: The most in all; with follow, the most at a time.
        wait_s: How long to wait for a session, and for the first message.
        outcome: What happens to the messages.
        follow: Whether to go on when nothing more comes.
    """

    queue: str
    session_id: str | None
    has_sessions: bool
    dead_letter: bool
    messages_max: int
    wait_s: float
    outcome: Outcome
    follow: bool


def receive(  # noqa: PLR0913 - a parameter for each option
    ctx: typer.Context,
    queue: QueueName,
    *,
    session_id: SessionId = None,
    next_session: NextSession = False,
    messages_max: Max = 10,
    wait: Wait = timedelta(seconds=5),
    complete: Complete = True,
    abandon: Abandon = False,
    dead_letter: DeadLetter = False,
    follow: Follow = False,
) -> None:
    """Print messages of a queue, and complete them.

    Each message is printed and then completed, which removes it from the queue. On a session queue
    the command takes the lock of a session, of the one you name or of any that has messages, and gives
    it back at the end; messages come in the order of the session.

    To look without removing, use --no-complete: the messages are back in their place when the command
    ends, and their delivery count is unchanged. Until then nobody else receives them.

    With --json each message is one line, which `lockstep send --jsonl` takes. A body that is not UTF-8
    text is printed as base64 and says so.
    """
    line = command_line(ctx)
    if session_id is not None and next_session:
        raise wrong_usage(ctx, "Choose one of --session and --next-session.")
    if dead_letter and (session_id is not None or next_session):
        raise wrong_usage(ctx, "A dead-letter queue has no sessions; leave --session out.")
    if follow and (abandon or not complete):
        raise wrong_usage(
            ctx, "--follow completes what it prints: what is given back would come again and again."
        )
    with line.connect() as client:
        has_sessions = not dead_letter and _has_sessions(client, queue)
        if not has_sessions and (session_id is not None or next_session):
            raise wrong_usage(ctx, f"{queue} is a plain queue; leave --session out.")
        plan = _Plan(
            queue=queue,
            session_id=session_id,
            has_sessions=has_sessions,
            dead_letter=dead_letter,
            messages_max=messages_max,
            wait_s=wait.total_seconds(),
            outcome=Outcome.ABANDON
            if abandon
            else Outcome.COMPLETE
            if complete
            else Outcome.RELEASE,
            follow=follow,
        )
        _run(line, client, plan)


def _has_sessions(client: LockstepClient, queue: str) -> bool:
    """Ask the server whether the queue has sessions."""
    with client.get_administration_client() as administration:
        return administration.get_queue(queue).requires_session


def _run(line: CommandLine, client: LockstepClient, plan: _Plan) -> None:
    """Receive as planned.

    Raises:
        CommandFailed: Nothing came.
    """
    printer = _Printer(line, dead_letter=plan.dead_letter)
    takes_any = plan.has_sessions and plan.session_id is None
    if takes_any:
        line.output.note(
            f"{plan.queue} is a session queue: taking the next session that has messages "
            "(--session names one)."
        )
    if plan.follow:
        _follow(line, client, plan, printer)
    _receive_once(line, client, plan, printer)
    if printer.count == 0:
        raise _nothing_came(plan)
    _conclude(line, plan, printer)


def _follow(line: CommandLine, client: LockstepClient, plan: _Plan, printer: _Printer) -> NoReturn:
    """Receive until somebody presses Ctrl-C, from one session after the other where any will do."""
    try:
        while True:
            with suppress(NoSessionAvailable):
                _receive_once(line, client, plan, printer)
    except KeyboardInterrupt:
        _conclude(line, plan, printer)
        raise


def _receive_once(
    line: CommandLine, client: LockstepClient, plan: _Plan, printer: _Printer
) -> None:
    """Open one receiver, in a session or not, and print what it gives."""
    renewer = AutoLockRenewer(_RENEWAL_S, on_lock_renew_failure=_settling_tells)
    with renewer, _open(client, plan, renewer) as receiver:
        if plan.has_sessions:
            session = receiver.session
            line.output.note(f"Holding session {session.session_id!r}.")
        in_hand: list[ReceivedMessage] = []
        try:
            for messages in _batches(receiver, plan):
                in_hand += messages
                printer.print(messages)
                if plan.outcome is Outcome.COMPLETE:
                    _settle(receiver, in_hand, plan.outcome)
                    in_hand = []
            if in_hand:
                _settle(receiver, in_hand, plan.outcome)
        except BaseException:
            # Nobody saw the end of them: the reader of the pipe went away, or Ctrl-C was pressed.
            with suppress(LockstepError):
                receiver.release_messages(in_hand)
            raise


def _settling_tells(_lost: object, _why: LockstepError) -> None:
    """Do nothing about a lost lock: the settlement that follows fails and says why."""


def _open(client: LockstepClient, plan: _Plan, renewer: AutoLockRenewer) -> QueueReceiver:
    options: dict[str, Any] = {"max_wait_time": plan.wait_s, "auto_lock_renewer": renewer}
    if plan.dead_letter:
        options["sub_queue"] = SubQueue.DEAD_LETTER
    elif plan.has_sessions:
        named = plan.session_id
        options["session_id"] = NEXT_AVAILABLE_SESSION if named is None else named
    return client.get_queue_receiver(plan.queue, **options)


def _batches(receiver: QueueReceiver, plan: _Plan) -> Iterator[Sequence[ReceivedMessage]]:
    """Yield what comes until enough came, or nothing more does.

    Only the first call waits: a server answers with what it has, so what is missing after it was not
    there.
    """
    left = plan.messages_max
    wait_s = plan.wait_s
    stays = plan.follow and (plan.session_id is not None or not plan.has_sessions)
    while left > 0:
        messages = receiver.receive_messages(
            max_message_count=min(left, _CALL_MESSAGES_MAX), max_wait_time=wait_s
        )
        if messages:
            yield messages
        elif not stays:
            return
        if not plan.follow:
            left -= len(messages)
            wait_s = 0


def _settle(receiver: QueueReceiver, messages: Sequence[ReceivedMessage], outcome: Outcome) -> None:
    """Do with printed messages what was asked for.

    Raises:
        LockstepError: A message could not be settled; it will come again.
    """
    settle = {
        Outcome.COMPLETE: receiver.complete_messages,
        Outcome.ABANDON: receiver.abandon_messages,
        Outcome.RELEASE: receiver.release_messages,
    }
    if failures := settle[outcome](messages):
        raise failures[0].error


def _nothing_came(plan: _Plan) -> CommandFailed:
    """Return the end of a command that waited in vain."""
    what = "dead letters" if plan.dead_letter else "messages"
    session = "" if plan.session_id is None else f"session {plan.session_id!r} of "
    waited = format_duration(timedelta(seconds=plan.wait_s))
    return nothing_there(f"No {what} came from {session}{plan.queue} in {waited}.")


def _conclude(line: CommandLine, plan: _Plan, printer: _Printer) -> None:
    """Say how much came and what became of it."""
    line.output.note(f"{counted(printer.count, 'message')} received and {plan.outcome.value}.")


class _Printer:
    """Prints messages as they come, and counts them."""

    def __init__(self, line: CommandLine, *, dead_letter: bool) -> None:
        self._output = line.output
        self._dead_letter = dead_letter
        self.count = 0

    def print(self, messages: Sequence[ReceivedMessage]) -> None:
        """Print and flush, so that the messages may be completed."""
        if self._output.is_json:
            for message in messages:
                self._output.data(message_json(message))
        else:
            self._output.table(
                _COLUMNS_OF_DEAD_LETTERS if self._dead_letter else _COLUMNS,
                (_row(message, dead_letter=self._dead_letter) for message in messages),
                has_headings=self.count == 0,
            )
        self.count += len(messages)


def _row(message: ReceivedMessage, *, dead_letter: bool) -> tuple[str, ...]:
    return (
        str(message.sequence_number),
        message.session_id if message.session_id is not None else "",
        format_time(message.enqueued_time_utc),
        str(message.delivery_count),
        *([message.dead_letter_reason or ""] if dead_letter else []),
        body_to_text(message.body),
    )


def message_json(message: ReceivedMessage) -> dict[str, Any]:
    """Return a message as `lockstep send --jsonl` reads it; what it does not have is left out."""
    described: dict[str, Any] = {
        "sequence_number": message.sequence_number,
        "enqueued_time_utc": format_time(message.enqueued_time_utc),
        "delivery_count": message.delivery_count,
    }
    for name in _TEXT_PROPERTIES:
        value = getattr(message, name)
        if value is not None:
            described[name] = value
    properties = {
        name: property_to_json(value)
        for name, value in message.application_properties.items()
        if name not in _BROKER_PROPERTIES
    }
    if properties:
        described["application_properties"] = properties
    described |= body_to_json(message.body)
    return described
