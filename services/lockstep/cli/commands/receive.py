"""`lockstep receive`: print messages and settle them.

Here belong the options and the loop. Never here: how a message looks (`messages`); what becomes of it (`outcomes`);
locks and their tokens (the client's business). The law: a message is settled only after it was printed and flushed, so
what was removed from the queue was seen; unless the broker removed it before, as receive-and-delete has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from lockstep import (
    NEXT_AVAILABLE_SESSION,
    AutoLockRenewer,
    LockstepClient,
    QueueReceiver,
    ReceivedMessage,
    ReceiveMode,
    SubQueue,
)
from lockstep.cli.context import CommandLine, command_line
from lockstep.cli.exits import CommandFailed, nothing_there
from lockstep.cli.interrupts import held_back
from lockstep.cli.messages import Printer
from lockstep.cli.options import QueueName, duration, numbers_of, wrong_usage
from lockstep.cli.outages import told
from lockstep.cli.outcomes import Outcome, Settling, check, settle
from lockstep.cli.values import format_duration, format_numbers, parse_property
from lockstep.core.errors import LockstepError, NoSessionAvailable
from lockstep.core.wording import counted

if TYPE_CHECKING:
    from lockstep import PropertyValue

EPILOG = """
Examples:
  lockstep receive orders --follow
  lockstep receive orders --max 1000 --json > orders.jsonl
  lockstep receive orders --session A --deferred 12,15-17
  lockstep receive orders --max 1 --abandon --delay 10m --set tried:=1
  lockstep receive orders --max 1 --dead-letter --reason UnknownCurrency

Exit code 6 says that nothing came, no message or no session, in the time of
--wait.
"""

_CALL_MESSAGES_MAX = 500
# Locks are kept, and --follow waits, as long as the command runs.
_AS_LONG_AS_IT_RUNS_S = 365 * 24 * 3600
# So many numbers of deferred messages are worth a line.
_NUMBERS_SHOWN_MAX = 200


class Mode(StrEnum):
    """Whether messages are locked until they are settled, or gone when they were received."""

    PEEK_LOCK = "peek-lock"
    RECEIVE_AND_DELETE = "receive-and-delete"


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
        help="How long to wait for a session, and for the first message; with --follow, how long to"
        " stay with an empty session when others may have messages; default 5s.",
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
    typer.Option("--abandon", help="Give the messages back; their delivery count rises."),
]
Defer = Annotated[
    bool,
    typer.Option("--defer", help="Set the messages aside, to be received with --deferred only."),
]
ToDeadLetters = Annotated[
    bool,
    typer.Option(
        "--dead-letter", help="Move the messages to the dead-letter queue; say why with --reason."
    ),
]
Delay = Annotated[
    timedelta | None,
    typer.Option(
        "--delay",
        parser=duration,
        metavar="DURATION",
        help="With --abandon: deliver the messages again only after this time, at most 7d. In a session"
        " nothing younger goes before them; in a plain queue the others do.",
        show_default=False,
    ),
]
Reason = Annotated[
    str | None,
    typer.Option(
        "--reason", metavar="TEXT", help="With --dead-letter: why; `lockstep dlq` selects by it."
    ),
]
Description = Annotated[
    str | None,
    typer.Option("--description", metavar="TEXT", help="With --dead-letter: why, in more words."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=TEXT",
        help="With --abandon, --defer or --dead-letter: set an application property of the messages;"
        " NAME:=JSON for a number or a truth value.",
        show_default=False,
    ),
]
Deferred = Annotated[
    list[str] | None,
    typer.Option(
        "--deferred",
        metavar="NUMBER",
        help="Receive deferred messages, all or none: 12, or 12,15-17; with sessions, of --session.",
        show_default=False,
    ),
]
ModeOption = Annotated[
    Mode | None,
    typer.Option(
        "--mode",
        metavar="peek-lock|receive-and-delete",
        help="Whether messages stay stored until they were printed; default peek-lock. With"
        " receive-and-delete the server removes them as it sends them: what gets lost on the way,"
        " with the connection or this command, is lost for good.",
        show_default=False,
    ),
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
        settling: What happens to the messages.
        follow: Whether to go on when nothing more comes.
        deferred: The numbers of deferred messages to receive; empty = those that are not deferred.
    """

    queue: str
    session_id: str | None
    has_sessions: bool
    dead_letter: bool
    messages_max: int
    wait_s: float
    settling: Settling
    follow: bool
    deferred: tuple[int, ...]

    @property
    def takes_any_session(self) -> bool:
        """Whether any session will do."""
        return self.has_sessions and self.session_id is None

    @property
    def is_locking(self) -> bool:
        """Whether there are locks to keep."""
        return self.settling.outcome is not Outcome.NOTHING


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
    defer: Defer = False,
    to_dead_letters: ToDeadLetters = False,
    delay: Delay = None,
    reason: Reason = None,
    description: Description = None,
    properties: Set = None,
    deferred: Deferred = None,
    mode: ModeOption = None,
    dead_letter: DeadLetter = False,
    follow: Follow = False,
) -> None:
    """Print messages of a queue, and complete them.

    Each message is printed and then completed, which removes it from the queue. On a session queue
    the command takes the lock of a session, of the one you name or of any that has messages, and gives
    it back at the end; messages come in the order of the session.

    To look without locking, use `lockstep peek`. With --no-complete the messages are back in their
    place when the command ends, and their delivery count is unchanged; until then nobody else receives
    them. With --defer they are set aside: note their numbers. With --dead-letter they go where a person
    looks at them: `lockstep dlq list` shows them, and `lockstep dlq resubmit` brings them back.

    With --follow the command waits without end, also for a server that is away. The first Ctrl-C lets
    what is in hand be printed and settled; nothing is lost.

    With --json each message is one line, which `lockstep send --jsonl` takes. A body that is not UTF-8
    text is printed as base64 and says so.
    """
    _check_session(ctx, session_id, next_session=next_session, dead_letter=dead_letter)
    chosen = {
        Outcome.NOTHING: mode is Mode.RECEIVE_AND_DELETE,
        Outcome.ABANDON: abandon,
        Outcome.DEFER: defer,
        Outcome.DEAD_LETTER: to_dead_letters,
        Outcome.RELEASE: not complete,
    }
    edits = _properties(ctx, properties)
    settling = Settling(_outcome(ctx, chosen), delay, reason, description, edits)
    check(ctx, settling, dead_letter=dead_letter, follow=follow)
    numbers = _numbers(ctx, deferred or [], is_alone=not (follow or next_session))
    line = command_line(ctx)
    with line.connect() as client:
        has_sessions = not dead_letter and _has_sessions(client, queue)
        if not has_sessions and (session_id is not None or next_session):
            raise wrong_usage(ctx, f"{queue} is a plain queue; leave --session out.")
        if has_sessions and numbers and session_id is None:
            raise wrong_usage(ctx, "Name the session of the deferred messages with --session.")
        plan = _Plan(
            queue=queue,
            session_id=session_id,
            has_sessions=has_sessions,
            dead_letter=dead_letter,
            messages_max=messages_max,
            wait_s=wait.total_seconds(),
            settling=settling,
            follow=follow,
            deferred=tuple(numbers),
        )
        _run(line, client, plan)


def _check_session(
    ctx: typer.Context, session_id: str | None, *, next_session: bool, dead_letter: bool
) -> None:
    """Refuse options about sessions that do not go together."""
    if session_id is not None and next_session:
        raise wrong_usage(ctx, "Choose one of --session and --next-session.")
    if dead_letter and (session_id is not None or next_session):
        raise wrong_usage(ctx, "A dead-letter queue has no sessions; leave --session out.")


def _numbers(ctx: typer.Context, deferred: Sequence[str], *, is_alone: bool) -> list[int]:
    """Return the numbers of the deferred messages that are asked for."""
    numbers = numbers_of(ctx, deferred, "--deferred")
    if numbers and not is_alone:
        raise wrong_usage(ctx, "--deferred names its messages; leave --follow and such out.")
    return numbers


def _outcome(ctx: typer.Context, chosen: Mapping[Outcome, bool]) -> Outcome:
    """Return what is to happen to messages after they were printed."""
    outcomes = [outcome for outcome, is_chosen in chosen.items() if is_chosen]
    if len(outcomes) > 1 and chosen[Outcome.NOTHING]:
        raise wrong_usage(ctx, "What --mode receive-and-delete gave cannot be given back.")
    if len(outcomes) > 1:
        raise wrong_usage(ctx, "Choose one of --abandon, --defer, --dead-letter and --no-complete.")
    return outcomes[0] if outcomes else Outcome.COMPLETE


def _properties(ctx: typer.Context, texts: Sequence[str] | None) -> dict[str, PropertyValue]:
    try:
        return dict(map(parse_property, texts or ()))
    except ValueError as error:
        raise typer.BadParameter(str(error), ctx, param_hint="--set") from None


def _has_sessions(client: LockstepClient, queue: str) -> bool:
    """Ask the server whether the queue has sessions."""
    with client.get_administration_client() as administration:
        return administration.get_queue(queue).requires_session


def _run(line: CommandLine, client: LockstepClient, plan: _Plan) -> None:
    """Receive as planned.

    Raises:
        CommandFailed: Nothing came.
    """
    printer = Printer(line.output, dead_letter=plan.dead_letter)
    if plan.takes_any_session:
        line.output.note(
            f"{plan.queue} is a session queue: taking the next session that has messages "
            "(--session names one)."
        )
    if plan.follow:
        _follow(line, plan, printer)
    _receive_once(line, client, plan, printer)
    if printer.count == 0:
        raise _nothing_came(plan)
    _conclude(line, plan, printer)


def _follow(line: CommandLine, plan: _Plan, printer: Printer) -> NoReturn:
    """Receive until somebody presses Ctrl-C, from one session after the other where any will do."""
    try:
        with told(line.output), line.connect_to_follow() as client:
            while True:
                with suppress(NoSessionAvailable):
                    _receive_once(line, client, plan, printer)
    except KeyboardInterrupt:
        _conclude(line, plan, printer)
        raise


def _receive_once(line: CommandLine, client: LockstepClient, plan: _Plan, printer: Printer) -> None:
    """Open one receiver, in a session or not, and print what it gives."""
    with ExitStack() as opened:
        renewer = None
        if plan.is_locking:
            renewer = opened.enter_context(
                AutoLockRenewer(_AS_LONG_AS_IT_RUNS_S, on_lock_renew_failure=_settling_tells)
            )
        receiver = opened.enter_context(_open(client, plan, renewer))
        if plan.has_sessions:
            line.output.note(f"Holding session {receiver.session.session_id!r}.")
        in_hand: list[ReceivedMessage] = []
        try:
            for messages in _batches(receiver, plan):
                in_hand += messages
                if renewer is not None and plan.deferred and not plan.has_sessions:
                    renewer.register(receiver, messages)
                with held_back():
                    printer.print(messages)
                    if plan.settling.takes_away:
                        settle(receiver, in_hand, plan.settling)
                        in_hand = []
            with held_back():
                settle(receiver, in_hand, plan.settling)
                _tell_deferred(line, plan, in_hand)
        except BaseException:
            # Nobody saw the end of them: the reader of the pipe went away, or Ctrl-C was pressed.
            with suppress(LockstepError):
                receiver.release_messages([m for m in in_hand if m.lock_token is not None])
            raise


def _settling_tells(_lost: object, _why: LockstepError) -> None:
    """Do nothing about a lost lock: the settlement that follows fails and says why."""


def _open(client: LockstepClient, plan: _Plan, renewer: AutoLockRenewer | None) -> QueueReceiver:
    options: dict[str, Any] = {
        # A session queue is waited for here; None = without end.
        "max_wait_time": None if plan.follow else plan.wait_s,
        "auto_lock_renewer": renewer,
    }
    if not plan.is_locking:
        options["receive_mode"] = ReceiveMode.RECEIVE_AND_DELETE
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
    if plan.deferred:
        yield receiver.receive_deferred_messages(plan.deferred)
        return
    left = plan.messages_max
    stays = plan.follow and not plan.takes_any_session
    wait_s = _AS_LONG_AS_IT_RUNS_S if stays else plan.wait_s
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


def _tell_deferred(line: CommandLine, plan: _Plan, messages: Sequence[ReceivedMessage]) -> None:
    """Say how messages that were set aside are received again."""
    if plan.settling.outcome is not Outcome.DEFER or not 0 < len(messages) <= _NUMBERS_SHOWN_MAX:
        return
    session = messages[0].session_id if plan.has_sessions else None
    where = "" if session is None else f" --session {quote(session)}"
    where += " --dead-letter-queue" if plan.dead_letter else ""
    numbers = format_numbers(message.sequence_number for message in messages)
    line.output.note(
        f"To receive them: lockstep receive {plan.queue}{where}{line.where} --deferred {numbers}"
    )


def _nothing_came(plan: _Plan) -> CommandFailed:
    """Return the end of a command that waited in vain."""
    what = "dead letters" if plan.dead_letter else "messages"
    session = "" if plan.session_id is None else f"session {plan.session_id!r} of "
    waited = format_duration(timedelta(seconds=plan.wait_s))
    return nothing_there(f"No {what} came from {session}{plan.queue} in {waited}.")


def _conclude(line: CommandLine, plan: _Plan, printer: Printer) -> None:
    """Say how much came and what became of it."""
    line.output.note(f"{counted(printer.count, 'message')} received and {plan.settling.told}.")
    if plan.settling.outcome is Outcome.DEAD_LETTER:
        reason = quote(plan.settling.reason or "")
        line.output.note(
            f"To look at them: lockstep dlq list {plan.queue}{line.where} --reason {reason}"
        )
