"""`lockstep schedule`: take scheduled messages back.

Here belongs what is done with messages before their time. Never here: scheduling them (`send`). The law: all that are
named are taken back, or none (SCH-5).
"""

from __future__ import annotations

from typing import Annotated

import typer

from lockstep.cli.context import command_line
from lockstep.cli.help import Command, Group
from lockstep.cli.options import QueueName, numbers_of
from lockstep.core.wording import counted

app = typer.Typer(cls=Group)

_CANCEL = """
Examples:
  lockstep schedule cancel orders 17
  lockstep schedule cancel orders 17-20 23
"""


@app.callback()
def schedule() -> None:
    """Take scheduled messages back before their time.

    `lockstep send --schedule-at` and `--delay` schedule messages; `lockstep peek` shows them.
    """


@app.command("cancel", cls=Command, epilog=_CANCEL)
def cancel(
    ctx: typer.Context,
    queue: QueueName,
    numbers: Annotated[
        list[str],
        typer.Argument(
            metavar="NUMBER...",
            help="Sequence numbers, as `lockstep send` printed them: 17, or 17-20.",
            show_default=False,
        ),
    ],
) -> None:
    """Take scheduled messages back, all that are named or none.

    The numbers are those that the send printed and `lockstep peek` shows. A message that has become
    active has another number and is no longer scheduled: then nothing is cancelled, and exit code 3
    says so. A message id that duplicate detection knows stays known.
    """
    wanted = numbers_of(ctx, numbers, "NUMBER")
    line = command_line(ctx)
    with line.connect() as client, client.get_queue_sender(queue) as sender:
        sender.cancel_scheduled_messages(wanted)
    distinct = sorted(set(wanted))
    if line.output.is_json:
        line.output.data({"queue": queue, "cancelled_sequence_numbers": distinct})
        return
    line.output.say(f"Cancelled {counted(len(distinct), 'scheduled message')} of {queue}.")
