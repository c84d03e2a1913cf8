"""What a server shows after calls of every kind: labels of the allow-list only, and no id of a client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from lockstep.runtime.cluster_metrics import PLACED
from lockstep.runtime.entity_families import ENTITY_COUNTERS, ENTITY_GAUGES
from lockstep.runtime.metrics import Metrics
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import dead_letter_job_pb2, request_pb2
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.monitoring.allowed import ALLOWED, ENTITY
from tests.server import calls
from tests.server.server_process import CALL_S, MakeServer, ServerProcess, Stubs, wait_until
from tests.server.test_streams import QUEUE, Stream

SESSIONS = "with-sessions"
# Everything that clients choose below, but for the names of queues.
SECRETS = (
    "session-4711",
    "message-0815",
    "client-2342",
    "holder-1138",
    "Reason-99",
    "body-314159",
    "person-77",
)
SESSION, MESSAGE, CLIENT, HOLDER, REASON, BODY, PERSON = SECRETS
PAGES = ("/metrics", "/metrics/entities")
STREAM = "MessagingService/StreamMessages"
FOREIGN = ("process_", "python_")


@pytest.fixture(scope="module")
def server(make_shared_server: MakeServer) -> ServerProcess:
    """A server that was called in every way."""
    server = make_shared_server().start()
    _work_with_sessions(server.stubs)
    _work_without_sessions(server.stubs)
    _call_wrongly(server.stubs)
    return server


def _work_with_sessions(stubs: Stubs) -> None:
    ids = calls.Ids(CLIENT)
    calls.create(stubs, SESSIONS, requires_session=True, max_delivery_count=1)
    messages = [
        calls.message(BODY.encode(), SESSION, message_id=f"{MESSAGE}-{n}") for n in range(5)
    ]
    request = messaging.SendMessagesRequest(
        entity=SESSIONS, messages=messages, request_id=ids.next()
    )
    stubs.messaging.SendMessages(request, timeout=CALL_S)
    lock = calls.accept(stubs, SESSIONS, holder=HOLDER, request_id=ids.next()).session
    refused = messaging.AcceptSessionRequest(
        entity=SESSIONS, session_id=SESSION, holder_client_id=CLIENT
    )
    calls.refused(stubs.messaging.AcceptSession, refused)
    got = calls.receive(stubs, SESSIONS, lock, request_id=ids.next())
    one, two, three, *rest = got.sequence_numbers
    calls.settle(stubs, SESSIONS, "complete", numbers=[one], session=lock)
    calls.settle(stubs, SESSIONS, "abandon", numbers=[two], session=lock)  # a dead letter now
    dead = messaging.Settlement(sequence_numbers=[three])
    dead.dead_letter.reason = REASON
    dead.dead_letter.description = REASON
    settle = messaging.SettleMessagesRequest(entity=SESSIONS, session=lock, settlements=[dead])
    stubs.messaging.SettleMessages(settle, timeout=CALL_S)
    calls.settle(stubs, SESSIONS, "defer", numbers=rest, session=lock)
    calls.renew(stubs, SESSIONS, lock)
    stubs.admin.BreakSessionLock(
        admin.BreakSessionLockRequest(queue=SESSIONS, session_id=SESSION, requested_by=PERSON),
        timeout=CALL_S,
    )
    calls.refused(
        stubs.messaging.RenewSessionLock,
        messaging.RenewSessionLockRequest(entity=SESSIONS, session=lock),
    )
    job = admin.StartDeadLetterJobRequest(
        queue=SESSIONS,
        kind=dead_letter_job_pb2.DEAD_LETTER_JOB_KIND_RESUBMIT,
        selector=dead_letter_job_pb2.DeadLetterSelector(reason=REASON),
        requested_by=PERSON,
    )
    stubs.admin.StartDeadLetterJob(job, timeout=CALL_S)
    wait_until(lambda: calls.runtime(stubs, SESSIONS).dead_letter_messages == 1, "the job is done")


def _work_without_sessions(stubs: Stubs) -> None:
    calls.create(stubs, QUEUE, lock_duration=Duration(seconds=5))
    calls.send(stubs, QUEUE, BODY.encode(), BODY.encode())
    later = calls.message(BODY.encode(), scheduled_enqueue_time=Timestamp(seconds=4_000_000_000))
    sent = stubs.messaging.SendMessages(
        messaging.SendMessagesRequest(entity=QUEUE, messages=[later]), timeout=CALL_S
    )
    stubs.messaging.CancelScheduledMessages(
        messaging.CancelScheduledMessagesRequest(
            entity=QUEUE, sequence_numbers=sent.sequence_numbers
        ),
        timeout=CALL_S,
    )
    got = calls.receive(stubs, QUEUE, maximum=1)
    calls.settle(stubs, QUEUE, "complete", tokens=calls.tokens_of(got))
    got = calls.receive(stubs, QUEUE, maximum=1)
    renewal = messaging.RenewMessageLocksRequest(entity=QUEUE, lock_tokens=calls.tokens_of(got))
    stubs.messaging.RenewMessageLocks(renewal, timeout=CALL_S)
    calls.settle(stubs, QUEUE, "abandon", tokens=calls.tokens_of(got))


def _call_wrongly(stubs: Stubs) -> None:
    calls.refused(stubs.messaging.SendMessages, calls.send_request(SESSIONS, BODY.encode()))
    calls.refused(stubs.messaging.SendMessages, calls.send_request(MESSAGE, BODY.encode()))
    wrong = messaging.CancelRequestRequest(request_id=request_pb2.RequestId(client_id=CLIENT))
    calls.refused(stubs.messaging.CancelRequest, wrong)


def page(server: ServerProcess, path: str) -> str:
    """Return a page of metrics."""
    status, text = server.http("metrics", path)
    assert status == 200, text
    return text


def value(server: ServerProcess, name: str, **labels: str) -> float:
    """Return one series of the process."""
    for family in text_string_to_metric_families(page(server, PAGES[0])):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    raise AssertionError(f"no series {name} {labels}")


def families(server: ServerProcess) -> Iterator[Metric]:
    """Return all metrics of both pages."""
    for path in PAGES:
        yield from text_string_to_metric_families(page(server, path))


def test_no_metric_has_a_label_outside_the_allow_list(server: ServerProcess) -> None:
    found = {
        (sample.name, label)
        for family in families(server)
        if not family.name.startswith(FOREIGN)
        for sample in family.samples
        for label in sample.labels
    }

    assert {label for _, label in found} >= ENTITY
    assert [one for one in found if one[1] not in ALLOWED] == []


def test_nothing_that_a_client_chose_is_on_a_page_but_names_of_queues(
    server: ServerProcess,
) -> None:
    text = "".join(page(server, path) for path in PAGES)

    assert f'entity="{SESSIONS}"' in text
    assert f'entity="{QUEUE}"' in text
    assert [secret for secret in SECRETS if secret in text] == []


def test_values_of_an_entitys_labels_are_those_declared(server: ServerProcess) -> None:
    declared = {
        f"lockstep_{prefix}{family.name}": family
        for family in (*ENTITY_COUNTERS, *ENTITY_GAUGES)
        for prefix in ("", "owner_")
    }
    found: dict[str, set[tuple[str, ...]]] = {name: set() for name in declared}
    for family in families(server):
        for sample in family.samples if family.name in declared else ():
            labels = declared[family.name].labels
            found[family.name].add(tuple(sample.labels[label] for label in labels))

    assert found["lockstep_messages_settled"] >= {("completed",), ("abandoned",), ("deferred",)}
    assert found["lockstep_locks_released"] >= {("session", "broken"), ("message", "settled")}
    for name, entity in declared.items():
        assert found[name] <= {*entity.samples.values(), *entity.rare.values()}, name


def test_a_server_serves_all_metrics_that_are_declared(server: ServerProcess) -> None:
    declared = set(Metrics(CollectorRegistry()).declared_labels())

    served = {family.name for family in families(server) if not family.name.startswith(FOREIGN)}

    assert served == declared


def test_the_page_of_the_process_has_no_series_of_an_entity(server: ServerProcess) -> None:
    labels = {
        label
        for family in text_string_to_metric_families(page(server, PAGES[0]))
        for sample in family.samples
        for label in sample.labels
    }

    assert labels & {"entity_namespace", "entity"} == set()


def test_an_open_stream_and_its_bytes_are_counted(server: ServerProcess) -> None:
    before = value(server, "lockstep_frontend_received_bytes_total")

    stream = Stream(server)
    stream.get("opened")
    open_streams = value(server, "lockstep_frontend_streams", method=STREAM)
    stream.close()

    assert open_streams == 1
    assert value(server, "lockstep_frontend_received_bytes_total") > before
    wait_until(lambda: value(server, "lockstep_frontend_streams", method=STREAM) == 0, "it is over")


def test_a_single_node_shows_how_its_partitions_stand(server: ServerProcess) -> None:
    shown = [value(server, "lockstep_partitions", state=state) for state in PLACED]

    assert shown == [1, 0, 0]
