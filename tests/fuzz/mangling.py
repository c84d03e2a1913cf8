"""Bytes that were a request once: cut, bent, doubled, or with fields that nobody knows."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

_TORN_MAX = 4096
_GROUPS = (50, 99, 100, 101, 500, 5000)
_LENGTHS = (0, 1, 127, 128, 2**31 - 1, 2**31, 2**32, 2**63)


def random_bytes(random: Random) -> bytes:
    """Return bytes that may, or may not, be a request."""
    return random.randbytes(random.choice((0, 1, 2, 3, 5, 8, 20, 64, 300, 5000)))


def mangled(random: Random, payload: bytes) -> bytes:
    """Return a payload with one to three things done to it."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        payload = random.choice(_WAYS)(random, payload)
    return payload


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _truncated(random: Random, payload: bytes) -> bytes:
    return payload[: random.randrange(len(payload) + 1)]


def _flipped(random: Random, payload: bytes) -> bytes:
    bent = bytearray(payload)
    for _ in range(random.choice((1, 1, 2, 5))):
        if bent:
            bent[random.randrange(len(bent))] ^= 1 << random.randrange(8)
    return bytes(bent)


def _overwritten(random: Random, payload: bytes) -> bytes:
    bent = bytearray(payload)
    if bent:
        bent[random.randrange(len(bent))] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
    return bytes(bent)


def _torn(random: Random, payload: bytes) -> bytes:
    """Take a piece out, or put it in somewhere else as well."""
    start = random.randrange(len(payload) + 1)
    end = min(len(payload), start + random.randrange(_TORN_MAX))
    if random.random() < 0.5:
        return payload[:start] + payload[end:]
    at = random.randrange(len(payload) + 1)
    return payload[:at] + payload[start:end] + payload[at:]


def _doubled(_random: Random, payload: bytes) -> bytes:
    return payload + payload if len(payload) < _TORN_MAX else payload


def _with_noise(random: Random, payload: bytes) -> bytes:
    at = random.randrange(len(payload) + 1)
    return payload[:at] + random_bytes(random) + payload[at:]


def _with_unknown_field(random: Random, payload: bytes) -> bytes:
    """Append a field that no message has, or one of another wire type than the message says."""
    number = random.choice(
        (1, 2, 3, 10, 15, 16, 63, 64, 100, 127, 128, 18_999, 2**29 - 1, 0, 2**29)
    )
    wire_type = random.randrange(8)
    tag = varint(number << 3 | wire_type)
    body = {
        0: varint(random.choice((0, 1, 2**63, 2**64 - 1, 2**70))),
        1: random.randbytes(8),
        2: varint(5) + random.randbytes(5),
        3: varint(number << 3 | 4),
        5: random.randbytes(4),
    }
    return payload + tag + body.get(wire_type, b"")


def _with_wrong_length(random: Random, payload: bytes) -> bytes:
    field = random.randrange(1, 18)
    return payload + varint(field << 3 | 2) + varint(random.choice(_LENGTHS)) + random.randbytes(9)


def _deep(random: Random, payload: bytes) -> bytes:
    """Append a field that holds itself, many times over."""
    depth, field = random.choice(_GROUPS), random.randrange(1, 70)
    if random.random() < 0.5:
        begin, end = varint(field << 3 | 3), varint(field << 3 | 4)
        return payload + begin * depth + end * random.choice((depth, depth - 1))
    nested = b""
    for _ in range(min(depth, 500)):
        nested = varint(field << 3 | 2) + varint(len(nested)) + nested
    return payload + nested


def _bad_text(random: Random, payload: bytes) -> bytes:
    """Append a text that is not UTF-8, or holds half of a surrogate pair."""
    bad = random.choice((b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"\xf5\x80\x80\x80", b"a\x80"))
    return payload + varint(random.randrange(1, 9) << 3 | 2) + varint(len(bad)) + bad


_WAYS: tuple[Callable[[Random, bytes], bytes], ...] = (
    *(_truncated, _truncated, _flipped, _flipped, _overwritten, _torn, _doubled, _with_noise),
    *(_with_unknown_field, _with_wrong_length, _deep, _bad_text),
)
