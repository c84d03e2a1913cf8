"""A program in Go, made from the protos alone, and our client understand each other byte for byte (MSG-9).

The first run downloads and compiles for most of a minute; later ones find it in `.cache/go`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from google.protobuf import json_format

from lockstep import NEXT_AVAILABLE_SESSION, LockstepClient, Message, PropertyValue
from lockstep.v1 import message_pb2
from tests.interop import go_program
from tests.server.server_process import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SESSION = "Sitzung größer ☃"
ALL_BYTES = bytes(range(256))
PYTHON_BODY = json.dumps(
    {"from": "Python", "größe": 1.5, "text": "日本語 🚀", "nested": [None, True, {"a": "\0"}]},
    ensure_ascii=False,
).encode()
# Byte for byte what stands in main.go.
GO_BODY = (
    '{"from":"Go","größe":1.5,"text":"日本語 🚀","nested":[null,true,{"a":"\\u0000"}]}'.encode()
)
PROPERTIES: dict[str, PropertyValue] = {
    "false": False,
    "true": True,
    "int least": -(2**63),
    "int greatest": 2**63 - 1,
    "uint": 2**64 - 1,
    "double": 0.1,
    "infinite": float("-inf"),
    "text größe": "日本語 🚀",
    "empty": "",
    "bytes": ALL_BYTES,
    "uuid": UUID(bytes=ALL_BYTES[:16]),
    "moment": datetime(1969, 12, 31, 23, 59, 59, 123456, tzinfo=UTC),
}


def whole_message(message_id: str, body: bytes) -> Message:
    """A message with all that a sender may set and that has no effect on delivery."""
    return Message(
        body,
        message_id=message_id,
        session_id=SESSION,
        correlation_id="question-7",
        subject="Größe",
        to="somewhere",
        reply_to="answers",
        reply_to_session_id="",
        content_type="application/json; charset=utf-8",
        application_properties=PROPERTIES,
    )


def messages_of(message_id: str, body: bytes) -> list[Message]:
    """The same four messages as in main.go."""
    bodies = (ALL_BYTES, b"", None)
    return [
        whole_message(message_id, body),
        *(Message(other, session_id=SESSION) for other in bodies),
    ]


def wire_of(message: Message) -> message_pb2.Message:
    """What protoc made of a message, to be compared with what another language's protoc made of it."""
    return message._wire


def test_go_reads_what_python_wrote(
    program: Path, server: ServerProcess, client: LockstepClient
) -> None:
    sent = messages_of("python-1", PYTHON_BODY)
    client.get_administration_client().create_queue("python-writes", requires_session=True)
    client.get_queue_sender("python-writes").send_messages(sent)

    lines = go_program.run(program, "read", f"127.0.0.1:{server.port}", "python-writes")

    read = [json_format.Parse(line, message_pb2.Message()) for line in lines]
    assert read == [wire_of(message) for message in sent]
    assert read[0].body == PYTHON_BODY


def test_what_go_completed_is_gone_and_its_state_stays(
    program: Path, server: ServerProcess, client: LockstepClient
) -> None:
    admin = client.get_administration_client()
    admin.create_queue("go-completes", requires_session=True)
    client.get_queue_sender("go-completes").send_messages(messages_of("python-1", PYTHON_BODY))

    go_program.run(program, "read", f"127.0.0.1:{server.port}", "go-completes")

    assert admin.get_queue_runtime_properties("go-completes").total_message_count == 0
    with client.get_queue_receiver("go-completes", session_id=SESSION) as receiver:
        assert receiver.session.state == "Go was here: größe\0".encode() + b"\xff"


def test_python_reads_what_go_wrote(
    program: Path, server: ServerProcess, client: LockstepClient
) -> None:
    lines = go_program.run(program, "write", f"127.0.0.1:{server.port}", "go-writes")

    with client.get_queue_receiver(
        "go-writes", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=5
    ) as receiver:
        messages = receiver.receive_messages(100)
        receiver.complete_messages(messages)
    first = messages[0]
    assert [message.body for message in messages] == [GO_BODY, ALL_BYTES, b"", None]
    assert first.application_properties == PROPERTIES
    assert {message.session_id for message in messages} == {SESSION}
    expected = messages_of("go-1", GO_BODY)
    assert [Message.from_received(message)._wire for message in messages] == [
        wire_of(message) for message in expected
    ]
    shown = [json_format.Parse(line, message_pb2.Message()) for line in lines]
    assert shown == [wire_of(message) for message in expected]
