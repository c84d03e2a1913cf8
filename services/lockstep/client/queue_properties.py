"""What administrators read and write: queues, what they hold, sessions.

Here belong the values and their conversion. Never here: calls (`administering`). The law: every
setting has one name, the one in lockstep.v1.QueueSettings; a setting that the protos gain is gained
here in the same change, and a test says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict

from lockstep.client.values import (
    NamedChoice,
    parse_duration,
    timedelta_to_duration,
    timestamp_to_datetime,
)
from lockstep.core.errors import InternalError, InvalidRequest
from lockstep.v1 import entity_pb2, session_pb2


class Placement(NamedChoice):
    """Where the messages of a queue live (ADD-1)."""

    SINGLE = "single"
    SPREAD = "spread"


class SessionLockExtension(NamedChoice):
    """Whether receiving keeps a session's lock alive (SES-23)."""

    ON_RECEIVE = "on_receive"
    OFF = "off"


class AcceptNext(NamedChoice):
    """Whether receivers may ask for the next available session (SES-56)."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class SessionExpiry(NamedChoice):
    """What a session whose message expired loses (TTL-7)."""

    WHOLE_SESSION = "whole_session"
    PER_MESSAGE = "per_message"


class EntityStatus(NamedChoice):
    """What a queue allows."""

    ACTIVE = "active"
    DISABLED = "disabled"
    SEND_DISABLED = "send_disabled"
    RECEIVE_DISABLED = "receive_disabled"


class QueueSettings(TypedDict, total=False):
    """What may be set on a queue; None, like absence, is the default at creation and "as it is" at an update.

    Durations are timedeltas or ISO 8601 text; choices may be given by their values.
    """

    lock_duration: timedelta | str | None
    max_delivery_count: int | None
    requires_session: bool | None
    max_size_in_megabytes: int | None
    max_message_size_in_kilobytes: int | None
    max_session_state_size_in_kilobytes: int | None
    placement: Placement | str | None
    session_lock_extension: SessionLockExtension | str | None
    accept_next: AcceptNext | str | None
    user_metadata: str | None
    enable_batched_operations: bool | None
    default_message_time_to_live: timedelta | str | None
    dead_lettering_on_message_expiration: bool | None
    requires_duplicate_detection: bool | None
    duplicate_detection_history_time_window: timedelta | str | None
    auto_delete_on_idle: timedelta | str | None
    forward_to: str | None
    forward_dead_lettered_messages_to: str | None
    status: EntityStatus | str | None
    release_on_disconnect: bool | None
    recall_on_abandon: bool | None
    session_expiry: SessionExpiry | str | None
    session_state_idle_ttl: timedelta | str | None


@dataclass(frozen=True, slots=True)
class QueueManager:
    """Who keeps a queue as it is declared elsewhere, an operator for example.

    Attributes:
        name: Who.
        source: Where it is declared, for people to read.
        source_uid: The uid of the object that declares it.
        generation: Of that object, as it was applied last.
    """

    name: str
    source: str
    source_uid: str
    generation: int


@dataclass(frozen=True, slots=True)
class QueueProperties:
    """A queue and all its settings, as they were when it was read.

    Attributes:
        name: The name as it was created.
        namespace: The broker namespace.
        uid: Made new at each creation, so that a re-created queue is told from its predecessor.
        revision: Rises with each change of the definition.
        created_at_utc: When it was created.
        updated_at_utc: When its definition was changed last.
        default_message_time_to_live: None = for ever; so are the other durations that may be None.
        manager: Who keeps it; None = nobody but people.
    """

    name: str
    namespace: str
    uid: str
    revision: int
    created_at_utc: datetime
    updated_at_utc: datetime
    lock_duration: timedelta
    max_delivery_count: int
    requires_session: bool
    max_size_in_megabytes: int
    max_message_size_in_kilobytes: int
    max_session_state_size_in_kilobytes: int
    placement: Placement
    session_lock_extension: SessionLockExtension
    accept_next: AcceptNext
    user_metadata: str
    enable_batched_operations: bool
    default_message_time_to_live: timedelta | None
    dead_lettering_on_message_expiration: bool
    requires_duplicate_detection: bool
    duplicate_detection_history_time_window: timedelta | None
    auto_delete_on_idle: timedelta | None
    forward_to: str
    forward_dead_lettered_messages_to: str
    status: EntityStatus
    release_on_disconnect: bool
    recall_on_abandon: bool
    session_expiry: SessionExpiry
    session_state_idle_ttl: timedelta | None
    manager: QueueManager | None = None


@dataclass(frozen=True, slots=True)
class QueueRuntimeProperties:
    """What a queue held at the moment it was asked.

    Attributes:
        name: The queue.
        active_message_count: Messages in the queue proper: ready and locked.
        locked_message_count: Of these, delivered and not settled.
        deferred_message_count: Messages that are received by their numbers only; active ones too.
        scheduled_message_count: Messages that become active later.
        dead_letter_message_count: Messages in the dead-letter store.
        total_message_count: All stored messages.
        size_in_bytes: What counts toward the quota: messages, dead letters and session states.
        session_count: Sessions with at least one message or a state, or held.
        locked_session_count: Of these, held by a receiver.
        delayed_message_count: Messages that wait because of an abandon with a delay; active ones too (ADD-6).
        accessed_at_utc: When the queue was sent to, received from or looked at last (CNT-1); None = not known. After a
            restart of the broker it is at the earliest the time of that.
    """

    name: str
    active_message_count: int
    locked_message_count: int
    deferred_message_count: int
    scheduled_message_count: int
    dead_letter_message_count: int
    total_message_count: int
    size_in_bytes: int
    session_count: int
    locked_session_count: int
    delayed_message_count: int = 0
    accessed_at_utc: datetime | None = None


@dataclass(frozen=True, slots=True)
class SessionProperties:
    """What an administrator sees of one session (SES-52, ADD-9).

    Attributes:
        session_id: The session.
        active_message_count: Messages that are ready or locked.
        locked_message_count: Of these, delivered to the holder and not settled.
        holder_client_id: Who holds the lock, as it named itself; None = nobody.
        locked_until_utc: Until when the lock is held; None = nobody holds it.
        grant: The number of the current or the last grant; 0 = never granted.
        state_size_in_bytes: Length of the stored state; None = none.
        state_version: Of the last write of the state, higher at each; 0 = never set.
        scheduled_message_count: Messages that become active later.
        deferred_message_count: Messages that are received by their numbers only.
        dead_letter_message_count: Messages of the session in the dead-letter store.
        first_enqueued_at_utc: When the oldest active message was enqueued; None = there is none.
        oldest_deliverable_at_utc: When the message was enqueued that a holder could receive next; None = there is none.
        delayed_until_utc: Until when nothing is delivered because of an abandon with a delay; None = there is no delay.
        holder_address: Where the holder calls from, as gRPC names it; None = nobody holds it, or not known.
        granted_at_utc: When the current or the last grant began; None = never granted.
        renewal_count: How often the holder of the current or the last grant renewed the lock.
        last_loss_cause: How the last grant ended: closed, expired, broken, grace_ended, cancelled; None = none did.
        released_at_utc: When the last grant ended; None = none did.
        state_updated_at_utc: When the state was written last; None = never.
    """

    session_id: str
    active_message_count: int
    locked_message_count: int
    holder_client_id: str | None
    locked_until_utc: datetime | None
    grant: int
    state_size_in_bytes: int | None
    state_version: int
    scheduled_message_count: int
    deferred_message_count: int
    dead_letter_message_count: int = 0
    first_enqueued_at_utc: datetime | None = None
    oldest_deliverable_at_utc: datetime | None = None
    delayed_until_utc: datetime | None = None
    holder_address: str | None = None
    granted_at_utc: datetime | None = None
    renewal_count: int = 0
    last_loss_cause: str | None = None
    released_at_utc: datetime | None = None
    state_updated_at_utc: datetime | None = None


_CHOICES: Final[Mapping[str, type[NamedChoice]]] = {
    "placement": Placement,
    "session_lock_extension": SessionLockExtension,
    "accept_next": AcceptNext,
    "session_expiry": SessionExpiry,
    "status": EntityStatus,
}
_MAY_BE_NEVER: Final = (
    "default_message_time_to_live",
    "auto_delete_on_idle",
    "session_state_idle_ttl",
)
_FIELDS: Final = entity_pb2.QueueSettings.DESCRIPTOR.fields_by_name


def settings_to_wire(settings: Mapping[str, Any]) -> entity_pb2.QueueSettings:
    """Return settings by their names as a protobuf value; None counts as absent.

    Raises:
        TypeError: A setting has an unknown name or a value of a wrong type.
        InvalidRequest: A value is out of any range, or no such choice or duration exists.
    """
    wire = entity_pb2.QueueSettings()
    for name, value in settings.items():
        if name not in _FIELDS:
            raise TypeError(
                f"{name!r} is not a setting of a queue; there are {', '.join(_FIELDS)}."
            )
        if value is None:
            continue
        try:
            if name in _CHOICES:
                setattr(wire, name, _number_of(name, _CHOICES[name].parse(value)))
            elif _FIELDS[name].message_type is not None:
                getattr(wire, name).CopyFrom(timedelta_to_duration(parse_duration(value)))
            else:
                setattr(wire, name, value)
        except ValueError as error:
            raise InvalidRequest(f"{name} cannot be {value!r}: {error}.") from error
    return wire


def cleared_of(settings: Mapping[str, Any]) -> list[str]:
    """Return which times an update takes back: those that are named and None."""
    return [name for name in _MAY_BE_NEVER if name in settings and settings[name] is None]


def settings_of(properties: QueueProperties) -> dict[str, Any]:
    """Return the settings of a queue by their names."""
    return {name: getattr(properties, name) for name in _FIELDS}


def queue_from_wire(queue: entity_pb2.Queue) -> QueueProperties:
    """Return a queue as it was read."""
    return QueueProperties(
        name=queue.name,
        namespace=queue.namespace,
        uid=queue.uid,
        revision=queue.revision,
        created_at_utc=timestamp_to_datetime(queue.create_time),
        updated_at_utc=timestamp_to_datetime(queue.update_time),
        **{name: _setting_from_wire(queue.settings, name) for name in _FIELDS},
        manager=_manager_from_wire(queue),
    )


def _manager_from_wire(queue: entity_pb2.Queue) -> QueueManager | None:
    if not queue.HasField("manager"):
        return None
    kept_by = queue.manager
    return QueueManager(kept_by.name, kept_by.source, kept_by.source_uid, kept_by.generation)


def runtime_from_wire(name: str, runtime: entity_pb2.QueueRuntime) -> QueueRuntimeProperties:
    """Return what a queue holds as it was read."""
    return QueueRuntimeProperties(
        name=name,
        active_message_count=runtime.active_messages,
        locked_message_count=runtime.locked_messages,
        deferred_message_count=runtime.deferred_messages,
        scheduled_message_count=runtime.scheduled_messages,
        dead_letter_message_count=runtime.dead_letter_messages,
        total_message_count=runtime.total_messages,
        size_in_bytes=runtime.size_bytes,
        session_count=runtime.sessions,
        locked_session_count=runtime.locked_sessions,
        delayed_message_count=runtime.delayed_messages,
        accessed_at_utc=_moment(runtime, "access_time"),
    )


def session_from_wire(session: session_pb2.SessionInfo) -> SessionProperties:
    """Return a session as it was read."""
    return SessionProperties(
        session_id=session.session_id,
        active_message_count=session.active_messages,
        locked_message_count=session.locked_messages,
        holder_client_id=session.holder_client_id or None,
        locked_until_utc=_moment(session, "locked_until"),
        grant=session.grant,
        state_size_in_bytes=session.state_bytes if session.HasField("state_bytes") else None,
        state_version=session.state_version,
        scheduled_message_count=session.scheduled_messages,
        deferred_message_count=session.deferred_messages,
        dead_letter_message_count=session.dead_letter_messages,
        first_enqueued_at_utc=_moment(session, "first_enqueued_time"),
        oldest_deliverable_at_utc=_moment(session, "oldest_deliverable_time"),
        delayed_until_utc=_moment(session, "delayed_until"),
        holder_address=session.holder_address or None,
        granted_at_utc=_moment(session, "granted_time"),
        renewal_count=session.renewals,
        last_loss_cause=session.last_loss_cause or None,
        released_at_utc=_moment(session, "released_time"),
        state_updated_at_utc=_moment(session, "state_set_time"),
    )


def _moment(
    message: entity_pb2.QueueRuntime | session_pb2.SessionInfo, name: str
) -> datetime | None:
    """Return a time that may be absent."""
    # The name is a variable, so the types of the stubs do not help.
    return timestamp_to_datetime(getattr(message, name)) if message.HasField(name) else None  # type: ignore[arg-type]


def _setting_from_wire(settings: entity_pb2.QueueSettings, name: str) -> Any:
    value = getattr(settings, name)
    if name in _CHOICES:
        return _choice_of(name, value)
    if _FIELDS[name].message_type is None:
        return value
    # A duration of zero is refused everywhere, so an empty one is an absent one.
    return value.ToTimedelta() or None


def _number_of(name: str, choice: NamedChoice) -> int:
    enum = _FIELDS[name].enum_type
    assert enum is not None, name
    values = enum.values
    prefix = values[0].name.removesuffix("UNSPECIFIED")
    return next(value.number for value in values if value.name == prefix + choice.name)


def _choice_of(name: str, number: int) -> NamedChoice:
    # By the protos, an unspecified choice is the same as the one with number 1.
    for choice in _CHOICES[name]:
        if _number_of(name, choice) == (number or 1):
            return choice
    raise InternalError(
        f"The server names a choice {number} for {name} that this client does not know; use a newer client.",
        details={"setting": name, "observed": str(number)},
    )
