"""How the settings of a queue look."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lockstep import (
    AcceptNext,
    EntityStatus,
    Placement,
    QueueManager,
    QueueProperties,
    SessionExpiry,
    SessionLockExtension,
)
from lockstep.cli.queue_settings import STATUS_MEANING, LockExtension, given, setting_facts
from lockstep.core.limits import TTL_MS_MAX

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
QUEUE = QueueProperties(
    name="orders",
    namespace="default",
    uid="1",
    revision=1,
    created_at_utc=NOW,
    updated_at_utc=NOW,
    lock_duration=timedelta(minutes=1),
    max_delivery_count=10,
    requires_session=False,
    max_size_in_megabytes=1024,
    max_message_size_in_kilobytes=1024,
    max_session_state_size_in_kilobytes=1024,
    placement=Placement.SINGLE,
    session_lock_extension=SessionLockExtension.ON_RECEIVE,
    accept_next=AcceptNext.ENABLED,
    user_metadata="",
    enable_batched_operations=True,
    default_message_time_to_live=None,
    dead_lettering_on_message_expiration=False,
    requires_duplicate_detection=False,
    duplicate_detection_history_time_window=timedelta(minutes=10),
    auto_delete_on_idle=None,
    forward_to="",
    forward_dead_lettered_messages_to="",
    status=EntityStatus.ACTIVE,
    release_on_disconnect=False,
    recall_on_abandon=False,
    session_expiry=SessionExpiry.WHOLE_SESSION,
    session_state_idle_ttl=None,
)
SESSIONS = replace(QUEUE, requires_session=True)


@pytest.mark.parametrize(
    ("queue", "label", "text"),
    [
        (QUEUE, "Time to live", "as each message says, else for ever; what expires is dropped"),
        (
            replace(QUEUE, default_message_time_to_live=timedelta(days=14)),
            "Time to live",
            "14d at most; what expires is dropped",
        ),
        (
            replace(QUEUE, default_message_time_to_live=timedelta(milliseconds=TTL_MS_MAX)),
            "Time to live",
            "as each message says, else for ever; what expires is dropped",
        ),
        (
            replace(SESSIONS, dead_lettering_on_message_expiration=True),
            "Time to live",
            "as each message says, else for ever; what expires becomes a dead letter,"
            " with its whole session",
        ),
        (
            replace(SESSIONS, session_expiry=SessionExpiry.PER_MESSAGE),
            "Time to live",
            "as each message says, else for ever; what expires is dropped, alone",
        ),
        (QUEUE, "Duplicates", "kept: message ids are not compared"),
        (
            replace(QUEUE, requires_duplicate_detection=True),
            "Duplicates",
            "discarded: a message id is known for 10m",
        ),
        (
            replace(QUEUE, status=EntityStatus.SEND_DISABLED),
            "Status",
            "send-disabled: it takes no messages; what it has can be received",
        ),
        (SESSIONS, "Session lock extension", "on-receive"),
        (replace(QUEUE, user_metadata="of ann"), "User metadata", "of ann"),
        (
            replace(QUEUE, manager=QueueManager("lockstep-operator", "shop/orders", "u", 1)),
            "Kept by",
            "lockstep-operator, as shop/orders declares it",
        ),
    ],
)
def test_a_setting_is_told_in_words(queue: QueueProperties, label: str, text: str) -> None:
    assert dict(setting_facts(queue))[label] == text


def test_every_status_has_a_meaning() -> None:
    assert set(STATUS_MEANING) == set(EntityStatus)


def test_a_setting_that_was_not_named_is_not_given() -> None:
    named = given(lock=LockExtension.ON_RECEIVE, count=None, is_on=False, text="a-b")

    assert named == {"lock": "on_receive", "is_on": False, "text": "a-b"}
