"""Requests built from the descriptors, and requests with one thing in them changed.

Every field of every message is reached through its descriptor, so a new one needs no work here.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.fuzz import values
from tests.fuzz.knowledge import Knowledge, topic_of

_COUNTS = (0, 1, 1, 1, 2, 2, 3, 10, 50)
_MANY = (1000, 4097, 8193, 66_000)
_BYTES_MAX = 15 * 1024 * 1024  # within what gRPC lets through
_DEPTH_MAX = 6
_DEAD_LETTERS = "/$DeadLetterQueue"


class Builder:
    """Makes messages of any kind."""

    def __init__(self, random: Random, knowledge: Knowledge, now_ms: Callable[[], int]) -> None:
        self._random = random
        self._knowledge = knowledge
        self._now_ms = now_ms

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def build(self, kind: type[Message], *, care: float) -> Message:
        """Return a message with many of its fields set.

        Args:
            kind: The class of the message.
            care: How often a field gets what was seen for it before, from 0 to 1.
        """
        message = kind()
        self._fill(message, care, depth=0)
        return message

    def _fill(self, message: Message, care: float, depth: int) -> None:
        descriptor: Any = message.DESCRIPTOR
        chosen = {one.name: self._random.choice(one.fields).name for one in descriptor.oneofs}
        for field in descriptor.fields:
            oneof = field.containing_oneof
            is_choice = oneof is not None and len(oneof.fields) > 1
            if is_choice and chosen[oneof.name] != field.name:
                continue
            if not self._chance(0.95 if is_choice else 0.35 if field.has_presence else 0.85):
                continue
            self._set(message, field, care, depth)

    def _set(self, message: Message, field: FieldDescriptor, care: float, depth: int) -> None:
        if field.message_type is not None and depth >= _DEPTH_MAX:
            return
        if not field.is_repeated:
            if field.message_type is None:
                setattr(message, field.name, self._scalar(field, care))
            else:
                self._fill_part(getattr(message, field.name), care, depth + 1)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._fill_map(getattr(message, field.name), field, care, depth)
        else:
            self._fill_list(getattr(message, field.name), field, care, depth)

    def _fill_part(self, part: Any, care: float, depth: int) -> None:
        """Fill a message inside another one."""
        name = part.DESCRIPTOR.full_name
        if name == "google.protobuf.Duration":
            part.CopyFrom(values.duration(self._random))
        elif name == "google.protobuf.Timestamp":
            part.CopyFrom(values.timestamp(self._random, self._now_ms()))
        elif name == "lockstep.v1.RequestId" and self._chance(0.6):
            part.CopyFrom(self._knowledge.next_request_id())
        elif (known := self._knowledge.message(name)) is not None and self._chance(care):
            part.CopyFrom(known)
        else:
            part.SetInParent()
            self._fill(part, care, depth)

    def _fill_map(self, entries: Any, field: FieldDescriptor, care: float, depth: int) -> None:
        entry: Any = field.message_type
        key_of, value_of = entry.fields_by_name["key"], entry.fields_by_name["value"]
        for _ in range(self._random.choice(_COUNTS)):
            key = values.scalar(self._random, key_of)
            if value_of.message_type is not None:
                self._fill_part(entries[key], care, depth + 1)
            else:
                entries[key] = self._scalar(value_of, care)

    def _fill_list(self, items: Any, field: FieldDescriptor, care: float, depth: int) -> None:
        count = self._random.choice(_COUNTS)
        if field.message_type is None:
            items.extend(self._scalar(field, care) for _ in range(count))
        else:
            for _ in range(count if depth < 2 else min(count, 3)):
                self._fill_part(items.add(), care, depth + 1)
        if items and self._chance(0.01):
            self._repeat(items, field)

    def _repeat(self, items: Any, field: FieldDescriptor) -> None:
        """Make a list long, by its last item again and again."""
        last = items[-1]
        size = last.ByteSize() if field.message_type is not None else len(str(last))
        count = min(self._random.choice(_MANY), _BYTES_MAX // (size + 8))
        items.extend([last] * count)

    def _scalar(self, field: FieldDescriptor, care: float) -> Any:
        known = self._knowledge.value(field) if self._chance(care) else None
        if known is None:
            return values.scalar(self._random, field)
        if topic_of(field) == "entity" and self._chance(0.1):
            return f"{known}{_DEAD_LETTERS}"
        return known

    def corrupt(self, message: Message) -> Message:
        """Return a copy with one field of it, or of a part of it, cleared or changed."""
        changed = type(message)()
        changed.CopyFrom(message)
        target: Any = changed
        for depth in range(_DEPTH_MAX):
            parts = [part for part in _parts_of(target) if part.DESCRIPTOR.fields]
            if not parts or self._chance(0.4):
                self._change(target, depth)
                return changed
            target = self._random.choice(parts)
        return changed

    def _change(self, target: Any, depth: int) -> None:
        fields = target.DESCRIPTOR.fields
        if not fields:
            return
        field = self._random.choice(fields)
        if not self._chance(0.3):
            if not field.is_repeated:
                target.ClearField(field.name)
            self._set(target, field, care=0.3, depth=depth)
        else:
            target.ClearField(field.name)


def _parts_of(message: Message) -> list[Any]:
    parts: list[Any] = []
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        parts.extend(value if field.is_repeated else (value,))
    return parts
