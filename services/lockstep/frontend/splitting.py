"""The parts of a call that go to different partitions, and one response from their replies.

Here belongs how a batch is divided and put together again (ADD-2). Never here: the calls themselves. The law: each
message is in exactly one part, in the order of the batch, and a part carries the request id of the whole, so that the
batch can be sent again and stores what is missing.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from lockstep.core.commands import CheckSend, Send, Settle
from lockstep.core.errors import LockstepError
from lockstep.core.ids import PartitionId, partition_of
from lockstep.core.replies import Sent
from lockstep.v1 import messaging_service_pb2 as messaging

_Item = TypeVar("_Item")
Homes = Callable[[str | None], PartitionId]


def places_by_partition(command: Send, home: Homes) -> dict[PartitionId, list[int]]:
    """Return which messages of a batch, counted from 0, go to which partition."""
    count = len(command.messages)
    if len(command.session_ids) == 1:
        return {home(command.session_ids[0]): list(range(count))}
    places: dict[PartitionId, list[int]] = {}
    homes: dict[str | None, PartitionId] = {}
    for place, session_id in enumerate(command.session_ids):
        if session_id not in homes:
            homes[session_id] = home(session_id)
        places.setdefault(homes[session_id], []).append(place)
    return places


def check_of(command: Send) -> CheckSend:
    """Return the question whether a batch may be stored."""
    return CheckSend(
        command.entity,
        array("I", map(len, command.messages)),
        command.session_ids,
        command.ttls_ms,
        command.due_ms,
        command.message_ids,
    )


def joined_send(
    count: int, parts: Iterable[tuple[list[int], Sent | LockstepError]]
) -> messaging.SendMessagesResponse:
    """Return the response to a batch whose parts were stored or refused."""
    numbers = [0] * count
    response = messaging.SendMessagesResponse()
    duplicates: list[int] = []
    failed: list[tuple[int, LockstepError]] = []
    for places, result in parts:
        if isinstance(result, LockstepError):
            failed += [(place, result) for place in places]
            continue
        for place, number in zip(places, result.numbers, strict=True):
            numbers[place] = number
        duplicates += [places[index] for index in result.duplicates]
    response.sequence_numbers.extend(numbers)
    response.duplicate_indexes.extend(sorted(duplicates))
    for place, error in sorted(failed, key=lambda item: item[0]):
        response.failures.add(index=place, reason=error.reason, description=error.message)
    return response


def settles_by_partition(command: Settle, partitions: int) -> dict[PartitionId, Settle]:
    """Return the parts of a settlement of single messages, each for the partition that delivered them."""
    parts: dict[PartitionId, list[tuple[int, array[int]]]] = {}
    for index, settlement in enumerate(command.settlements):
        for partition, numbers in by_partition(settlement.sequences, partitions).items():
            parts.setdefault(partition, []).append((index, numbers))
    if len(parts) <= 1:
        return dict.fromkeys(parts, command)
    settlements = command.settlements
    return {
        partition: replace(
            command,
            settlements=tuple(replace(settlements[i], sequences=numbers) for i, numbers in part),
        )
        for partition, part in parts.items()
    }


def by_partition(sequences: Sequence[int], partitions: int) -> dict[PartitionId, array[int]]:
    """Return numbers by the partition that gave them out; of one that there is not, with those of partition 0."""
    parts: dict[PartitionId, array[int]] = {}
    for sequence in sequences:
        parts.setdefault(partition_of_message(sequence, partitions), array("q")).append(sequence)
    return parts


def tokens_by_partition(
    tokens: Sequence[tuple[_Item, int]], partitions: int
) -> Mapping[PartitionId, tuple[tuple[_Item, int], ...]]:
    """Return lock tokens by the partition that gave them out."""
    parts: dict[PartitionId, list[tuple[_Item, int]]] = {}
    for token in tokens:
        parts.setdefault(partition_of_message(token[1], partitions), []).append(token)
    return {partition: tuple(part) for partition, part in parts.items()}


def partition_of_message(sequence: int, partitions: int) -> PartitionId:
    """Return the partition that gave out a number; 0 for one that there is not."""
    partition = partition_of(sequence)
    return partition if 0 <= partition < partitions else PartitionId(0)
