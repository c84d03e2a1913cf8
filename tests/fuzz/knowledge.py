"""What earlier calls told: names, tokens, numbers, ids. Requests are built from it, so that they reach far."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from lockstep.v1 import request_pb2

_KEPT = 48
_CLIENTS = ("ada", "bob", "cleo")
# Fields that hold the same kind of thing under another name.
_SAME = {
    "name": "entity",
    "queue": "entity",
    "next_page_token": "page_token",
    "version": "if_version",
    "revision": "if_revision",
    "sequence_number": "sequence_numbers",
    "from_sequence_number": "sequence_numbers",
    "partition_key": "session_id",
    "reply_to_session_id": "session_id",
    "receiver_client_id": "holder_client_id",
    "requested_by": "holder_client_id",
}
_FOREIGN = 0.05  # how often a field gets what belongs into another one


def topic_of(field: FieldDescriptor) -> str:
    """Return what a field is about, by its name."""
    return _SAME.get(field.name, field.name)


class Knowledge:
    """The last values seen for each field, and the last whole messages of each kind."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._values: dict[tuple[int, str], deque[Any]] = {}
        self._messages: dict[str, deque[Message]] = {}
        self._counters = dict.fromkeys(_CLIENTS, 0)

    def learn(self, message: Message) -> None:
        """Remember everything that a message holds."""
        name = message.DESCRIPTOR.full_name
        self._messages.setdefault(name, deque(maxlen=_KEPT)).append(message)
        for field, value in message.ListFields():
            values = list(value)[:_KEPT] if field.is_repeated else [value]
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                continue
            for one in values:
                if isinstance(one, Message):
                    self.learn(one)
                else:
                    self._note(field.cpp_type, topic_of(field), one)
        self._learn_tokens(message)

    def _learn_tokens(self, message: Any) -> None:
        """Make the lock tokens of delivered messages from their prefix, as a client does."""
        prefix = getattr(message, "lock_token_prefix", b"")
        if prefix:
            for number in message.sequence_numbers[:_KEPT]:
                token = prefix + number.to_bytes(8, "big")
                self._note(FieldDescriptor.CPPTYPE_STRING, "lock_tokens", token)

    def _note(self, kind: int, topic: str, value: Any) -> None:
        self._values.setdefault((kind, topic), deque(maxlen=_KEPT)).append(value)

    def value(self, field: FieldDescriptor) -> Any:
        """Return something that was seen for a field, now and then for another one; None = nothing fits."""
        key = (field.cpp_type, topic_of(field))
        if self._random.random() < _FOREIGN:
            of_kind = [one for one in self._values if one[0] == field.cpp_type]
            key = self._random.choice(of_kind) if of_kind else key
        known = self._values.get(key)
        if not known:
            return None
        value = self._random.choice(known)
        if field.type == FieldDescriptor.TYPE_BYTES and isinstance(value, str):
            return value.encode()
        if field.type == FieldDescriptor.TYPE_STRING and isinstance(value, bytes):
            return None
        return value

    def message(self, full_name: str) -> Message | None:
        """Return a whole message of a kind that was seen; None = there was none."""
        known = self._messages.get(full_name)
        return self._random.choice(known) if known else None

    def next_request_id(self, client: str | None = None) -> request_pb2.RequestId:
        """Return the id of a client's next call, of any client's unless one is named."""
        client = client or self._random.choice(_CLIENTS)
        self._counters[client] = self._counters.get(client, 0) + 1
        return request_pb2.RequestId(client_id=client, counter=self._counters[client])
