"""Where a client connects to, and what closes with it."""

from __future__ import annotations

import pytest

from lockstep import LockstepClient
from lockstep.client.connection import Address, RetryOptions, parse_address
from lockstep.client.transport import run_to_completion
from lockstep.errors import ClientClosed, ConnectionFailed, InvalidRequest
from tests.unit.client.scripted import ScriptedTransport, connect


@pytest.mark.parametrize(
    ("text", "target", "namespace"),
    [
        ("127.0.0.1:7700", "127.0.0.1:7700", None),
        ("broker", "broker:7700", None),
        ("lockstep://broker", "broker:7700", None),
        ("lockstep://broker:5/", "broker:5", None),
        ("[::1]", "[::1]:7700", None),
        ("[::1]:80", "[::1]:80", None),
        ("dns:///broker:80", None, None),
        ("dns:broker:80", "dns:broker:80", None),
        ("unix:/run/lockstep", "unix:/run/lockstep", None),
        ("broker:1", "broker:1", None),
        ("broker:65535", "broker:65535", None),
        ("Endpoint=lockstep://b:5;Namespace=orders", "b:5", "orders"),
        (" endpoint = b ; NAMESPACE = orders ; ", "b:7700", "orders"),
        ("Endpoint=lockstep://b:5", "b:5", None),
    ],
)
def test_an_address_is_read(text: str, target: str | None, namespace: str | None) -> None:
    if target is None:
        with pytest.raises(InvalidRequest, match="host:port"):
            parse_address(text)
        return

    assert parse_address(text) == Address(target, namespace)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lockstep://",
        "broker:",
        "broker:abc",
        "broker:0",
        "broker:65536",
        "broker:-1",
        "broker:" + "7" * 5000,
        "broker:7_700",
        "broker:7700:7700",
        ":7700",
        "::1",
        "[::1",
        "[::1]7700",
        "[::1]:",
        "lockstep://broker:99999/",
        "Endpoint=lockstep://broker:abc;Namespace=orders",
        "http://broker:80",
        "Namespace=orders",
        "Endpoint=",
        "Endpoint=b;Endpoint=c",
        "Endpoint=b;SharedAccessKey=x",
        "Endpoint=b;nonsense",
    ],
)
def test_an_address_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_address(text)


def test_the_namespace_is_that_of_the_argument_then_of_the_string_then_default() -> None:
    text = "Endpoint=lockstep://b;Namespace=orders"

    assert LockstepClient(text).namespace == "orders"
    assert LockstepClient.from_connection_string(text).namespace == "orders"
    assert LockstepClient(text, namespace="mine").namespace == "mine"
    assert LockstepClient("b").namespace == "default"


def test_a_connection_string_is_told_from_an_address() -> None:
    with pytest.raises(InvalidRequest):
        LockstepClient.from_connection_string("127.0.0.1:7700")


@pytest.mark.parametrize(
    "options",
    [
        RetryOptions(-1, 0.8, 60, 60),
        RetryOptions(3, -0.8, 60, 60),
        RetryOptions(3, 0.8, -60, 60),
        RetryOptions(3, 0.8, 60, 0),
    ],
)
def test_retry_options_that_make_no_sense_are_refused(options: RetryOptions) -> None:
    with pytest.raises(InvalidRequest):
        options.to_policy()


def test_retry_options_are_in_seconds() -> None:
    policy = RetryOptions(5, 0.25, 2, 1.5).to_policy()

    assert (policy.retries_max, policy.backoff_ms) == (5, 250)
    assert (policy.backoff_ms_max, policy.timeout_ms) == (2000, 1500)


class Held:
    """Something that is held, and may refuse to be given back."""

    def __init__(self, error: Exception | None = None) -> None:
        self.locked_until_ms = 0
        self.releases = 0
        self._error = error

    async def release(self) -> None:
        self.releases += 1
        if self._error:
            raise self._error


def test_closing_gives_back_what_is_held_and_then_closes_the_channel() -> None:
    transport = ScriptedTransport()
    connection = connect(transport)
    held, let_go = Held(), Held()
    connection.add_held(held)
    connection.add_held(let_go)
    connection.remove_held(let_go)

    run_to_completion(connection.close())
    run_to_completion(connection.close())

    assert (held.releases, let_go.releases, transport.is_closed) == (1, 0, True)
    with pytest.raises(ClientClosed):
        connection.check_open()


def test_the_channel_is_closed_even_when_something_cannot_be_given_back() -> None:
    transport = ScriptedTransport()
    connection = connect(transport)
    connection.add_held(Held(ConnectionFailed("down")))

    with pytest.raises(ConnectionFailed):
        run_to_completion(connection.close())

    assert transport.is_closed


def test_a_closed_client_refuses_everything() -> None:
    client = LockstepClient("127.0.0.1:1")
    sender = client.get_queue_sender("q")
    administration = client.get_administration_client()
    client.close()

    for use in (
        lambda: client.get_queue_sender("q"),
        lambda: client.get_queue_receiver("q"),
        client.get_administration_client,
        lambda: sender.send_messages([]),
        lambda: administration.delete_queue("q"),
    ):
        with pytest.raises(ClientClosed):
            use()
