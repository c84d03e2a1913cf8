"""Queues: their names, settings and definitions.

Here belong the settings of section 1.2 of the contract with their defaults, ranges and errors. Never
here: what a queue holds (`partition`). The law: a setting whose behaviour this release does not have
is refused when it is set, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, NamedTuple

from lockstep.core.errors import (
    EntityManaged,
    InvalidOperation,
    InvalidRequest,
    LimitExceeded,
    RevisionConflict,
    SettingNotAvailable,
)
from lockstep.core.ids import EntityKey, EntityNumber
from lockstep.core.limits import (
    DAY_MS,
    KIB,
    MANAGER_CHARS_MAX,
    MINUTE_MS,
    NAMESPACE_CHARS_MAX,
    QUEUE_NAME_CHARS_MAX,
    SECOND_MS,
    TTL_MS_MAX,
    USER_METADATA_CHARS_MAX,
    Limits,
    check_at_most,
    check_between,
    check_duration_between,
    duration_text,
)

DEAD_LETTER_SUFFIX = "/$deadletterqueue"
FORBIDDEN_NAME_CHARS = "@?#*"
DEFAULT_NAMESPACE = "default"

SINGLE = "single"
SPREAD = "spread"
ON_RECEIVE = "on_receive"
OFF = "off"
ACTIVE = "active"
SEND_DISABLED = "send_disabled"
RECEIVE_DISABLED = "receive_disabled"
WHOLE_SESSION = "whole_session"
PER_MESSAGE = "per_message"
ENABLED = "enabled"
DISABLED = "disabled"

SENDING_FORBIDDEN = (DISABLED, SEND_DISABLED)
RECEIVING_FORBIDDEN = (DISABLED, RECEIVE_DISABLED)

SettingValue = int | bool | str | None
"""Durations are milliseconds; None is "never" or "nowhere"."""


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """All settings of a queue. Durations in milliseconds, sizes as their names say."""

    requires_session: bool = False
    placement: str = SINGLE
    lock_duration_ms: int = 60 * SECOND_MS
    max_delivery_count: int = 10
    max_size_in_megabytes: int = 1024
    max_message_size_in_kilobytes: int = 1024
    max_session_state_size_in_kilobytes: int = 1024
    session_lock_extension: str = ON_RECEIVE
    accept_next: str = ENABLED
    user_metadata: str = ""
    enable_batched_operations: bool = True
    default_message_time_to_live_ms: int | None = None
    dead_lettering_on_message_expiration: bool = False
    requires_duplicate_detection: bool = False
    duplicate_detection_history_time_window_ms: int = 10 * MINUTE_MS
    auto_delete_on_idle_ms: int | None = None
    forward_to: str = ""
    forward_dead_lettered_messages_to: str = ""
    status: str = ACTIVE
    release_on_disconnect: bool = False
    recall_on_abandon: bool = False
    session_expiry: str = WHOLE_SESSION
    session_state_idle_ttl_ms: int | None = None


FIXED_AT_CREATION = ("requires_session", "placement", "requires_duplicate_detection")
NOT_AVAILABLE_YET = (
    "forward_to",
    "forward_dead_lettered_messages_to",
)
_CHOICES = {
    "placement": (SINGLE, SPREAD),
    "session_lock_extension": (ON_RECEIVE, OFF),
    "accept_next": (ENABLED, DISABLED),
    "status": (ACTIVE, DISABLED, SEND_DISABLED, RECEIVE_DISABLED),
    "session_expiry": (WHOLE_SESSION, PER_MESSAGE),
}
_DEFAULTS = QueueSettings()


class Manager(NamedTuple):
    """Who keeps a definition as it is declared elsewhere, an operator for example.

    Attributes:
        name: Who.
        source: Where it is declared, for people to read.
        uid: Of the object that declares it; two objects cannot declare one entity.
        generation: Of that object; an older one than was seen changes nothing.
    """

    name: str
    source: str
    uid: str
    generation: int


@dataclass(frozen=True, slots=True)
class QueueDefinition:
    """A queue as the catalogue knows it (ADD-12).

    Attributes:
        namespace: Its broker namespace.
        name: Its name as it was created.
        number: Its number in storage, never used again.
        uid: Made new at each creation.
        revision: The catalogue's revision that wrote it; partitions apply revisions in order.
        settings: All settings.
        created_ms: When it was created.
        updated_ms: When its definition changed last.
        manager: Who keeps it; None = nobody but people.
    """

    namespace: str
    name: str
    number: EntityNumber
    uid: str
    revision: int
    settings: QueueSettings
    created_ms: int
    updated_ms: int
    manager: Manager | None = None

    @property
    def key(self) -> EntityKey:
        """How the queue is found."""
        return EntityKey(self.namespace, self.name.lower())

    def to_fields(self) -> dict[str, Any]:
        """Return the definition as plain values, for storage."""
        return asdict(self)

    @staticmethod
    def from_fields(values: Mapping[str, Any]) -> QueueDefinition:
        """Return the definition that `to_fields` described; settings it does not name have their defaults."""
        known = {field.name for field in fields(QueueSettings)}
        settings = QueueSettings(**{k: v for k, v in values["settings"].items() if k in known})
        manager = Manager(*values["manager"]) if values.get("manager") else None
        return QueueDefinition(**{**values, "settings": settings, "manager": manager})


def parse_namespace(namespace: str) -> str:
    """Return the broker namespace that a request means; empty means "default".

    Raises:
        LimitExceeded: It is longer than 50 characters.
        InvalidRequest: It holds a slash or a forbidden character.
    """
    check_at_most(
        len(namespace), NAMESPACE_CHARS_MAX, "namespace characters", "Use a shorter name."
    )
    if any(c in FORBIDDEN_NAME_CHARS + "/\\" or not c.isprintable() for c in namespace):
        raise InvalidRequest(
            f"A namespace must not hold any of '{FORBIDDEN_NAME_CHARS}/\\' or characters that do not print;"
            f" '{namespace}' was given.",
            details={"namespace": namespace},
        )
    return namespace.lower() or DEFAULT_NAMESPACE


@lru_cache(maxsize=4096)
def parse_entity_path(namespace: str, path: str) -> tuple[EntityKey, bool]:
    """Return the queue that a path names, and whether it names the queue's dead-letter store (ENT-2).

    Raises:
        InvalidRequest, LimitExceeded: The path cannot be the name of a queue (ENT-8).
    """
    folded = path.replace("\\", "/")
    lowered = folded.lower()
    dead_letter = lowered.endswith(DEAD_LETTER_SUFFIX)
    if dead_letter:
        folded = folded[: -len(DEAD_LETTER_SUFFIX)]
    return EntityKey(parse_namespace(namespace), parse_queue_name(folded).lower()), dead_letter


def parse_queue_name(name: str) -> str:
    r"""Return a queue name with `\` folded to `/` (ENT-8).

    Raises:
        InvalidRequest: It is empty, begins or ends with a slash, or holds a forbidden character.
        LimitExceeded: It is longer than 260 characters.
    """
    folded = name.replace("\\", "/")
    if not folded:
        raise InvalidRequest("The name of a queue must not be empty.")
    check_at_most(len(folded), QUEUE_NAME_CHARS_MAX, "queue name characters", "Use a shorter name.")
    if folded.startswith("/") or folded.endswith("/"):
        raise InvalidRequest(
            f"A queue name must not begin or end with a slash; '{name}' was given.",
            details={"name": name},
        )
    found = [c for c in folded if c in FORBIDDEN_NAME_CHARS or not c.isprintable()]
    if found or "/$" in folded or folded.startswith("$"):
        raise InvalidRequest(
            f"A queue name must not hold any of '{FORBIDDEN_NAME_CHARS}', a part that begins with '$', or"
            f" characters that do not print; '{name}' was given.",
            details={"name": name},
        )
    return folded


def new_settings(given: Mapping[str, SettingValue], limits: Limits) -> QueueSettings:
    """Return the settings of a new queue: what is given, defaults for the rest.

    Raises:
        InvalidRequest, LimitExceeded, SettingNotAvailable: As `check_settings`.
    """
    _refuse_unknown(given)
    values = dict(given)
    if "placement" not in values:
        values["placement"] = SPREAD if values.get("requires_session") else SINGLE
    if "max_message_size_in_kilobytes" not in values:
        most = limits.message_bytes_max // KIB
        values["max_message_size_in_kilobytes"] = min(_DEFAULTS.max_message_size_in_kilobytes, most)
    if "max_session_state_size_in_kilobytes" not in values:
        size = values["max_message_size_in_kilobytes"]
        values["max_session_state_size_in_kilobytes"] = size
    settings = replace(_DEFAULTS, **values)  # type: ignore[arg-type]  # names are checked above, values below
    check_settings(settings, limits.message_bytes_max // KIB)
    return settings


def changed_settings(
    current: QueueSettings,
    given: Mapping[str, SettingValue],
    limits: Limits,
    *,
    replaces: bool = False,
) -> QueueSettings:
    """Return the settings after an update; what is not given stays, or has its default if it replaces (ENT-9).

    Raises:
        InvalidOperation: A setting that is fixed at creation would change (ENT-4).
        InvalidRequest, LimitExceeded, SettingNotAvailable: As `check_settings`.
    """
    _refuse_unknown(given)
    for name in FIXED_AT_CREATION:
        if name in given and given[name] != getattr(current, name):
            raise InvalidOperation(
                f"{name} is fixed when a queue is created: it is {getattr(current, name)} and cannot become"
                f" {given[name]}. Create another queue.",
                details={"setting": name},
            )
    if replaces:
        fixed = {name: getattr(current, name) for name in FIXED_AT_CREATION}
        return new_settings({**fixed, **given}, limits)
    values = dict(given)
    followed = "max_session_state_size_in_kilobytes"
    is_following = (
        current.max_session_state_size_in_kilobytes == current.max_message_size_in_kilobytes
    )
    if is_following and followed not in values and "max_message_size_in_kilobytes" in values:
        values[followed] = values["max_message_size_in_kilobytes"]
    settings = replace(current, **values)  # type: ignore[arg-type]  # names are checked above, values below
    # A queue that was made when the installation allowed more may keep what it has.
    check_settings(
        settings, max(limits.message_bytes_max // KIB, current.max_message_size_in_kilobytes)
    )
    return settings


def check_manager(manager: Manager | None) -> None:
    """Refuse what says too much, or not enough, about who keeps a definition.

    Raises:
        InvalidRequest: It names no object, or a negative generation.
        LimitExceeded: A text is too long.
    """
    if manager is None:
        return
    for text, what in ((manager.name, "name"), (manager.source, "object"), (manager.uid, "uid")):
        check_at_most(len(text), MANAGER_CHARS_MAX, f"manager {what} characters", "Shorten it.")
    if not manager.uid or manager.generation < 0:
        raise InvalidRequest("A manager has the uid of an object and a generation from 0.")


def check_may_manage(
    current: QueueDefinition, manager: Manager | None, *, takes_over: bool
) -> None:
    """Refuse a change by one object of what another one keeps, or by an older form of the same object.

    Who takes over may do both: an object that was restored from a backup counts its generations from there.

    Raises:
        EntityManaged: Another object keeps it.
        RevisionConflict: A later generation of this object was seen.
    """
    kept_by = current.manager
    if manager is None or kept_by is None or takes_over:
        return
    path = f"{current.namespace}/{current.name}"
    if kept_by.uid != manager.uid:
        raise EntityManaged(
            f"{path} is kept by {kept_by.name} from {kept_by.source}. Nothing was changed. Change it there, or take it"
            " over.",
            details={"entity": path, "manager": kept_by.source, "uid": kept_by.uid},
        )
    if manager.generation < kept_by.generation:
        raise RevisionConflict(
            f"{path} is at generation {kept_by.generation} of {kept_by.source}, and {manager.generation} is older."
            " Nothing was changed.",
            details={
                "generation": str(kept_by.generation),
                "observed": str(manager.generation),
            },
        )


def _refuse_unknown(given: Mapping[str, SettingValue]) -> None:
    unknown = sorted(given.keys() - {field.name for field in fields(QueueSettings)})
    if unknown:
        raise InvalidRequest(
            f"{', '.join(unknown)}: no such setting of a queue.", details={"setting": unknown[0]}
        )


def _shown(name: str, value: SettingValue) -> str:
    """Write the value of a setting for people."""
    if isinstance(value, int) and name.endswith("_ms"):
        return duration_text(value)
    return "none" if value is None else str(value)


def check_settings(settings: QueueSettings, largest_kib: int) -> None:
    """Refuse settings outside their ranges (section 1.2 of the contract).

    Args:
        settings: All settings of a queue.
        largest_kib: The most that a queue may allow for one message.

    Raises:
        LimitExceeded: A number is outside its range; the error names the setting, the range and the value.
        InvalidRequest: A choice is unknown.
        SettingNotAvailable: A setting differs from its default and has no behaviour in this release.
    """
    for name in NOT_AVAILABLE_YET:
        if getattr(settings, name) != getattr(_DEFAULTS, name):
            raise SettingNotAvailable(
                f"{name.removesuffix('_ms')} is not available in this release; leave it at its default"
                f" ({_shown(name, getattr(_DEFAULTS, name))}). Nothing was changed.",
                details={"setting": name, "observed": str(getattr(settings, name))},
            )
    for name, choices in _CHOICES.items():
        if getattr(settings, name) not in choices:
            raise InvalidRequest(
                f"{name} must be one of {', '.join(choices)}; '{getattr(settings, name)}' was given.",
                details={"setting": name},
            )
    lock_ms = settings.lock_duration_ms
    check_duration_between(lock_ms, 5 * SECOND_MS, 5 * MINUTE_MS, "lock_duration")
    if settings.default_message_time_to_live_ms is not None:
        ttl_ms = settings.default_message_time_to_live_ms
        check_duration_between(ttl_ms, SECOND_MS, TTL_MS_MAX, "default_message_time_to_live")
    window_ms = settings.duplicate_detection_history_time_window_ms
    name = "duplicate_detection_history_time_window"
    check_duration_between(window_ms, 20 * SECOND_MS, 7 * DAY_MS, name)
    for what in ("auto_delete_on_idle", "session_state_idle_ttl"):
        idle_ms = getattr(settings, f"{what}_ms")
        if idle_ms is not None:
            check_duration_between(idle_ms, 5 * MINUTE_MS, TTL_MS_MAX, what)
    check_between(settings.max_delivery_count, 1, 2000, "max_delivery_count")
    check_between(settings.max_size_in_megabytes, 1, 81920, "max_size_in_megabytes")
    check_between(
        settings.max_message_size_in_kilobytes, 1, largest_kib, "max_message_size_in_kilobytes"
    )
    state_kib = settings.max_session_state_size_in_kilobytes
    message_kib = settings.max_message_size_in_kilobytes
    check_between(state_kib, 1, message_kib, "max_session_state_size_in_kilobytes")
    if len(settings.user_metadata) > USER_METADATA_CHARS_MAX:
        raise LimitExceeded(
            f"user_metadata is limited to {USER_METADATA_CHARS_MAX} characters;"
            f" {len(settings.user_metadata)} were given.",
            details={"limit": "user_metadata", "observed": str(len(settings.user_metadata))},
        )
