"""The model of sending and scheduling (sections 3, 7, 8 and 11 of the contract)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from lockstep.core import commands as c
from lockstep.core.limits import SCHEDULE_MS_MAX, TTL_MS_MAX
from tests.properties.calls import Refused
from tests.properties.message import Message, State

if TYPE_CHECKING:
    from tests.properties.model import QueueModel

KIB = 1024
_Value = TypeVar("_Value")


def send(model: QueueModel, command: c.Send, now_ms: int) -> tuple[Any, ...]:
    """Store what is new, all or nothing (SND-5); a duplicate is accepted and discarded (DUP-2)."""
    found = model.calls.find(command.request, command.fingerprint, "send")
    if found is not None:
        return found
    broken = broken_by(model, command)
    if broken:
        raise Refused(*broken)
    facts = store(model, command, now_ms)
    model.calls.keep(command.request, command.fingerprint, "send", facts, now_ms)
    return facts


def store(model: QueueModel, command: c.Send, now_ms: int) -> tuple[Any, ...]:
    """Store what is new of a send that breaks no rule, if there is room."""
    keys = _keys(model, command)
    first_places = {key: keys.index(key) for key in keys if key is not None}
    new = [
        place
        for place, key in enumerate(keys)
        if key is None or (key not in model.known_ids and first_places[key] == place)
    ]
    full = _is_full(model, [len(command.messages[place]) for place in new])
    if new and full:
        raise Refused("QUOTA_EXCEEDED")

    numbers = {place: model.last_sequence + 1 + at for at, place in enumerate(new)}
    for place, number in numbers.items():
        model.messages.append(_message(model, command, place, number, now_ms))
        key = keys[place]
        if key is not None:
            model.known_ids[key] = (now_ms, number)
    model.last_sequence += len(new)
    given = [
        numbers[place] if place in numbers or key is None else model.known_ids[key][1]
        for place, key in enumerate(keys)
    ]
    duplicates = [place for place in range(len(keys)) if place not in numbers]
    return ("sent", given, duplicates)


def _message(model: QueueModel, command: c.Send, place: int, number: int, now_ms: int) -> Message:
    """Make a message active, or scheduled if its time is to come (SCH-1)."""
    given_ms = _of(command.ttls_ms, place, 0)
    most_ms = model.settings.default_message_time_to_live_ms
    ttl_ms = min(given_ms or most_ms, most_ms) if most_ms else given_ms  # TTL-1
    due_ms = _of(command.due_ms, place, 0)
    session_id = None
    if model.settings.requires_session:
        session_id = _of(command.session_ids, place, None)
        assert session_id is not None
        model.book.session(session_id)
    message = Message(number, command.messages[place], session_id, now_ms, ttl_ms)
    if due_ms > now_ms:
        message.state, message.due_ms = State.SCHEDULED, due_ms
    return message


def _of(given: tuple[_Value, ...], place: int, nothing: _Value) -> _Value:
    """Return what is given for one message: its own, or the one that is for all."""
    if not given:
        return nothing
    return given[0] if len(given) == 1 else given[place]


def _keys(model: QueueModel, command: c.Send) -> list[tuple[str | None, str] | None]:
    """Return by what each message is known (DUP-1); None = by nothing (DUP-10)."""
    keys: list[tuple[str | None, str] | None] = []
    is_spread = model.settings.placement == "spread"
    for place in range(len(command.messages)):
        name = command.message_ids[place] if command.message_ids else ""
        session_id = _of(command.session_ids, place, None) if is_spread else None
        is_known_by_it = model.settings.requires_duplicate_detection and name
        keys.append((session_id, name) if is_known_by_it else None)
    return keys


def broken_by(model: QueueModel, command: c.Send) -> set[str]:
    """Return which rules a send breaks, want of room apart."""
    broken = _broken_by_sizes(model, [len(payload) for payload in command.messages])
    if model.settings.status in ("disabled", "send_disabled"):
        broken.add("ENTITY_DISABLED")
    if model.settings.requires_session and None in command.session_ids:
        broken.add("INVALID_OPERATION")
    count = len(command.messages)
    lists = (command.session_ids, command.message_ids, command.ttls_ms, command.due_ms)
    if not command.session_ids or len(command.message_ids) not in (0, count):
        broken.add("INVALID_ARGUMENT")
    if any(len(given) not in (0, 1, count) for given in lists):
        broken.add("INVALID_ARGUMENT")
    longest = max(len(i or "") for i in ("", *command.session_ids))
    latest = (max(command.ttls_ms, default=0), max(command.due_ms, default=0))
    if longest > 128 or latest[0] > TTL_MS_MAX or latest[1] > SCHEDULE_MS_MAX:
        broken.add("LIMIT_EXCEEDED")
    return broken


def _broken_by_sizes(model: QueueModel, sizes: list[int]) -> set[str]:
    broken = set()
    if not sizes:
        broken.add("INVALID_ARGUMENT")
    if len(sizes) > model.limits.send_messages_max:
        broken.add("LIMIT_EXCEEDED")
    if max(sizes, default=0) > model.settings.max_message_size_in_kilobytes * KIB:
        broken.add("MESSAGE_SIZE_EXCEEDED")
    if sum(sizes) > model.limits.send_bytes_max and len(sizes) > 1:
        broken.add("MESSAGE_SIZE_EXCEEDED")
    return broken


def _is_full(model: QueueModel, sizes: list[int]) -> bool:
    """Whether there is no room for these messages (SND-11)."""
    count = model.others + len(model.stored()) + len(sizes)
    most = model.settings.max_size_in_megabytes * KIB * KIB
    return model.size_bytes() + sum(sizes) > most or count > model.limits.partition_messages_max


def cancel_scheduled(model: QueueModel, command: c.CancelScheduled, now_ms: int) -> tuple[Any, ...]:
    """Take scheduled messages back, all or none (SCH-5)."""
    found = model.calls.find(command.request, command.fingerprint, "cancel_scheduled")
    if found is not None:
        return found
    if len(command.sequences) > model.limits.settle_messages_max:
        raise Refused("LIMIT_EXCEEDED")
    wanted = set(command.sequences)
    going = [m for m in model.messages if m.state is State.SCHEDULED and m.sequence in wanted]
    if len(going) < len(wanted):
        raise Refused("MESSAGE_NOT_FOUND")
    for message in going:
        model.remove(message, "cancelled")
    facts = ("schedule cancelled", len(going))
    model.calls.keep(command.request, command.fingerprint, "cancel_scheduled", facts, now_ms)
    return facts
