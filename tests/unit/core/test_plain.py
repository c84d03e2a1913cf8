"""Messages without sessions: ready or locked, each at its place."""

from __future__ import annotations

import pytest

from lockstep.core.plain import PlainStore


def _store(*sequences: int) -> PlainStore:
    store = PlainStore()
    store.add(sequences)
    return store


def _lock(store: PlainStore, maximum: int, *, grant: int, until_ms: int = 100) -> list[int]:
    chosen = store.peek_ready(maximum)
    store.lock(chosen, grant=grant, locked_until_ms=until_ms)
    return chosen.tolist()


def _back(store: PlainStore, grant: int, *sequences: int) -> None:
    for sequence in sequences:
        store.unlock(grant, sequence)
        store.give_back(sequence)


def test_messages_are_locked_in_order_under_their_grant() -> None:
    store = _store(1, 2, 3, 4)

    locked = [_lock(store, 1, grant=1), _lock(store, 2, grant=2)]

    assert locked == [[1], [2, 3]]
    assert store.grants == {1: {1: 100}, 2: {2: 100, 3: 100}}
    assert (store.locked_count, store.ready_count) == (3, 1)


def test_a_message_is_under_one_grant_only() -> None:
    store = _store(1, 2)
    _lock(store, 1, grant=1)

    assert store.is_locked(1, 1)
    assert not store.is_locked(2, 1)
    assert not store.is_locked(1, 2)


def test_what_comes_back_goes_to_its_place() -> None:
    store = _store(1, 2, 3, 4, 5)
    _lock(store, 4, grant=1)

    _back(store, 1, 3, 1)

    assert store.ready().tolist() == [1, 3, 5]
    assert _lock(store, 2, grant=2) == [1, 3]
    _back(store, 1, 2)
    assert store.ready().tolist() == [2, 5]


def test_a_grant_without_messages_is_forgotten() -> None:
    store = _store(1, 2)
    _lock(store, 2, grant=1)

    store.unlock(1, 2)
    store.unlock(1, 1)

    assert store.grants == {}
    assert (store.locked_count, store.ready_count) == (0, 0)


def test_each_message_s_lock_is_renewed_for_itself_and_never_backwards() -> None:
    store = _store(1, 2, 3)
    _lock(store, 3, grant=1)

    store.renew(1, 2, 300)
    store.renew(1, 3, 50)

    assert store.grants[1] == {1: 100, 2: 300, 3: 100}


def test_a_store_may_have_an_order_of_its_own() -> None:
    order = {7: 1, 3: 2, 9: 3, 1: 4}
    store = PlainStore(order)
    store.add([7, 3, 9, 1])

    taken = _lock(store, 3, grant=1)
    _back(store, 1, 9, 7)

    assert taken == [7, 3, 9]
    assert store.ready().tolist() == [7, 9, 1]


def test_locks_come_back_from_storage() -> None:
    store = PlainStore()

    store.hold(5, {2: 100, 3: 200})
    store.restore_ready([1, 4])

    assert store.ready().tolist() == [1, 4]
    assert store.locked_count == 2
    _back(store, 5, 3)
    _back(store, 5, 2)
    assert store.ready().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("ready", [[], [1], [5], [1, 3, 5, 7], [9, 10]])
def test_a_restored_lock_finds_its_place_among_all_that_was_ready(ready: list[int]) -> None:
    store = PlainStore()
    store.hold(1, {4: 100, 8: 100})
    store.restore_ready(ready)

    _back(store, 1, 8, 4)

    assert store.ready().tolist() == sorted([*ready, 4, 8])


def test_a_restored_store_goes_on_with_new_messages() -> None:
    store = PlainStore()
    store.hold(1, {2: 100})
    store.restore_ready([1, 3])

    store.add([4, 5])

    assert _lock(store, 3, grant=2) == [1, 3, 4]
    _back(store, 1, 2)
    assert store.ready().tolist() == [2, 5]


def test_the_order_of_a_restored_store_is_that_of_arrival() -> None:
    order = {7: 1, 3: 2, 9: 3, 1: 4}
    store = PlainStore(order)
    store.hold(1, {3: 100, 9: 100})
    store.restore_ready([7, 1])

    _back(store, 1, 9, 3)

    assert store.ready().tolist() == [7, 3, 9, 1]


def test_many_messages_pass_through_without_leftovers() -> None:
    store = PlainStore()
    for round_ in range(30):
        store.add(range(round_ * 200 + 1, round_ * 200 + 201))
        assert len(_lock(store, 150, grant=round_ + 1)) == 150
    taken = 30 * 150

    assert store.ready_count == 30 * 200 - taken
    assert store.ready()[0] == taken + 1
    assert store.locked_count == taken


def test_what_comes_back_goes_behind_what_is_older_and_was_never_locked() -> None:
    store = _store(1, 2, 4)

    store.give_back(3)
    store.give_back(5)

    assert store.ready().tolist() == [1, 2, 3, 4, 5]
    assert _lock(store, 4, grant=1) == [1, 2, 3, 4]
    _back(store, 1, 2)
    assert store.ready().tolist() == [2, 5]


def test_what_is_taken_out_leaves_the_others_in_their_order() -> None:
    store = _store(*range(1, 9))
    _lock(store, 2, grant=1)
    _back(store, 1, 1, 2)

    store.take_out([2, 3, 5])
    assert store.ready().tolist() == [1, 4, 6, 7, 8]
    store.take_out([7])
    assert store.ready().tolist() == [1, 4, 6, 8]
    store.take_out([1, 4, 6, 8])
    assert store.ready_count == 0
