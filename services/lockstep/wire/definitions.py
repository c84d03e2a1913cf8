"""Between protobuf and the core, for queues and what they hold.

Here belongs the way of settings in both directions. Never here: their ranges and defaults
(`core.entity`). The law: an absent field is not given, whatever its zero value would mean.
"""

from __future__ import annotations

from collections.abc import Iterable

from lockstep.core.entity import Manager, QueueDefinition, QueueSettings, SettingValue
from lockstep.core.errors import InvalidRequest
from lockstep.core.replies import Runtime, SessionView
from lockstep.v1 import entity_pb2, session_pb2
from lockstep.wire.times import duration, duration_ms, timestamp

_DURATIONS = (
    "lock_duration",
    "default_message_time_to_live",
    "duplicate_detection_history_time_window",
    "auto_delete_on_idle",
    "session_state_idle_ttl",
)
_MAY_BE_NEVER = ("default_message_time_to_live", "auto_delete_on_idle", "session_state_idle_ttl")
_ENUMS: dict[str, tuple[str, ...]] = {
    "placement": ("", "single", "spread"),
    "session_lock_extension": ("", "on_receive", "off"),
    "accept_next": ("", "enabled", "disabled"),
    "session_expiry": ("", "whole_session", "per_message"),
    "status": ("", "active", "disabled", "send_disabled", "receive_disabled"),
}
_PLAIN = (
    "max_delivery_count",
    "requires_session",
    "max_size_in_megabytes",
    "max_message_size_in_kilobytes",
    "max_session_state_size_in_kilobytes",
    "user_metadata",
    "enable_batched_operations",
    "dead_lettering_on_message_expiration",
    "requires_duplicate_detection",
    "forward_to",
    "forward_dead_lettered_messages_to",
    "release_on_disconnect",
    "recall_on_abandon",
)


def given_settings(message: entity_pb2.QueueSettings) -> dict[str, SettingValue]:
    """Return the settings that a request names.

    Raises:
        InvalidRequest: A choice is not known to this release.
    """
    given: dict[str, SettingValue] = {}
    for name in _PLAIN:
        if message.HasField(name):  # type: ignore[arg-type]  # names of its fields
            given[name] = getattr(message, name)
    for name in _DURATIONS:
        if message.HasField(name):  # type: ignore[arg-type]  # names of its fields
            given[f"{name}_ms"] = duration_ms(getattr(message, name))
    for name, choices in _ENUMS.items():
        number = getattr(message, name)
        if number >= len(choices) or number < 0:
            raise InvalidRequest(
                f"{number} is no {name} that this release knows.", details={"setting": name}
            )
        if number:
            given[name] = choices[number]
    return given


def cleared_settings(names: Iterable[str]) -> dict[str, SettingValue]:
    """Return the settings that an update takes back.

    Raises:
        InvalidRequest: One of them is always set.
    """
    cleared: dict[str, SettingValue] = {}
    for name in names:
        if name not in _MAY_BE_NEVER:
            raise InvalidRequest(
                f"'{name}' cannot be cleared; {', '.join(_MAY_BE_NEVER)} can.",
                details={"setting": name},
            )
        cleared[f"{name}_ms"] = None
    return cleared


def settings_message(settings: QueueSettings) -> entity_pb2.QueueSettings:
    """Return all settings; a duration that is "never" is absent."""
    message = entity_pb2.QueueSettings()
    for name in _PLAIN:
        setattr(message, name, getattr(settings, name))
    for name in _DURATIONS:
        value = getattr(settings, f"{name}_ms")
        if value is not None:
            getattr(message, name).CopyFrom(duration(value))
    for name, choices in _ENUMS.items():
        setattr(message, name, choices.index(getattr(settings, name)))
    return message


def queue_message(definition: QueueDefinition) -> entity_pb2.Queue:
    """Return a queue as clients see it."""
    return entity_pb2.Queue(
        namespace=definition.namespace,
        name=definition.name,
        settings=settings_message(definition.settings),
        uid=definition.uid,
        revision=definition.revision,
        create_time=timestamp(definition.created_ms),
        update_time=timestamp(definition.updated_ms),
        manager=_manager_message(definition.manager),
    )


def _manager_message(manager: Manager | None) -> entity_pb2.Manager | None:
    if manager is None:
        return None
    return entity_pb2.Manager(
        name=manager.name,
        source=manager.source,
        source_uid=manager.uid,
        generation=manager.generation,
    )


def given_manager(message: entity_pb2.Manager, *, given: bool) -> Manager | None:
    """Return who a request says keeps a definition; None = it does not say."""
    if not given:
        return None
    return Manager(message.name, message.source, message.source_uid, message.generation)


def runtime_message(runtime: Runtime) -> entity_pb2.QueueRuntime:
    """Return what a queue holds as clients see it."""
    message = entity_pb2.QueueRuntime(
        active_messages=runtime.active,
        locked_messages=runtime.locked,
        scheduled_messages=runtime.scheduled,
        deferred_messages=runtime.deferred,
        dead_letter_messages=runtime.dead_letters,
        total_messages=runtime.active + runtime.scheduled + runtime.dead_letters,
        size_bytes=runtime.size_bytes,
        sessions=runtime.sessions,
        locked_sessions=runtime.locked_sessions,
        delayed_messages=runtime.delayed,
    )
    _set_times(message, access_time=runtime.used_ms)
    return message


def _set_times(message: entity_pb2.QueueRuntime | session_pb2.SessionInfo, **times: int) -> None:
    """Set those times, in ms since the epoch, that are not 0."""
    for name, at_ms in times.items():
        if at_ms:
            getattr(message, name).CopyFrom(timestamp(at_ms))


def session_message(view: SessionView) -> session_pb2.SessionInfo:
    """Return a session as administrators see it."""
    message = session_pb2.SessionInfo(
        session_id=view.session_id,
        active_messages=view.active,
        locked_messages=view.locked,
        holder_client_id=view.holder,
        grant=view.grant,
        state_bytes=view.state_bytes,
        state_version=view.state_version,
        scheduled_messages=view.scheduled,
        deferred_messages=view.deferred,
        dead_letter_messages=view.dead_letters,
        holder_address=view.address,
        renewals=view.renewals,
        last_loss_cause=view.last_loss,
    )
    _set_times(
        message,
        locked_until=view.locked_until_ms,
        first_enqueued_time=view.first_enqueued_ms,
        oldest_deliverable_time=view.oldest_deliverable_ms,
        delayed_until=view.delayed_until_ms,
        granted_time=view.granted_ms,
        released_time=view.released_ms,
        state_set_time=view.state_set_ms,
    )
    return message
