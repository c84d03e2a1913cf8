"""What a partition does when messages are sent.

Here belongs the acceptance of a batch (section 3 of the contract, ADD-2). Never here: the parts of a
message that the broker does not act on. The law: a batch is validated whole before anything changes.
"""

from __future__ import annotations

import json
from array import array
from typing import TYPE_CHECKING

from lockstep.core.changes import ChunkRow
from lockstep.core.commands import Send
from lockstep.core.decision import Wake
from lockstep.core.errors import (
    InvalidOperation,
    InvalidRequest,
    MessageSizeExceeded,
    QuotaExceeded,
)
from lockstep.core.ids import SessionId
from lockstep.core.limits import ID_CHARS_MAX, check_at_most
from lockstep.core.replies import Sent

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step


def on_send(partition: Partition, command: Send, step: Step) -> Sent:
    """Store messages under consecutive sequence numbers (SND-1, SND-5, SND-12)."""
    queue = partition.queue(command.entity)
    found = partition.repeated(command.request, command.fingerprint, "send")
    if found is not None:
        return Sent(found[1], found[2])
    sizes = array("I", map(len, command.messages))
    _check(partition, queue, command, sizes)

    chunk = partition.next_chunk()
    first = queue.log.append(chunk, sizes, step.now_ms)
    sessions = ""
    if queue.definition.settings.requires_session:
        sessions = json.dumps(command.session_ids)
        _add_to_sessions(queue, command.session_ids, first, len(sizes), step)
    else:
        queue.main.add(range(first, first + len(sizes)))
        step.wake[Wake(queue.number)] = None
    step.changes.append(
        ChunkRow(
            chunk,
            queue.number,
            first,
            step.now_ms,
            sizes.tobytes(),
            sessions,
            b"",
            b"",
            command.messages,
        )
    )
    step.changes.append(queue.counter_row)
    step.count(queue, "enqueued", "client", len(sizes))
    step.count(queue, "bytes_in", "", sum(sizes))
    partition.remember(command.request, command.fingerprint, ("send", first, len(sizes)), step)
    return Sent(first, len(sizes))


def _add_to_sessions(
    queue: Queue, session_ids: tuple[str | None, ...], first: int, count: int, step: Step
) -> None:
    by_session: dict[str, array[int]] = {}
    if len(session_ids) == 1:
        by_session[session_ids[0] or ""] = array("q", range(first, first + count))
    else:
        for sequence, session_id in enumerate(session_ids, first):
            by_session.setdefault(session_id or "", array("q")).append(sequence)
    for session_id, sequences in by_session.items():
        session = queue.session(SessionId(session_id))
        session.add(sequences)
        if session.is_held:
            step.wake[Wake(queue.number, session.session_id)] = None
        queue.reindex(session, step)


def _check(partition: Partition, queue: Queue, command: Send, sizes: array[int]) -> None:
    limits = partition.limits
    if not sizes:
        raise InvalidRequest("A send needs at least one message.")
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
    for session_id in set(command.session_ids):
        if session_id is not None:
            check_at_most(
                len(session_id), ID_CHARS_MAX, "session id characters", "Use a shorter id."
            )


def _check_sizes(partition: Partition, queue: Queue, sizes: array[int]) -> None:
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
