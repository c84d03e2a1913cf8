"""KEDA's external scaler on a real server, called through KEDA's own proto, with what KEDA makes of the answers."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from lockstep.externalscaler import externalscaler_pb2 as keda
from tests.server import calls
from tests.server.keda import Keda
from tests.server.server_process import CALL_S, MakeServer, ServerProcess, Stubs

MESSAGES = 620


@pytest.fixture(scope="module")
def server(make_shared_server: MakeServer) -> ServerProcess:
    return make_shared_server(settings={"partitions": 4}).start()


@pytest.fixture
def stubs(server: ServerProcess) -> Stubs:
    return server.stubs


def test_p_15_620_messages_of_one_session_are_work_for_one_pod(stubs: Stubs) -> None:
    calls.create(stubs, "one", requires_session=True)
    by_sessions = Keda(stubs, entity="one")
    by_messages = Keda(stubs, entity="one", metric="activeMessages", targetValue="5")
    before = by_sessions.pods()

    calls.send(stubs, "one", *[b"x"] * MESSAGES, session="s")

    assert (before, by_sessions.pods()) == (0, 1)
    assert by_messages.pods() == 124  # of which 123 would find no session


def test_p_15_a_pod_is_kept_while_it_holds_the_last_session(stubs: Stubs) -> None:
    calls.create(stubs, "held", requires_session=True)
    calls.send(stubs, "held", *[b"x"] * MESSAGES, session="s")
    keda_of = Keda(stubs, entity="held")

    held = calls.accept(stubs, "held", "s").session
    received = calls.receive(stubs, "held", held, maximum=MESSAGES)
    in_hand = keda_of.pods()
    calls.settle(stubs, "held", "complete", tokens=calls.tokens_of(received), session=held)
    empty = keda_of.pods()
    calls.release(stubs, "held", held)

    assert (in_hand, empty, keda_of.pods()) == (1, 1, 0)


@pytest.mark.parametrize(("per_pod", "pods"), [("1", 13), ("4", 4), ("13", 1)])
def test_sessions_on_all_partitions_are_shared_out_to_pods(
    stubs: Stubs, per_pod: str, pods: int
) -> None:
    name = f"shared-{per_pod}"
    calls.create(stubs, name, requires_session=True)
    for session in range(13):
        calls.send(stubs, name, b"x", b"x", session=f"s{session}")

    assert Keda(stubs, entity=name, sessionsPerPod=per_pod).pods() == pods


def test_a_plain_queue_is_scaled_by_its_messages(stubs: Stubs) -> None:
    calls.create(stubs, "plain")
    calls.send(stubs, "plain", *[b"x"] * MESSAGES)

    assert Keda(stubs, entity="plain", targetValue="100").pods() == 7


def test_a_wrong_trigger_is_refused_with_what_is_right(stubs: Stubs) -> None:
    calls.create(stubs, "wrong", requires_session=True)

    unknown = Keda(stubs, entity="wrong", queueLength="5")
    missing = Keda(stubs, entity="nowhere")
    told = [calls.refused(one.stub.IsActive, one.trigger) for one in (unknown, missing)]

    assert [one.code for one in told] == [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
    ]
    assert "metadata.queueLength is not known" in told[0].text
    assert "There is no queue default/nowhere" in told[1].text


def test_metric_specs_are_not_streamed_so_keda_asks_for_them(stubs: Stubs) -> None:
    """KEDA falls back without a word where a scaler answers so."""
    stream = Keda(stubs, entity="any").stub.StreamMetricSpec(
        Keda(stubs, entity="any").trigger, timeout=CALL_S
    )

    with pytest.raises(grpc.RpcError) as refused:
        next(stream)

    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_stream_tells_changes_and_ends_without_an_error_when_the_server_stops(
    make_server: MakeServer,
) -> None:
    server = make_server().start()
    calls.create(server.stubs, "live", requires_session=True)
    one = Keda(server.stubs, entity="live", streamIntervalSeconds="1")
    stream: Iterator[keda.IsActiveResponse] = one.stub.StreamIsActive(one.trigger, timeout=CALL_S)

    first = next(stream).result
    calls.send(server.stubs, "live", b"x", session="s")
    second = next(stream).result
    code = server.stop()

    assert (first, second, list(stream), code) == (False, True, [], 0)
