"""Every malformed request gets its error, changes nothing, and leaves a server that serves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.server import bad_requests, calls
from tests.server.bad_requests import HELD, PLAIN, SESSION, TINY, Case
from tests.server.server_process import CALL_S, MakeServer, ServerProcess, Stubs

LIMITS = {
    "limits.message_size_max_kib": bad_requests.MESSAGE_KIB_MAX,
    "limits.send_batch_messages_max": bad_requests.SEND_MESSAGES_MAX,
    "limits.receive_messages_max": bad_requests.RECEIVE_MESSAGES_MAX,
}
MESSAGING = "lockstep.v1.MessagingService"
ADMIN = "lockstep.v1.AdminService"


@pytest.fixture(scope="module")
def server(make_shared_server: MakeServer) -> Iterator[ServerProcess]:
    """A server with messages in it, which must be as it was when the table is through."""
    server = make_shared_server(settings=LIMITS).start()
    stubs = server.stubs
    calls.create(stubs, PLAIN)
    calls.create(stubs, SESSION, requires_session=True, lock_duration=calls.seconds(300))
    tiny = {"max_message_size_in_kilobytes": 1, "max_session_state_size_in_kilobytes": 1}
    calls.create(stubs, TINY, **tiny)
    calls.send(stubs, SESSION, b"1", b"2", session=HELD)
    calls.send(stubs, PLAIN, b"1", b"2")
    held = calls.accept(stubs, SESSION, HELD).session
    calls.set_state(stubs, SESSION, held, b"state")
    yield server
    assert server.is_serving()
    log = server.log()
    assert "Traceback" not in log
    assert '"level": "error"' not in log
    assert log.count('"partition.opened"') == 1


def picture(stubs: Stubs) -> tuple[Any, ...]:
    """Return everything that the refused calls could have changed."""
    queues = stubs.admin.ListQueues(admin.ListQueuesRequest(), timeout=CALL_S)
    for shown in queues.runtimes:
        shown.ClearField("sessions")
    held = calls.session_info(stubs, SESSION, HELD)
    held.ClearField("locked_until")
    return queues, held


def raw_call(stubs: Stubs, method: str) -> Any:
    """Return a call of a method that takes the bytes of a request."""
    service = ADMIN if method in dir(stubs.admin) else MESSAGING
    return stubs.channel.unary_unary(f"/{service}/{method}")


def call_of(stubs: Stubs, method: str) -> Any:
    return getattr(stubs.admin, method, None) or getattr(stubs.messaging, method)


def _parameter(case: Case) -> Any:
    return pytest.param(case, id=case.name.encode("ascii", "replace").decode())


@pytest.mark.parametrize("case", [_parameter(case) for case in bad_requests.all_cases()])
def test_a_malformed_request_is_refused_with_its_reason(server: ServerProcess, case: Case) -> None:
    before = picture(server.stubs)

    got = calls.refused(call_of(server.stubs, case.method), case.request)

    assert (got.code, got.reason) == (case.code, case.reason), got.text
    for word in case.words:
        assert word in got.text
    assert picture(server.stubs) == before


@pytest.mark.parametrize("method", bad_requests.REQUESTS)
@pytest.mark.parametrize("kind", bad_requests.GARBAGE)
def test_bytes_that_are_no_request_are_refused(
    server: ServerProcess, method: str, kind: str
) -> None:
    before = picture(server.stubs)

    got = calls.refused(raw_call(server.stubs, method), bad_requests.GARBAGE[kind])

    assert (got.code, got.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert bad_requests.REQUESTS[method].DESCRIPTOR.name in got.text
    assert picture(server.stubs) == before


@pytest.mark.parametrize("method", bad_requests.REQUESTS)
def test_random_bytes_never_fail_the_server(server: ServerProcess, method: str) -> None:
    before = picture(server.stubs)
    call = raw_call(server.stubs, method)
    codes = set()

    for payload in (b"", *bad_requests.random_bytes()):
        try:
            call(payload, timeout=CALL_S)
        except grpc.RpcError as error:
            codes.add(error.code())

    allowed = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    assert codes <= allowed
    assert picture(server.stubs) == before


@pytest.mark.parametrize("service", [MESSAGING, ADMIN, "lockstep.v1.NoService"])
def test_an_unknown_method_is_unimplemented(server: ServerProcess, service: str) -> None:
    call = server.stubs.channel.unary_unary(f"/{service}/NoMethod")

    assert calls.refused(call, b"").code is grpc.StatusCode.UNIMPLEMENTED


def test_a_request_over_the_transport_limit_names_both_sizes(server: ServerProcess) -> None:
    size = bad_requests.MESSAGE_KIB_MAX * 1024 + 2 * 1024 * 1024
    before = picture(server.stubs)

    got = calls.refused(server.stubs.messaging.SendMessages, calls.send_request(PLAIN, bytes(size)))

    assert got.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(bad_requests.MESSAGE_KIB_MAX * 1024 + 1024 * 1024) in got.text
    assert picture(server.stubs) == before


def test_ids_of_the_full_length_are_taken(server: ServerProcess) -> None:
    stubs = server.stubs
    full = "é" * 128
    calls.create(stubs, "full", requires_session=True)
    more = {"message_id": full, "partition_key": full, "reply_to_session_id": full}
    sent = messaging.SendMessagesRequest(
        entity="full", messages=[calls.message(b"x", full, **more)]
    )
    stubs.messaging.SendMessages(sent, timeout=CALL_S)

    got = calls.accept(stubs, "full", full, holder=full)
    received = calls.receive(stubs, "full", got.session)

    assert list(received.messages) == list(sent.messages)
    assert calls.session_info(stubs, "full", full).holder_client_id == full


def test_names_of_the_full_length_are_taken(server: ServerProcess) -> None:
    name = "n" * 260
    request = admin.CreateQueueRequest(namespace="m" * 50, name=name)

    made = server.stubs.admin.CreateQueue(request, timeout=CALL_S).queue

    assert (made.namespace, made.name) == ("m" * 50, name)
    server.stubs.admin.DeleteQueue(
        admin.DeleteQueueRequest(namespace="M" * 50, name=name.upper()), timeout=CALL_S
    )


def test_a_huge_wait_is_a_wait_and_not_an_error(server: ServerProcess) -> None:
    stubs = server.stubs
    calls.create(stubs, "patient")
    wait = calls.seconds(2**62)

    waiting = stubs.messaging.ReceiveMessages.future(
        calls.receive_request("patient", wait=wait), timeout=CALL_S
    )
    calls.send(stubs, "patient", b"here")

    assert calls.bodies_of(waiting.result()) == [b"here"]


@pytest.mark.parametrize("name", ["güte/队列", "a b", "emoji-🙂", "with.dots_and-more"])
def test_names_may_hold_any_text_that_prints(server: ServerProcess, name: str) -> None:
    stubs = server.stubs
    calls.create(stubs, name)

    calls.send(stubs, name.upper(), b"1")

    assert calls.bodies_of(calls.receive(stubs, name.replace("/", "\\"))) == [b"1"]
    calls.delete(stubs, name)


SESSION_IDS = [
    "",
    " ",
    "a",
    "A",
    "a\x00",
    "a\x00b",
    "\x00",
    "a\nb",
    "ß",
    "ss",
    "é",
    "e\u0301",
    "🙂",
]


def test_session_ids_may_hold_any_text_and_compare_exactly(make_server: MakeServer) -> None:
    server = make_server().start()
    stubs = server.stubs
    calls.create(stubs, "texts", requires_session=True)
    mixed = [calls.message(repr(one).encode(), one) for one in SESSION_IDS]
    request = messaging.SendMessagesRequest(entity="texts", messages=mixed)
    stubs.messaging.SendMessages(request, timeout=CALL_S)
    for one in SESSION_IDS[::2]:
        held = calls.accept(stubs, "texts", one).session
        calls.set_state(stubs, "texts", held, one.encode())
        calls.release(stubs, "texts", held)

    server.restart()

    listed = stubs.admin.ListSessions(admin.ListSessionsRequest(queue="texts"), timeout=CALL_S)
    assert {one.session_id for one in listed.sessions} == set(SESSION_IDS)
    for at, one in enumerate(SESSION_IDS):
        got = calls.accept(stubs, "texts", one)
        received = calls.receive(stubs, "texts", got.session)
        assert calls.bodies_of(received) == [repr(one).encode()]
        assert got.state.HasField("value") is (at % 2 == 0)
        assert got.state.value == (one.encode() if at % 2 == 0 else b"")


def test_pages_go_on_behind_a_session_id_of_any_text(server: ServerProcess) -> None:
    stubs = server.stubs
    calls.create(stubs, "paged", requires_session=True)
    for one in SESSION_IDS:
        calls.send(stubs, "paged", b"1", session=one)
    seen: list[str] = []
    request = admin.ListSessionsRequest(queue="paged", page_size=1)

    while True:
        page = stubs.admin.ListSessions(request, timeout=CALL_S)
        seen += [one.session_id for one in page.sessions]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token

    assert seen == sorted(SESSION_IDS)
