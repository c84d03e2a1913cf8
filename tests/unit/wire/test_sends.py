"""Sends that are no sends."""

from __future__ import annotations

import pytest

from lockstep.core.errors import InvalidRequest
from lockstep.wire.sends import send_command


def test_bytes_that_are_no_send_are_refused_without_the_names_of_the_inside() -> None:
    with pytest.raises(InvalidRequest) as caught:
        send_command(b"\xff")

    assert "SendMessagesRequest" in caught.value.message
    assert "internal" not in caught.value.message
