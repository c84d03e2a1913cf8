"""Looking at messages: where the next look goes on, and what is told of each."""

from __future__ import annotations

import pytest

from lockstep import MessageState, SubQueue
from lockstep.errors import InvalidRequest, LimitExceeded
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.unit.client.scripted import START_MS, open_receiver


def looked(
    *numbers: int, scheduled: tuple[int, ...] = (), cursor: str = ""
) -> messaging.PeekMessagesResponse:
    response = messaging.PeekMessagesResponse(
        next_cursor=cursor,
        sequence_numbers=numbers,
        enqueued_times_unix_ms=[START_MS] * len(numbers),
        scheduled_indexes=scheduled,
    )
    for number in numbers:
        response.messages.add(body=b"body %d" % number)
    return response


def test_pek_3_a_look_goes_on_where_the_last_one_ended() -> None:
    receiver, transport = open_receiver(looked(3, 7), looked(), looked(9))

    seen = [[m.sequence_number for m in receiver.peek_messages(2)] for _ in range(3)]

    assert seen == [[3, 7], [], [9]]
    assert [call.request.from_sequence_number for call in transport.calls] == [1, 8, 8]


def test_add_1_a_look_goes_on_at_the_cursor_that_the_server_told() -> None:
    answers = [looked(7, cursor="one"), looked(8, cursor="two"), looked(), looked(9, cursor="4")]
    receiver, transport = open_receiver(*answers)

    receiver.peek_messages()
    receiver.peek_messages(cursor="elsewhere")
    told = receiver.peek_cursor
    receiver.peek_messages()
    receiver.peek_messages(sequence_number=5)

    asked = [(c.request.cursor, c.request.from_sequence_number) for c in transport.calls]
    assert asked == [("", 1), ("elsewhere", 0), ("two", 0), ("", 5)]
    assert (told, receiver.peek_cursor) == ("two", "4")
    with pytest.raises(InvalidRequest):
        receiver.peek_messages(sequence_number=5, cursor="4")


def test_sch_2_a_look_tells_which_messages_are_scheduled() -> None:
    receiver, _ = open_receiver(looked(1, 2, 3, scheduled=(0, 2)), looked(4))

    states = [message.state for message in receiver.peek_messages(3)]

    assert states == [MessageState.SCHEDULED, MessageState.ACTIVE, MessageState.SCHEDULED]
    assert [message.state for message in receiver.peek_messages()] == [MessageState.ACTIVE]


def test_pek_1_what_is_looked_at_has_no_lock() -> None:
    receiver, _ = open_receiver(looked(1, 2, scheduled=(1,)))

    assert [m.lock_token for m in receiver.peek_messages(2)] == [None, None]


def test_dead_letters_are_looked_at_by_session_and_reason() -> None:
    receiver, transport = open_receiver(looked(1), looked(), sub_queue=SubQueue.DEAD_LETTER)

    receiver.peek_messages(session_id="", dead_letter_reason="late")
    receiver.peek_messages()

    by_both, by_nothing = (call.request for call in transport.calls)
    assert (by_both.HasField("session_id"), by_both.dead_letter_reason) == (True, "late")
    assert not by_nothing.HasField("session_id")
    assert not by_nothing.HasField("dead_letter_reason")
    with pytest.raises(LimitExceeded):
        receiver.peek_messages(session_id="x" * 129)
