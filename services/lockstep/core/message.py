"""What is known of each stored message, in columns.

Here belongs where a message lies and how large it is. Never here: who may receive it (`session`,
`plain`), or its bytes (storage). The law (design law 8): no object for each message; a contiguous run
is appended, described and removed at the cost of a few slices.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from lockstep.core.changes import Change, ChunkRow, Drop, GoneRow, MovedRow
from lockstep.core.ids import ChunkId

_SEGMENT_BITS = 7
_SEGMENT = 1 << _SEGMENT_BITS
_MASK = _SEGMENT - 1
_ZEROS_64 = bytes(8 * _SEGMENT)
_ZEROS_32 = bytes(4 * _SEGMENT)
_GONE = 0xFFFF_FFFF
_ALL_GONE = array("I", (_GONE,)) * _SEGMENT


class Segment:
    """128 consecutive sequence numbers: few, so that a message that is left alone takes little memory.

    A size of `_GONE` marks a number that no stored message has.

    `expires_ms` is made when the first message comes that expires; 0 = never.
    """

    __slots__ = ("chunks", "enqueued_ms", "expires_ms", "live", "places", "sizes")

    def __init__(self) -> None:
        self.live = 0
        self.chunks = array("q", _ZEROS_64)
        self.enqueued_ms = array("q", _ZEROS_64)
        self.places = array("I", _ZEROS_32)
        self.sizes = _ALL_GONE[:]
        self.expires_ms: array[int] | None = None


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
        has_expiries: Whether any message of it ever expires.
    """

    __slots__ = (
        "_bytes_of_chunk",
        "_is_moved",
        "_live_in_chunk",
        "_segments",
        "_totals",
        "count",
        "has_expiries",
        "last_sequence",
        "size_bytes",
    )

    def __init__(self, base: int, totals: Totals) -> None:
        self._totals = totals
        self.last_sequence = base
        self.count = 0
        self.size_bytes = 0
        self.has_expiries = False
        self._is_moved = False  # whether neighbours may lie in chunks and places in any order
        self._segments: dict[int, Segment] = {}
        self._live_in_chunk: dict[
            int, int
        ] = {}  # only chunks of which more than one message is left
        self._bytes_of_chunk: dict[int, int] = {}  # only chunks that had more than one message

    def append(
        self,
        chunk: ChunkId,
        sizes: array[int],
        enqueued_ms: int,
        expires_ms: array[int] | None = None,
    ) -> int:
        """Add a chunk at the end and return its first sequence number.

        Args:
            chunk: The chunk.
            sizes: The lengths of its messages.
            enqueued_ms: When they were enqueued.
            expires_ms: When each expires, 0 = never; None = none does.
        """
        first = self.last_sequence + 1
        self._put_run(chunk, first, 0, sizes, enqueued_ms, expires_ms)
        self.last_sequence = first + len(sizes) - 1
        if len(sizes) > 1:
            self._live_in_chunk[chunk] = len(sizes)
            self._bytes_of_chunk[chunk] = sum(sizes)
        return first

    def restore(
        self,
        chunk: ChunkRow,
        gone: bytearray,
        moved: Mapping[int, tuple[int, int]],
        expires_ms: array[int] | None,
    ) -> tuple[array[int], array[int]]:
        """Add what is left of a stored chunk and return the sequence numbers and the places of it.

        Args:
            chunk: The chunk, without its messages.
            gone: For each message 1 when it is stored no more, else 0.
            moved: The number and the time of enqueueing of those that have new ones, by place.
            expires_ms: When each message expires, 0 = never; None = none does.
        """
        sizes = array("I", chunk.sizes)
        numbers, places = array("q"), array("q")
        ends = bytearray(gone)  # where a run of messages with neighbouring numbers ends
        for place in moved:
            ends[place] = 1
            self._is_moved = True
        start, count = 0, len(sizes)
        while start < count:
            if gone[start]:
                start += 1
                continue
            if start in moved:
                stop = start + 1
                number, enqueued_ms = moved[start]
            else:
                stop = ends.find(1, start)
                stop = count if stop < 0 else stop
                number, enqueued_ms = chunk.first_sequence + start, chunk.enqueued_ms
            expiries = expires_ms[start:stop] if expires_ms is not None else None
            self._put_run(chunk.chunk, number, start, sizes[start:stop], enqueued_ms, expiries)
            numbers.extend(range(number, number + stop - start))
            places.extend(range(start, stop))
            start = stop
        if len(numbers) > 1:
            self._live_in_chunk[chunk.chunk] = len(numbers)
        if count > 1 and numbers:
            self._bytes_of_chunk[chunk.chunk] = sum(sizes)
        return numbers, places

    def move(
        self,
        sequences: Sequence[int],
        enqueued_ms: int,
        expires_ms: array[int] | None = None,
        session_id: str | None = None,
    ) -> tuple[int, list[Change]]:
        """Give stored messages new numbers at the end, in this order.

        Args:
            sequences: The messages.
            enqueued_ms: When they count as enqueued from now on.
            expires_ms: When each expires, 0 = never; None = none does.
            session_id: The session that they move to; None = they keep theirs.

        Returns:
            The first new number, and what to change in storage.
        """
        places = self.describe(sequences)
        for start, stop in _runs(sequences):
            self._take_run(sequences[start], stop - start)
        first = self.last_sequence + 1
        changes: list[Change] = []
        for start, stop in _runs_of_places(places):
            number = first + start
            expiries = expires_ms[start:stop] if expires_ms is not None else None
            chunk, place = ChunkId(places.chunks[start]), places.places[start]
            self._put_run(chunk, number, place, places.sizes[start:stop], enqueued_ms, expiries)
            last = place + stop - start - 1
            changes.append(MovedRow(chunk, number, place, last, enqueued_ms, session_id))
        self.last_sequence += len(sequences)
        self._is_moved = True
        return first, changes

    def _put_run(
        self,
        chunk: ChunkId,
        first: int,
        first_place: int,
        sizes: array[int],
        enqueued_ms: int,
        expires_ms: array[int] | None,
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
            if expires_ms is not None:
                if segment.expires_ms is None:
                    segment.expires_ms = array("q", _ZEROS_64)
                segment.expires_ms[start:stop] = expires_ms[done : done + length]
                self.has_expiries = True
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
        for start, stop in _runs(sequences):
            run = self._take_run(sequences[start], stop - start)
            if self._is_moved:
                for first, end in _runs_of_places(run):
                    chunk = run.chunks[first]
                    self._remove_from_chunk(chunk, run.places[first], run.places[end - 1], changes)
                continue
            first, count = 0, stop - start
            while first < count:
                chunk = run.chunks[first]
                end = bisect_right(run.chunks, chunk, first, count)
                self._remove_from_chunk(chunk, run.places[first], run.places[end - 1], changes)
                first = end
        return changes

    def _take_run(self, first: int, count: int) -> Described:
        """Take consecutive numbers out of the segments, and return where their messages lie."""
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
        return run

    def _remove_from_chunk(self, chunk: int, first: int, last: int, changes: list[Change]) -> None:
        left = self._live_in_chunk.pop(chunk, 1) - (last - first + 1)
        if left:
            if left > 1:
                self._live_in_chunk[chunk] = left
            changes.append(GoneRow(ChunkId(chunk), first, last))
        else:
            self._bytes_of_chunk.pop(chunk, None)
            changes.append(Drop(ChunkRow, (chunk,)))

    def loadable(self, described: Described, most: int) -> int:
        """Return for how many of the messages, from the first on, so many bytes of chunks are read; at least one."""
        chunks = described.chunks
        if not chunks or chunks[0] == chunks[-1]:
            return len(chunks)
        known, total = set(), 0
        for at, chunk in enumerate(chunks):
            if chunk not in known:
                known.add(chunk)
                total += self._bytes_of_chunk.get(chunk, described.sizes[at])
                if total > most and at:
                    return at
        return len(chunks)

    def holds(self, sequence: int) -> bool:
        """Whether a message is stored."""
        segment = self._segments.get(sequence >> _SEGMENT_BITS)
        return segment is not None and segment.sizes[sequence & _MASK] != _GONE

    def numbers(self, first: int, most: int, without: Container[int]) -> list[int]:
        """Return the numbers of stored messages from `first` on, rising, at most so many."""
        found: list[int] = []
        for segment_number in sorted(n for n in self._segments if n >= first >> _SEGMENT_BITS):
            sizes = self._segments[segment_number].sizes
            base = segment_number << _SEGMENT_BITS
            for at, size in enumerate(sizes):
                if size != _GONE and base + at >= first and base + at not in without:
                    found.append(base + at)
                    if len(found) == most:
                        return found
        return found

    def enqueued_ms(self, sequence: int) -> int:
        """Return when one stored message was enqueued, in ms since the epoch."""
        return self._segments[sequence >> _SEGMENT_BITS].enqueued_ms[sequence & _MASK]

    def expires_ms(self, sequence: int) -> int:
        """Return when one stored message expires, in ms since the epoch; 0 = never."""
        expiries = self._segments[sequence >> _SEGMENT_BITS].expires_ms
        return expiries[sequence & _MASK] if expiries is not None else 0

    def enqueue_again(self, sequence: int, enqueued_ms: int) -> None:
        """Let one stored message count as enqueued at another time; its time to live begins anew."""
        segment, at = self._segments[sequence >> _SEGMENT_BITS], sequence & _MASK
        if segment.expires_ms is not None and segment.expires_ms[at]:
            segment.expires_ms[at] += enqueued_ms - segment.enqueued_ms[at]
        segment.enqueued_ms[at] = enqueued_ms

    def ttls(self, sequences: Sequence[int]) -> array[int]:
        """Return how long stored messages live, in ms, 0 = for ever."""
        ends = zip(self.expiries(sequences), self.describe(sequences).enqueued_ms, strict=True)
        return array("q", (end - since if end else 0 for end, since in ends))

    def never_expires(self, sequence: int) -> None:
        """Forget when one stored message expires."""
        expiries = self._segments[sequence >> _SEGMENT_BITS].expires_ms
        if expiries is not None:
            expiries[sequence & _MASK] = 0

    def expiries(self, sequences: Sequence[int]) -> array[int]:
        """Return when stored messages expire, 0 = never."""
        return array("q", map(self.expires_ms, sequences))


def is_run(sequences: Sequence[int]) -> bool:
    """Whether the numbers are consecutive and rising, and at least one. The ends alone do not tell: 1, 3, 2, 4."""
    count = len(sequences)
    if not count or sequences[-1] - sequences[0] != count - 1:
        return False
    return array("q", sequences) == array("q", range(sequences[0], sequences[0] + count))


def _runs(sequences: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each longest run of consecutive, rising numbers."""
    start, count = 0, len(sequences)
    if is_run(sequences):  # the usual case, found without a loop
        yield 0, count
        return
    while start < count:
        stop = start + 1
        while stop < count and sequences[stop] == sequences[stop - 1] + 1:
            stop += 1
        yield start, stop
        start = stop


def _runs_of_places(described: Described) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each longest run of messages that lie one behind the other in one chunk."""
    chunks, places = described.chunks, described.places
    start, count = 0, len(chunks)
    while start < count:
        stop = start + 1
        while (
            stop < count and chunks[stop] == chunks[start] and places[stop] == places[stop - 1] + 1
        ):
            stop += 1
        yield start, stop
        start = stop


def as_ranges(sequences: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return the same numbers in the same order as (first, last) pairs."""
    if is_run(sequences):
        return ((sequences[0], sequences[-1]),)
    ranges: list[tuple[int, int]] = []
    first = last = sequences[0]
    for sequence in sequences[1:]:
        if sequence == last + 1:
            last = sequence
            continue
        ranges.append((first, last))
        first = last = sequence
    ranges.append((first, last))
    return tuple(ranges)


def of_ranges(ranges: Iterable[tuple[int, int]]) -> Iterator[int]:
    """Yield the numbers that `as_ranges` described."""
    for first, last in ranges:
        yield from range(first, last + 1)
