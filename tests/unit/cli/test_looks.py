"""How messages, sessions and a starting server look."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lockstep import MessageState, SessionProperties
from lockstep.cli.commands.serve import client_address, welcome
from lockstep.cli.messages import Printer, message_json
from lockstep.cli.output import Output
from lockstep.cli.session_looks import meaning, shown_id, table
from lockstep.cli.sources import message_fields
from lockstep.cli.values import described
from lockstep.client.message import Message
from lockstep.client.received import Delivery, ReceivedMessage
from lockstep.runtime.config import ServerConfig

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def session(
    *,
    messages: int = 0,
    held_s: int | None = None,
    state: int | None = None,
    holder: str | None = None,
    **more: Any,
) -> SessionProperties:
    return SessionProperties(
        session_id="A",
        active_message_count=messages,
        locked_message_count=0,
        holder_client_id=holder,
        locked_until_utc=None if held_s is None else NOW + timedelta(seconds=held_s),
        grant=3,
        state_size_in_bytes=state,
        state_version=1,
        **{"scheduled_message_count": 0, "deferred_message_count": 0, **more},
    )


def received(
    message: Message, state: MessageState = MessageState.ACTIVE, expires_ms: int = 0
) -> ReceivedMessage:
    delivery = Delivery("orders", None, b"", None, state)
    enqueued_ms = round(NOW.timestamp() * 1000)
    return ReceivedMessage(message._wire, 7, 2, enqueued_ms, delivery, expires_ms)


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (session(held_s=42, holder="worker-7", messages=2), "worker-7 holds the session"),
        (session(held_s=42), "free in 42s"),
        (session(held_s=-5), "free in 0s"),
        (session(messages=2), "the next receiver that asks gets it"),
        (session(state=10), "only a state"),
        (session(messages=2, delayed_until_utc=NOW), "nothing is delivered before 2026-01-31T12:0"),
        (session(scheduled_message_count=1), "no message can be delivered now"),
        (session(deferred_message_count=1, state=1), "somebody who asks for their numbers"),
        (session(), "The session is empty"),
    ],
)
def test_the_text_says_what_a_session_means(shown: SessionProperties, words: str) -> None:
    assert words in meaning(shown, NOW)


def test_a_session_is_described_for_programs() -> None:
    facts = described(session(held_s=60, holder="worker-7"))

    assert facts["locked_until_utc"] == "2026-01-31T12:01:00.000Z"
    assert facts["holder_client_id"] == "worker-7"
    assert facts["state_size_in_bytes"] is None


def cells(shown: SessionProperties) -> dict[str, str]:
    columns, (only,) = table([shown], NOW)
    return {column.heading: cell for column, cell in zip(columns, only, strict=True)}


def test_add_9_a_session_with_everything_has_every_column() -> None:
    shown = session(
        messages=3,
        held_s=42,
        holder="worker-7",
        state=2048,
        scheduled_message_count=1,
        deferred_message_count=2,
        dead_letter_message_count=4,
        oldest_deliverable_at_utc=NOW - timedelta(minutes=90),
        delayed_until_utc=NOW,
        holder_address="ipv6:%5B::1%5D:50",
        renewal_count=6,
        last_loss_cause="grace_ended",
        released_at_utc=NOW - timedelta(seconds=7, milliseconds=400),
    )

    assert cells(shown) == {
        "SESSION": "A",
        "HOLDER": "worker-7 at [::1]:50",
        "LOCKED FOR": "42s",
        "RENEWED": "6",
        "MESSAGES": "3",
        "UNSETTLED": "0",
        "OLDEST": "1h30m",
        "SET ASIDE": "delayed, 1 scheduled, 2 deferred",
        "DEAD LETTERS": "4",
        "STATE": "2.0 KiB",
        "LAST LOSS": "grace ended 7s ago",
    }


def test_what_no_session_has_anything_of_has_no_column() -> None:
    assert cells(session(messages=1)) == {
        "SESSION": "A",
        "HOLDER": "-",
        "LOCKED FOR": "-",
        "MESSAGES": "1",
        "UNSETTLED": "0",
        "STATE": "-",
    }


def test_an_age_of_the_future_is_none() -> None:
    """The clocks of two machines differ a little."""
    assert cells(session(oldest_deliverable_at_utc=NOW + timedelta(seconds=3)))["OLDEST"] == "0s"


def test_an_empty_session_id_is_visible() -> None:
    assert shown_id("") == '""'
    assert shown_id("A") == "A"


def test_a_received_message_can_be_sent_again_as_it_was() -> None:
    message = Message(
        b"\x00\xff",
        session_id="",
        message_id="m",
        subject="s",
        time_to_live=timedelta(days=5, milliseconds=1),
        scheduled_enqueue_time_utc=NOW + timedelta(milliseconds=1),
        application_properties={"n": 1, "raw": b"\x00", "at": NOW, "yes": True},
    )

    copy = Message(**message_fields(message_json(received(message))))

    assert copy._wire == message._wire


def test_what_the_broker_adds_is_shown_and_not_sent_again() -> None:
    added = {"DeadLetterReason": "Poison", "DeadLetterErrorDescription": "It hurts."}
    shown = message_json(received(Message("x", application_properties={**added, "own": 1})))

    assert shown["sequence_number"] == 7
    assert shown["delivery_count"] == 2
    assert shown["enqueued_time_utc"] == "2026-01-31T12:00:00.000Z"
    assert shown["dead_letter_reason"] == "Poison"
    assert shown["application_properties"] == {"own": 1}
    assert message_fields(shown) == {"body": b"x", "application_properties": {"own": 1}}


def test_when_a_message_expires_is_shown_and_not_sent_again() -> None:
    expires_ms = round(NOW.timestamp() * 1000) + 1

    shown = message_json(received(Message("x"), expires_ms=expires_ms))

    assert shown["expires_at_utc"] == "2026-01-31T12:00:00.001Z"
    assert message_fields({**shown, "state": "scheduled"}) == {"body": b"x"}


def test_a_look_shows_states_and_when_a_scheduled_message_is_due(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    later = Message("later", scheduled_enqueue_time_utc=NOW)

    Printer(Output(), has_states=True).print(
        [received(Message("now")), received(later, MessageState.SCHEDULED)]
    )

    headings, first, second = capsys.readouterr().out.splitlines()
    assert headings.split()[:3] == ["SEQUENCE", "SESSION", "STATE"]
    assert " active " in first
    assert " scheduled for 2026-01-31T12:00:00.000Z " in second


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [
        ("127.0.0.1", 7700, "127.0.0.1:7700"),
        ("0.0.0.0", 7800, "127.0.0.1:7800"),
        ("::", 7700, "[::1]:7700"),
    ],
)
def test_the_address_for_clients_on_this_machine(host: str, port: int, address: str) -> None:
    assert client_address(ServerConfig(host=host, port=port)) == address


def test_a_server_says_what_to_type_next() -> None:
    text = welcome(ServerConfig(port=7800))

    for words in (
        "127.0.0.1:7800",
        "synced to disk",
        "export LOCKSTEP_SERVER=127.0.0.1:7800",
        "lockstep queue create orders --session",
        "lockstep send orders --session A --count 5",
        "lockstep receive orders",
        "http://127.0.0.1:9464/metrics",
    ):
        assert words in text


def test_a_server_on_the_default_address_needs_no_export() -> None:
    text = welcome(ServerConfig(store="memory", metrics_port=None))

    assert "export" not in text
    assert "Metrics" not in text
    assert "gone when the server stops" in text


@pytest.mark.parametrize(
    ("started", "program"),
    [
        ("bin/lockstep", "bin/lockstep"),
        ("lockstep/__main__.py", "bin/python3 -m lockstep"),
        ("pytest", "lockstep"),
    ],
)
def test_what_to_type_is_what_works_where_the_shell_finds_no_lockstep(
    monkeypatch: pytest.MonkeyPatch, started: str, program: str
) -> None:
    monkeypatch.setenv("PATH", "no/such/directory")
    monkeypatch.setattr("sys.argv", [started])
    monkeypatch.setattr("sys.executable", str(Path("bin/python3").absolute()))

    assert f"  {program} queue create orders --session" in welcome(ServerConfig())
