"""The words that histories are made of: one queue, small limits, and what the rules draw from."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from lockstep.core import commands as c
from lockstep.core.commands import Outcome
from lockstep.core.entity import (
    ACTIVE,
    DISABLED,
    ON_RECEIVE,
    PER_MESSAGE,
    RECEIVE_DISABLED,
    SEND_DISABLED,
    SINGLE,
    SPREAD,
    WHOLE_SESSION,
)
from lockstep.core.ids import EntityKey, GrantNumber, SessionId
from lockstep.core.limits import SCHEDULE_MS_MAX, TTL_MS_MAX, Limits

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
A = SessionId("a")
BIG = bytes(
    300_000
)  # two of them are more than a response, three more than a send, four more than a queue
TOO_BIG = bytes(600_000)
CLIENTS = ("c1", "c2")
HISTORY_MOST = 12


def settlement(outcome: Outcome, grant: int, sequences: list[int], extra: Any) -> c.Settlement:
    """Make a settlement with what its outcome may have."""
    changes = {name: bytes(size) for name, size in extra.get("properties", {}).items()}
    if outcome in (Outcome.COMPLETE, Outcome.RELEASE):
        changes = {}
    delay_ms = extra.get("delay_ms", 0) if outcome is Outcome.ABANDON else 0
    return c.Settlement(outcome, GrantNumber(grant), sequences, "R", "D", changes, delay_ms)


# Every choice is a small number, so that a failing history shrinks to small numbers.
picks = st.integers(0, 11)
sizes = st.sampled_from([0, 1, 2, 3, 3, 3, 4, 300_000])
outcomes = st.sampled_from([*Outcome, Outcome.COMPLETE, Outcome.ABANDON])
clients = st.sampled_from(CLIENTS)
requests = st.none() | st.tuples(clients, st.sampled_from([1, 1, 1, 2, 0]))
mosts = st.sampled_from([1, 2, 3, 6])
# What a send says of its messages beyond their bytes: each list is drawn as long as the longest send.
lives = st.none() | st.lists(
    st.sampled_from([0, 0, 1, 1_000, 20_000, 45_000]), min_size=5, max_size=5
)
delays = st.none() | st.lists(st.sampled_from([0, 0, -1, 1, 1_000, 20_000]), min_size=5, max_size=5)
names = st.none() | st.lists(st.sampled_from(["", "m1", "m2", "m3"]), min_size=5, max_size=5)
deletions = st.sampled_from([False, False, False, True])
slips = st.sampled_from([0] * 7 + [1])
choices = st.none() | st.lists(picks, max_size=5)
# What a settlement says beyond its outcome, where the outcome may have it; two big properties are more than a message
# may have.
extras = st.sampled_from(
    [
        {},
        {},
        {"delay_ms": 1_003},
        {"delay_ms": 20_017, "properties": {"p": 1}},
        {"delay_ms": 70_031},
        {"properties": {"p": 1}},
        {"properties": {"p": 2, "q": 0}},
        {"properties": {"big": 40_000}},
        {"properties": {"p": 0, "bigger": 40_000}},
    ]
)
changes = st.sampled_from([{"p": 1}, {"p": 2, "q": 0}, {"big": 40_000}, {"bigger": 40_000}])
settlements = st.lists(st.tuples(outcomes, choices, slips, extras), min_size=1, max_size=3)
Drawn = tuple[str, int] | None
fixed_drawn = st.fixed_dictionaries(
    {
        "requires_duplicate_detection": st.booleans(),
        "placement": st.sampled_from([SINGLE, SPREAD]),
    }
)
settings_drawn = st.fixed_dictionaries(
    {
        "default_message_time_to_live_ms": st.sampled_from([None, None, None, 1_000, 50_000]),
        "dead_lettering_on_message_expiration": st.booleans(),
        "session_expiry": st.sampled_from([WHOLE_SESSION, PER_MESSAGE]),
        "status": st.sampled_from([ACTIVE] * 5 + [DISABLED, SEND_DISABLED, RECEIVE_DISABLED]),
        "duplicate_detection_history_time_window_ms": st.sampled_from([60_000, 20_000, 600_000]),
        "session_state_idle_ttl_ms": st.sampled_from([None, 300_000]),
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
    c.Send(KEY, (b"x", b"y"), ("a",), message_ids=("m1",)),
    c.Send(KEY, (b"x", b"y", b"z"), ("a",), ttls_ms=(1, 2)),
    c.Send(KEY, (b"x",), ("a",), ttls_ms=(TTL_MS_MAX + 1,)),
    c.Send(KEY, (b"x",), ("a",), due_ms=(SCHEDULE_MS_MAX + 1,)),
    c.CancelScheduled(KEY, [1] * 9),
    c.CancelScheduled(KEY, [1]),
    c.Browse(KEY, False, None, 0, 1, "R"),
    c.Browse(KEY, False, None, 0, 7),
    c.BreakLock(KEY, A, "b" * 129),
)
FIXED: dict[str, Any] = {
    "max_size_in_megabytes": 1,
    "max_message_size_in_kilobytes": 512,
    "max_session_state_size_in_kilobytes": 1,
}
