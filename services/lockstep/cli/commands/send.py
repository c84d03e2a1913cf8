"""`lockstep send`: store messages in a queue.

Here belong the options and the sending. Never here: reading the messages (`sources`). The law:
whatever happens, the user learns how many messages are stored and how to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from lockstep import Message, QueueSender, SequenceNumbers
from lockstep.cli.context import CommandLine, command_line
from lockstep.cli.exits import CommandFailed, ExitCode, Failure, failure_of
from lockstep.cli.options import QueueName, duration, moment, wrong_usage
from lockstep.cli.sources import BadInput, Fields, Layout, Source, in_batches
from lockstep.cli.values import format_numbers, parse_property
from lockstep.core.errors import (
    ConnectionFailed,
    InvalidOperation,
    LockstepError,
    OperationTimeout,
    StoreUnavailable,
)
from lockstep.core.wording import counted
from lockstep.runtime.clock import SystemClock

EPILOG = r"""
Examples:
  lockstep send orders 'hello'
  lockstep send orders --session A --count 5 'step {n}'
  lockstep send orders --property colour=red --property size:=3 'a shirt'
  jq -c '{body: ., session_id: .customer}' a.json | lockstep send orders --jsonl
  lockstep send orders --delay 10m --ttl 1h 'look again'

When a send fails, the error says how many messages are stored and with which
--skip to go on.
"""

# After these it is not known whether the batch is stored.
_OUTCOME_UNKNOWN = (ConnectionFailed, OperationTimeout, StoreUnavailable)
# So many batches are sent before a progress bar is worth the flicker.
_SHORT_BATCHES = 5
_NUMBERS_WIDTH_MAX = 200  # characters of numbers that are worth copying

Bodies = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="BODY",
        help="One message each; none, or -, reads standard input.",
        show_default=False,
    ),
]
Session = Annotated[
    str | None,
    typer.Option(metavar="ID", help="The session of every message that does not name its own."),
]
File = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Read the messages from this file; - is standard input."),
]
Lines = Annotated[bool, typer.Option("--lines", help="Each line is a message; the default.")]
Whole = Annotated[bool, typer.Option("--whole", help="The whole file is one message.")]
JsonLines = Annotated[
    bool,
    typer.Option(
        "--jsonl", help="Each line is an object: body, session_id, message_id, and so on."
    ),
]
Properties = Annotated[
    list[str] | None,
    typer.Option(
        "--property",
        metavar="NAME=TEXT",
        help="An application property; NAME:=JSON for a number or a truth value.",
        show_default=False,
    ),
]
MessageId = Annotated[
    str | None,
    typer.Option(metavar="ID", help="The message id; {n} in it becomes the message's number."),
]
Subject = Annotated[str | None, typer.Option(metavar="TEXT", help="What the messages are about.")]
ContentType = Annotated[
    str | None, typer.Option(metavar="TYPE", help="The media type of the bodies.")
]
CorrelationId = Annotated[
    str | None, typer.Option(metavar="ID", help="The message that these answer.")
]
To = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="For receivers to read; the broker routes nothing by it."),
]
ReplyTo = Annotated[
    str | None, typer.Option(metavar="QUEUE", help="Where answers to the messages should go.")
]
ReplyToSession = Annotated[
    str | None,
    typer.Option(metavar="ID", help="The session that answers to the messages should carry."),
]
TimeToLive = Annotated[
    timedelta | None,
    typer.Option(
        "--ttl",
        parser=duration,
        metavar="DURATION",
        help="How long the messages live once they are active: 60s, 5m, 14d; the queue may allow less.",
    ),
]
ScheduleAt = Annotated[
    datetime | None,
    typer.Option(
        "--schedule-at",
        parser=moment,
        metavar="TIME",
        help="When the messages become active: 2026-01-31T12:00:00Z; a past time is now.",
    ),
]
Delay = Annotated[
    timedelta | None,
    typer.Option(
        "--delay",
        parser=duration,
        metavar="DURATION",
        help="The messages become active so long after now, by the clock of this machine.",
    ),
]
Batch = Annotated[int, typer.Option(min=1, max=4096, metavar="N", help="Messages in one request.")]
Count = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Send the bodies N times; {n} in them becomes 1 to N."),
]
Skip = Annotated[
    int, typer.Option(min=0, metavar="N", help="Leave out the first N messages of the input.")
]


@dataclass(slots=True)
class _Sending:
    """How far a send has come.

    Attributes:
        queue: The queue.
        skipped: Messages at the beginning of the input that are left out as asked.
        total: Messages of the input after those; None = not known.
        began: When the send began; messages for a later time are scheduled.
        numbers: The sequence numbers of all and only the messages that are known to be stored.
        duplicates: The places in `numbers`, from 0, of those that were stored before (DUP-2).
        scheduled: The places in `numbers`, from 0, of those that become active later.
    """

    queue: str
    skipped: int
    total: int | None
    began: datetime
    numbers: list[int] = field(default_factory=list)
    duplicates: list[int] = field(default_factory=list)
    scheduled: list[int] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many messages of the input need not be sent again."""
        return self.skipped + len(self.numbers)

    def note(self, batch: Sequence[Fields], stored: SequenceNumbers) -> None:
        """Note what the server said of the next messages."""
        first = len(self.numbers)
        self.duplicates += [first + place for place in stored.duplicate_indexes]
        for place, fields in enumerate(batch):
            due = fields.get("scheduled_enqueue_time_utc")
            if due is not None and due > self.began and place not in stored.duplicate_indexes:
                self.scheduled.append(first + place)
        self.numbers += stored


def send(  # noqa: PLR0913 - a parameter for each option
    ctx: typer.Context,
    queue: QueueName,
    bodies: Bodies = None,
    *,
    session: Session = None,
    file: File = None,
    has_lines: Lines = False,
    is_whole: Whole = False,
    has_json_lines: JsonLines = False,
    properties: Properties = None,
    message_id: MessageId = None,
    subject: Subject = None,
    content_type: ContentType = None,
    correlation_id: CorrelationId = None,
    to: To = None,
    reply_to: ReplyTo = None,
    reply_to_session: ReplyToSession = None,
    ttl: TimeToLive = None,
    schedule_at: ScheduleAt = None,
    delay: Delay = None,
    batch: Batch = 100,
    count: Count = None,
    skip: Skip = 0,
) -> None:
    """Store messages in a queue.

    The bodies are the arguments, or the lines of standard input or of a file. The command returns
    when the server has synced all messages to disk, and prints their sequence numbers. Messages of
    one session are stored in the order of the input; empty lines are skipped.

    With --schedule-at or --delay the messages are stored at once and become active later; until then
    `lockstep schedule cancel` takes them back by their numbers. On a queue with duplicate detection,
    messages whose --message-id is known already are not stored again, and named.

    Messages travel in batches. From a pipe that trickles, --batch 1 sends each line at once.
    """
    if has_lines + is_whole + has_json_lines > 1:
        raise wrong_usage(ctx, "Choose one of --lines, --whole and --jsonl.")
    layout = Layout.WHOLE if is_whole else Layout.JSON_LINES if has_json_lines else Layout.LINES
    source = Source(
        bodies=() if bodies is None or bodies == ["-"] else tuple(bodies),
        path=Path(file) if file is not None and file != "-" else None,
        layout=layout,
        count=count,
    )
    _check(ctx, source, message_id, has_file=file is not None)
    if delay is not None and schedule_at is not None:
        raise wrong_usage(ctx, "Choose one of --schedule-at and --delay.")
    now = datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC)
    common = _common_fields(
        ctx,
        properties or [],
        session_id=session,
        subject=subject,
        content_type=content_type,
        correlation_id=correlation_id,
        to=to,
        reply_to=reply_to,
        reply_to_session_id=reply_to_session,
        time_to_live=ttl,
        scheduled_enqueue_time_utc=schedule_at if delay is None else now + delay,
    )
    sending = _Sending(queue, skip, source.total(skip), now)
    _send_source(command_line(ctx), source, _Complete(common, message_id), sending, batch)


def _send_source(
    line: CommandLine, source: Source, complete: _Complete, sending: _Sending, batch: int
) -> None:
    """Send the messages of a source, in batches, and say what became of them."""
    queue, skip = sending.queue, sending.skipped
    if source.is_terminal():
        line.output.note("Type messages, one a line; end with Ctrl-D on an empty line.")
    is_long = sending.total is None or sending.total > _SHORT_BATCHES * batch
    with (
        source.messages() as found,
        line.connect() as client,
        line.output.progress(
            f"Sending to {queue}", total=sending.total, is_long=is_long and not source.is_terminal()
        ) as advance,
    ):
        messages = islice(complete.all_of(found), skip, None)
        with client.get_queue_sender(queue) as sender:
            _send_all(sender, in_batches(messages, messages_max=batch), sending, advance)
    _show(line, sending)


def _check(ctx: typer.Context, source: Source, message_id: str | None, *, has_file: bool) -> None:
    """Refuse options that do not go together."""
    if source.bodies and has_file:
        raise wrong_usage(ctx, "Give bodies or --file, not both.")
    if source.bodies and source.layout is not Layout.LINES:
        raise wrong_usage(ctx, "--whole and --jsonl are about files and standard input.")
    if source.count is not None and not source.bodies:
        raise wrong_usage(ctx, "--count repeats the bodies of the command line; give one.")
    if message_id is not None and "{n}" not in message_id and not source.is_single():
        raise wrong_usage(ctx, "Put {n} into --message-id, so that each message has its own.")


def _common_fields(ctx: typer.Context, properties: Sequence[str], **given: object) -> Fields:
    """Return what every message gets that does not bring its own."""
    fields: Fields = {name: value for name, value in given.items() if value is not None}
    try:
        if properties:
            fields["application_properties"] = dict(map(parse_property, properties))
    except ValueError as error:
        raise typer.BadParameter(str(error), ctx, param_hint="--property") from None
    return fields


@dataclass(frozen=True, slots=True)
class _Complete:
    """What messages of a source get besides.

    Attributes:
        common: What every message gets that does not bring its own.
        message_id: The same, with `{n}` for the number of the message; None = no message id.
    """

    common: Fields
    message_id: str | None

    def all_of(self, messages: Iterable[Fields]) -> Iterator[Fields]:
        """Yield each message with the common fields; what it brings itself wins."""
        for number, own in enumerate(messages, start=1):
            fields = {**self.common, **own}
            if self.message_id is not None and "message_id" not in own:
                fields["message_id"] = self.message_id.replace("{n}", str(number))
            yield fields


def _send_all(
    sender: QueueSender,
    batches: Iterator[list[Fields]],
    sending: _Sending,
    advance: Callable[[int], None],
) -> None:
    """Send batch after batch and keep count.

    Raises:
        CommandFailed: A batch failed, or the input cannot be read any further.
    """
    batch: list[Fields] = []
    try:
        for batch in batches:
            sending.note(batch, sender.send_messages([Message(**fields) for fields in batch]))
            advance(len(batch))
            batch = []
    except BadInput as error:
        failure = Failure("BAD_INPUT", str(error), ExitCode.USAGE)
        raise CommandFailed(_with_rest(failure, sending, _how_to_go_on(sending))) from None
    except KeyboardInterrupt:
        failure = Failure("INTERRUPTED", "The send was interrupted.", ExitCode.INTERRUPTED)
        rest = _unknown(sending, len(batch)) if batch else _how_to_go_on(sending)
        raise CommandFailed(_with_rest(failure, sending, rest)) from None
    except LockstepError as error:
        failure = failure_of(error)
        rest = _rest(sending, error, len(batch))
        raise CommandFailed(_with_rest(failure, sending, rest)) from error


def _rest(sending: _Sending, error: LockstepError, size: int) -> str:
    """Say what is stored after a batch of `size` messages failed, and how to go on."""
    first, last = sending.done + 1, sending.done + size
    if "not_stored_indexes" in error.details:
        return (
            f"The batch of messages {first} to {last} of the input is stored in part: places "
            f"{error.details['not_stored_indexes']} of it, counted from 0, are missing. Send these again; "
            f"for what follows, use --skip {last}."
        )
    if isinstance(error, ConnectionFailed) and not sending.numbers:
        return ""  # most likely nobody was there from the start; that is said already
    if isinstance(error, _OUTCOME_UNKNOWN):
        return _unknown(sending, size)
    if isinstance(error, InvalidOperation):
        # The server speaks of the API; the one thing that a send can lack for its queue is the session.
        return f"Here --session ID does it, or session_id in --jsonl. {_how_to_go_on(sending)}"
    return _how_to_go_on(sending)


def _unknown(sending: _Sending, size: int) -> str:
    """Say what is stored when it is not known whether the next batch, of `size` messages, is."""
    first, last = sending.done + 1, sending.done + size
    return (
        f"{_stored(sending)} It is not known whether messages {first} to {last} of the input are: look "
        f"with `lockstep queue show {sending.queue}`, then go on with --skip {sending.done} if they are "
        f"not, or with --skip {last} if they are."
    )


def _how_to_go_on(sending: _Sending) -> str:
    """Say what is stored when nothing of the next batch is."""
    if not sending.numbers:
        return _stored(sending)
    return f"{_stored(sending)} To go on, run the same command with --skip {sending.done}."


def _stored(sending: _Sending) -> str:
    total = "" if sending.total is None else f" of {sending.total:,}"
    return f"Stored: {len(sending.numbers):,}{total}."


def _with_rest(failure: Failure, sending: _Sending, rest: str) -> Failure:
    """Return the failure with how to go on."""
    details = {**failure.details, "stored": str(len(sending.numbers)), "skip": str(sending.done)}
    return replace(failure, message=f"{failure.message} {rest}".rstrip(), details=details)


def _show(line: CommandLine, sending: _Sending) -> None:
    """Say what is stored, what is scheduled and what was a duplicate."""
    numbers, queue = sending.numbers, sending.queue
    if line.output.is_json:
        line.output.data(
            {
                "queue": queue,
                "sent": len(numbers),
                "sequence_numbers": numbers,
                "duplicate_indexes": sending.duplicates,
                "scheduled_indexes": sending.scheduled,
            }
        )
        return
    if not numbers:
        line.output.note("The input held no messages; nothing was sent.")
        return
    aside = {*sending.duplicates, *sending.scheduled}
    stored = [number for place, number in enumerate(numbers) if place not in aside]
    if stored:
        line.output.say(
            f"Stored {counted(len(stored), 'message')} in {queue}: {_range_text(stored)}."
        )
    if sending.scheduled:
        _show_scheduled(line, sending)
    if sending.duplicates:
        places = format_numbers(sending.skipped + place + 1 for place in sending.duplicates)
        line.output.say(
            f"Discarded {counted(len(sending.duplicates), 'duplicate')}, whose message ids {queue} knew: "
            f"{places} of the input."
        )


def _show_scheduled(line: CommandLine, sending: _Sending) -> None:
    """Say what becomes active later, and how it is taken back."""
    queue = sending.queue
    scheduled = [sending.numbers[place] for place in sending.scheduled]
    line.output.say(
        f"Scheduled {counted(len(scheduled), 'message')} in {queue}: {_range_text(scheduled)}."
    )
    shown = format_numbers(scheduled)
    if len(shown) <= _NUMBERS_WIDTH_MAX:
        line.output.note(f"To cancel: lockstep schedule cancel {queue}{line.where} {shown}")


def _range_text(numbers: Sequence[int]) -> str:
    """Write the sequence numbers of messages in short."""
    if len(numbers) == 1:
        return f"sequence number {numbers[0]}"
    return f"sequence numbers {min(numbers)} to {max(numbers)}"
