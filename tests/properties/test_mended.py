"""What the core once did against the contract, each as a history of its own."""

from __future__ import annotations

from typing import Any

import pytest

from lockstep.core import commands as c
from lockstep.core import replies
from lockstep.core.commands import Outcome
from lockstep.core.entity import RECEIVE_DISABLED
from lockstep.core.errors import LockstepError, MessageNotFound
from lockstep.core.ids import GrantNumber, RequestId, SessionId, SessionLock
from tests.properties.dump import everything
from tests.properties.rig import START_MS, Rig, define
from tests.properties.vocabulary import FIXED, KEY, LIMITS

A = SessionId("a")
REQUEST = RequestId("c1", 1)


class Bench:
    """A queue with three messages, received by somebody, with a lock of half a minute."""

    def __init__(self, *, has_sessions: bool) -> None:
        settings = {"requires_session": has_sessions, "lock_duration_ms": 30_000, **FIXED}
        self.settings: dict[str, Any] = settings
        self.rig = Rig(define(7, 1000, **settings), LIMITS)
        self.now_ms = START_MS
        self.do(c.Send(KEY, (b"1", b"2", b"3"), ("a",)))
        self.lock: SessionLock | None = None
        if has_sessions:
            self.lock = self.do(c.Accept(KEY, A, "ann")).session
        got = self.do(c.Receive(KEY, False, self.lock, 3))
        self.grant: GrantNumber = got.grant
        self.numbers = list(got.sequences)

    def do(self, command: c.Command) -> Any:
        """Carry out a command, store what it changed, and return its reply."""
        reply = self.rig.step(command, self.now_ms).reply
        self.rig.commit()
        return reply

    def settle(self, outcome: Outcome, sequences: list[int]) -> replies.Settled:
        """Settle messages."""
        settled = c.Settlement(outcome, self.grant, sequences)
        reply = self.do(c.Settle(KEY, False, self.lock, (settled,)))
        assert isinstance(reply, replies.Settled)
        return reply


def test_a_refused_receive_of_deferred_messages_leaves_the_grace_as_it_was() -> None:
    """Raised means unchanged (the core's law): the holder's lock must still end as `grace_ended`, +0 (ADD-4)."""
    bench = Bench(has_sessions=True)
    bench.rig.reopen(bench.now_ms)
    before = everything(bench.rig.partition)

    with pytest.raises(MessageNotFound):
        bench.do(c.ReceiveDeferred(KEY, False, bench.lock, bench.numbers))

    assert everything(bench.rig.partition) == before


@pytest.mark.parametrize(
    "refused",
    [
        c.Accept(KEY, A, "bob"),
        c.Receive(KEY, False, SessionLock(A, GrantNumber(99)), 1),
    ],
    ids=["accept", "receive"],
)
def test_a_refused_call_is_no_use_of_the_queue(refused: c.Command) -> None:
    """Raised means unchanged (the core's law); what is refused keeps no queue (section 16.3)."""
    bench = Bench(has_sessions=True)
    bench.now_ms += 1_000

    with pytest.raises(LockstepError):
        bench.do(refused)

    assert bench.rig.queue.activity.used_ms == START_MS


def test_a_receive_of_no_deferred_message_gives_out_no_grant() -> None:
    """DEF-2: nothing is stored, so the same grant would be given out again after a restart (SES-26)."""
    bench = Bench(has_sessions=False)

    bench.do(c.ReceiveDeferred(KEY, False, None, []))

    bench.rig.check_store(bench.now_ms)


def test_who_repeats_a_receive_of_deferred_messages_after_an_outage_is_back() -> None:
    """ADD-4: as who repeats a receive is; its lock then ends by expiry, +1."""
    bench = Bench(has_sessions=False)
    bench.settle(Outcome.DEFER, bench.numbers)
    receive = c.ReceiveDeferred(KEY, False, None, bench.numbers[:1], REQUEST)
    bench.do(receive)
    bench.rig.reopen(bench.now_ms)

    bench.do(receive)
    bench.now_ms += 60_000
    bench.do(c.Tick())

    assert bench.rig.queue.counts[bench.numbers[0]] == 2


def test_a_deferred_message_that_is_named_twice_is_settled_once_and_fails_once() -> None:
    """BAT-10, LCK-3: as any other message, and as a deferred one of a plain queue."""
    bench = Bench(has_sessions=True)
    bench.settle(Outcome.DEFER, bench.numbers[:1])
    bench.do(c.ReceiveDeferred(KEY, False, bench.lock, bench.numbers[:1]))

    settled = bench.settle(Outcome.COMPLETE, bench.numbers[:1] * 2)

    assert [failure.sequence for failure in settled.failures] == bench.numbers[:1]


@pytest.mark.parametrize("has_sessions", [True, False])
def test_a_repeated_receive_is_answered_after_receiving_was_disabled(has_sessions: bool) -> None:
    """ADD-3: with the first result, as a repeated accept or send is."""
    bench = Bench(has_sessions=has_sessions)
    bench.do(c.Send(KEY, (b"4",), ("a",)))
    receive = c.Receive(KEY, False, bench.lock, 1, REQUEST)
    first = bench.do(receive)
    bench.do(c.ApplyDefinition(define(7, 1001, **{**bench.settings, "status": RECEIVE_DISABLED})))

    assert bench.do(receive).sequences == first.sequences


def test_a_session_of_scheduled_messages_is_not_counted_as_idle_with_a_state() -> None:
    """CNT-1: `Runtime.idle_sessions_with_state` counts sessions without messages whose state is kept."""
    bench = Bench(has_sessions=True)
    later_ms = bench.now_ms + 60_000
    bench.do(c.Send(KEY, (b"4",), ("later",), due_ms=(later_ms,)))

    assert bench.do(c.GetRuntime(KEY)).idle_sessions_with_state == 0
