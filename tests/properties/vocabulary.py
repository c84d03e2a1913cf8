"""The words that histories are made of: one queue, small limits, and what the rules draw from."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from lockstep.core import commands as c
from lockstep.core.commands import Outcome
from lockstep.core.entity import ON_RECEIVE
from lockstep.core.ids import EntityKey
from lockstep.core.limits import Limits

LIMITS = Limits(
    send_messages_max=6,
    send_bytes_max=800_000,
    receive_messages_max=6,
    response_bytes_max=400_000,
    settle_messages_max=8,
    requests_per_client_max=6,
    request_retention_ms=600_000,
    client_retention_ms=3_600_000,
    partition_messages_max=30,
    losses_remembered_max=4,
    outage_grace_ms=10_000,
)
KEY = EntityKey("default", "orders")
BIG = bytes(
    300_000
)  # two of them are more than a response, three more than a send, four more than a queue
TOO_BIG = bytes(600_000)
CLIENTS = ("c1", "c2")
HISTORY_MOST = 12

# Every choice is a small number, so that a failing history shrinks to small numbers.
picks = st.integers(0, 11)
sizes = st.sampled_from([0, 1, 2, 3, 3, 3, 4, 300_000])
# The model has no deferral; tests/spec/test_deferral.py has.
known = [outcome for outcome in Outcome if outcome is not Outcome.DEFER]
outcomes = st.sampled_from([*known, Outcome.COMPLETE, Outcome.ABANDON])
clients = st.sampled_from(CLIENTS)
requests = st.none() | st.tuples(clients, st.sampled_from([1, 1, 1, 2, 0]))
mosts = st.sampled_from([1, 2, 3, 6])
slips = st.sampled_from([0] * 7 + [1])
choices = st.none() | st.lists(picks, max_size=5)
settlements = st.lists(st.tuples(outcomes, choices, slips), min_size=1, max_size=3)
Drawn = tuple[str, int] | None
settings_drawn = st.fixed_dictionaries(
    {
        "lock_duration_ms": st.sampled_from([30_000, 30_000, 5_000, 60_000]),
        "max_delivery_count": st.sampled_from([2, 3, 3, 1]),
        "session_lock_extension": st.sampled_from([ON_RECEIVE, ON_RECEIVE, "off"]),
        "accept_next": st.sampled_from(["enabled"] * 3 + ["disabled"]),
    }
)
WRONG_SENDS = (
    c.Send(EntityKey("default", "nowhere"), (b"x",), ("a",)),
    c.Send(KEY, (), ("a",)),
    c.Send(KEY, (TOO_BIG,), ("a",)),
    c.Send(KEY, (BIG, BIG, BIG), ("a",)),
    c.Send(KEY, (b"x",) * 7, ("a",)),
    c.Send(KEY, (b"x", b"y"), ("a", "b", "c")),
    c.Send(KEY, (b"x",), ("i" * 129,)),
)
FIXED: dict[str, Any] = {
    "max_size_in_megabytes": 1,
    "max_message_size_in_kilobytes": 512,
    "max_session_state_size_in_kilobytes": 1,
}
