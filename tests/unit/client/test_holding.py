"""What a holder does with its session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lockstep import QueueReceiver, Session
from lockstep.errors import ClientClosed, MessageSizeExceeded, OperationTimeout, SessionLockLost
from lockstep.v1 import messaging_service_pb2 as messaging
from tests.unit.client.scripted import (
    START_MS,
    ScriptedTransport,
    accepted,
    connect,
    options,
    released,
)


@pytest.fixture
def transport() -> ScriptedTransport:
    return ScriptedTransport(accepted("A", state=b"old"))


@pytest.fixture
def session(transport: ScriptedTransport) -> Iterator[Session]:
    with QueueReceiver(connect(transport), options(session_id="A"), None) as receiver:
        transport.calls.clear()
        yield receiver.session
        if not receiver._receiving.is_closed:
            transport.answers.append(released())


def state(value: bytes | None) -> messaging.GetSessionStateResponse:
    response = messaging.GetSessionStateResponse()
    if value is not None:
        response.state.value = value
    return response


@pytest.mark.parametrize("value", [None, b"", b"42"])
def test_the_state_is_read_as_it_is(
    session: Session, transport: ScriptedTransport, value: bytes | None
) -> None:
    transport.answers.append(state(value))

    assert session.get_state() == value
    assert session.state == b"old"


@pytest.mark.parametrize(
    ("value", "stored"), [("räka", "räka".encode()), (b"x", b"x"), (b"", b""), ("", b"")]
)
def test_a_state_is_stored_as_bytes(
    session: Session, transport: ScriptedTransport, value: bytes | str, stored: bytes
) -> None:
    transport.answers.append(messaging.SetSessionStateResponse(version=3))

    assert session.set_state(value) == 3

    (call,) = transport.calls
    assert call.request.HasField("value")
    assert call.request.value == stored
    assert call.request.session.session_id == "A"


def test_no_value_clears_the_state(session: Session, transport: ScriptedTransport) -> None:
    transport.answers.append(messaging.SetSessionStateResponse(version=4))

    session.set_state(None)

    assert not transport.calls[0].request.HasField("value")


def test_a_state_of_another_kind_is_refused(session: Session) -> None:
    with pytest.raises(TypeError):
        session.set_state({"a": 1})  # type: ignore[arg-type]


def test_a_state_whose_answer_got_lost_is_stored_once(
    session: Session, transport: ScriptedTransport
) -> None:
    transport.answers += [OperationTimeout("x"), messaging.SetSessionStateResponse(version=5)]

    assert session.set_state("x") == 5
    assert len(set(transport.counters())) == 1


@pytest.mark.parametrize("error", [SessionLockLost("x"), MessageSizeExceeded("x")])
def test_what_the_server_refuses_is_raised(
    session: Session, transport: ScriptedTransport, error: SessionLockLost
) -> None:
    transport.answers.append(error)

    with pytest.raises(type(error)):
        session.set_state("x")


def test_a_renewal_says_until_when(session: Session, transport: ScriptedTransport) -> None:
    response = messaging.RenewSessionLockResponse()
    response.locked_until.FromMilliseconds(START_MS + 77_000)
    transport.answers.append(response)

    until = session.renew_lock()

    assert until.timestamp() * 1000 == START_MS + 77_000
    assert session.locked_until_utc == until


def test_a_closed_receivers_session_refuses_everything(transport: ScriptedTransport) -> None:
    transport.answers.append(released())
    with QueueReceiver(connect(transport), options(session_id="A"), None) as receiver:
        session = receiver.session

    for use in (session.get_state, session.renew_lock, lambda: session.set_state("x")):
        with pytest.raises(ClientClosed):
            use()
