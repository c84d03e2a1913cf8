"""Settings of queues between protobuf and the core."""

from __future__ import annotations

import pytest

from lockstep.core.errors import InvalidRequest
from lockstep.wire.definitions import cleared_settings


@pytest.mark.parametrize(
    "name", ["default_message_time_to_live", "auto_delete_on_idle", "session_state_idle_ttl"]
)
def test_ent_9_an_update_takes_a_time_back(name: str) -> None:
    assert cleared_settings([name]) == {f"{name}_ms": None}


def test_a_setting_that_is_always_set_cannot_be_taken_back() -> None:
    with pytest.raises(InvalidRequest, match="lock_duration"):
        cleared_settings(["lock_duration"])
