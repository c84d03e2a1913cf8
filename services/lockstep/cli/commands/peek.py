"""`lockstep peek`: show messages without locking them.

Here belong the options and the way through a queue. Never here: how a message looks (`messages`). The law: looking
changes nothing, and disturbs nobody (PEK-1).
"""

from __future__ import annotations

from typing import Annotated

import typer

from lockstep import QueueReceiver, SubQueue
from lockstep.cli.context import CommandLine, command_line
from lockstep.cli.messages import Printer
from lockstep.cli.options import wrong_usage
from lockstep.cli.values import counted

EPILOG = """
Examples:
  lockstep peek orders
  lockstep peek orders --session A --max 100
  lockstep peek orders --from 4711
  lockstep peek 'orders/$DeadLetterQueue'
  lockstep peek orders --json | jq -r 'select(.state == "scheduled").body'
"""

_CALL_MESSAGES_MAX = 250
_DEAD_LETTER_PATH = "/$deadletterqueue"

Path = Annotated[
    str,
    typer.Argument(
        metavar="QUEUE",
        help="The queue, or its dead-letter store: QUEUE/$DeadLetterQueue.",
        show_default=False,
    ),
]
SessionId = Annotated[
    str | None, typer.Option("--session", metavar="ID", help="Only messages of this session.")
]
From = Annotated[
    int,
    typer.Option(
        "--from", min=1, metavar="NUMBER", help="Begin at this sequence number; default 1."
    ),
]
Max = Annotated[int, typer.Option("--max", min=1, metavar="N", help="At most so many messages.")]
DeadLetter = Annotated[
    bool,
    typer.Option(
        "--dead-letter-queue",
        "--dlq",
        help="Look at what could not be processed and was set aside.",
    ),
]


def peek(
    ctx: typer.Context,
    path: Path,
    *,
    session_id: SessionId = None,
    first: From = 1,
    messages_max: Max = 10,
    dead_letter: DeadLetter = False,
) -> None:
    """Show messages of a queue and leave them as they are, oldest first.

    Also those that somebody has locked, and those that are scheduled, with their time; of a session
    queue those of all sessions, whoever holds them. Nothing is locked, counted or moved. Which of them
    are locked is not told; `lockstep queue show` counts them.

    With --json each message is one line with its state (active, scheduled or deferred), which
    `lockstep send --jsonl` takes. A body that is not UTF-8 text is printed as base64 and says so.
    """
    queue = path
    if path.lower().endswith(_DEAD_LETTER_PATH):
        queue, dead_letter = path[: -len(_DEAD_LETTER_PATH)], True
    if dead_letter and session_id is not None:
        raise wrong_usage(ctx, "A dead-letter queue has no sessions; leave --session out.")
    line = command_line(ctx)
    printer = Printer(line.output, dead_letter=dead_letter, has_states=True)
    with line.connect() as client:
        receiver = client.get_queue_receiver(
            queue,
            session_id=session_id,
            sub_queue=SubQueue.DEAD_LETTER if dead_letter else None,
        )
        last = _print_all(receiver, printer, first, messages_max)
        if printer.count == 0:
            session = "" if session_id is None else f"session {session_id!r} of "
            what = "dead letters" if dead_letter else "messages"
            behind = "" if first == 1 else f" from number {first} on"
            line.output.note(f"There are no {what} in {session}{queue}{behind}.")
        elif not line.output.is_json:
            _tell_rest(line, receiver, printer.count, last)


def _print_all(receiver: QueueReceiver, printer: Printer, first: int, messages_max: int) -> int:
    """Print up to so many messages and return the number of the last one; 0 = there were none."""
    last = first - 1
    while printer.count < messages_max:
        wanted = min(messages_max - printer.count, _CALL_MESSAGES_MAX)
        messages = receiver.peek_messages(wanted, sequence_number=last + 1)
        if not messages:
            break
        printer.print(messages)
        last = messages[-1].sequence_number
    return last


def _tell_rest(line: CommandLine, receiver: QueueReceiver, count: int, last: int) -> None:
    """Say how many were shown, and whether there are more."""
    shown = f"{counted(count, 'message')} shown"
    rest = receiver.peek_messages(1, sequence_number=last + 1)
    if rest:
        line.output.note(f"{shown}. There are more: --from {rest[0].sequence_number} goes on.")
    else:
        line.output.note(f"{shown}. There are no more.")
