"""Queues as objects of Kubernetes: names, durations, defaults, and text that YAML reads back."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lockstep import AcceptNext, Placement, QueueManager, SessionLockExtension
from lockstep.cli.manifests import (
    Form,
    NotDeclarable,
    document,
    lifetime_text,
    lock_text,
    manifest,
    object_names,
    window_text,
)
from tests.unit.cli.test_queue_settings import QUEUE

SESSIONS = replace(QUEUE, requires_session=True, placement=Placement.SPREAD)
OBJECT_NAME = re.compile(
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII
)


def test_a_queue_of_defaults_says_nothing_but_that_it_may_be_adopted() -> None:
    for queue in (QUEUE, SESSIONS):
        body = manifest(queue, "orders", Form()).body

        said = {"requiresSession": True} if queue.requires_session else {}
        assert body["spec"] == {"adoptionPolicy": "IfUnowned", **said}
        assert body["metadata"] == {"name": "orders", "namespace": "default"}


def test_what_differs_is_said_with_the_words_of_the_schema() -> None:
    queue = replace(
        SESSIONS,
        placement=Placement.SINGLE,
        session_lock_extension=SessionLockExtension.OFF,
        lock_duration=timedelta(seconds=90),
        max_message_size_in_kilobytes=64,
        max_session_state_size_in_kilobytes=64,
        default_message_time_to_live=timedelta(days=14),
    )

    assert manifest(queue, "orders", Form()).body["spec"] == {
        "adoptionPolicy": "IfUnowned",
        "requiresSession": True,
        "placement": "Single",
        "lockDuration": "PT1M30S",
        "defaultMessageTimeToLive": "P14D",
        "maxMessageSizeInKilobytes": 64,
        "sessionLockExtension": "Off",
    }


def test_the_form_says_where_objects_are_and_what_they_have_in_common() -> None:
    form = Form(into="shop", broker="second", deletion_policy="Retain")

    body = manifest(replace(QUEUE, name="Orders"), "orders", form).body

    assert body["metadata"]["namespace"] == "shop"
    assert body["spec"] == {
        "brokerName": "second",
        "entityName": "Orders",
        "adoptionPolicy": "IfUnowned",
        "deletionPolicy": "Retain",
    }


def test_settings_without_effect_that_no_object_can_say_are_told() -> None:
    queue = replace(
        QUEUE,
        accept_next=AcceptNext.DISABLED,
        max_session_state_size_in_kilobytes=1,
        duplicate_detection_history_time_window=timedelta(hours=1),
        enable_batched_operations=False,
    )

    made = manifest(queue, "orders", Form())

    assert set(made.body["spec"]) == {"adoptionPolicy"}
    assert set(made.without) == {
        "acceptNext",
        "maxSessionStateSizeInKilobytes",
        "duplicateDetectionHistoryTimeWindow",
        "enableBatchedOperations",
    }
    assert "# Not said, since it has no effect here: " in document(made)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "with space"}, "ASCII letters"),
        ({"name": "_orders"}, "at both ends"),
        ({"name": "größe"}, "ASCII letters"),
        ({"namespace": "two words"}, "'two words'"),
        ({"namespace": "a.b"}, "'a.b'"),
        ({"lock_duration": timedelta(milliseconds=7_500)}, "lock duration"),
        (
            {
                "requires_duplicate_detection": True,
                "duplicate_detection_history_time_window": timedelta(milliseconds=20_500),
            },
            "window",
        ),
    ],
)
def test_what_no_object_can_say_is_refused(change: dict[str, object], why: str) -> None:
    with pytest.raises(NotDeclarable, match=why):
        manifest(replace(QUEUE, **change), "orders", Form())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "lock"), [(5, "PT5S"), (60, "PT1M"), (61, "PT1M1S"), (300, "PT5M"), (59, "PT59S")]
)
def test_a_lock_duration_has_minutes_and_seconds(seconds: int, lock: str) -> None:
    assert lock_text(timedelta(seconds=seconds)) == lock


@pytest.mark.parametrize(
    ("value", "window", "lifetime"),
    [
        (timedelta(days=7), "P7D", "P7D"),
        (timedelta(days=1, hours=12), "PT36H", "P1DT12H"),
        (timedelta(days=6, seconds=1), "PT144H1S", "P6DT1S"),
        (timedelta(minutes=10), "PT10M", "PT10M"),
        (timedelta(seconds=20), "PT20S", "PT20S"),
    ],
)
def test_a_window_has_no_days_beside_hours(value: timedelta, window: str, lifetime: str) -> None:
    assert (window_text(value), lifetime_text(value)) == (window, lifetime)


def test_a_lifetime_keeps_its_milliseconds() -> None:
    assert lifetime_text(timedelta(seconds=3, milliseconds=250)) == "PT3.25S"
    assert lifetime_text(timedelta(minutes=1, milliseconds=1)) == "PT1M0.001S"


def test_names_that_kubernetes_takes_stay_and_others_are_made_valid() -> None:
    assert object_names(["orders", "Orders.EU", "a/b", "jobs_1"]) == {
        "orders": "orders",
        "Orders.EU": "orders.eu",
        "a/b": "a-b",
        "jobs_1": "jobs-1",
    }


def test_names_that_would_be_the_same_are_told_apart_and_a_valid_one_stays() -> None:
    found = object_names(["a/b", "a_b", "a-b", "a_-b"])

    assert found["a-b"] == "a-b"
    assert all(re.fullmatch(r"a-b-[0-9a-f]{8}", found[name]) for name in ("a/b", "a_b", "a_-b"))
    assert len(set(found.values())) == 4


def test_a_mark_never_makes_the_name_of_another_queue() -> None:
    (taken,) = (found for name, found in object_names(["a/b", "a_b"]).items() if name == "a/b")

    found = object_names(["a/b", "a_b", taken])

    assert found[taken] == taken
    assert len(set(found.values())) == 3


QUEUE_CHARS = st.sampled_from("abAB09._-/ ä")


@given(st.sets(st.text(QUEUE_CHARS, min_size=1, max_size=260), max_size=8))
def test_every_name_is_valid_and_no_two_are_the_same(names: set[str]) -> None:
    by_case = {name.lower(): name for name in names}  # names of queues compare without it

    found = object_names(by_case.values())

    assert len(set(found.values())) == len(found) == len(by_case)
    for made in found.values():
        assert len(made) <= 253
        assert OBJECT_NAME.fullmatch(made)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_is_read_back_from_the_document(text: str) -> None:
    queue = replace(QUEUE, user_metadata=text, manager=QueueManager(text, text, "u", 1))

    made = manifest(queue, "orders", Form())

    assert yaml.safe_load(document(made)) == made.body


@pytest.mark.parametrize("word", ["Off", "no", "null", "1e3", "0x10", "~", "2026-01-01", "true"])
def test_words_that_yaml_takes_for_something_else_are_quoted(word: str) -> None:
    made = manifest(replace(QUEUE, user_metadata=word), "orders", Form())

    assert yaml.safe_load(document(made))["spec"]["userMetadata"] == word
