"""What a server tells about itself: health, reflection, metrics, readiness."""

from __future__ import annotations

import re
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from lockstep.v1 import messaging_service_pb2 as messaging
from tests.server import calls
from tests.server.server_process import CALL_S, MakeServer, ServerProcess, wait_until

SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture(scope="module")
def server(make_shared_server: MakeServer) -> Iterator[ServerProcess]:
    return make_shared_server(settings={"limits.message_size_max_kib": 1024}).start()


def samples(text: str) -> dict[str, float]:
    """Return the series of an exposition by name with its labels in order."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name, _, labels = series.partition("{")
            parts = sorted(re.findall(r'(\w+="(?:[^"\\]|\\.)*")', labels))
            found[f"{name}{{{','.join(parts)}}}"] = float(value)
    return found


def of_queue(server: ServerProcess, queue: str, name: str, **labels: str) -> float:
    """Return one series of a queue; one that is not there has counted nothing."""
    status, text = server.http("metrics", "/metrics/entities")
    assert status == 200
    given = {"entity_namespace": "default", "entity": queue, "entity_type": "queue", **labels}
    parts = sorted(f'{key}="{value}"' for key, value in given.items())
    return samples(text).get(f"{name}{{{','.join(parts)}}}", 0.0)


@pytest.mark.parametrize(
    "service", ["", "lockstep.v1.MessagingService", "lockstep.v1.AdminService"]
)
def test_health_says_that_the_services_serve(server: ServerProcess, service: str) -> None:
    assert server.health(service) == SERVING


def test_health_of_an_unknown_service_is_not_found(server: ServerProcess) -> None:
    request = health_pb2.HealthCheckRequest(service="lockstep.v1.NoService")

    with pytest.raises(grpc.RpcError) as caught:
        server.stubs.health.Check(request, timeout=CALL_S)

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_lists_both_services_with_their_methods(server: ServerProcess) -> None:
    reflect = reflection_pb2_grpc.ServerReflectionStub(server.stubs.channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(
            file_containing_symbol="lockstep.v1.MessagingService"
        ),
    ]

    listed, file = reflect.ServerReflectionInfo(iter(asked), timeout=CALL_S)

    names = {service.name for service in listed.list_services_response.service}
    assert {"lockstep.v1.MessagingService", "lockstep.v1.AdminService"} <= names
    methods = {
        method.name
        for raw in file.file_descriptor_response.file_descriptor_proto
        for service in FileDescriptorProto.FromString(raw).service
        for method in service.method
    }
    assert {"SendMessages", "AcceptSession", "CancelRequest"} <= methods


@pytest.mark.parametrize("which", ["metrics", "health"])
def test_the_probes_say_that_the_server_is_live_and_ready(
    server: ServerProcess, which: str
) -> None:
    assert server.http(which, "/healthz")[0] == 200
    assert server.http(which, "/readyz")[0] == 200
    assert server.http(which, "/nothing")[0] == 404


def test_the_health_port_shows_no_metrics(server: ServerProcess) -> None:
    assert server.http("health", "/metrics")[0] == 404


def test_metrics_hold_what_was_sent_received_and_settled(server: ServerProcess) -> None:
    stubs = server.stubs
    calls.create(stubs, "counted")
    calls.send(stubs, "counted", b"1", b"22", b"333", b"4444")
    first = calls.receive(stubs, "counted", maximum=4)
    tokens = calls.tokens_of(first)
    calls.settle(stubs, "counted", "complete", tokens=tokens[:1])
    calls.settle(stubs, "counted", "abandon", tokens=tokens[1:2])
    calls.settle(stubs, "counted", "dead_letter", tokens=tokens[2:3])
    calls.receive(stubs, "counted")

    def counted(name: str, **labels: str) -> float:
        return of_queue(server, "counted", name, **labels)

    assert counted("lockstep_sends_total", outcome="accepted", reason="") == 4
    assert counted("lockstep_messages_enqueued_total", origin="client") == 4
    assert counted("lockstep_messages_delivered_total", attempt="first") == 4
    assert counted("lockstep_messages_delivered_total", attempt="redelivery") == 1
    assert counted("lockstep_messages_settled_total", outcome="completed") == 1
    assert counted("lockstep_messages_settled_total", outcome="abandoned") == 1
    assert counted("lockstep_messages_settled_total", outcome="dead_lettered") == 1
    assert counted("lockstep_messages_dead_lettered_total", reason="application") == 1
    assert counted("lockstep_delivery_count_increments_total", cause="abandoned") == 1
    assert counted("lockstep_entity_messages", state="locked") == 2
    assert counted("lockstep_entity_messages", state="ready") == 0
    assert counted("lockstep_entity_messages", state="dead_letter") == 1


def test_metrics_hold_what_happened_to_sessions(server: ServerProcess) -> None:
    stubs = server.stubs
    calls.create(stubs, "sessions", requires_session=True)
    calls.send(stubs, "sessions", b"1", session="a")
    held = calls.accept(stubs, "sessions").session
    calls.renew(stubs, "sessions", held)
    calls.send(stubs, "sessions", b"1", session="b")
    accept = messaging.AcceptSessionRequest(entity="sessions", session_id="a")
    assert calls.refused(stubs.messaging.AcceptSession, accept).reason == "SESSION_CANNOT_BE_LOCKED"
    calls.release(stubs, "sessions", held)

    def counted(name: str, **labels: str) -> float:
        return of_queue(server, "sessions", name, **labels)

    assert counted("lockstep_session_accepts_total", result="granted") == 1
    assert counted("lockstep_locks_granted_total", kind="session") == 1
    assert counted("lockstep_lock_renewals_total", kind="session", result="renewed") == 1
    assert counted("lockstep_locks_released_total", kind="session", cause="closed") == 1
    assert counted("lockstep_entity_sessions", state="ready") == 2
    assert counted("lockstep_entity_sessions", state="locked") == 0


def rejected(server: ServerProcess, queue: str, reason: str) -> float:
    return of_queue(server, queue, "lockstep_sends_total", outcome="rejected", reason=reason)


def test_refused_sends_are_counted_by_reason(server: ServerProcess) -> None:
    stubs = server.stubs
    calls.create(stubs, "refusing", requires_session=True, max_size_in_megabytes=1)
    too_large = calls.send_request("refusing", bytes(1_048_577), session="s")
    without = calls.send_request("refusing", b"1", b"2")
    large = calls.send_request("refusing", bytes(700_000), session="s")
    stubs.messaging.SendMessages(large, timeout=CALL_S)

    assert calls.refused(stubs.messaging.SendMessages, without).reason == "INVALID_OPERATION"
    assert calls.refused(stubs.messaging.SendMessages, too_large).reason == "MESSAGE_SIZE_EXCEEDED"
    assert calls.refused(stubs.messaging.SendMessages, large).reason == "QUOTA_EXCEEDED"

    assert rejected(server, "refusing", "session") == 2
    assert rejected(server, "refusing", "size") == 1
    assert rejected(server, "refusing", "quota") == 1


def test_sends_with_a_malformed_message_are_counted_as_rejected(server: ServerProcess) -> None:
    stubs = server.stubs
    calls.create(stubs, "malformed")
    request = messaging.SendMessagesRequest(
        entity="malformed", messages=[calls.message(message_id="x" * 129)]
    )

    calls.refused(stubs.messaging.SendMessages, request)

    assert rejected(server, "malformed", "invalid") == 1


def test_accepts_of_a_held_session_are_counted(server: ServerProcess) -> None:
    stubs = server.stubs
    calls.create(stubs, "held", requires_session=True)
    calls.accept(stubs, "held", "a")

    accept = messaging.AcceptSessionRequest(entity="held", session_id="a")
    calls.refused(stubs.messaging.AcceptSession, accept)

    assert of_queue(server, "held", "lockstep_session_accepts_total", result="held") == 1


def test_renewals_of_a_lost_lock_are_counted(server: ServerProcess) -> None:
    stubs = server.stubs
    calls.create(stubs, "lost", requires_session=True)
    held = calls.accept(stubs, "lost", "a").session
    calls.release(stubs, "lost", held)

    request = messaging.RenewSessionLockRequest(entity="lost", session=held)
    calls.refused(stubs.messaging.RenewSessionLock, request)

    assert (
        of_queue(server, "lost", "lockstep_lock_renewals_total", kind="session", result="lost") == 1
    )


def test_calls_are_counted_by_method_and_code(server: ServerProcess) -> None:
    stubs = server.stubs
    calls.create(stubs, "called")
    calls.send(stubs, "called", b"1")
    calls.refused(stubs.messaging.SendMessages, calls.send_request("nowhere", b"1"))

    found = samples(server.http("metrics", "/metrics")[1])

    name = 'lockstep_frontend_requests_total{code="%s",method="MessagingService/SendMessages"}'
    assert found[name % "OK"] >= 1
    assert found[name % "NOT_FOUND"] >= 1


def of_process(server: ServerProcess, series: str) -> float:
    return samples(server.http("metrics", "/metrics")[1]).get(series, 0.0)


def test_call_whose_caller_gave_up_is_counted(server: ServerProcess) -> None:
    stubs = server.stubs
    calls.create(stubs, "patient")
    series = 'lockstep_frontend_requests_total{code="CANCELLED",method="MessagingService/ReceiveMessages"}'
    before = of_process(server, series)

    waiting = stubs.messaging.ReceiveMessages.future(
        calls.receive_request("patient", wait=calls.seconds(30))
    )
    wait_until(lambda: of_queue(server, "patient", "lockstep_entity_receivers"), "it waits")
    waiting.cancel()

    wait_until(lambda: of_process(server, series) == before + 1, "the end of the call is counted")


def test_send_to_a_full_queue_counts_as_throttled(server: ServerProcess) -> None:
    stubs = server.stubs
    calls.create(stubs, "full", max_size_in_megabytes=1)
    large = calls.send_request("full", bytes(700_000))
    stubs.messaging.SendMessages(large, timeout=CALL_S)
    series = 'lockstep_frontend_throttled_total{reason="quota"}'
    before = of_process(server, series)

    calls.refused(stubs.messaging.SendMessages, large)

    assert of_process(server, series) == before + 1


def test_no_id_that_a_client_chose_is_shown(server: ServerProcess) -> None:
    stubs = server.stubs
    calls.create(stubs, "discreet", requires_session=True)
    ids = calls.Ids("client-of-mine")
    request = messaging.SendMessagesRequest(
        entity="discreet",
        messages=[calls.message(b"body-of-mine", "session-of-mine", message_id="id-of-mine")],
        request_id=ids.next(),
    )
    stubs.messaging.SendMessages(request, timeout=CALL_S)
    lock = calls.accept(stubs, "discreet", "session-of-mine", holder="holder-of-mine").session
    got = calls.receive(stubs, "discreet", lock, request_id=ids.next())
    accept = messaging.AcceptSessionRequest(entity="discreet", session_id="session-of-mine")
    calls.refused(stubs.messaging.AcceptSession, accept)
    calls.settle(stubs, "discreet", "complete", numbers=got.sequence_numbers, session=lock)

    shown = "".join(server.http("metrics", path)[1] for path in ("/metrics", "/metrics/entities"))

    assert "discreet" in shown
    assert "of-mine" not in shown


def test_the_series_of_a_deleted_queue_go_with_it(server: ServerProcess) -> None:
    stubs = server.stubs
    calls.create(stubs, "leaving")
    calls.send(stubs, "leaving", b"1")
    assert 'entity="leaving"' in server.http("metrics", "/metrics/entities")[1]

    calls.delete(stubs, "leaving")

    assert 'entity="leaving"' not in server.http("metrics", "/metrics/entities")[1]
