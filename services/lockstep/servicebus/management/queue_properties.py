"""What administrators read and write, under Azure's names.

Here belong the values and their conversion. Never here: calls. The law: properties that were read may be changed and
given to `update_queue`, by attribute or as a mapping; what Lockstep lacks has the value that says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from lockstep.client import queue_properties as ours
from lockstep.client.values import parse_duration
from lockstep.servicebus.exceptions import refuse, translating

# What azure-servicebus writes for "never"; everything from here on means that.
_FOR_EVER: Final = timedelta(days=10_000_000)
_DURATIONS: Final = (
    "auto_delete_on_idle",
    "default_message_time_to_live",
    "duplicate_detection_history_time_window",
    "lock_duration",
)
_MAY_BE_NEVER: Final = ("auto_delete_on_idle", "default_message_time_to_live")
_SHARED: Final = (
    *_DURATIONS,
    "dead_lettering_on_message_expiration",
    "enable_batched_operations",
    "forward_dead_lettered_messages_to",
    "forward_to",
    "max_delivery_count",
    "max_message_size_in_kilobytes",
    "max_size_in_megabytes",
    "requires_duplicate_detection",
    "requires_session",
    "user_metadata",
)
_LACKING: Final = ("authorization_rules", "enable_express", "enable_partitioning")
_READ_ONLY: Final = ("name", "availability_status")


class EntityStatus(StrEnum):
    """What a queue allows."""

    ACTIVE = "Active"
    DISABLED = "Disabled"
    RECEIVE_DISABLED = "ReceiveDisabled"
    SEND_DISABLED = "SendDisabled"


class EntityAvailabilityStatus(StrEnum):
    """Whether a queue can be used."""

    AVAILABLE = "Available"


class QueueProperties:
    """A queue and its settings, by attribute or by name; change them and give them to `update_queue`.

    Attributes:
        name: The queue.
        default_message_time_to_live: None = for ever; so are the other durations that may be None.
        authorization_rules: None: there are none. So are `enable_express` and `enable_partitioning` False.
    """

    def __init__(self, name: str, **settings: Any) -> None:
        """Hold settings by their names.

        Raises:
            TypeError: There is no such setting.
        """
        unknown = settings.keys() - {*_SHARED, *_LACKING, *_READ_ONLY, "status"}
        if unknown:
            raise TypeError(f"QueueProperties has no {', '.join(sorted(unknown))}.")
        self.name = name
        self.authorization_rules: Any = settings.get("authorization_rules")
        self.availability_status: Any = settings.get("availability_status")
        self.auto_delete_on_idle: Any = settings.get("auto_delete_on_idle")
        self.dead_lettering_on_message_expiration: Any = settings.get(
            "dead_lettering_on_message_expiration"
        )
        self.default_message_time_to_live: Any = settings.get("default_message_time_to_live")
        self.duplicate_detection_history_time_window: Any = settings.get(
            "duplicate_detection_history_time_window"
        )
        self.enable_batched_operations: Any = settings.get("enable_batched_operations")
        self.enable_express: Any = settings.get("enable_express")
        self.enable_partitioning: Any = settings.get("enable_partitioning")
        self.forward_dead_lettered_messages_to: Any = settings.get(
            "forward_dead_lettered_messages_to"
        )
        self.forward_to: Any = settings.get("forward_to")
        self.lock_duration: Any = settings.get("lock_duration")
        self.max_delivery_count: Any = settings.get("max_delivery_count")
        self.max_message_size_in_kilobytes: Any = settings.get("max_message_size_in_kilobytes")
        self.max_size_in_megabytes: Any = settings.get("max_size_in_megabytes")
        self.requires_duplicate_detection: Any = settings.get("requires_duplicate_detection")
        self.requires_session: Any = settings.get("requires_session")
        self.status: Any = settings.get("status")
        self.user_metadata: Any = settings.get("user_metadata")

    def __getitem__(self, key: str) -> Any:
        return vars(self)[key]

    def __setitem__(self, key: str, value: Any) -> None:
        vars(self)[key] = value

    def __contains__(self, key: str) -> bool:
        return key in vars(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QueueProperties) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # its attributes change

    def __repr__(self) -> str:
        return str(vars(self))

    def keys(self) -> Iterable[str]:
        """Return the names of all settings."""
        return vars(self).keys()

    def values(self) -> Iterable[Any]:
        """Return the values of all settings."""
        return vars(self).values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Return all settings by name."""
        return vars(self).items()

    def get(self, key: str, default: Any = None) -> Any:
        """Return one setting by name."""
        return vars(self).get(key, default)


class QueueRuntimeProperties:
    """What a queue held at the moment it was asked."""

    def __init__(self, queue: ours.QueueProperties, runtime: ours.QueueRuntimeProperties) -> None:
        """Show what was read."""
        self._queue = queue
        self._runtime = runtime

    @property
    def name(self) -> str:
        """The queue."""
        return self._queue.name

    @property
    def accessed_at_utc(self) -> datetime | None:
        """When it was sent to, received from or looked at last."""
        return self._runtime.accessed_at_utc

    @property
    def created_at_utc(self) -> datetime:
        """When it was created."""
        return self._queue.created_at_utc

    @property
    def updated_at_utc(self) -> datetime:
        """When its definition was changed last."""
        return self._queue.updated_at_utc

    @property
    def size_in_bytes(self) -> int:
        """What counts toward the quota."""
        return self._runtime.size_in_bytes

    @property
    def total_message_count(self) -> int:
        """All stored messages."""
        return self._runtime.total_message_count

    @property
    def active_message_count(self) -> int:
        """Messages in the queue proper, locked ones too."""
        return self._runtime.active_message_count

    @property
    def dead_letter_message_count(self) -> int:
        """Messages in the dead-letter store."""
        return self._runtime.dead_letter_message_count

    @property
    def scheduled_message_count(self) -> int:
        """Messages that become active later."""
        return self._runtime.scheduled_message_count

    @property
    def transfer_dead_letter_message_count(self) -> int:
        """0: nothing is forwarded."""
        return 0

    @property
    def transfer_message_count(self) -> int:
        """0: nothing is forwarded."""
        return 0


def properties_of(queue: ours.QueueProperties) -> QueueProperties:
    """Return a queue of ours under Azure's names."""
    return QueueProperties(
        queue.name,
        **{name: getattr(queue, name) for name in _SHARED},
        availability_status=EntityAvailabilityStatus.AVAILABLE,
        enable_express=False,
        enable_partitioning=False,
        status=EntityStatus[queue.status.name],
    )


def settings_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under Azure's names as ours; what is None is left out.

    Raises:
        NotImplementedError: One that Lockstep lacks is set.
        ServiceBusError: A duration is none.
        TypeError: There is no such setting.
    """
    for name in _LACKING:
        if given.get(name):
            refuse(name, "Leave it out.")
    unknown = given.keys() - {*_SHARED, *_LACKING, *_READ_ONLY, "status"}
    if unknown:
        raise TypeError(f"There is no setting {', '.join(sorted(unknown))}.")
    settings = {name: given[name] for name in _SHARED if given.get(name) is not None}
    with translating():
        for name in _DURATIONS:
            if _is_never(settings.get(name)):
                del settings[name]
    if given.get("status") is not None:
        settings["status"] = ours.EntityStatus[EntityStatus(given["status"]).name]
    return settings


def changes_of(
    queue: QueueProperties | Mapping[str, Any], given: Mapping[str, Any], current: QueueProperties
) -> dict[str, Any]:
    """Return the settings of ours in which a program's differ from those that a queue has; None takes a time back."""
    asked = {**dict(queue.items()), **given}
    wanted, has = settings_of(asked), settings_of(dict(current.items()))
    taken_back = [name for name in _MAY_BE_NEVER if name in has and _is_never(asked.get(name))]
    return {
        **{name: value for name, value in wanted.items() if _as_read(name, value) != has.get(name)},
        **dict.fromkeys(taken_back),
    }


def _is_never(duration: timedelta | str | None) -> bool:
    return duration is not None and parse_duration(duration) >= _FOR_EVER


def _as_read(name: str, value: Any) -> Any:
    return parse_duration(value) if name in _DURATIONS else value
