"""The settings of a queue, as options of commands and as lines to read.

Here belong the options' names and texts, and how a setting looks. Never here: what a setting does or which values are
allowed (the server says that). The law: a setting that is not named is left to the server's default, or as it is.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from lockstep import EntityStatus, QueueProperties, SessionExpiry
from lockstep.cli.options import duration
from lockstep.cli.values import format_duration
from lockstep.core.limits import TTL_MS_MAX

# Stands for "never" between the command line and the client, where None means that an option was not given.
_FOR_EVER = timedelta(milliseconds=TTL_MS_MAX)


class Placement(StrEnum):
    """Where the messages of a queue live."""

    SINGLE = "single"
    SPREAD = "spread"


class LockExtension(StrEnum):
    """Whether receiving keeps a session's lock alive."""

    ON_RECEIVE = "on-receive"
    OFF = "off"


class NextSession(StrEnum):
    """Whether receivers may ask for the next available session."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class Expiry(StrEnum):
    """What a session whose message expired loses."""

    WHOLE_SESSION = "whole-session"
    PER_MESSAGE = "per-message"


class Status(StrEnum):
    """What a queue allows."""

    ACTIVE = "active"
    DISABLED = "disabled"
    SEND_DISABLED = "send-disabled"
    RECEIVE_DISABLED = "receive-disabled"


STATUS_MEANING = {
    EntityStatus.ACTIVE: "it takes messages and gives them out",
    EntityStatus.DISABLED: "it neither takes messages nor gives them out",
    EntityStatus.SEND_DISABLED: "it takes no messages; what it has can be received",
    EntityStatus.RECEIVE_DISABLED: "it takes messages and gives none out",
}


def _lifetime(value: str | timedelta) -> timedelta:
    """Read how long messages live: a duration, or `never` for those that do not expire."""
    return _FOR_EVER if value == "never" else duration(value)


PlacementOption = Annotated[
    Placement | None,
    typer.Option(
        "--placement",
        metavar="single|spread",
        help="One partition and one order, or each session on its own; default spread with --session.",
    ),
]
DuplicateDetectionOption = Annotated[
    bool,
    typer.Option(
        "--duplicate-detection",
        help="Discard a message whose message id the queue has seen; fixed from then on.",
    ),
]
LockDurationOption = Annotated[
    timedelta | None,
    typer.Option(
        "--lock-duration",
        parser=duration,
        metavar="DURATION",
        help="How long a lock is held without renewal: 60s, 5m, PT1M; 5 s to 5 min, default 60s.",
    ),
]
MaxDeliveryCountOption = Annotated[
    int | None,
    typer.Option(
        "--max-delivery-count",
        metavar="N",
        help="Failed deliveries before a message is dead-lettered; default 10.",
    ),
]
TimeToLiveOption = Annotated[
    timedelta | None,
    typer.Option(
        "--default-ttl",
        parser=_lifetime,
        metavar="DURATION|never",
        help="How long messages live, at most and unless they say less: 14d; default never ending.",
    ),
]
DeadLetterExpiredOption = Annotated[
    bool | None,
    typer.Option(
        "--dead-letter-expired/--drop-expired",
        help="What becomes of an expired message: a dead letter, or nothing; default dropped.",
        show_default=False,
    ),
]
SessionExpiryOption = Annotated[
    Expiry | None,
    typer.Option(
        "--session-expiry",
        metavar="whole-session|per-message",
        help="What expires with a message of a session; default its whole session.",
    ),
]
DuplicateWindowOption = Annotated[
    timedelta | None,
    typer.Option(
        "--duplicate-window",
        parser=duration,
        metavar="DURATION",
        help="How long --duplicate-detection knows a message id; 20 s to 7 d, default 10m.",
    ),
]
StatusOption = Annotated[
    Status | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help="active, disabled, send-disabled or receive-disabled; see `lockstep queue status`.",
    ),
]
MaxSizeOption = Annotated[
    int | None,
    typer.Option(
        "--max-size-mib",
        metavar="MIB",
        help="The most that messages and states take; default 1024.",
    ),
]
MaxMessageSizeOption = Annotated[
    int | None,
    typer.Option(
        "--max-message-size-kib",
        metavar="KIB",
        help="The most that one message takes; default 1024.",
    ),
]
MaxStateSizeOption = Annotated[
    int | None,
    typer.Option(
        "--max-session-state-size-kib",
        metavar="KIB",
        help="The most that one session's state takes; default as much as a message.",
    ),
]
LockExtensionOption = Annotated[
    LockExtension | None,
    typer.Option(
        "--session-lock-extension",
        metavar="on-receive|off",
        help="Whether receiving keeps a session's lock alive; default on-receive.",
    ),
]
NextSessionOption = Annotated[
    NextSession | None,
    typer.Option(
        "--accept-next",
        metavar="enabled|disabled",
        help="Whether receivers may ask for any available session; default enabled.",
    ),
]
RecallOption = Annotated[
    bool | None,
    typer.Option(
        "--recall-on-abandon/--no-recall-on-abandon",
        help="Whether an abandon in a session takes back the younger messages in its holder's hand; default not.",
        show_default=False,
    ),
]
ReleaseOption = Annotated[
    bool | None,
    typer.Option(
        "--release-on-disconnect/--no-release-on-disconnect",
        help="Whether a stream that breaks gives back at once what it held, uncounted; default not.",
        show_default=False,
    ),
]
AutoDeleteOption = Annotated[
    timedelta | None,
    typer.Option(
        "--auto-delete-on-idle",
        parser=_lifetime,
        metavar="DURATION|never",
        help="Delete the queue with all that is in it when it was idle for so long: 1h; 5 min or more, default never.",
    ),
]
StateIdleOption = Annotated[
    timedelta | None,
    typer.Option(
        "--state-idle-ttl",
        parser=_lifetime,
        metavar="DURATION|never",
        help="Forget the state of a session that has nothing else when it was idle for so long: 7d; default never.",
    ),
]
UserMetadataOption = Annotated[
    str | None,
    typer.Option("--user-metadata", metavar="TEXT", help="Free text for the owner of the queue."),
]


def given(**settings: object) -> dict[str, Any]:
    """Return the settings that were named on the command line; choices as the client spells them, "never" as None."""
    return {name: _spelled(value) for name, value in settings.items() if value is not None}


def _spelled(value: object) -> object:
    if isinstance(value, StrEnum):
        return value.replace("-", "_")
    return None if value == _FOR_EVER else value


def setting_facts(queue: QueueProperties) -> list[tuple[str, str]]:
    """Return the settings for people; those of sessions only where there are any."""
    facts = [
        ("Status", f"{choice_text(queue.status)}: {STATUS_MEANING[queue.status]}"),
        ("Lock duration", format_duration(queue.lock_duration)),
        ("Max delivery count", str(queue.max_delivery_count)),
        ("Time to live", _lifetime_text(queue)),
        ("Duplicates", _duplicates_text(queue)),
        ("Max size", f"{queue.max_size_in_megabytes} MiB"),
        ("Max message size", f"{queue.max_message_size_in_kilobytes} KiB"),
        ("Placement", queue.placement.value),
    ]
    if queue.requires_session:
        facts += [
            ("Max session state size", f"{queue.max_session_state_size_in_kilobytes} KiB"),
            ("Session lock extension", choice_text(queue.session_lock_extension)),
            ("Accept next session", queue.accept_next.value),
            ("An abandon", "recalls younger messages" if queue.recall_on_abandon else "is alone"),
            ("A broken stream", "releases" if queue.release_on_disconnect else "keeps its locks"),
            ("Session states", _states_text(queue)),
        ]
    if _has_end(queue.auto_delete_on_idle):
        idle = format_duration(queue.auto_delete_on_idle or _FOR_EVER)
        facts.append(("Auto-delete", f"after {idle} in which nobody used the queue"))
    if queue.manager is not None:
        facts.append(("Kept by", f"{queue.manager.name}, as {queue.manager.source} declares it"))
    if queue.user_metadata:
        facts.append(("User metadata", queue.user_metadata))
    return facts


def choice_text(choice: EntityStatus | Any) -> str:
    """Return a choice as the command line spells it."""
    return str(choice.value).replace("_", "-")


def _has_end(span: timedelta | None) -> bool:
    return span is not None and span < _FOR_EVER


def _states_text(queue: QueueProperties) -> str:
    idle = queue.session_state_idle_ttl
    if idle is None or not _has_end(idle):
        return "kept until they are cleared"
    return f"forgotten where nothing happened for {format_duration(idle)} and nothing else is left"


def _lifetime_text(queue: QueueProperties) -> str:
    lifetime = queue.default_message_time_to_live
    text = (
        f"{format_duration(lifetime)} at most"
        if lifetime is not None and _has_end(lifetime)
        else "as each message says, else for ever"
    )
    where = "becomes a dead letter" if queue.dead_lettering_on_message_expiration else "is dropped"
    if not queue.requires_session:
        return f"{text}; what expires {where}"
    is_whole = queue.session_expiry is SessionExpiry.WHOLE_SESSION
    return f"{text}; what expires {where}, {'with its whole session' if is_whole else 'alone'}"


def _duplicates_text(queue: QueueProperties) -> str:
    window = queue.duplicate_detection_history_time_window
    if not queue.requires_duplicate_detection or window is None:
        return "kept: message ids are not compared"
    return f"discarded: a message id is known for {format_duration(window)}"
