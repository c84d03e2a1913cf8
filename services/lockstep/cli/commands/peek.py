"""`lockstep peek`: show messages without locking them.

Here belong its options and words. Never here: the way through a queue (`paging`), how a message looks (`messages`). The
law: looking changes nothing, and disturbs nobody (PEK-1).
"""

from __future__ import annotations

from typing import Annotated

import typer

from lockstep import SubQueue
from lockstep.cli.context import command_line
from lockstep.cli.messages import Printer
from lockstep.cli.options import wrong_usage
from lockstep.cli.paging import Cursor, From, Look, check_begin, print_all, rest_of

EPILOG = """
Examples:
  lockstep peek orders
  lockstep peek orders --session A --max 100
  lockstep peek orders --from 4711
  lockstep peek 'orders/$DeadLetterQueue'
  lockstep peek orders --json | jq -r 'select(.state == "scheduled").body'
"""

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
    first: From = None,
    cursor: Cursor = None,
    messages_max: Max = 10,
    dead_letter: DeadLetter = False,
) -> None:
    """Show messages of a queue and leave them as they are, oldest first.

    Also those that somebody has locked, and those that are scheduled, with their time; of a session
    queue those of all sessions, whoever holds them. Nothing is locked, counted or moved. Which of them
    are locked is not told; `lockstep queue show` counts them. Across the sessions of a queue that is
    spread over partitions, numbers say nothing of the order: go on with the --cursor that is told.

    With --json each message is one line with its state (active, scheduled or deferred), which
    `lockstep send --jsonl` takes. A body that is not UTF-8 text is printed as base64 and says so.
    """
    queue = path
    if path.lower().endswith(_DEAD_LETTER_PATH):
        queue, dead_letter = path[: -len(_DEAD_LETTER_PATH)], True
    if dead_letter and session_id is not None:
        raise wrong_usage(ctx, "A dead-letter queue has no sessions; leave --session out.")
    check_begin(ctx, first, cursor)
    look = Look(messages_max, first, cursor)
    line = command_line(ctx)
    printer = Printer(line.output, dead_letter=dead_letter, has_states=True)
    with line.connect() as client:
        receiver = client.get_queue_receiver(
            queue,
            session_id=session_id,
            sub_queue=SubQueue.DEAD_LETTER if dead_letter else None,
        )
        print_all(receiver, printer, look)
        if printer.count == 0:
            session = "" if session_id is None else f"session {session_id!r} of "
            what = "dead letters" if dead_letter else "messages"
            behind = "" if first is None else f" from number {first} on"
            behind = behind if cursor is None else " behind that cursor"
            line.output.note(f"There are no {what} in {session}{queue}{behind}.")
        elif not line.output.is_json:
            line.output.note(rest_of(receiver, printer.count, "message", look))
