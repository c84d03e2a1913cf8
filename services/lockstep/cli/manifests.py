"""Queues as objects of Kubernetes: what `kubectl apply` makes of them again.

Here belongs the way from a queue to a Queue object of lockstep.dev/v1alpha1, and its text. Never here: which queues
are written (`commands.export`), or what the operator does with an object. The laws: an object says only what differs
from the defaults, so that applying it changes nothing; what an object cannot say is told, never left out silently.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from lockstep import (
    AcceptNext,
    EntityStatus,
    Placement,
    QueueProperties,
    SessionExpiry,
    SessionLockExtension,
)
from lockstep.core.limits import TTL_MS_MAX

API_VERSION = "lockstep.dev/v1alpha1"
KIND = "Queue"

_LABEL = "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_NAMESPACE = re.compile(_LABEL)
_NAMESPACE_CHARS_MAX = 63
_OBJECT = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_OBJECT_CHARS_MAX = 253
_MARK_CHARS = 8
# What `spec.entityName` takes.
_ENTITY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?", re.ASCII)

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
_FOR_EVER = timedelta(milliseconds=TTL_MS_MAX)

# Text that YAML reads as itself without quotes, but for the words that it takes for something else.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9./-]*", re.ASCII)
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
# JSON leaves these as they are; YAML does not take them, or takes them for the end of a line.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


class NotDeclarable(Exception):
    """No object can say what this queue is; the text says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Form:
    """What all objects have in common.

    Attributes:
        into: The Kubernetes namespace of the objects; None = that which is called as the broker namespace.
        broker: The Broker that they name.
        deletion_policy: What becomes of their queues when they are deleted; None = what the operator says.
    """

    into: str | None = None
    broker: str = "default"
    deletion_policy: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A queue as an object.

    Attributes:
        body: The object.
        without: Settings that differ from their defaults, have no effect on this queue, and cannot be said.
        kept_by: Who keeps the queue already; empty = nobody but people.
    """

    body: Mapping[str, Any]
    without: tuple[str, ...] = ()
    kept_by: str = ""


# --- durations ---------------------------------------------------------------------------------------


def _whole_seconds(value: timedelta, what: str) -> int:
    seconds, rest = divmod(value, _SECOND)
    if rest:
        raise NotDeclarable(f"its {what} is no whole number of seconds")
    return seconds


def lock_text(value: timedelta) -> str:
    """Return a lock duration as `spec.lockDuration` takes it: minutes and seconds."""
    minutes, seconds = divmod(_whole_seconds(value, "lock duration"), 60)
    minute = f"{minutes}M" if minutes else ""
    return f"PT{minute}" + (f"{seconds}S" if seconds or not minutes else "")


def window_text(value: timedelta) -> str:
    """Return a window as its field takes it: whole days, or hours, minutes and seconds, but not both."""
    _whole_seconds(value, "duplicate detection window")
    days, rest = divmod(value, _DAY)
    if not rest:
        return f"P{days}D"
    return f"PT{_time_text(value)}"


def lifetime_text(value: timedelta) -> str:
    """Return any other duration: days, hours, minutes and seconds with their fraction."""
    days, rest = divmod(value, _DAY)
    time = _time_text(rest)
    return "P" + (f"{days}D" if days else "") + (f"T{time}" if time else "")


def _time_text(value: timedelta) -> str:
    hours, rest = divmod(value, timedelta(hours=1))
    minutes, rest = divmod(rest, timedelta(minutes=1))
    seconds, rest = divmod(rest, _SECOND)
    fraction = f".{rest // timedelta(microseconds=1):06}".rstrip("0") if rest else ""
    parts = ((hours, "H"), (minutes, "M"))
    last = f"{seconds}{fraction}S" if seconds or fraction else ""
    return "".join(f"{number}{unit}" for number, unit in parts if number) + last


# --- settings ----------------------------------------------------------------------------------------


def _choice_text(value: Any) -> str:
    return "".join(part.capitalize() for part in str(value.value).split("_"))


def _as_it_is(value: Any) -> Any:
    return value


# Fields of an object, the settings that they say, and how they write them.
FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "requiresSession": ("requires_session", _as_it_is),
    "requiresDuplicateDetection": ("requires_duplicate_detection", _as_it_is),
    "placement": ("placement", _choice_text),
    "lockDuration": ("lock_duration", lock_text),
    "maxDeliveryCount": ("max_delivery_count", _as_it_is),
    "defaultMessageTimeToLive": ("default_message_time_to_live", lifetime_text),
    "deadLetteringOnMessageExpiration": ("dead_lettering_on_message_expiration", _as_it_is),
    "duplicateDetectionHistoryTimeWindow": (
        "duplicate_detection_history_time_window",
        window_text,
    ),
    "maxSizeInMegabytes": ("max_size_in_megabytes", _as_it_is),
    "maxMessageSizeInKilobytes": ("max_message_size_in_kilobytes", _as_it_is),
    "maxSessionStateSizeInKilobytes": ("max_session_state_size_in_kilobytes", _as_it_is),
    "forwardTo": ("forward_to", _as_it_is),
    "forwardDeadLetteredMessagesTo": ("forward_dead_lettered_messages_to", _as_it_is),
    "entityStatus": ("status", _choice_text),
    "sessionLockExtension": ("session_lock_extension", _choice_text),
    "acceptNext": ("accept_next", _choice_text),
    "sessionExpiry": ("session_expiry", _choice_text),
    "releaseOnDisconnect": ("release_on_disconnect", _as_it_is),
    "recallOnAbandon": ("recall_on_abandon", _as_it_is),
    "sessionStateIdleTTL": ("session_state_idle_ttl", lifetime_text),
    "autoDeleteOnIdle": ("auto_delete_on_idle", lifetime_text),
    "userMetadata": ("user_metadata", _as_it_is),
}
_OF_SESSIONS = frozenset(
    {
        "maxSessionStateSizeInKilobytes",
        "sessionLockExtension",
        "acceptNext",
        "sessionExpiry",
        "releaseOnDisconnect",
        "recallOnAbandon",
        "sessionStateIdleTTL",
    }
)
_NEVER = ("defaultMessageTimeToLive", "autoDeleteOnIdle", "sessionStateIdleTTL")
_DEFAULTS: Mapping[str, Any] = {
    "requiresSession": False,
    "requiresDuplicateDetection": False,
    "lockDuration": timedelta(minutes=1),
    "maxDeliveryCount": 10,
    "deadLetteringOnMessageExpiration": False,
    "duplicateDetectionHistoryTimeWindow": timedelta(minutes=10),
    "maxSizeInMegabytes": 1024,
    "maxMessageSizeInKilobytes": 1024,
    "forwardTo": "",
    "forwardDeadLetteredMessagesTo": "",
    "entityStatus": EntityStatus.ACTIVE,
    "sessionLockExtension": SessionLockExtension.ON_RECEIVE,
    "acceptNext": AcceptNext.ENABLED,
    "sessionExpiry": SessionExpiry.WHOLE_SESSION,
    "releaseOnDisconnect": False,
    "recallOnAbandon": False,
    "userMetadata": "",
}


def _is_default(queue: QueueProperties, field: str, value: Any) -> bool:
    if field in _NEVER:
        return value is None or value >= _FOR_EVER
    if field == "placement":
        usual = Placement.SPREAD if queue.requires_session else Placement.SINGLE
        return value is usual
    if field == "maxSessionStateSizeInKilobytes":
        return bool(value == queue.max_message_size_in_kilobytes)
    return bool(value is None or value == _DEFAULTS[field])


def _settings(queue: QueueProperties) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what an object says of the settings of a queue, and what has no effect and cannot be said."""
    said: dict[str, Any] = {}
    without = [] if queue.enable_batched_operations else ["enableBatchedOperations"]
    for field, (name, written) in FIELDS.items():
        value = getattr(queue, name)
        if _is_default(queue, field, value):
            continue
        is_idle = (field in _OF_SESSIONS and not queue.requires_session) or (
            field == "duplicateDetectionHistoryTimeWindow"
            and not queue.requires_duplicate_detection
        )
        if is_idle:
            without.append(field)
        else:
            said[field] = written(value)
    return said, tuple(without)


# --- names -------------------------------------------------------------------------------------------


def _near_name(name: str) -> str:
    """Return the valid name that is nearest to the name of a queue; it may be too long, or near to another one too."""
    lowered = name.lower()
    if _OBJECT.fullmatch(lowered):
        return lowered
    replaced = re.sub(r"[^a-z0-9.]+", "-", lowered)
    return ".".join(part.strip("-") for part in replaced.split(".") if part.strip("-"))


def object_names(names: Iterable[str]) -> dict[str, str]:
    """Return a name of an object for each queue of one namespace; no two are the same.

    A name that Kubernetes takes stays as it is, in lower case. Others are made valid, and get a mark of their own where
    that would be the name of another queue too, or too long.
    """
    near_to = {name: _near_name(name) for name in names}
    counts = Counter(near_to.values())
    found = {}
    for name, near in near_to.items():
        is_its_own = bool(near) and (near == name.lower() or counts[near] == 1)
        if is_its_own and len(near) <= _OBJECT_CHARS_MAX:
            found[name] = near
        else:
            found[name] = _marked(name, near or "queue", counts.keys())
    return found


def _marked(name: str, near: str, taken: Collection[str]) -> str:
    digest = hashlib.sha256(name.lower().encode()).hexdigest()
    for chars in range(_MARK_CHARS, len(digest)):
        made = f"{near[: _OBJECT_CHARS_MAX - 1 - chars].rstrip('-.')}-{digest[:chars]}"
        if made not in taken:
            return made
    raise AssertionError(f"every mark of {name} is the name of a queue")


def is_namespace(name: str) -> bool:
    """Whether a namespace of Kubernetes, or a Broker, can be called so."""
    return len(name) <= _NAMESPACE_CHARS_MAX and _NAMESPACE.fullmatch(name) is not None


def _namespace_of(queue: QueueProperties, form: Form) -> str:
    if form.into is not None:
        return form.into
    if not is_namespace(queue.namespace):
        raise NotDeclarable(f"no namespace of Kubernetes can be called '{queue.namespace}'")
    return queue.namespace


def manifest(queue: QueueProperties, object_name: str, form: Form) -> Manifest:
    """Return the object that declares a queue as it is.

    Raises:
        NotDeclarable: None can.
    """
    namespace = _namespace_of(queue, form)
    if _ENTITY.fullmatch(queue.name) is None:
        raise NotDeclarable(
            "an object names queues by ASCII letters, digits, '.', '_', '-' and '/' only, with a letter or a digit at"
            " both ends"
        )
    settings, without = _settings(queue)
    spec: dict[str, Any] = {} if form.broker == "default" else {"brokerName": form.broker}
    if object_name != queue.name:
        spec["entityName"] = queue.name
    spec["adoptionPolicy"] = "IfUnowned"
    if form.deletion_policy is not None:
        spec["deletionPolicy"] = form.deletion_policy
    body = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": object_name, "namespace": namespace},
        "spec": spec | settings,
    }
    kept_by = queue.manager
    told = "" if kept_by is None else f"{kept_by.name} ({kept_by.source or 'no source named'})"
    return Manifest(body, without, told)


# --- text --------------------------------------------------------------------------------------------


def document(made: Manifest) -> str:
    """Return an object as a YAML document."""
    lines = ["---"]
    if made.kept_by:
        lines.append(f"# Kept already by {_comment(made.kept_by)}.")
    if made.without:
        lines.append(f"# Not said, since it has no effect here: {', '.join(made.without)}.")
    return "\n".join([*lines, *_lines(made.body, "")]) + "\n"


def _lines(body: Mapping[str, Any], indent: str) -> Iterable[str]:
    for key, value in body.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{key}: {scalar(value)}"


def scalar(value: object) -> str:
    """Return a value as YAML writes it on one line."""
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def _comment(text: str) -> str:
    """Return text that cannot end a comment."""
    return scalar(text) if any(not one.isprintable() for one in text) else text
