"""What a partition does when messages are sent.

Here belongs the acceptance of a batch (section 3 of the contract, ADD-2). Never here: the parts of a
message that the broker does not act on. The law: a batch is validated whole before anything changes.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from lockstep.core.changes import ChunkRow
from lockstep.core.commands import CheckSend, Send
from lockstep.core.duplicates import keys_of, note_ids
from lockstep.core.entity import SENDING_FORBIDDEN
from lockstep.core.errors import (
    InvalidOperation,
    InvalidRequest,
    MessageSizeExceeded,
    QuotaExceeded,
)
from lockstep.core.expiring import effective_ttls, ends
from lockstep.core.history import Key
from lockstep.core.ids import ChunkId
from lockstep.core.limits import ID_CHARS_MAX, SCHEDULE_MS_MAX, TTL_MS_MAX, check_at_most
from lockstep.core.locks import refuse_disabled
from lockstep.core.message import as_ranges, of_ranges
from lockstep.core.replies import SendChecked, Sent
from lockstep.core.scheduling import due_times, set_aside
from lockstep.core.shares import check_share

_PLAIN_RESULT = 3  # entries of the remembered result of a send without duplicates
_Value = TypeVar("_Value")

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step


def on_send(partition: Partition, command: Send, step: Step) -> Sent:
    """Store messages under consecutive sequence numbers (SND-1, SND-5, SND-12)."""
    queue = partition.queue(command.entity)
    found = partition.repeated(command.request, command.fingerprint, "send")
    if found is not None:
        return sent_before(found)
    check_send(partition, queue, command)
    sent = store_send(partition, queue, command, step)
    partition.remember(command.request, command.fingerprint, remembered_send(sent), step)
    return sent


def remembered_send(sent: Sent) -> tuple[Any, ...]:
    """Return the result of a send as it is remembered."""
    if not sent.sequences:
        return ("send", sent.first_sequence, sent.count)
    return ("send", 0, 0, as_ranges(sent.sequences), list(sent.duplicates))


def sent_before(found: Sequence[Any]) -> Sent:
    """Return the result that `remembered_send` described."""
    if len(found) == _PLAIN_RESULT:
        return Sent(found[1], found[2])
    numbers = array("q", of_ranges(found[3]))
    return Sent(0, len(numbers), numbers, tuple(found[4]))


def check_send(partition: Partition, queue: Queue, command: Send) -> None:
    """Refuse a batch that may not be stored, but for want of room.

    Raises:
        EntityDisabled, InvalidRequest and its kinds: As the rules of section 3 say.
    """
    refuse_disabled(queue, SENDING_FORBIDDEN, "sending to it")
    _check(partition, queue, command, array("I", map(len, command.messages)))


def on_check_send(partition: Partition, command: CheckSend, _step: Step) -> SendChecked:
    """Refuse a batch that no partition may store a part of (ADD-2)."""
    queue = partition.queue(command.entity)
    refuse_disabled(queue, SENDING_FORBIDDEN, "sending to it")
    _check(partition, queue, command, command.sizes)
    return SendChecked()


def store_send(partition: Partition, queue: Queue, command: Send, step: Step) -> Sent:
    """Store a batch that was checked.

    Raises:
        QuotaExceeded: There is no room; nothing was stored.
    """
    if queue.definition.settings.requires_duplicate_detection and command.message_ids:
        return _send_what_is_new(partition, queue, command, step)
    sizes = array("I", map(len, command.messages))
    _check_room(partition, queue, sizes)
    _, first = _store(partition, queue, command, sizes, step)
    return Sent(first, len(sizes))


def _send_what_is_new(partition: Partition, queue: Queue, command: Send, step: Step) -> Sent:
    """Store the messages whose ids are not known, and answer the others with the numbers of the first (DUP-2)."""
    keys = keys_of(queue, command.message_ids, command.session_ids)
    new: list[int] = []
    known: dict[Key, int] = {}  # ids of this send, and the place of each among the new messages
    numbers = array(
        "q"
    )  # of duplicates their number, of new messages their place among these, negative
    duplicates: list[int] = []
    for index, key in enumerate(keys):
        number = queue.history.find(key) if key is not None else None
        if number is None and key in known:
            number = ~known[key]
            duplicates.append(index)
        elif number is not None:
            duplicates.append(index)
        else:
            number = ~len(new)
            if key is not None:
                known[key] = len(new)
            new.append(index)
        numbers.append(number)
    first = 0
    if new:
        kept = command if len(new) == len(keys) else part_of(command, new)
        sizes = array("I", map(len, kept.messages))
        _check_room(partition, queue, sizes)
        chunk, first = _store(partition, queue, kept, sizes, step)
        of_ids = {key: first + place for key, place in known.items()}
        note_ids(partition, queue, chunk, of_ids, step)
    step.count(queue, "duplicates", "", len(duplicates))
    numbers = array("q", (number if number >= 0 else first + ~number for number in numbers))
    return Sent(0, len(numbers), numbers, tuple(duplicates))


def part_of(command: Send, places: list[int]) -> Send:
    """Return a send of some of its messages."""

    def of(values: tuple[_Value, ...]) -> tuple[_Value, ...]:
        return values if len(values) <= 1 else tuple(values[place] for place in places)

    return replace(
        command,
        messages=tuple(command.messages[place] for place in places),
        session_ids=of(command.session_ids),
        ttls_ms=of(command.ttls_ms),
        due_ms=of(command.due_ms),
        message_ids=tuple(command.message_ids[p] for p in places) if command.message_ids else (),
    )


def store_copies(
    partition: Partition, queue: Queue, command: Send, step: Step, *, amended_bytes: int
) -> range:
    """Store messages that come from elsewhere and are no duplicates, and return their numbers.

    There must be room for what will be changed about them, too: `amended_bytes`.

    Raises:
        QuotaExceeded: There is no room; nothing was stored.
        ShareUsed: This partition has no share of the room that there may be; nothing was stored.
    """
    sizes = array("I", map(len, command.messages))
    _check_room(partition, queue, sizes, amended_bytes)
    _, first = _store(partition, queue, command, sizes, step, source="moved")
    return range(first, first + len(sizes))


def _store(
    partition: Partition,
    queue: Queue,
    command: Send,
    sizes: array[int],
    step: Step,
    *,
    source: str = "client",
) -> tuple[ChunkId, int]:
    """Store the messages of a send as a chunk, and return its number and that of the first message."""
    settings = queue.definition.settings
    queue.activity.send(step.now_ms)
    chunk = partition.next_chunk()
    count = len(sizes)
    ttls = effective_ttls(command.ttls_ms, settings, count)
    due_ms = due_times(command.due_ms, count, step.now_ms)
    expiries = None if ttls is None else ends(ttls, step.now_ms)
    first = queue.log.append(chunk, sizes, step.now_ms, expiries)
    numbers: Sequence[int] = range(first, first + count)
    session_ids: Sequence[str | None] = (
        command.session_ids if settings.requires_session else (None,)
    )
    if due_ms is not None:
        numbers, session_ids = set_aside(partition, queue, first, due_ms, ttls, session_ids)
    queue.enqueue(numbers, session_ids, step)
    step.changes.append(
        ChunkRow(
            chunk,
            queue.number,
            first,
            step.now_ms,
            sizes.tobytes(),
            json.dumps(command.session_ids) if settings.requires_session else "",
            b"" if ttls is None else ttls.tobytes(),
            b"" if due_ms is None else due_ms.tobytes(),
            command.messages,
        )
    )
    step.changes.append(queue.counter_row)
    step.count(queue, "enqueued", source, count)
    step.count(queue, "bytes_in", "", sum(sizes))
    return chunk, first


def _check(
    partition: Partition, queue: Queue, command: Send | CheckSend, sizes: Sequence[int]
) -> None:
    limits = partition.limits
    if not sizes:
        raise InvalidRequest("A send needs at least one message.")
    if len(command.message_ids) not in (0, len(sizes)):
        raise InvalidRequest("A send needs a message id for each message, or for none.")
    if len(command.session_ids) not in (1, len(sizes)):
        raise InvalidRequest("A send needs one session id for all messages or one for each.")
    check_at_most(
        len(sizes), limits.send_messages_max, "messages in one send", "Send several batches."
    )
    _check_sizes(partition, queue, sizes)
    if queue.definition.settings.requires_session and None in command.session_ids:
        place = command.session_ids.index(None)
        raise InvalidOperation(
            f"{queue.path} requires sessions: message {place} of the batch has no session id. Nothing was stored."
            " Set session_id on every message (SND-8).",
            details={"entity": queue.path, "index": str(place)},
        )
    for given, most, what in (
        (command.ttls_ms, TTL_MS_MAX, "time_to_live milliseconds"),
        (command.due_ms, SCHEDULE_MS_MAX, "scheduled_enqueue_time milliseconds"),
    ):
        if len(given) not in (0, 1, len(sizes)):
            raise InvalidRequest("A send needs one time for all messages or one for each.")
        check_at_most(max(given, default=0), most, what, "Use an earlier time, or none.")
    for session_id in set(command.session_ids):
        if session_id is not None:
            check_at_most(
                len(session_id), ID_CHARS_MAX, "session id characters", "Use a shorter id."
            )


def _check_sizes(partition: Partition, queue: Queue, sizes: Sequence[int]) -> None:
    largest, total = max(sizes), sum(sizes)
    if largest > queue.message_bytes_max:
        raise MessageSizeExceeded(
            f"{queue.path} allows {queue.message_bytes_max} bytes for one message; message {sizes.index(largest)} of"
            f" the batch has {largest}. Nothing was stored. Send less, or store the payload elsewhere and send a"
            " pointer to it.",
            details={
                "limit": "max_message_size_in_kilobytes",
                "configured": str(queue.message_bytes_max),
                "observed": str(largest),
            },
        )
    if total > partition.limits.send_bytes_max and len(sizes) > 1:
        raise MessageSizeExceeded(
            f"One send may have {partition.limits.send_bytes_max} bytes; this one has {total}. Nothing was stored."
            " Send several batches.",
            details={
                "limit": "send_bytes_max",
                "configured": str(partition.limits.send_bytes_max),
                "observed": str(total),
            },
        )


def _check_room(
    partition: Partition, queue: Queue, sizes: array[int], amended_bytes: int = 0
) -> None:
    total = sum(sizes) + amended_bytes
    if queue.size_bytes + total > queue.size_bytes_max:
        raise QuotaExceeded(
            f"{queue.path} is full: it holds {queue.size_bytes} bytes of {queue.size_bytes_max}, dead letters and"
            f" session states included, and this batch has {total}. Nothing was stored. Receive or purge messages, or"
            " raise max_size_in_megabytes.",
            details={
                "limit": "max_size_in_megabytes",
                "configured": str(queue.size_bytes_max),
                "observed": str(queue.size_bytes + total),
            },
        )
    check_share(partition, queue, total)
    if partition.totals.messages + len(sizes) > partition.limits.partition_messages_max:
        raise QuotaExceeded(
            f"This partition holds {partition.totals.messages} messages of {partition.limits.partition_messages_max}."
            " Nothing was stored. Receive messages, or use more partitions.",
            details={
                "limit": "partition_messages_max",
                "configured": str(partition.limits.partition_messages_max),
                "observed": str(partition.totals.messages + len(sizes)),
            },
        )
