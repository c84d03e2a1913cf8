"""Requests that were right once, or elsewhere: stale grants, other queues' tokens, repeats, full queues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.v1 import request_pb2, session_pb2
from tests.server import calls
from tests.server.server_process import CALL_S, MakeServer, ServerProcess, Stubs

REMEMBERED = 8
FAILED = grpc.StatusCode.FAILED_PRECONDITION
Lock = session_pb2.SessionLock


@pytest.fixture(scope="module")
def server(make_shared_server: MakeServer) -> Iterator[ServerProcess]:
    limits = {"limits.requests_per_client_max": REMEMBERED}
    server = make_shared_server(settings=limits).start()
    yield server
    assert server.is_serving()
    assert "Traceback" not in server.log()


@pytest.fixture
def stubs(server: ServerProcess) -> Stubs:
    return server.stubs


def under(lock: Lock, queue: str, stubs: Stubs) -> list[tuple[Any, Any]]:
    """Return every call that a holder makes, under a lock."""
    done = [calls.settlement("complete", numbers=[1])]
    made = messaging
    api = stubs.messaging
    return [
        (api.ReceiveMessages, calls.receive_request(queue, lock)),
        (api.SettleMessages, made.SettleMessagesRequest(entity=queue, session=lock, settlements=done)),
        (api.RenewSessionLock, made.RenewSessionLockRequest(entity=queue, session=lock)),
        (api.GetSessionState, made.GetSessionStateRequest(entity=queue, session=lock)),
        (api.SetSessionState, made.SetSessionStateRequest(entity=queue, session=lock, value=b"x")),
        (api.ReleaseSession, made.ReleaseSessionRequest(entity=queue, session=lock)),
    ]  # fmt: skip


def assert_all_lost(lock: Lock, queue: str, stubs: Stubs, **facts: str) -> None:
    for call, request in under(lock, queue, stubs):
        got = calls.refused(call, request)
        assert (got.code, got.reason) == (FAILED, "SESSION_LOCK_LOST"), got.text
        assert facts.items() <= got.facts.items()


def test_a_closed_grant_is_refused_with_the_cause_and_the_newer_holder(stubs: Stubs) -> None:
    calls.create(stubs, "stale", requires_session=True)
    calls.send(stubs, "stale", b"1", b"2", session="s")
    old = calls.accept(stubs, "stale", "s").session
    calls.receive(stubs, "stale", old)
    calls.release(stubs, "stale", old)
    assert_all_lost(old, "stale", stubs, cause="closed", session_id="s")
    new = calls.accept(stubs, "stale", "s", holder="newer").session
    received = calls.receive(stubs, "stale", new)

    assert_all_lost(old, "stale", stubs, cause="closed", holder="newer")

    assert (
        calls.settle(stubs, "stale", "complete", numbers=received.sequence_numbers, session=new)
        == []
    )
    assert calls.get_state(stubs, "stale", new).version == 0


def test_an_old_delivery_cannot_be_settled_under_the_new_grant(stubs: Stubs) -> None:
    calls.create(stubs, "again", requires_session=True)
    calls.send(stubs, "again", b"1", session="s")
    old = calls.accept(stubs, "again", "s").session
    tokens = calls.tokens_of(calls.receive(stubs, "again", old))
    calls.release(stubs, "again", old)
    new = calls.accept(stubs, "again", "s").session
    calls.receive(stubs, "again", new)

    failures = calls.settle(stubs, "again", "complete", tokens=tokens, session=new)

    assert [one.reason for one in failures] == ["MESSAGE_LOCK_LOST"]
    assert failures[0].lock_token == tokens[0]
    assert calls.runtime(stubs, "again").active_messages == 1


def test_a_grant_opens_neither_another_session_nor_another_queue(stubs: Stubs) -> None:
    calls.create(stubs, "mine", requires_session=True)
    calls.create(stubs, "theirs", requires_session=True)
    for queue in ("mine", "theirs"):
        calls.send(stubs, queue, b"1", session="s")
    held = calls.accept(stubs, "mine", "s").session
    calls.accept(stubs, "theirs", "s", holder="other")

    assert_all_lost(held, "theirs", stubs, holder="other")
    assert_all_lost(Lock(session_id="t", lock_token=held.lock_token), "mine", stubs)

    calls.renew(stubs, "mine", held)


def test_tokens_of_another_queue_settle_and_renew_nothing(stubs: Stubs) -> None:
    for queue in ("here", "there"):
        calls.create(stubs, queue)
        calls.send(stubs, queue, b"1")
    here = calls.tokens_of(calls.receive(stubs, "here"))
    calls.receive(stubs, "there")
    renewal = messaging.RenewMessageLocksRequest(entity="there", lock_tokens=here)

    failures = calls.settle(stubs, "there", "complete", tokens=here)
    renewed = stubs.messaging.RenewMessageLocks(renewal, timeout=CALL_S)

    assert [one.reason for one in failures] == ["MESSAGE_LOCK_LOST"]
    assert [one.reason for one in renewed.failures] == ["MESSAGE_LOCK_LOST"]
    assert calls.runtime(stubs, "there").locked_messages == 1
    assert calls.settle(stubs, "here", "complete", tokens=here) == []


def test_zero_and_foreign_tokens_settle_and_renew_nothing(stubs: Stubs) -> None:
    calls.create(stubs, "foreign")
    calls.send(stubs, "foreign", b"1")
    calls.receive(stubs, "foreign")
    most = (2**63 - 1).to_bytes(8, "big")
    tokens = [bytes(16), most + most, most + bytes(8), bytes(8) + most]
    renewal = messaging.RenewMessageLocksRequest(entity="foreign", lock_tokens=tokens)

    failures = calls.settle(stubs, "foreign", "complete", tokens=tokens)
    renewed = stubs.messaging.RenewMessageLocks(renewal, timeout=CALL_S)

    assert {one.lock_token for one in failures} == set(tokens)
    assert {one.reason for one in failures} == {"MESSAGE_LOCK_LOST"}
    assert len(renewed.failures) == len(tokens)
    assert "never granted" in failures[0].description
    assert calls.runtime(stubs, "foreign").locked_messages == 1


def test_a_deleted_and_recreated_queue_knows_nothing_of_its_predecessor(stubs: Stubs) -> None:
    calls.create(stubs, "reborn", requires_session=True)
    numbers = calls.send(stubs, "reborn", b"1", session="s")
    held = calls.accept(stubs, "reborn", "s").session
    calls.set_state(stubs, "reborn", held, b"old")
    calls.delete(stubs, "reborn")
    for call, request in under(held, "reborn", stubs):
        assert calls.refused(call, request).reason == "ENTITY_NOT_FOUND"
    calls.create(stubs, "reborn", requires_session=True)
    assert calls.send(stubs, "reborn", b"2", session="s") == numbers

    assert_all_lost(held, "reborn", stubs)

    new = calls.accept(stubs, "reborn", "s")
    assert not new.state.HasField("value")
    assert calls.bodies_of(calls.receive(stubs, "reborn", new.session)) == [b"2"]


def test_a_waiting_call_learns_that_its_queue_was_deleted(stubs: Stubs) -> None:
    calls.create(stubs, "closing", requires_session=True)
    wait = messaging.AcceptSessionRequest(entity="closing", max_wait=calls.seconds(30))
    waiting = stubs.messaging.AcceptSession.future(wait, timeout=CALL_S)
    calls.create(stubs, "between")  # carried out behind the accept, on the same connection
    calls.delete(stubs, "closing")

    assert calls.refusal_of(waiting.exception()).reason == "ENTITY_NOT_FOUND"


def test_unknown_and_doubled_numbers_fail_alone(stubs: Stubs) -> None:
    calls.create(stubs, "numbers", requires_session=True)
    first, second, third = calls.send(stubs, "numbers", b"1", b"2", b"3", session="s")
    held = calls.accept(stubs, "numbers", "s").session
    calls.receive(stubs, "numbers", held, maximum=2)
    wrong = [third + 1, 2**63 - 1, third]

    failures = calls.settle(
        stubs, "numbers", "complete", numbers=[*wrong, first, first], session=held
    )

    assert sorted(one.sequence_number for one in failures) == sorted([*wrong, first])
    assert {one.reason for one in failures} == {"MESSAGE_LOCK_LOST"}
    shown = calls.session_info(stubs, "numbers", "s")
    assert (shown.active_messages, shown.locked_messages) == (2, 1)
    assert calls.settle(stubs, "numbers", "complete", numbers=[second], session=held) == []


@pytest.mark.parametrize("number", [0, -1, -(2**63)])
def test_a_number_below_1_has_the_settlement_refused_whole(stubs: Stubs, number: int) -> None:
    queue = f"below-{abs(number)}"
    calls.create(stubs, queue, requires_session=True)
    (first,) = calls.send(stubs, queue, b"1", session="s")
    held = calls.accept(stubs, queue, "s").session
    calls.receive(stubs, queue, held)
    done = [calls.settlement("complete", numbers=[first, number])]
    request = messaging.SettleMessagesRequest(entity=queue, session=held, settlements=done)

    got = calls.refused(stubs.messaging.SettleMessages, request)

    assert (got.code, got.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert str(number) in got.text
    assert calls.runtime(stubs, queue).locked_messages == 1


def test_both_lists_of_a_settlement_count_once_for_each_message(stubs: Stubs) -> None:
    calls.create(stubs, "both", requires_session=True)
    calls.send(stubs, "both", b"1", b"2", b"3", session="s")
    held = calls.accept(stubs, "both", "s").session
    received = calls.receive(stubs, "both", held)
    numbers, tokens = list(received.sequence_numbers), calls.tokens_of(received)

    failures = calls.settle(
        stubs, "both", "complete", numbers=numbers[:2], tokens=tokens[1:], session=held
    )

    assert [(one.sequence_number, one.lock_token) for one in failures] == [(numbers[1], tokens[1])]
    assert calls.runtime(stubs, "both").total_messages == 0


def test_a_settlement_with_a_wrong_part_settles_nothing(stubs: Stubs) -> None:
    calls.create(stubs, "whole")
    calls.send(stubs, "whole", b"1")
    tokens = calls.tokens_of(calls.receive(stubs, "whole"))
    sound = calls.settlement("complete", tokens=tokens)
    for wrong in (
        messaging.Settlement(lock_tokens=tokens),
        calls.settlement("abandon", tokens=[b"x"]),
    ):
        request = messaging.SettleMessagesRequest(entity="whole", settlements=[sound, wrong])

        assert calls.refused(stubs.messaging.SettleMessages, request).reason == "INVALID_ARGUMENT"

    assert calls.settle(stubs, "whole", "complete", tokens=tokens) == []


# --- session state ---------------------------------------------------------------------------------


def test_a_state_too_large_leaves_the_old_one(stubs: Stubs) -> None:
    calls.create(stubs, "state", requires_session=True, max_session_state_size_in_kilobytes=2)
    held = calls.accept(stubs, "state", "s").session
    version = calls.set_state(stubs, "state", held, b"kept")
    size = calls.runtime(stubs, "state").size_bytes
    request = messaging.SetSessionStateRequest(entity="state", session=held, value=bytes(2049))

    got = calls.refused(stubs.messaging.SetSessionState, request)

    assert (got.code, got.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_SIZE_EXCEEDED")
    assert "2048" in got.text
    assert "2049" in got.text
    assert calls.get_state(stubs, "state", held) == session_pb2.SessionState(
        value=b"kept", version=version
    )
    assert calls.runtime(stubs, "state").size_bytes == size
    assert calls.set_state(stubs, "state", held, bytes(2048)) > version


# --- request ids -----------------------------------------------------------------------------------


def test_a_reused_request_id_is_refused_for_every_kind_of_call(stubs: Stubs) -> None:
    calls.create(stubs, "reused", requires_session=True)
    one = request_pb2.RequestId(client_id="reuser", counter=1)
    calls.send(stubs, "reused", b"1", session="s", request_id=one)
    held = calls.accept(stubs, "reused", "s").session
    done = [calls.settlement("complete", numbers=[1])]
    settle = messaging.SettleMessagesRequest(entity="reused", session=held, settlements=done)
    same: list[tuple[Callable[..., Any], Any]] = [
        (stubs.messaging.SendMessages, calls.send_request("reused", b"2", session="s")),
        (stubs.messaging.AcceptSession, messaging.AcceptSessionRequest(entity="reused", session_id="t")),
        (stubs.messaging.ReceiveMessages, calls.receive_request("reused", held)),
        (stubs.messaging.SettleMessages, settle),
        (stubs.messaging.SetSessionState, messaging.SetSessionStateRequest(entity="reused", session=held)),
        (stubs.messaging.ReleaseSession, messaging.ReleaseSessionRequest(entity="reused", session=held)),
        (stubs.admin.CreateQueue, admin.CreateQueueRequest(name="reused-2")),
        (stubs.admin.UpdateQueue, admin.UpdateQueueRequest(name="reused")),
        (stubs.admin.DeleteQueue, admin.DeleteQueueRequest(name="reused")),
    ]  # fmt: skip
    for call, request in same:
        request.request_id.CopyFrom(one)

        got = calls.refused(call, request)

        assert (got.code, got.reason) == (FAILED, "REQUEST_ID_REUSED")

    assert calls.runtime(stubs, "reused").total_messages == 1
    assert calls.session_info(stubs, "reused", "t").grant == 0


def test_a_repeat_is_answered_and_an_expired_id_is_refused(stubs: Stubs) -> None:
    calls.create(stubs, "repeats")
    ids = calls.Ids("repeater")
    used = [ids.next() for _ in range(3 * REMEMBERED)]
    sent = [calls.send(stubs, "repeats", b"x", request_id=one) for one in used]

    assert calls.send(stubs, "repeats", b"x", request_id=used[-1]) == sent[-1]
    got = calls.refused(
        stubs.messaging.SendMessages, calls.send_request("repeats", b"x", request_id=used[0])
    )

    assert (got.code, got.reason) == (FAILED, "REQUEST_ID_EXPIRED")
    assert str(REMEMBERED) in got.text
    assert calls.runtime(stubs, "repeats").total_messages == len(used)


def test_a_cancelled_request_id_keeps_its_call_from_having_an_effect(stubs: Stubs) -> None:
    calls.create(stubs, "cancelled", requires_session=True)
    calls.send(stubs, "cancelled", b"1", session="s")
    one = request_pb2.RequestId(client_id="canceller", counter=7)
    assert calls.cancel(stubs, "cancelled", one) is False
    request = messaging.AcceptSessionRequest(entity="cancelled", session_id="s", request_id=one)

    got = calls.refused(stubs.messaging.AcceptSession, request)

    assert (got.code, got.reason) == (grpc.StatusCode.ABORTED, "REQUEST_CANCELLED")
    assert calls.runtime(stubs, "cancelled").locked_sessions == 0


# --- a full queue ----------------------------------------------------------------------------------


def test_a_full_queue_refuses_sends_and_nothing_else(stubs: Stubs) -> None:
    calls.create(stubs, "full", requires_session=True, max_size_in_megabytes=1)
    half = bytes(500_000)
    calls.send(stubs, "full", half, half, session="s")
    more = calls.send_request("full", half, session="s")

    got = calls.refused(stubs.messaging.SendMessages, more)

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (got.code, got.reason) == (code, "QUOTA_EXCEEDED")
    assert got.facts["limit"] == "max_size_in_megabytes"
    assert str(1024 * 1024) in got.text
    assert int(got.facts["observed"]) > 1_500_000
    held = calls.accept(stubs, "full", "s").session
    calls.set_state(stubs, "full", held, b"working")
    received = calls.receive(stubs, "full", held)
    calls.renew(stubs, "full", held)
    first, second = received.sequence_numbers
    assert calls.settle(stubs, "full", "dead_letter", numbers=[first], session=held) == []
    assert calls.refused(stubs.messaging.SendMessages, more).reason == "QUOTA_EXCEEDED"
    assert calls.settle(stubs, "full", "complete", numbers=[second], session=held) == []
    dead = "full/$DeadLetterQueue"
    tokens = calls.tokens_of(calls.receive(stubs, dead))
    assert calls.settle(stubs, dead, "complete", tokens=tokens) == []
    calls.send(stubs, "full", half, session="s")
