"""Delivery over a stream with credit (PRE-5, PRE-6, RACE-19), with the stubs that any gRPC client has."""

from __future__ import annotations

import queue as queues
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import entity_pb2, message_pb2
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.server.server_process import MakeServer, ServerProcess, wait_until

QUEUE = "orders"
_DONE = object()


class Stream:
    """One stream, as a program uses it."""

    def __init__(self, server: ServerProcess, **open_fields: Any) -> None:
        self._requests: queues.Queue[Any] = queues.Queue()
        self._call = server.stubs.messaging.StreamMessages(iter(self._requests.get, _DONE))
        self.put(open=messaging.StreamOpen(entity=QUEUE, receiver_client_id="me", **open_fields))
        self._responses: queues.Queue[Any] = queues.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            for response in self._call:
                self._responses.put(response)
        except grpc.RpcError as error:
            self._responses.put(error)

    def put(self, **request: Any) -> None:
        """Send a request."""
        self._requests.put(messaging.StreamMessagesRequest(**request))

    def get(self, kind: str) -> Any:
        """Return the next response, which must be of this kind."""
        response = self._responses.get(timeout=20)
        assert not isinstance(response, grpc.RpcError), response
        assert response.WhichOneof("response") == kind
        return getattr(response, kind)

    def failure(self) -> Any:
        """Return what the stream ended with."""
        response = self._responses.get(timeout=20)
        assert isinstance(response, grpc.RpcError), response
        return response

    def bodies(self, count: int) -> list[bytes]:
        """Return the bodies of the next messages, in however many responses they come."""
        found: list[bytes] = []
        while len(found) < count:
            found += [message.body for message in self.get("messages").messages]
        return found

    def is_quiet(self, server: ServerProcess) -> bool:
        """Whether nothing else came, after a round trip on the stream itself."""
        self.put(drain=messaging.StreamDrain())
        self.get("drained")
        return True

    def close(self) -> None:
        """Close this side and wait until the server has answered everything."""
        self._requests.put(_DONE)
        self._reader.join(20)

    def tear(self) -> None:
        """Let the stream break, as the connection of a program that died."""
        self._call.cancel()
        self._requests.put(_DONE)


@pytest.fixture(scope="module")
def server(make_shared_server: MakeServer) -> ServerProcess:
    """One server for all tests of this module."""
    return make_shared_server().start()


@pytest.fixture(autouse=True)
def _no_queue_left(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[None]:
    yield
    server.stubs.admin.DeleteQueue(admin.DeleteQueueRequest(name=QUEUE))


def create(server: ServerProcess, **settings: Any) -> None:
    """Make the queue."""
    given = entity_pb2.QueueSettings(**settings)
    server.stubs.admin.CreateQueue(admin.CreateQueueRequest(name=QUEUE, settings=given))


def send(server: ServerProcess, count: int, session: str | None = None) -> list[bytes]:
    """Send numbered messages and return their bodies."""
    bodies = [str(n).encode() for n in range(1, count + 1)]
    messages = [message_pb2.Message(body=body, session_id=session) for body in bodies]
    request = messaging.SendMessagesRequest(entity=QUEUE, messages=messages)
    server.stubs.messaging.SendMessages(request)
    return bodies


def holder(server: ServerProcess) -> str:
    """Return who holds session "s"."""
    request = admin.GetSessionRequest(queue=QUEUE, session_id="s")
    return str(server.stubs.admin.GetSession(request).session.holder_client_id)


def receive(server: ServerProcess) -> Any:
    """Receive what is free of the plain queue."""
    request = messaging.ReceiveMessagesRequest(entity=QUEUE, max_messages=100)
    request.max_wait.FromMilliseconds(0)
    return server.stubs.messaging.ReceiveMessages(request)


CHOICE = messaging.SessionChoice(session_id="s")


def test_pre_5_no_more_comes_than_there_is_credit_for(server: ServerProcess) -> None:
    create(server)
    bodies = send(server, 5)
    stream = Stream(server)
    stream.get("opened")
    assert stream.is_quiet(server)  # without credit nothing comes, and nothing is held

    stream.put(add_credit=2)
    assert stream.bodies(2) == bodies[:2]
    assert stream.is_quiet(server)
    assert [m.body for m in receive(server).messages] == bodies[2:]
    stream.close()


def test_credit_that_came_first_takes_what_comes_later(server: ServerProcess) -> None:
    create(server)
    stream = Stream(server)
    stream.get("opened")
    stream.put(add_credit=3)
    bodies = send(server, 2)
    assert stream.bodies(2) == bodies

    stream.put(drain=messaging.StreamDrain())  # PRE-6
    assert stream.get("drained").returned_credit == 1
    send(server, 1)
    assert stream.is_quiet(server)
    assert len(receive(server).messages) == 1
    stream.close()


def test_a_session_is_accepted_delivered_in_order_settled_and_given_back(
    server: ServerProcess,
) -> None:
    create(server, requires_session=True)
    bodies = send(server, 4, "s")
    stream = Stream(server, session=CHOICE)
    assert stream.get("opened").session.session.session_id == "s"
    stream.put(add_credit=3)
    assert stream.bodies(3) == bodies[:3]
    done = messaging.Settlement(complete=messaging.Complete(), sequence_numbers=[])
    listed = server.stubs.messaging.PeekMessages(
        messaging.PeekMessagesRequest(entity=QUEUE, max_messages=10)
    )
    done.sequence_numbers.extend(listed.sequence_numbers[:2])
    stream.put(settle=messaging.StreamSettle(id=7, settlements=[done]))
    settled = stream.get("settled")
    assert (settled.id, list(settled.failures)) == (7, [])
    stream.put(renew=messaging.StreamRenew())
    assert stream.get("renewed").HasField("locked_until")
    assert holder(server) == "me"

    stream.close()
    assert holder(server) == ""
    again = Stream(server, session=messaging.SessionChoice())  # the next available one
    again.get("opened")
    again.put(add_credit=10)
    got = again.get("messages")
    assert ([m.body for m in got.messages], list(got.delivery_counts)) == (bodies[2:], [])
    again.close()


@pytest.mark.parametrize("releases", [False, True])
def test_race_19_a_broken_stream_leaves_the_session_locked_unless_the_queue_releases(
    server: ServerProcess, releases: bool
) -> None:
    create(server, requires_session=True, release_on_disconnect=releases)
    bodies = send(server, 2, "s")
    stream = Stream(server, session=CHOICE)
    stream.get("opened")
    stream.put(add_credit=2)
    assert stream.bodies(2) == bodies
    stream.tear()

    if not releases:
        other = Stream(server, session=CHOICE)
        assert other.failure().code() is grpc.StatusCode.ABORTED
        assert holder(server) == "me"
        return
    wait_until(lambda: holder(server) == "", "the session is free", within_ms=20_000)
    after = Stream(server, session=CHOICE)
    after.get("opened")
    after.put(add_credit=2)
    assert not any(after.get("messages").delivery_counts)  # as a close: +0
    after.close()


@pytest.mark.parametrize("releases", [False, True])
def test_race_19_what_a_broken_stream_locked_of_a_plain_queue(
    server: ServerProcess, releases: bool
) -> None:
    create(server, release_on_disconnect=releases)
    bodies = send(server, 2)
    stream = Stream(server)
    stream.get("opened")
    stream.put(add_credit=2)
    assert stream.bodies(2) == bodies
    stream.tear()

    if releases:
        found: list[bytes] = []

        def is_free() -> bool:
            found.extend(m.body for m in receive(server).messages)
            return found == bodies

        wait_until(is_free, "the messages are free", within_ms=20_000)
    else:
        assert list(receive(server).messages) == []


def test_a_stream_that_is_closed_while_much_is_on_its_way_is_closed_well(
    server: ServerProcess,
) -> None:
    create(server, requires_session=True)
    messages = [message_pb2.Message(body=bytes(500_000), session_id="s") for _ in range(20)]
    server.stubs.messaging.SendMessages(
        messaging.SendMessagesRequest(entity=QUEUE, messages=messages)
    )
    requests: queues.Queue[Any] = queues.Queue()
    call = server.stubs.messaging.StreamMessages(iter(requests.get, _DONE))
    opened = messaging.StreamOpen(entity=QUEUE, session=CHOICE)
    requests.put(messaging.StreamMessagesRequest(open=opened))
    requests.put(messaging.StreamMessagesRequest(add_credit=20))
    next(call)
    requests.put(_DONE)  # nothing more is read until the server has heard of it
    wait_until(lambda: holder(server) == "" or True, "the server had time", within_ms=1_000)
    assert [r.WhichOneof("response") for r in call][-1] == "closing"
    assert holder(server) == ""


def test_a_lost_session_ends_the_stream_with_its_reason(server: ServerProcess) -> None:
    create(server, requires_session=True)
    stream = Stream(server, session=CHOICE)
    stream.get("opened")
    stream.put(add_credit=1)
    server.stubs.admin.BreakSessionLock(
        admin.BreakSessionLockRequest(queue=QUEUE, session_id="s", requested_by="ann")
    )
    failure = stream.failure()
    assert "ann" in failure.details()


@pytest.mark.parametrize(
    "request_",
    [
        messaging.StreamMessagesRequest(add_credit=0),
        messaging.StreamMessagesRequest(add_credit=4097),
        messaging.StreamMessagesRequest(open=messaging.StreamOpen(entity=QUEUE)),
        messaging.StreamMessagesRequest(),
    ],
    ids=["no credit", "too much credit", "opened twice", "empty"],
)
def test_race_19_a_wrong_request_ends_the_stream_and_leaves_the_session_locked(
    server: ServerProcess, request_: messaging.StreamMessagesRequest
) -> None:
    create(server, requires_session=True)
    stream = Stream(server, session=CHOICE)
    stream.get("opened")
    stream._requests.put(request_)
    assert stream.failure().code() is grpc.StatusCode.INVALID_ARGUMENT
    assert holder(server) == "me"  # its worker may be at work still


def test_race_19_what_could_not_be_settled_is_still_in_the_hand(server: ServerProcess) -> None:
    create(server, release_on_disconnect=True)
    bodies = send(server, 1)
    stream = Stream(server)
    stream.get("opened")
    stream.put(add_credit=2)
    refused: list[str] = []
    for name in ("first", "second"):  # each is small enough; both are too much for one message
        got = stream.get("messages")
        token = got.lock_token_prefix + got.sequence_numbers[0].to_bytes(8, "big")
        most = {
            f"{name}{i}": message_pb2.PropertyValue(string_value="x" * 20_000) for i in range(3)
        }
        abandon = messaging.Settlement(
            abandon=messaging.Abandon(properties=most), lock_tokens=[token]
        )
        stream.put(settle=messaging.StreamSettle(id=1, settlements=[abandon]))
        refused = [failure.reason for failure in stream.get("settled").failures]
    assert refused == ["LIMIT_EXCEEDED"]

    stream.tear()

    found: list[bytes] = []

    def is_free() -> bool:
        found.extend(m.body for m in receive(server).messages)
        return bool(found)

    wait_until(is_free, "the message is free", within_ms=20_000)
    assert found == bodies


def test_a_stream_that_does_not_open_is_refused(server: ServerProcess) -> None:
    create(server)
    requests = iter([messaging.StreamMessagesRequest(add_credit=1)])
    with pytest.raises(grpc.RpcError) as refused:
        list(server.stubs.messaging.StreamMessages(requests))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
