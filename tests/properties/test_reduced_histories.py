"""Histories that failed once, reduced to what they need, and played against the model again."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from lockstep.core import commands as c
from lockstep.core.commands import Outcome
from lockstep.core.ids import GrantNumber, RequestId, SessionId, SessionLock
from tests.properties.machine import BrokerMachine
from tests.properties.test_identical_histories import TripletSessionQueueMachine
from tests.properties.test_plain_queue import PlainQueueMachine
from tests.properties.test_session_queue import SessionQueueMachine
from tests.properties.vocabulary import KEY

A = SessionId("a")
FIRST = SessionLock(A, GrantNumber(2))
REQUEST = RequestId("c1", 1)


def play(machine: BrokerMachine, *commands: Any) -> None:
    for command in commands:
        machine.do(command)
        machine.agrees_with_the_model()
        machine.everything_is_stored()


def test_a_forgotten_call_cannot_be_cancelled_any_more() -> None:
    machine = PlainQueueMachine()
    send = c.Send(KEY, (b"x",), ("a",), REQUEST)
    play(machine, send)
    machine.wait(machine.rig.limits.request_retention_ms)

    play(machine, c.Cancel(KEY, REQUEST), send)


def test_a_refused_state_leaves_the_grace_as_it_was() -> None:
    machine = SessionQueueMachine()
    play(machine, c.Accept(KEY, A, "ann"))
    machine.restart()

    play(machine, c.SetState(KEY, FIRST, bytes(1025)))


def test_a_reused_request_leaves_the_grace_as_it_was() -> None:
    machine = SessionQueueMachine()
    play(machine, c.Accept(KEY, A, "ann", REQUEST))
    machine.restart()

    play(machine, c.Receive(KEY, False, FIRST, 1, REQUEST))


def test_a_repeated_accept_is_answered_after_accept_next_was_disabled() -> None:
    machine = SessionQueueMachine()
    accept = c.Accept(KEY, None, "ann", REQUEST)
    play(machine, c.Send(KEY, (b"x",), ("a",)), accept)
    machine.apply(accept_next="disabled")

    play(machine, accept)


@pytest.mark.parametrize("is_settled", [True, False], ids=["settlement", "repeated receive"])
def test_a_receiver_that_was_heard_of_after_an_outage_counts_again(is_settled: bool) -> None:
    machine = PlainQueueMachine()
    receive = c.Receive(KEY, False, None, 2, REQUEST)
    play(machine, c.Send(KEY, (b"x", b"y"), ("a",)), receive)
    machine.restart()
    first = machine.rig.queue.log.last_sequence - 1
    settled = (c.Settlement(Outcome.COMPLETE, FIRST.grant, [first]),)

    play(machine, c.Settle(KEY, False, None, settled) if is_settled else receive)
    machine.wait(60_000)

    machine.agrees_with_the_model()


def test_a_deleted_queue_leaves_no_rows() -> None:
    machine = PlainQueueMachine()
    play(machine, c.Send(KEY, (b"1", b"2", b"3", b"4"), ("a",)))
    machine.is_gathering = True
    play(machine, c.Receive(KEY, False, None, 3))
    first = machine.rig.queue.log.last_sequence - 3
    done = c.Settlement(Outcome.COMPLETE, FIRST.grant, [first, first + 1, first + 2])
    play(machine, c.Settle(KEY, False, None, (done,)))
    machine.recreate(is_deleted_first=True)
    machine.is_gathering = False

    machine.everything_is_stored()


@pytest.mark.usefixtures("triplet_database")
def test_what_ends_together_ends_in_the_order_it_began() -> None:
    machine = TripletSessionQueueMachine()
    with closing(machine.rig):
        for name in ("b", "a"):
            play(machine, c.Send(KEY, (b"x",), (name,)), c.Accept(KEY, SessionId(name), "ann"))
        machine.restart()
        machine.wait(60_000)

        play(machine, c.Accept(KEY, None, "bob"))

        assert machine.held() == [SessionLock(SessionId("b"), GrantNumber(FIRST.grant + 2))]


def test_a_given_up_call_is_no_other_call() -> None:
    machine = PlainQueueMachine()

    play(machine, c.GiveUp(KEY, REQUEST, 5, "receive"), c.Send(KEY, (b"x",), ("a",), REQUEST, 5))
