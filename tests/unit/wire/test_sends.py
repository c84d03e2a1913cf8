"""Sends that are no sends."""

from __future__ import annotations

import pytest

from lockstep.core.errors import InvalidRequest
from lockstep.core.ids import EntityKey
from lockstep.v1.message_pb2 import Message
from lockstep.wire.sends import copies_of, send_command


def test_bytes_that_are_no_send_are_refused_without_the_names_of_the_inside() -> None:
    with pytest.raises(InvalidRequest) as caught:
        send_command(b"\xff")

    assert "SendMessagesRequest" in caught.value.message
    assert "internal" not in caught.value.message


def test_add_11_copies_of_stored_messages_are_not_judged_again() -> None:
    stored = Message(session_id="new", partition_key="old", message_id="m").SerializeToString()

    copies = copies_of(EntityKey("default", "other"), [stored], None)

    assert (copies.session_ids, copies.message_ids) == (("new",), ("m",))
