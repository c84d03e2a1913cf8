"""Settings of queues between protobuf and the core."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from lockstep.v1 import entity_pb2
from lockstep.wire.definitions import given_settings


@pytest.mark.parametrize(
    "name", ["default_message_time_to_live", "auto_delete_on_idle", "session_state_idle_ttl"]
)
def test_ent_9_zero_takes_a_time_back_and_absence_leaves_it(name: str) -> None:
    zero = entity_pb2.QueueSettings(**{name: Duration()})  # type: ignore[arg-type]
    assert given_settings(zero) == {f"{name}_ms": None}
    assert given_settings(entity_pb2.QueueSettings()) == {}


def test_zero_is_a_number_where_there_is_no_never() -> None:
    zero = entity_pb2.QueueSettings(lock_duration=Duration())
    assert given_settings(zero) == {"lock_duration_ms": 0}
