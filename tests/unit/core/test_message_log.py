"""The columns of stored messages: segments, chunks, holes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.core.changes import Change, ChunkRow, Drop, GoneRow, MovedRow
from lockstep.core.ids import ChunkId, EntityNumber
from lockstep.core.message import MessageLog, Totals, is_run

SEGMENT = 1024


def _log(base: int = 0) -> MessageLog:
    return MessageLog(base, Totals())


def _stored(chunk: int, first: int, sizes: list[int], enqueued_ms: int = 0) -> ChunkRow:
    lengths = array("I", sizes).tobytes()
    return ChunkRow(ChunkId(chunk), EntityNumber(1), first, enqueued_ms, lengths, "", b"", b"", ())


def _append(log: MessageLog, chunk: int, sizes: Iterable[int], enqueued_ms: int = 5) -> int:
    return log.append(ChunkId(chunk), array("I", sizes), enqueued_ms)


def _drop(chunk: int) -> Change:
    return Drop(ChunkRow, (chunk,))


def test_numbers_go_on_from_the_base_over_all_chunks() -> None:
    log = _log(base=3 << 48)

    firsts = [_append(log, 1, [1, 2]), _append(log, 2, [3]), _append(log, 3, [4] * 5)]

    assert firsts == [(3 << 48) + 1, (3 << 48) + 3, (3 << 48) + 4]
    assert log.last_sequence == (3 << 48) + 8


def test_count_size_and_totals_follow_appends_and_removals() -> None:
    totals = Totals()
    log, other = MessageLog(0, totals), MessageLog(0, totals)
    _append(log, 1, [10, 20, 30])
    _append(other, 2, [1])

    log.remove([2])

    assert (log.count, log.size_bytes) == (2, 40)
    assert totals.messages == 3


def test_each_message_is_described_by_its_chunk_place_size_and_time() -> None:
    log = _log()
    _append(log, 7, [10, 11], enqueued_ms=100)
    _append(log, 9, [12, 13, 14], enqueued_ms=200)

    described = log.describe([1, 2, 3, 4, 5])

    assert described.chunks.tolist() == [7, 7, 9, 9, 9]
    assert described.places.tolist() == [0, 1, 0, 1, 2]
    assert described.sizes.tolist() == [10, 11, 12, 13, 14]
    assert described.enqueued_ms.tolist() == [100, 100, 200, 200, 200]


@pytest.mark.parametrize(
    "sequences", [[], [3], [1, 3, 2, 4], [4, 3, 2, 1], [1, 5, 3], [2, 2, 2], [5, 4]]
)
def test_messages_are_described_in_the_order_that_was_asked_for(sequences: list[int]) -> None:
    log = _log()
    _append(log, 1, range(10, 15))

    described = log.describe(sequences)

    assert described.sizes.tolist() == [sequence + 9 for sequence in sequences]
    assert described.places.tolist() == [sequence - 1 for sequence in sequences]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([], False),
        ([7], True),
        ([7, 8, 9], True),
        ([1, 3, 2, 4], False),
        ([3, 2, 1], False),
        ([1, 2, 4], False),
        ([1, 1], False),
    ],
)
def test_a_run_is_consecutive_and_rising(numbers: list[int], expected: bool) -> None:
    assert is_run(numbers) == expected


@pytest.mark.parametrize("count", [SEGMENT - 2, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT])
def test_a_chunk_may_lie_in_several_segments(count: int) -> None:
    log = _log()
    _append(log, 1, range(1, 6))
    _append(log, 2, range(1, count + 1))

    described = log.describe(range(6, 6 + count))

    assert described.sizes.tolist() == list(range(1, count + 1))
    assert described.places.tolist() == list(range(count))
    assert described.chunks.tolist() == [2] * count


def test_removing_across_segments_forgets_exactly_those() -> None:
    log = _log()
    _append(log, 1, [1] * (3 * SEGMENT))

    changes = log.remove(range(500, 2501))

    assert changes == [GoneRow(ChunkId(1), 499, 2499)]
    assert log.count == 3 * SEGMENT - 2001
    assert [log.holds(n) for n in (499, 500, 1024, 2048, 2500, 2501)] == [
        True,
        False,
        False,
        False,
        False,
        True,
    ]


def test_removing_the_whole_chunk_drops_it() -> None:
    log = _log()
    _append(log, 1, [1, 2, 3])

    assert log.remove([1, 2, 3]) == [_drop(1)]


def test_a_chunk_of_one_message_is_dropped_with_it() -> None:
    log = _log()
    _append(log, 1, [1])
    _append(log, 2, [1])

    assert log.remove([2]) == [_drop(2)]
    assert log.remove([1]) == [_drop(1)]


@pytest.mark.parametrize("order", [[1, 2, 3], [3, 2, 1], [2, 1, 3], [2, 3, 1]])
def test_the_last_of_a_chunk_drops_it_whatever_the_order(order: list[int]) -> None:
    log = _log()
    _append(log, 1, [1, 2, 3])

    changes = [change for sequence in order for change in log.remove([sequence])]

    assert changes == [
        GoneRow(ChunkId(1), order[0] - 1, order[0] - 1),
        GoneRow(ChunkId(1), order[1] - 1, order[1] - 1),
        _drop(1),
    ]


def test_one_removal_over_several_chunks_says_what_happens_to_each() -> None:
    log = _log()
    for chunk in (1, 2, 3):
        _append(log, chunk, [1, 1, 1])

    changes = log.remove([2, 3, 4, 5, 6, 7])

    assert changes == [GoneRow(ChunkId(1), 1, 2), _drop(2), GoneRow(ChunkId(3), 0, 0)]


def test_a_removal_with_holes_says_each_range() -> None:
    log = _log()
    _append(log, 1, [1] * 8)

    assert log.remove([1, 3, 4, 8]) == [
        GoneRow(ChunkId(1), 0, 0),
        GoneRow(ChunkId(1), 2, 3),
        GoneRow(ChunkId(1), 7, 7),
    ]


def test_what_is_not_stored_is_not_held() -> None:
    log = _log(base=1 << 48)
    _append(log, 1, [0, 0])
    log.remove([(1 << 48) + 1])

    held = [log.holds((1 << 48) + offset) for offset in (0, 1, 2, 3, 5000)]

    assert held == [False, False, True, False, False]


def test_a_message_without_bytes_is_a_message() -> None:
    log = _log()
    _append(log, 1, [0, 0])

    assert (log.count, log.size_bytes, log.holds(1)) == (2, 0, True)


def test_the_time_of_a_message_can_be_asked_for() -> None:
    log = _log()
    _append(log, 1, [1], enqueued_ms=123)

    assert log.enqueued_ms(1) == 123


def test_a_chunk_comes_back_without_what_is_gone() -> None:
    log = _log()

    stored = _stored(4, 11, [10, 11, 12, 13, 14], 99)
    numbers, places = log.restore(stored, bytearray([1, 0, 0, 1, 0]), {}, None)

    assert (numbers.tolist(), places.tolist()) == ([12, 13, 15], [1, 2, 4])
    assert (log.count, log.size_bytes) == (3, 37)
    assert log.describe([12, 13, 15]).places.tolist() == [1, 2, 4]
    assert [log.holds(sequence) for sequence in range(11, 16)] == [False, True, True, False, True]


def test_a_chunk_that_came_back_is_dropped_with_its_last_message() -> None:
    log = _log()
    log.restore(_stored(4, 1, [1, 1, 1, 1]), bytearray([0, 1, 0, 1]), {}, None)

    assert log.remove([3]) == [GoneRow(ChunkId(4), 2, 2)]
    assert log.remove([1]) == [_drop(4)]


def test_a_chunk_of_which_one_message_is_left_is_dropped_with_it() -> None:
    log = _log()
    log.restore(_stored(4, 1, [1, 1]), bytearray([1, 0]), {}, None)

    assert log.remove([2]) == [_drop(4)]


def test_moved_messages_have_new_numbers_and_keep_their_places() -> None:
    log = _log()
    _append(log, 1, [10, 11, 12], enqueued_ms=5)
    _append(log, 2, [20, 21], enqueued_ms=6)

    first, changes = log.move([2, 3, 5], 9)

    assert first == 6
    assert changes == [
        MovedRow(ChunkId(1), 6, 1, 2, 9, None),
        MovedRow(ChunkId(2), 8, 1, 1, 9, None),
    ]
    assert [log.holds(n) for n in range(1, 9)] == [True, False, False, True, False] + [True] * 3
    assert (log.count, log.size_bytes, log.last_sequence) == (5, 74, 8)
    assert log.describe([6, 7, 8]).enqueued_ms.tolist() == [9, 9, 9]
    assert log.remove([6, 7]) == [GoneRow(ChunkId(1), 1, 2)]
    assert log.remove([1]) == [_drop(1)]


def test_messages_that_were_moved_out_of_order_leave_their_chunk_one_by_one() -> None:
    log = _log()
    _append(log, 1, [1, 1, 1, 1])

    first, _ = log.move([3, 1, 2], 0)

    assert log.remove([first, first + 1, first + 2]) == [
        GoneRow(ChunkId(1), 2, 2),
        GoneRow(ChunkId(1), 0, 1),
    ]


def test_a_chunk_comes_back_with_the_new_numbers_of_its_messages() -> None:
    log = _log()
    stored = _stored(4, 11, [10, 11, 12, 13], 99)

    numbers, places = log.restore(
        stored, bytearray([0, 1, 0, 0]), {2: (50, 200)}, array("q", [0, 0, 7, 8])
    )

    assert (numbers.tolist(), places.tolist()) == ([11, 50, 14], [0, 2, 3])
    assert log.describe([11, 50, 14]).enqueued_ms.tolist() == [99, 200, 99]
    assert log.expiries([11, 50, 14]).tolist() == [0, 7, 8]


def test_a_message_expires_when_its_chunk_said_so() -> None:
    log = _log()
    log.append(ChunkId(1), array("I", [1, 1]), 0, array("q", [0, 77]))
    _append(log, 2, [1])

    assert log.has_expiries
    assert log.expiries([1, 2, 3]).tolist() == [0, 77, 0]


@settings(deadline=None, max_examples=60)
@given(
    chunks=st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=600), max_size=6),
    removals=st.lists(
        st.tuples(st.booleans(), st.sets(st.integers(1, 3600), max_size=900)), max_size=6
    ),
)
def test_the_log_is_what_a_dictionary_would_be(
    chunks: list[list[int]], removals: list[tuple[bool, set[int]]]
) -> None:
    log, model = _log(), {}
    for chunk, sizes in enumerate(chunks, 1):
        first = _append(log, chunk, sizes, enqueued_ms=chunk)
        for place, size in enumerate(sizes):
            model[first + place] = (chunk, place, size, chunk)
    for moves, wanted in removals:
        going = sorted(wanted & model.keys())
        if moves:
            first, _ = log.move(going[::-1], 7)
            for number, sequence in enumerate(going[::-1], first):
                model[number] = (*model.pop(sequence)[:3], 7)
            going = []
        before = {chunk for chunk, *_ in model.values()}
        changes = log.remove(going)
        for sequence in going:
            del model[sequence]
        left = {chunk for chunk, *_ in model.values()}
        assert {change.key[0] for change in changes if isinstance(change, Drop)} == before - left

        assert log.count == len(model)
        assert log.size_bytes == sum(size for _, _, size, _ in model.values())
        assert list(zip(*log.describe(sorted(model)), strict=True)) == [
            model[sequence] for sequence in sorted(model)
        ]
