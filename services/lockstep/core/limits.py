"""Every limit of the product.

Here belong the limits that an installation may configure (`Limits`) and those that are fixed. Never
here: the limits of one entity (`entity`). The law (LIM-1): whoever refuses because of a limit names
the limit, the configured value and the value seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from lockstep.core.errors import LimitExceeded

KIB = 1024
MIB = 1024 * 1024
SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
DAY_MS = 24 * 60 * MINUTE_MS
_UNITS = (("d", DAY_MS), ("h", 60 * MINUTE_MS), ("m", MINUTE_MS), ("s", SECOND_MS), ("ms", 1))

ID_CHARS_MAX = 128
"""Message id, session id, reply-to session id, partition key, client identifiers (section 1.3)."""
QUEUE_NAME_CHARS_MAX = 260
NAMESPACE_CHARS_MAX = 50
REASON_CHARS_MAX = 4096
MANAGER_CHARS_MAX = 512
USER_METADATA_CHARS_MAX = 1024
REQUEST_CLIENT_ID_CHARS_MAX = 64
TTL_MS_MAX = 10_000 * 365 * DAY_MS
"""The longest time to live that is told apart from "never"."""
SCHEDULE_MS_MAX = 10_000 * 365 * DAY_MS
ABANDON_DELAY_MS_MAX = 7 * DAY_MS
PROPERTY_BYTES_MAX = 32 * KIB
HEADERS_BYTES_MAX = 64 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one installation; the defaults are the product's.

    Attributes:
        message_bytes_max: The most an entity may allow for one message with its properties.
        send_messages_max: Messages in one send.
        send_bytes_max: Bytes of all messages in one send.
        receive_messages_max: Messages in one receive.
        response_bytes_max: Bytes of the messages in one response, unless a single one is larger (BAT-6).
        load_bytes_max: Bytes of send batches that one receive may have read from storage, unless the first is larger:
            a batch is read whole, however few of its messages are left.
        settle_messages_max: Messages in one settlement or renewal call.
        requests_per_client_max: Results kept for one client in one partition (ADD-3).
        request_retention_ms: How long the results of an idle client are kept (ADD-3).
        clients_max: Clients whose calls one partition remembers; beyond it those who were silent longest, but at least
            `request_retention_ms`, are forgotten early.
        client_retention_ms: How long it is known which ids of an idle client were used.
        partition_messages_max: Messages that one partition holds in memory.
        losses_remembered_max: Ended grants whose end a partition can still explain.
        outage_grace_ms: How long a recorded lock outlives the opening of its partition (ADD-4).
        queues_max: Entities in the installation.
    """

    message_bytes_max: int = 16 * MIB
    send_messages_max: int = 4096
    send_bytes_max: int = 16 * MIB
    receive_messages_max: int = 4096
    response_bytes_max: int = 3_670_016
    load_bytes_max: int = 64 * MIB
    settle_messages_max: int = 8192
    requests_per_client_max: int = 16_384
    request_retention_ms: int = 10 * MINUTE_MS
    clients_max: int = 100_000
    client_retention_ms: int = DAY_MS
    partition_messages_max: int = 20_000_000
    losses_remembered_max: int = 10_000
    outage_grace_ms: int = 10 * SECOND_MS
    queues_max: int = 10_000


def check_at_most(value: int, maximum: int, what: str, advice: str) -> None:
    """Refuse a value over its limit.

    Raises:
        LimitExceeded: `value` is over `maximum`; the error names both.
    """
    if value > maximum:
        raise LimitExceeded(
            f"{what} is limited to {maximum}; this request has {value}. {advice}",
            details={"limit": what, "configured": str(maximum), "observed": str(value)},
        )


def duration_text(span_ms: int) -> str:
    """Write a duration for people, in the largest units that fit: `1m30s`, `5s`, `250ms`."""
    sign, rest_ms = ("-", -span_ms) if span_ms < 0 else ("", span_ms)
    parts = []
    for unit, unit_ms in _UNITS:
        count, rest_ms = divmod(rest_ms, unit_ms)
        if count:
            parts.append(f"{count}{unit}")
    return sign + ("".join(parts) or "0s")


def check_duration_between(value_ms: int, minimum_ms: int, maximum_ms: int, what: str) -> None:
    """Refuse a duration outside its range.

    Args:
        value_ms: The duration.
        minimum_ms: The shortest that is allowed.
        maximum_ms: The longest that is allowed.
        what: The setting, as people know it.

    Raises:
        LimitExceeded: The text has names and units of people, the details those of the core: `<what>_ms`.
    """
    if not minimum_ms <= value_ms <= maximum_ms:
        raise LimitExceeded(
            f"{what} must be between {duration_text(minimum_ms)} and {duration_text(maximum_ms)};"
            f" {duration_text(value_ms)} was given.",
            details={
                "limit": f"{what}_ms",
                "configured": f"{minimum_ms}..{maximum_ms}",
                "observed": str(value_ms),
            },
        )


def check_between(value: int, minimum: int, maximum: int, what: str) -> None:
    """Refuse a value outside its range.

    Raises:
        LimitExceeded: `value` is below `minimum` or over `maximum`; the error names all three.
    """
    if not minimum <= value <= maximum:
        raise LimitExceeded(
            f"{what} must be between {minimum} and {maximum}; {value} was given.",
            details={
                "limit": what,
                "configured": f"{minimum}..{maximum}",
                "observed": str(value),
            },
        )
