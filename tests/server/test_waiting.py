"""Waiting calls cost nothing, are served in their order, and leave nothing behind when they are cancelled."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.server import calls
from tests.server.server_process import (
    CALL_S,
    MakeServer,
    ServerProcess,
    Stubs,
    elapsed_since,
    now_ms,
    wait_until,
)

WAITERS = 1000
ORDERED = 110  # those whose order a test looks at
IDLE_MS = 3_000
IDLE_CPU_SHARE = 0.1
WAIT = calls.seconds(120)


@pytest.fixture(scope="module")
def server(make_shared_server: MakeServer) -> ServerProcess:
    return make_shared_server().start()


@pytest.fixture
def stubs(server: ServerProcess) -> Stubs:
    return server.stubs


def receivers(server: ServerProcess, queue: str) -> int:
    """Return how many receivers hold a session of a queue, or wait on it, by its metrics."""
    text = server.http("metrics", "/metrics/entities")[1]
    for line in text.splitlines():
        if line.startswith("lockstep_entity_receivers{") and f'entity="{queue}"' in line:
            return round(float(line.rpartition(" ")[2]))
    return 0


def accept_next(queue: str, **more: Any) -> messaging.AcceptSessionRequest:
    return messaging.AcceptSessionRequest(entity=queue, max_wait=WAIT, **more)


# --- many who wait ---------------------------------------------------------------------------------


@pytest.fixture
def crowd(server: ServerProcess) -> Iterator[list[grpc.Future[Any]]]:
    """Accepts that wait on the queue "crowd", the first ones in the order in which the server got them."""
    calls.create(server.stubs, "crowd", requires_session=True)
    waiting = []
    for number in range(WAITERS):
        request = accept_next("crowd", holder_client_id=str(number))
        waiting.append(server.stubs.messaging.AcceptSession.future(request))
        if number < ORDERED:
            # Calls that are made at once may come in any order; an answer shows that this one came before the next.
            calls.runtime(server.stubs, "crowd")
    wait_until(lambda: receivers(server, "crowd") == WAITERS, "all wait")
    yield waiting
    for call in waiting:
        call.cancel()
    calls.delete(server.stubs, "crowd")


def test_a_thousand_waiting_calls_cost_nothing_and_are_served_in_their_order(
    server: ServerProcess, stubs: Stubs, crowd: list[Any]
) -> None:
    before_ms, started_ms = server.cpu_ms(), now_ms()
    threading.Event().wait(IDLE_MS / 1000)
    used_ms, passed_ms = server.cpu_ms() - before_ms, elapsed_since(started_ms)
    assert used_ms < passed_ms * IDLE_CPU_SHARE

    for number in range(50):
        calls.send(stubs, "crowd", b"x", session=f"s{number}")
    for number in range(50):
        assert crowd[number].result(CALL_S).session.session_id == f"s{number}"
    together = [calls.message(b"x", f"t{number}") for number in range(50)]
    batch = messaging.SendMessagesRequest(entity="crowd", messages=together)
    stubs.messaging.SendMessages(batch, timeout=CALL_S)

    granted = [crowd[number].result(CALL_S).session.session_id for number in range(50, 100)]
    assert granted == [f"t{number}" for number in range(50)]
    assert not any(call.done() for call in crowd[100:])
    for number in (0, 50, 99):
        session = crowd[number].result().session.session_id
        shown = calls.session_info(stubs, "crowd", session)
        assert shown.holder_client_id == str(number)


def test_a_session_that_is_released_goes_to_who_waits_longest(stubs: Stubs) -> None:
    calls.create(stubs, "handed", requires_session=True)
    calls.send(stubs, "handed", b"1", session="s")
    held = calls.accept(stubs, "handed").session
    waiting = []
    for number in range(3):
        request = accept_next("handed", holder_client_id=str(number))
        waiting.append(stubs.messaging.AcceptSession.future(request))
        calls.runtime(stubs, "handed")  # carried out behind the accept
    for number, call in enumerate(waiting):
        calls.release(stubs, "handed", held)
        granted = call.result(CALL_S)
        assert calls.session_info(stubs, "handed", "s").holder_client_id == str(number)
        held = granted.session


def test_a_wait_ends_at_its_time_and_the_connection_stays_usable(stubs: Stubs) -> None:
    calls.create(stubs, "idle", requires_session=True)
    calls.create(stubs, "idle-plain")
    started_ms = now_ms()
    request = messaging.AcceptSessionRequest(entity="idle", max_wait=calls.seconds(0.3))

    got = calls.refused(stubs.messaging.AcceptSession, request)
    empty = calls.receive(stubs, "idle-plain", wait=calls.seconds(0.3))

    assert elapsed_since(started_ms) >= 600
    assert (got.code, got.reason) == (grpc.StatusCode.NOT_FOUND, "NO_SESSION_AVAILABLE")
    assert list(empty.messages) == []
    assert empty.short_reason == messaging.SHORT_REASON_NO_MORE_MESSAGES
    calls.send(stubs, "idle", b"1", session="s")
    assert calls.accept(stubs, "idle").session.session_id == "s"


# --- calls that are cancelled ------------------------------------------------------------------------


def test_waiting_calls_that_were_cancelled_get_nothing(server: ServerProcess, stubs: Stubs) -> None:
    calls.create(stubs, "gone", requires_session=True)
    calls.create(stubs, "gone-plain")
    held = calls.accept(stubs, "gone", "held").session
    for _ in range(10):
        waiting = [
            stubs.messaging.AcceptSession.future(accept_next("gone")),
            stubs.messaging.ReceiveMessages.future(calls.receive_request("gone", held, wait=WAIT)),
            stubs.messaging.ReceiveMessages.future(calls.receive_request("gone-plain", wait=WAIT)),
        ]
        wait_until(lambda: receivers(server, "gone") == 2, "the accept waits")
        wait_until(lambda: receivers(server, "gone-plain") == 1, "the receive waits")
        for call in waiting:
            call.cancel()
        wait_until(lambda: receivers(server, "gone") == 1, "the accept is gone")
        wait_until(lambda: receivers(server, "gone-plain") == 0, "the receive is gone")

    calls.send(stubs, "gone", b"1", session="s")
    calls.send(stubs, "gone", b"2", session="held")
    calls.send(stubs, "gone-plain", b"3")

    assert calls.runtime(stubs, "gone").locked_sessions == 1
    assert calls.runtime(stubs, "gone").locked_messages == 0
    assert calls.bodies_of(calls.receive(stubs, "gone", held)) == [b"2"]
    assert calls.accept(stubs, "gone").session.session_id == "s"
    plain = calls.receive(stubs, "gone-plain")
    assert (calls.bodies_of(plain), calls.counts_of(plain)) == ([b"3"], [0])


ROUNDS = 60


def race(first: Any, second: Any, moments: random.Random) -> None:
    """Run two calls at nearly the same time, either one first."""
    ready = threading.Barrier(2)

    def late() -> None:
        ready.wait(CALL_S)
        threading.Event().wait(moments.random() * 0.004)
        second()

    thread = threading.Thread(target=late)
    thread.start()
    ready.wait(CALL_S)
    threading.Event().wait(moments.random() * 0.004)
    first()
    thread.join(CALL_S)
    assert not thread.is_alive()


def test_a_receive_cancelled_while_a_message_arrives_loses_and_counts_nothing(
    stubs: Stubs,
) -> None:
    calls.create(stubs, "raced")
    ids, moments = calls.Ids("raced"), random.Random(3)
    for number in range(ROUNDS):
        request_id = ids.next()
        request = calls.receive_request("raced", wait=WAIT, request_id=request_id)
        waiting = stubs.messaging.ReceiveMessages.future(request)

        race(lambda n=number: calls.send(stubs, "raced", b"%d" % n), waiting.cancel, moments)
        calls.cancel(stubs, "raced", request_id)

        received = calls.receive(stubs, "raced")
        assert calls.bodies_of(received) == [b"%d" % number]
        assert calls.counts_of(received) == [0]
        assert calls.settle(stubs, "raced", "complete", tokens=calls.tokens_of(received)) == []


def test_an_accept_cancelled_while_a_message_arrives_leaves_no_lock(stubs: Stubs) -> None:
    calls.create(stubs, "orphans", requires_session=True)
    ids, moments = calls.Ids("orphans"), random.Random(4)
    for number in range(ROUNDS):
        session, request_id = f"s{number}", ids.next()
        waiting = stubs.messaging.AcceptSession.future(
            accept_next("orphans", request_id=request_id)
        )

        race(
            lambda s=session: calls.send(stubs, "orphans", b"x", session=s), waiting.cancel, moments
        )
        calls.cancel(stubs, "orphans", request_id)

        assert calls.runtime(stubs, "orphans").locked_sessions == 0
        accepted = calls.accept(stubs, "orphans")
        assert accepted.session.session_id == session
        received = calls.receive(stubs, "orphans", accepted.session)
        assert (calls.bodies_of(received), calls.counts_of(received)) == ([b"x"], [0])
        numbers = received.sequence_numbers
        calls.settle(stubs, "orphans", "complete", numbers=numbers, session=accepted.session)
        calls.release(stubs, "orphans", accepted.session)


def test_a_receive_in_a_session_cancelled_while_a_message_arrives_keeps_the_order(
    stubs: Stubs,
) -> None:
    calls.create(stubs, "ordered", requires_session=True)
    held = calls.accept(stubs, "ordered", "s").session
    ids, moments = calls.Ids("ordered"), random.Random(5)
    for number in range(ROUNDS):
        request_id = ids.next()
        request = calls.receive_request("ordered", held, wait=WAIT, request_id=request_id)
        waiting = stubs.messaging.ReceiveMessages.future(request)
        body = b"%d" % number

        race(lambda b=body: calls.send(stubs, "ordered", b, session="s"), waiting.cancel, moments)
        calls.cancel(stubs, "ordered", request_id, "s")

    received = calls.receive(stubs, "ordered", held, maximum=ROUNDS)
    assert calls.bodies_of(received) == [b"%d" % number for number in range(ROUNDS)]
    assert calls.counts_of(received) == [0] * ROUNDS


def test_a_connection_that_breaks_while_it_waits_leaves_no_lock(
    server: ServerProcess, stubs: Stubs
) -> None:
    calls.create(stubs, "broken", requires_session=True)
    with server.other_stubs() as others:
        waiting = [others.messaging.AcceptSession.future(accept_next("broken")) for _ in range(5)]
        wait_until(lambda: receivers(server, "broken") == 5, "all wait")
    wait_until(lambda: receivers(server, "broken") == 0, "all are gone")
    assert all(call.done() for call in waiting)

    calls.send(stubs, "broken", b"1", session="s")

    assert calls.accept(stubs, "broken").session.session_id == "s"


# --- back-pressure (ADD-14) --------------------------------------------------------------------------


def assert_busy(got: calls.Refusal, limit: str, configured: int) -> None:
    assert (got.code, got.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_BUSY")
    assert got.retry_after_ms
    assert got.facts["configured"] == str(configured)
    assert limit in got.facts["limit"]


def test_open_calls_over_the_limit_are_refused_but_not_those_of_a_holder(
    make_server: MakeServer,
) -> None:
    most = 6
    server = make_server(settings={"limits.concurrent_requests_max": most}).start()
    stubs, api = server.stubs, server.stubs.messaging
    calls.create(stubs, "s", requires_session=True)
    calls.create(stubs, "p")
    calls.send(stubs, "s", b"1", session="x")
    calls.send(stubs, "p", b"1")
    tokens = calls.tokens_of(calls.receive(stubs, "p"))
    held = calls.accept(stubs, "s", "x").session
    numbers = calls.receive(stubs, "s", held).sequence_numbers
    waiting = [api.AcceptSession.future(accept_next("s")) for _ in range(most)]
    wait_until(lambda: receivers(server, "s") == most + 1, "the limit is reached")

    refused = [
        calls.refused(api.SendMessages, calls.send_request("s", b"2", session="x")),
        calls.refused(
            api.AcceptSession, messaging.AcceptSessionRequest(entity="s", session_id="y")
        ),
        calls.refused(api.ReceiveMessages, calls.receive_request("p")),
        calls.refused(stubs.admin.ListQueues, admin.ListQueuesRequest()),
    ]

    for got in refused:
        assert_busy(got, "concurrent_requests_max", most)
    assert server.is_serving()
    for _ in range(20):
        calls.renew(stubs, "s", held)
        calls.set_state(stubs, "s", held, b"v")
        calls.get_state(stubs, "s", held)
    renewal = messaging.RenewMessageLocksRequest(entity="p", lock_tokens=tokens)
    assert not api.RenewMessageLocks(renewal, timeout=CALL_S).failures
    assert calls.settle(stubs, "p", "complete", tokens=tokens) == []
    assert calls.settle(stubs, "s", "complete", numbers=numbers, session=held) == []
    assert calls.release(stubs, "s", held) == 0
    for call in waiting:
        call.cancel()
    wait_until(lambda: receivers(server, "s") == 0, "nobody waits")
    calls.send(stubs, "s", b"2", session="x")


def test_waiting_calls_over_the_limit_are_refused_and_the_queue_goes_on(
    make_server: MakeServer,
) -> None:
    most = 3
    server = make_server(settings={"limits.waiters_max": most}).start()
    stubs, api = server.stubs, server.stubs.messaging
    for queue in ("s", "other"):
        calls.create(stubs, queue, requires_session=True)
    held = calls.accept(stubs, "s", "x").session
    waiting = [api.AcceptSession.future(accept_next("s")) for _ in range(most)]
    wait_until(lambda: receivers(server, "s") == most + 1, "the limit is reached")

    assert_busy(calls.refused(api.AcceptSession, accept_next("s")), "waiters_max", most)
    long = calls.receive_request("s", held, wait=WAIT)
    assert_busy(calls.refused(api.ReceiveMessages, long), "waiters_max", most)

    calls.send(stubs, "s", b"1", session="x")
    received = calls.receive(stubs, "s", held)
    assert (
        calls.settle(stubs, "s", "complete", numbers=received.sequence_numbers, session=held) == []
    )
    calls.send(stubs, "other", b"1", session="y")
    assert calls.accept(stubs, "other", wait=WAIT).session.session_id == "y"
    calls.send(stubs, "s", b"1", session="z")
    assert waiting[0].result(CALL_S).session.session_id == "z"


def test_a_full_inbox_refuses_sends_without_effect_and_no_call_of_a_holder(
    make_server: MakeServer,
) -> None:
    most, burst = 2, 150
    server = make_server(settings={"limits.inbox_commands_max": most}).start()
    stubs, api = server.stubs, server.stubs.messaging
    calls.create(stubs, "s", requires_session=True)
    calls.create(stubs, "p")
    held = calls.accept(stubs, "s", "x").session
    sends = [api.SendMessages.future(calls.send_request("p", b"%d" % n)) for n in range(burst)]
    states = []
    for number in range(burst):
        request = messaging.SetSessionStateRequest(entity="s", session=held, value=b"%d" % number)
        states.append(api.SetSessionState.future(request))

    refusals, stored = [], set()
    for number, call in enumerate(sends):
        error = call.exception(CALL_S)
        if error is None:
            stored.add(b"%d" % number)
        else:
            refusals.append(calls.refusal_of(error))

    assert refusals, "the burst was too small for the inbox to be full"
    for got in refusals:
        assert_busy(got, "commands", most)
    versions = [call.result(CALL_S).version for call in states]
    assert versions == sorted(set(versions))
    there: list[bytes] = []
    while received := calls.bodies_of(calls.receive(stubs, "p", maximum=1000)):
        there += received
    assert sorted(there) == sorted(stored)
    text = server.http("metrics", "/metrics/entities")[1]
    counted = [one for one in text.splitlines() if 'reason="backpressure"' in one and '"p"' in one]
    assert float(counted[0].rpartition(" ")[2]) == len(refusals)
