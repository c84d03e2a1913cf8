"""Values for single fields: the ordinary, the edges of their types, and what has broken parsers before."""

from __future__ import annotations

from random import Random
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_INTS = (
    *(0, 1, 2, 3, 10, 100, 1000, 1001, 4096, 4097, 8193, 81_921, -1, -2),
    *(2**15, 2**16, 2**31 - 1, 2**31, -(2**31), 2**32, 2**48, 2**53),
    *(2**63 - 1, -(2**63), 2**63, 2**64 - 1),
)
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_TEXTS = (
    *(
        "",
        " ",
        "a",
        "A",
        "orders",
        "after:",
        "after:\x00",
        "default",
        "\x00",
        "a\x00b",
        "\n",
        "\r\n",
    ),
    *("/", "\\", "a/b", "a\\b", "..", "a//b", "$a", "a/$DeadLetterQueue", "/$deadletterqueue"),
    *(
        "ß",
        "ẞ",
        "İ",
        "\u017f",
        "é",
        "e\u0301",
        "🙂",
        "队列",
        "\u202e",
        "\ufeff",
        "\ufffe",
        "\U0010ffff",
    ),
    *("%s%n%x", "'; DROP TABLE queues; --", "{0}", "a@b", "a*", "a?", "a#", "DeadLetterReason"),
)
_LENGTHS = (50, 51, 64, 65, 127, 128, 129, 260, 261, 1024, 1025, 4096, 4097, 33_000, 70_000)
_FILLERS = ("x", "é", "🙂", "\x00", "'", "İ")
_SIZES = (
    *(0, 1, 2, 7, 8, 15, 16, 17, 32, 100, 1000),
    *(0, 1, 8, 16, 100) * 3,
    33_000,
    70_000,
    1_100_000,
)
_FLOATS = (0.0, -0.0, 1.5, 1e308, 5e-324, float("inf"), float("-inf"), float("nan"))
_SPANS_MS = (0, 0, 1, 999, 1000, 5000, 20_000, 60_000, 300_000, 600_000, 86_400_000, 604_800_000)
_SECONDS = (0, 1, -1, 2**31, 315_576_000_001, -(2**62), 2**63 - 1, -(2**63))
_NANOS = (0, 1, 999_999, 999_999_999, 10**9, -1, 2**31 - 1, -(2**31))
_WRONG_ENUMS = (-1, -(2**31), 2**31 - 1, 99, 7)


def integer(random: Random, cpp_type: int) -> int:
    """Return a whole number of a field's type."""
    lowest, highest = _RANGES[cpp_type]
    if random.random() < 0.2:
        return random.randint(lowest, highest)
    return random.choice([number for number in _INTS if lowest <= number <= highest])


def text(random: Random) -> str:
    """Return text without surrogates, since protobuf has none."""
    kind = random.random()
    if kind < 0.65:
        return random.choice(_TEXTS)
    if kind < 0.85:
        return random.choice(_FILLERS) * random.choice(_LENGTHS)
    points = (random.choice((0x7F, 0x2FF, 0xD7FF, 0x10FFFF)) for _ in range(random.randint(1, 20)))
    made = (chr(random.randint(0, top)) for top in points)
    return "".join(one for one in made if not "\ud800" <= one <= "\udfff")


def data(random: Random) -> bytes:
    """Return bytes, rarely more than a megabyte of them."""
    size = random.choice(_SIZES)
    kind = random.random()
    if kind < 0.4:
        return random.choice((b"\x00", b"\xff", b"a", b"\x0a")) * size
    return random.randbytes(size)


def enumerated(random: Random, kind: EnumDescriptor) -> int:
    """Return a number of an enum, or one that it does not have."""
    if random.random() < 0.15:
        return random.choice(_WRONG_ENUMS)
    return int(random.choice(kind.values).number)


def duration(random: Random) -> Duration:
    """Return a duration: mostly one that a setting could have."""
    if random.random() < 0.75:
        span_ms = random.choice(_SPANS_MS)
        return Duration(seconds=span_ms // 1000, nanos=span_ms % 1000 * 1_000_000)
    return Duration(seconds=random.choice(_SECONDS), nanos=random.choice(_NANOS))


def timestamp(random: Random, now_ms: int) -> Timestamp:
    """Return a moment: mostly one near the present."""
    if random.random() < 0.75:
        at_ms = now_ms + random.choice((-1, 1)) * random.choice(_SPANS_MS)
        return Timestamp(seconds=at_ms // 1000, nanos=at_ms % 1000 * 1_000_000)
    return Timestamp(seconds=random.choice(_SECONDS), nanos=random.choice(_NANOS))


def scalar(random: Random, field: FieldDescriptor) -> Any:
    """Return a value of a field that is no message."""
    if field.enum_type is not None:
        return enumerated(random, field.enum_type)
    if field.cpp_type in _RANGES:
        return integer(random, field.cpp_type)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return data(random)
    if field.type == FieldDescriptor.TYPE_STRING:
        return text(random)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return random.random() < 0.5
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return random.choice(_FLOATS)
    raise AssertionError(f"no values for {field.full_name}: a type that lockstep.v1 did not have")
