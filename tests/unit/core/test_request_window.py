"""The window of request ids (ADD-3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lockstep.core.changes import Change, ClientRow, Drop, RequestRow
from lockstep.core.errors import RequestCancelled, RequestIdExpired, RequestIdReused
from lockstep.core.ids import RequestId
from lockstep.core.limits import Limits
from lockstep.core.requests import CANCELLED, RequestWindow

LIMITS = Limits(requests_per_client_max=8, request_retention_ms=100, client_retention_ms=1_000)


def _call(counter: int, client: str = "a") -> RequestId:
    return RequestId(client, counter)


def _filled(count: int) -> tuple[RequestWindow, list[Change]]:
    window = RequestWindow(LIMITS)
    changes: list[Change] = []
    for counter in range(1, count + 1):
        changes, _ = window.remember(_call(counter), counter, ("send", counter, 1), 0)
    return window, changes


def test_an_unknown_call_is_new() -> None:
    assert RequestWindow(LIMITS).find(_call(1), 5) is None


def test_a_remembered_call_is_found_with_its_result() -> None:
    window = RequestWindow(LIMITS)

    changes, is_new = window.remember(_call(3), 5, ("receive", None, 7, ((1, 2), (9, 9))), 50)
    found = window.find(_call(3), 5)

    assert is_new
    assert found is not None
    assert found.result == ("receive", None, 7, ((1, 2), (9, 9)))
    assert changes == [
        ClientRow("a", 0, 50),
        RequestRow("a", 3, 5, '["receive",null,7,[[1,2],[9,9]]]'),
    ]


def test_a_client_that_is_known_is_not_new_and_not_written_again() -> None:
    window, changes = _filled(2)

    assert not window.remember(_call(3), 3, ("send", 3, 1), 0)[1]
    assert [type(change) for change in changes] == [RequestRow]


def test_a_call_with_another_payload_is_refused() -> None:
    window, _ = _filled(1)

    with pytest.raises(RequestIdReused):
        window.find(_call(1), 99)


def test_a_cancelled_call_is_refused_whatever_its_payload() -> None:
    window = RequestWindow(LIMITS)
    window.remember(_call(1), 0, (CANCELLED,), 0)

    with pytest.raises(RequestCancelled):
        window.find(_call(1), 5)


def test_a_peek_asks_for_no_payload() -> None:
    window, _ = _filled(1)

    found = window.peek(_call(1))

    assert found is not None
    assert found.fingerprint == 1
    assert window.peek(_call(2)) is None
    assert window.peek(_call(1, "b")) is None


def test_calls_may_come_out_of_order() -> None:
    window = RequestWindow(LIMITS)
    window.remember(_call(5), 5, ("send", 1, 1), 0)

    assert window.find(_call(4), 4) is None
    window.remember(_call(4), 4, ("send", 2, 1), 0)

    assert window.find(_call(4), 4) is not None


def test_the_window_keeps_its_number_and_forgets_what_came_first() -> None:
    window, changes = _filled(11)

    assert [change.key for change in changes if isinstance(change, Drop)] == [("a", 3)]
    assert ClientRow("a", 3, 0) in changes
    assert [window.peek(_call(counter)) is None for counter in (3, 4, 11)] == [True, False, False]


def test_what_was_forgotten_is_refused_and_says_how_old_it_is() -> None:
    window, _ = _filled(11)

    with pytest.raises(RequestIdExpired) as refused:
        window.find(_call(2), 2)

    assert refused.value.details == {"oldest": "4", "observed": "2"}


def test_a_skipped_call_below_what_was_forgotten_is_refused_too() -> None:
    window = RequestWindow(LIMITS)
    for counter in range(10, 40):
        window.remember(_call(counter), 0, ("send", 1, 1), 0)

    with pytest.raises(RequestIdExpired):
        window.find(_call(9), 0)


def test_a_silent_client_loses_its_results_and_keeps_its_floor() -> None:
    window, _ = _filled(3)

    early, again_ms = window.watch("a", 99)
    changes, later_ms = window.watch("a", 100)

    assert (early, again_ms) == ([], 100)
    assert later_ms == 1_000
    assert [change.key for change in changes if isinstance(change, Drop)] == [
        ("a", 1),
        ("a", 2),
        ("a", 3),
    ]
    assert changes[-1] == ClientRow("a", 3, 0)
    with pytest.raises(RequestIdExpired):
        window.find(_call(3), 3)
    assert window.find(_call(4), 4) is None


def test_a_client_that_called_again_is_looked_at_later() -> None:
    window, _ = _filled(3)
    window.remember(_call(4), 4, ("send", 4, 1), 80)

    assert window.watch("a", 100) == ([], 180)
    assert window.find(_call(1), 1) is not None


def test_a_client_that_stays_silent_is_forgotten() -> None:
    window, _ = _filled(1)
    window.watch("a", 100)

    changes, again_ms = window.watch("a", 1_000)

    assert again_ms is None
    assert changes == [Drop(ClientRow, ("a",))]
    assert window.client_ids() == []
    assert window.watch("a", 2_000) == ([], None)


def test_a_client_that_is_looked_at_late_is_forgotten_with_its_results() -> None:
    window, _ = _filled(1)

    changes, again_ms = window.watch("a", 5_000)

    assert again_ms is None
    assert changes == [Drop(RequestRow, ("a", 1)), Drop(ClientRow, ("a",))]


def test_a_window_comes_back_as_it_was_with_its_silence_counted_anew() -> None:
    window, _ = _filled(11)
    window.remember(_call(1, "b"), 77, ("settle", ((4, 2**62), (4, 3))), 0)
    rows = window.rows()
    again = RequestWindow(LIMITS)

    again.restore(
        [row for row in rows if isinstance(row, ClientRow)],
        [row for row in rows if isinstance(row, RequestRow)],
        500,
    )

    assert sorted(again.client_ids()) == ["a", "b"]
    found = again.find(_call(1, "b"), 77)
    assert found is not None
    assert found.result == ("settle", ((4, 2**62), (4, 3)))
    with pytest.raises(RequestIdExpired):
        again.find(_call(1), 1)
    assert again.watch("a", 599) == ([], 600)


def test_a_request_whose_client_has_no_row_comes_back_all_the_same() -> None:
    window = RequestWindow(LIMITS)

    window.restore([], [RequestRow("a", 1, 5, '["send",1,1]')], 0)

    assert window.find(_call(1), 5) is not None
    assert window.client_ids() == ["a"]


def test_lim_1_the_client_that_was_silent_longest_goes_when_there_are_too_many() -> None:
    window = RequestWindow(replace(LIMITS, clients_max=2))
    for at_ms, client in ((0, "a"), (10, "b"), (20, "a")):
        window.remember(_call(at_ms, client), 1, ("send", 1, 1), at_ms)

    changes, _ = window.remember(_call(1, "c"), 1, ("send", 1, 1), 10 + LIMITS.request_retention_ms)

    assert Drop(ClientRow, ("b",)) in changes
    assert Drop(RequestRow, ("b", 10)) in changes
    assert window.client_ids() == ["a", "c"]


def test_add_3_no_client_is_forgotten_before_its_time_however_many_there_are() -> None:
    window = RequestWindow(replace(LIMITS, clients_max=2))

    for client in "abcd":
        window.remember(_call(1, client), 1, ("send", 1, 1), LIMITS.request_retention_ms - 1)

    assert window.client_ids() == ["a", "b", "c", "d"]


def test_add_3_a_call_that_waits_is_new_however_many_others_came_since() -> None:
    window, _ = _filled(1)
    window.note_waiting(_call(2), 0)
    for counter in range(3, 60):
        window.remember(_call(counter), 0, ("send", 1, 1), 0)

    assert window.find(_call(2), 7) is None
    assert not window.is_forgotten(_call(2))
    window.remember(_call(2), 7, ("accept", "s", 1), 0)
    assert window.find(_call(2), 7) is not None
    for counter in range(60, 70):
        window.remember(_call(counter), 0, ("send", 1, 1), 0)
    with pytest.raises(RequestIdExpired):
        window.find(_call(2), 7)


def test_add_3_the_first_call_of_a_client_may_wait_too() -> None:
    window = RequestWindow(LIMITS)
    window.note_waiting(_call(1), 0)
    for counter in range(2, 60):
        window.remember(_call(counter), 0, ("send", 1, 1), 0)

    assert window.find(_call(1), 7) is None


def test_a_client_that_only_waits_leaves_no_rows() -> None:
    window = RequestWindow(LIMITS)

    window.note_waiting(_call(1), 0)

    assert window.rows() == []
    assert window.client_ids() == []
    changes, is_new = window.remember(_call(1), 7, ("accept", "s", 1), 0)
    assert is_new
    assert ClientRow("a", 0, 0) in changes
