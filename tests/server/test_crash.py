"""kill -9: what was acknowledged is there after it, once, in order, under the same locks."""

from __future__ import annotations

import random

import pytest

from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import entity_pb2
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.server import calls
from tests.server.load import QUEUE, Load
from tests.server.server_process import CALL_S, MakeServer, ServerProcess, Stubs, wait_until

CRASHES = 6
SEEDS = (1,)  # more of them for a longer look


@pytest.fixture
def server(make_server: MakeServer) -> ServerProcess:
    return make_server().start()


@pytest.mark.parametrize("seed", SEEDS)
def test_crashes_under_load_lose_nothing_and_repeat_nothing(
    server: ServerProcess, seed: int
) -> None:
    moments = random.Random(seed)
    calls.create(server.stubs, QUEUE, requires_session=True)
    load = Load(server, senders=3, workers=2)
    load.start()
    try:
        for _ in range(CRASHES):
            more = load.acknowledged + moments.randint(5, 120)
            wait_until(lambda more=more: load.acknowledged >= more, "sends go on")
            server.restart(with_kill=True)
        load.finish_sending()
        wait_until(lambda: load.completed >= load.acknowledged, "workers catch up")
    finally:
        load.finish()

    book = load.book
    assert book.troubles == []
    assert book.counts == []
    assert book.retries > 0
    assert dict(book.completed) == dict(book.sent)
    for session_id, pairs in book.sent.items():
        assert [body for body, _ in pairs] == [b"%d" % n for n in range(len(pairs))]
        numbers = [number for _, number in pairs]
        assert numbers == sorted(set(numbers))
        assert book.states[session_id] == pairs[-1][0]
    assert calls.runtime(server.stubs, QUEUE).total_messages == 0
    assert "Traceback" not in server.log()


def test_what_was_acknowledged_and_not_completed_is_there_in_order(server: ServerProcess) -> None:
    stubs = server.stubs
    calls.create(stubs, QUEUE, requires_session=True)
    load = Load(server, senders=4, workers=0)
    load.start()
    try:
        wait_until(lambda: load.acknowledged > 200, "sends go on")
        server.kill()
        server.start()
        load.finish_sending()
    finally:
        load.finish()

    sent = load.book.sent
    assert calls.runtime(stubs, QUEUE).active_messages == load.acknowledged
    for session_id, pairs in sent.items():
        held = calls.accept(stubs, QUEUE, session_id).session
        received = calls.receive(stubs, QUEUE, held, maximum=4000)
        got = zip(calls.bodies_of(received), received.sequence_numbers, strict=True)
        assert list(got) == pairs
        assert calls.counts_of(received) == [0] * len(pairs)


# --- one thing at a time -----------------------------------------------------------------------------


@pytest.fixture
def stubs(server: ServerProcess) -> Stubs:
    """Stubs with a session queue `s` and a plain queue `p`."""
    calls.create(server.stubs, "s", requires_session=True)
    calls.create(server.stubs, "p")
    return server.stubs


def test_a_holder_goes_on_with_its_token_and_no_count_rises(
    server: ServerProcess, stubs: Stubs
) -> None:
    calls.send(stubs, "s", b"1", b"2", b"3", b"4", session="x")
    held = calls.accept(stubs, "s", "x")
    got = calls.receive(stubs, "s", held.session, maximum=3)
    first, second, third = got.sequence_numbers
    calls.settle(stubs, "s", "abandon", numbers=[second], session=held.session)

    server.restart(with_kill=True)

    other = messaging.AcceptSessionRequest(entity="s", session_id="x")
    assert calls.refused(stubs.messaging.AcceptSession, other).reason == "SESSION_CANNOT_BE_LOCKED"
    assert calls.session_info(stubs, "s", "x").grant == held.grant
    calls.renew(stubs, "s", held.session)
    assert calls.settle(stubs, "s", "complete", numbers=[first, third], session=held.session) == []
    rest = calls.receive(stubs, "s", held.session)
    assert calls.bodies_of(rest) == [b"2", b"4"]
    assert calls.counts_of(rest) == [1, 0]
    calls.release(stubs, "s", held.session)
    again = calls.accept(stubs, "s", "x")
    assert again.grant > held.grant
    assert calls.counts_of(calls.receive(stubs, "s", again.session)) == [1, 0]


def test_locks_of_single_messages_go_on_and_no_count_rises(
    server: ServerProcess, stubs: Stubs
) -> None:
    calls.send(stubs, "p", b"1", b"2", b"3")
    tokens = calls.tokens_of(calls.receive(stubs, "p", maximum=3))
    calls.settle(stubs, "p", "abandon", tokens=tokens[1:2])

    server.restart(with_kill=True)

    request = messaging.RenewMessageLocksRequest(entity="p", lock_tokens=tokens)
    renewed = stubs.messaging.RenewMessageLocks(request, timeout=CALL_S)
    assert [one.lock_token for one in renewed.failures] == [tokens[1]]
    assert calls.settle(stubs, "p", "complete", tokens=tokens[:1]) == []
    assert calls.settle(stubs, "p", "release", tokens=tokens[2:]) == []
    rest = calls.receive(stubs, "p")
    assert (calls.bodies_of(rest), calls.counts_of(rest)) == ([b"2", b"3"], [1, 0])


def test_locks_whose_holders_do_not_come_back_end_without_a_count(
    make_server: MakeServer,
) -> None:
    server = make_server(settings={"outage_grace_ms": 300}).start()
    stubs = server.stubs
    calls.create(stubs, "p", lock_duration=calls.seconds(5))
    calls.create(stubs, "s", requires_session=True, lock_duration=calls.seconds(5))
    calls.send(stubs, "p", b"1")
    calls.send(stubs, "s", b"1", session="x")
    held = calls.accept(stubs, "s", "x").session
    calls.receive(stubs, "s", held)
    calls.receive(stubs, "p")

    server.restart(with_kill=True)

    plain = calls.receive(stubs, "p", wait=calls.seconds(15))
    accepted = calls.accept(stubs, "s", wait=calls.seconds(15))
    assert calls.counts_of(plain) == [0]
    assert calls.counts_of(calls.receive(stubs, "s", accepted.session)) == [0]
    renewal = messaging.RenewSessionLockRequest(entity="s", session=held)
    got = calls.refused(stubs.messaging.RenewSessionLock, renewal)
    assert (got.reason, got.facts["cause"]) == ("SESSION_LOCK_LOST", "grace_ended")


def test_state_and_its_version_are_as_acknowledged(server: ServerProcess, stubs: Stubs) -> None:
    held = {name: calls.accept(stubs, "s", name).session for name in "abc"}
    versions = {}
    for name, values in {"a": [b"1", b"2"], "b": [b"1", b""], "c": [b"1", None]}.items():
        first, versions[name] = [calls.set_state(stubs, "s", held[name], v) for v in values]
        assert versions[name] > first

    server.restart(with_kill=True)

    states = {name: calls.get_state(stubs, "s", lock) for name, lock in held.items()}
    assert {name: state.version for name, state in states.items()} == versions
    assert states["a"].value == b"2"
    assert states["b"].HasField("value")
    assert states["b"].value == b""
    assert not states["c"].HasField("value")


def test_a_retry_of_an_acknowledged_call_gets_the_first_answer(
    server: ServerProcess, stubs: Stubs
) -> None:
    ids = calls.Ids("retrier")
    api = stubs.messaging
    send = calls.send_request("s", b"1", b"2", session="x", request_id=ids.next())
    sent = api.SendMessages(send, timeout=CALL_S)
    accept = messaging.AcceptSessionRequest(entity="s", session_id="x", request_id=ids.next())
    accepted = api.AcceptSession(accept, timeout=CALL_S)
    receive = calls.receive_request("s", accepted.session, maximum=1, request_id=ids.next())
    received = api.ReceiveMessages(receive, timeout=CALL_S)
    state = messaging.SetSessionStateRequest(
        entity="s", session=accepted.session, value=b"v", request_id=ids.next()
    )
    written = api.SetSessionState(state, timeout=CALL_S)

    server.restart(with_kill=True)

    assert api.SendMessages(send, timeout=CALL_S) == sent
    assert api.SetSessionState(state, timeout=CALL_S) == written
    again = api.AcceptSession(accept, timeout=CALL_S)
    assert (again.session, again.grant) == (accepted.session, accepted.grant)
    repeated = api.ReceiveMessages(receive, timeout=CALL_S)
    assert list(repeated.messages) == list(received.messages)
    assert list(repeated.sequence_numbers) == list(received.sequence_numbers)
    assert calls.runtime(stubs, "s").total_messages == 2


def test_a_queue_deleted_and_settings_changed_before_the_crash_stay_so(
    server: ServerProcess, stubs: Stubs
) -> None:
    calls.send(stubs, "p", b"1")
    calls.delete(stubs, "p")
    changed = stubs.admin.UpdateQueue(
        admin.UpdateQueueRequest(name="s", settings=entity_pb2.QueueSettings(max_delivery_count=3)),
        timeout=CALL_S,
    ).queue

    server.restart(with_kill=True)

    listed = stubs.admin.ListQueues(admin.ListQueuesRequest(), timeout=CALL_S)
    assert list(listed.queues) == [changed]
