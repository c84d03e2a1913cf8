"""What is known of each stored message, in columns.

Here belongs where a message lies and how large it is. Never here: who may receive it (`session`,
`plain`), or its bytes (storage). The law (design law 8): no object for each message; a contiguous run
is appended, described and removed at the cost of a few slices.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from lockstep.core.changes import Change, ChunkRow, Drop, GoneRow
from lockstep.core.ids import ChunkId

_SEGMENT_BITS = 10
_SEGMENT = 1 << _SEGMENT_BITS
_MASK = _SEGMENT - 1
_ZEROS_64 = bytes(8 * _SEGMENT)
_ZEROS_32 = bytes(4 * _SEGMENT)
_GONE = 0xFFFF_FFFF
_ALL_GONE = array("I", (_GONE,)) * _SEGMENT


class Segment:
    """1024 consecutive sequence numbers; a size of `_GONE` marks a message that is stored no more."""

    __slots__ = ("chunks", "enqueued_ms", "live", "places", "sizes")

    def __init__(self) -> None:
        self.live = 0
        self.chunks = array("q", _ZEROS_64)
        self.enqueued_ms = array("q", _ZEROS_64)
        self.places = array("I", _ZEROS_32)
        self.sizes = _ALL_GONE[:]


class Described(NamedTuple):
    """Columns about some messages: the i-th entry of each belongs to the i-th message."""

    chunks: array[int]
    places: array[int]
    sizes: array[int]
    enqueued_ms: array[int]


class Totals:
    """What all logs of a partition hold together."""

    __slots__ = ("messages",)

    def __init__(self) -> None:
        self.messages = 0


class MessageLog:
    """All stored messages of one entity in one partition, dead letters included.

    Attributes:
        last_sequence: The last number that was given out.
        count: Messages stored.
        size_bytes: Bytes of all messages stored.
    """

    __slots__ = ("_live_in_chunk", "_segments", "_totals", "count", "last_sequence", "size_bytes")

    def __init__(self, base: int, totals: Totals) -> None:
        self._totals = totals
        self.last_sequence = base
        self.count = 0
        self.size_bytes = 0
        self._segments: dict[int, Segment] = {}
        self._live_in_chunk: dict[
            int, int
        ] = {}  # only chunks of which more than one message is left

    def append(self, chunk: ChunkId, sizes: array[int], enqueued_ms: int) -> int:
        """Add a chunk at the end and return its first sequence number."""
        first = self.last_sequence + 1
        self._put_run(chunk, first, 0, sizes, enqueued_ms)
        self.last_sequence = first + len(sizes) - 1
        if len(sizes) > 1:
            self._live_in_chunk[chunk] = len(sizes)
        return first

    def restore(
        self, chunk: ChunkId, first: int, sizes: array[int], enqueued_ms: int, gone: bytearray
    ) -> list[int]:
        """Add what is left of a stored chunk and return its sequence numbers.

        Args:
            chunk: The chunk.
            first: The sequence number of its first message.
            sizes: The lengths of all its messages, gone ones included.
            enqueued_ms: When it was enqueued.
            gone: For each message 1 when it is stored no more, else 0.
        """
        left: list[int] = []
        start, count = 0, len(sizes)
        while start < count:
            if gone[start]:
                start += 1
                continue
            stop = gone.find(1, start)
            stop = count if stop < 0 else stop
            self._put_run(chunk, first + start, start, sizes[start:stop], enqueued_ms)
            left.extend(range(first + start, first + stop))
            start = stop
        if len(left) > 1:
            self._live_in_chunk[chunk] = len(left)
        return left

    def _put_run(
        self, chunk: ChunkId, first: int, first_place: int, sizes: array[int], enqueued_ms: int
    ) -> None:
        count = len(sizes)
        done = 0
        while done < count:
            sequence = first + done
            segment = self._segments.get(sequence >> _SEGMENT_BITS)
            if segment is None:
                segment = self._segments[sequence >> _SEGMENT_BITS] = Segment()
            start = sequence & _MASK
            length = min(count - done, _SEGMENT - start)
            stop = start + length
            segment.chunks[start:stop] = array("q", (chunk,)) * length
            segment.enqueued_ms[start:stop] = array("q", (enqueued_ms,)) * length
            place = first_place + done
            segment.places[start:stop] = array("I", range(place, place + length))
            segment.sizes[start:stop] = sizes[done : done + length]
            segment.live += length
            done += length
        self.count += count
        self._totals.messages += count
        self.size_bytes += sum(sizes)

    def describe(self, sequences: Sequence[int]) -> Described:
        """Return where messages lie. All must be stored."""
        if is_run(sequences):
            return self._describe_run(sequences[0], len(sequences))
        chunks, places = array("q"), array("I")
        sizes, enqueued_ms = array("I"), array("q")
        segments = self._segments
        for sequence in sequences:
            segment = segments[sequence >> _SEGMENT_BITS]
            at = sequence & _MASK
            chunks.append(segment.chunks[at])
            places.append(segment.places[at])
            sizes.append(segment.sizes[at])
            enqueued_ms.append(segment.enqueued_ms[at])
        return Described(chunks, places, sizes, enqueued_ms)

    def _describe_run(self, first: int, count: int) -> Described:
        start = first & _MASK
        segment = self._segments[first >> _SEGMENT_BITS]
        stop = start + count
        described = Described(
            segment.chunks[start:stop],
            segment.places[start:stop],
            segment.sizes[start:stop],
            segment.enqueued_ms[start:stop],
        )
        taken = len(described.chunks)
        while taken < count:
            segment = self._segments[(first + taken) >> _SEGMENT_BITS]
            stop = min(count - taken, _SEGMENT)
            described.chunks.extend(segment.chunks[:stop])
            described.places.extend(segment.places[:stop])
            described.sizes.extend(segment.sizes[:stop])
            described.enqueued_ms.extend(segment.enqueued_ms[:stop])
            taken += stop
        return described

    def remove(self, sequences: Sequence[int]) -> list[Change]:
        """Forget messages, in rising order, and return what to change in storage. All must be stored."""
        changes: list[Change] = []
        start, count = 0, len(sequences)
        while start < count:
            stop = _end_of_run(sequences, start)
            self._remove_run(sequences[start], stop - start, changes)
            start = stop
        return changes

    def _remove_run(self, first: int, count: int, changes: list[Change]) -> None:
        run = self._describe_run(first, count)
        self.count -= count
        self._totals.messages -= count
        self.size_bytes -= sum(run.sizes)
        done = 0
        while done < count:
            sequence = first + done
            segment = self._segments[sequence >> _SEGMENT_BITS]
            length = min(count - done, _SEGMENT - (sequence & _MASK))
            segment.live -= length
            start = sequence & _MASK
            segment.sizes[start : start + length] = array("I", (_GONE,)) * length
            if not segment.live:
                del self._segments[sequence >> _SEGMENT_BITS]
            done += length
        start = 0
        while start < count:
            chunk = run.chunks[start]
            stop = bisect_right(run.chunks, chunk, start, count)
            self._remove_from_chunk(chunk, run.places[start], run.places[stop - 1], changes)
            start = stop

    def _remove_from_chunk(self, chunk: int, first: int, last: int, changes: list[Change]) -> None:
        left = self._live_in_chunk.pop(chunk, 1) - (last - first + 1)
        if left:
            if left > 1:
                self._live_in_chunk[chunk] = left
            changes.append(GoneRow(ChunkId(chunk), first, last))
        else:
            changes.append(Drop(ChunkRow, (chunk,)))

    def holds(self, sequence: int) -> bool:
        """Whether a message is stored."""
        segment = self._segments.get(sequence >> _SEGMENT_BITS)
        return segment is not None and segment.sizes[sequence & _MASK] != _GONE

    def enqueued_ms(self, sequence: int) -> int:
        """Return when one stored message was enqueued, in ms since the epoch."""
        return self._segments[sequence >> _SEGMENT_BITS].enqueued_ms[sequence & _MASK]


def is_run(sequences: Sequence[int]) -> bool:
    """Whether the numbers are consecutive and rising, and at least one. The ends alone do not tell: 1, 3, 2, 4."""
    count = len(sequences)
    if not count or sequences[-1] - sequences[0] != count - 1:
        return False
    return array("q", sequences) == array("q", range(sequences[0], sequences[0] + count))


def _end_of_run(sequences: Sequence[int], start: int) -> int:
    """Return the end of the longest run that begins at `start`, in rising numbers."""
    count = len(sequences)
    if sequences[-1] - sequences[start] == count - 1 - start:
        return count
    stop = start + 1
    while stop < count and sequences[stop] == sequences[stop - 1] + 1:
        stop += 1
    return stop
