"""Streams of messages under all that is wrong: built, corrupted and random requests; bounded in number."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import grpc
import pytest

from lockstep.runtime.clock import SystemClock
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.fuzz.building import Builder
from tests.fuzz.judge import judge_refusal
from tests.fuzz.knowledge import Knowledge
from tests.fuzz.mangling import mangled, random_bytes
from tests.fuzz.steps import Call
from tests.server import calls
from tests.server.server_process import MakeServer, ServerProcess

_PATH = "/lockstep.v1.MessagingService/StreamMessages"
_STREAMS = 150


@pytest.fixture
def fuzzed(make_server: MakeServer) -> ServerProcess:
    server = make_server().start()
    calls.create(server.stubs, "plain")
    calls.create(server.stubs, "sessions", requires_session=True)
    calls.send(server.stubs, "plain", *[b"x"] * 200)
    calls.send(server.stubs, "sessions", *[b"x"] * 200, session="s")
    return server


def opening(random: Random) -> bytes:
    """Return a request that opens a stream, most of the time well."""
    opened = messaging.StreamOpen(entity=random.choice(["plain", "sessions", "missing", ""]))
    if random.random() < 0.6:
        opened.session.CopyFrom(messaging.SessionChoice())
        if random.random() < 0.7:
            opened.session.session_id = random.choice(["s", "t", "x" * 200])
    opened.max_wait.FromMilliseconds(random.choice([0, 10]))
    return messaging.StreamMessagesRequest(open=opened).SerializeToString()


def payloads(random: Random, builder: Builder) -> Iterator[bytes]:
    """Give the requests of one stream."""
    yield opening(random) if random.random() < 0.9 else random_bytes(random)
    for _ in range(random.randrange(6)):
        match random.randrange(4):
            case 0:
                yield messaging.StreamMessagesRequest(add_credit=5).SerializeToString()
            case 1:
                yield random_bytes(random)
            case 2:
                request = builder.build(messaging.StreamMessagesRequest, care=0.5)
                yield mangled(random, request.SerializeToString())
            case _:
                yield builder.build(messaging.StreamMessagesRequest, care=0.5).SerializeToString()


@pytest.mark.parametrize("seed", [1, 2])
def test_no_stream_meets_an_error_that_is_not_documented(fuzzed: ServerProcess, seed: int) -> None:
    random = Random(seed)
    builder = Builder(random, Knowledge(random), SystemClock().now_ms)
    stream: Any = fuzzed.stubs.channel.stream_stream(_PATH)
    ended_well = 0
    for _ in range(_STREAMS):
        sent = list(payloads(random, builder))
        try:
            for response in stream(iter(sent), timeout=30):
                messaging.StreamMessagesResponse.FromString(response)
            ended_well += 1
        except grpc.RpcError as error:
            judge_refusal(Call(_PATH, b"".join(sent)), calls.refusal_of(error))
    assert ended_well > 0
    assert "call.failed" not in fuzzed.log()
    assert calls.receive(fuzzed.stubs, "plain") is not None
