"""Names of queues and namespaces, paths, and definitions as they are stored."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from lockstep.core.entity import (
    FIXED_AT_CREATION,
    NOT_AVAILABLE_YET,
    QueueDefinition,
    QueueSettings,
    SettingValue,
    changed_settings,
    new_settings,
    parse_entity_path,
    parse_namespace,
    parse_queue_name,
)
from lockstep.core.errors import (
    InvalidRequest,
    LimitExceeded,
    LockstepError,
    SettingNotAvailable,
)
from lockstep.core.ids import EntityKey, EntityNumber
from lockstep.core.limits import Limits

LIMITS = Limits()


@pytest.mark.parametrize(
    "name", ["orders", "Shop/Orders", "a.b-c_d9", "a b", "ä/ö", "a" * 260, "a$b", "x/y/z"]
)
def test_a_good_name_is_kept_as_it_is(name: str) -> None:
    assert parse_queue_name(name) == name


def test_backslashes_become_slashes() -> None:
    assert parse_queue_name("a\\b\\c") == "a/b/c"


@pytest.mark.parametrize(
    "name",
    ["", "/", "\\", "/a", "a/", "a@b", "a?", "#a", "*", "a\tb", "a\x00b", "$a", "a/$b", "a\\$b"],
)
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_queue_name(name)


def test_a_name_that_is_too_long_is_refused_with_its_length() -> None:
    with pytest.raises(LimitExceeded) as refused:
        parse_queue_name("a" * 261)

    assert refused.value.details["observed"] == "261"


def test_an_empty_namespace_is_the_default_one() -> None:
    assert parse_namespace("") == "default"
    assert parse_namespace("Team-A") == "team-a"


@pytest.mark.parametrize("namespace", ["a/b", "a\\b", "a@b", "a?b", "a#b", "a*b"])
def test_a_bad_namespace_is_refused(namespace: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_namespace(namespace)


def test_a_namespace_has_at_most_50_characters() -> None:
    assert parse_namespace("a" * 50) == "a" * 50
    with pytest.raises(LimitExceeded):
        parse_namespace("a" * 51)


@pytest.mark.parametrize(
    ("path", "name", "is_dead_letter"),
    [
        ("Orders", "orders", False),
        ("orders/$DeadLetterQueue", "orders", True),
        ("Shop\\Orders\\$DEADLETTERQUEUE", "shop/orders", True),
        ("deadletterqueue", "deadletterqueue", False),
        ("orders$deadletterqueue", "orders$deadletterqueue", False),
    ],
)
def test_a_path_names_a_queue_or_its_dead_letters(
    path: str, name: str, is_dead_letter: bool
) -> None:
    """ENT-2: the suffix is matched without regard to case."""
    assert parse_entity_path("", path) == (EntityKey("default", name), is_dead_letter)


@pytest.mark.parametrize(
    "path",
    [
        "/$DeadLetterQueue",
        "$DeadLetterQueue",
        "a/$DeadLetterQueue/$DeadLetterQueue",
        "a/$Transfer/$DeadLetterQueue",
        "a/$DeadLetterQueue/b",
    ],
)
def test_a_path_that_leads_nowhere_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_entity_path("default", path)


def test_new_settings_are_the_defaults_where_nothing_is_given() -> None:
    assert new_settings({}, LIMITS) == QueueSettings()


def test_an_update_of_nothing_changes_nothing() -> None:
    settings = new_settings({"requires_session": True, "max_delivery_count": 3}, LIMITS)

    assert changed_settings(settings, {}, LIMITS) == settings


def test_every_setting_without_behaviour_and_every_fixed_one_exists() -> None:
    names = {field.name for field in fields(QueueSettings)}

    assert set(NOT_AVAILABLE_YET) <= names
    assert set(FIXED_AT_CREATION) <= names


def _definition() -> QueueDefinition:
    return QueueDefinition(
        namespace="team",
        name="Shop/Orders",
        number=EntityNumber(7),
        uid="u",
        revision=9,
        settings=new_settings({"requires_session": True, "lock_duration_ms": 7_000}, LIMITS),
        created_ms=1,
        updated_ms=2,
    )


def test_a_queue_is_found_by_its_name_in_lower_case() -> None:
    assert _definition().key == EntityKey("team", "shop/orders")


def test_a_definition_comes_back_from_its_stored_form() -> None:
    stored = json.loads(json.dumps(_definition().to_fields()))

    assert QueueDefinition.from_fields(stored) == _definition()


def test_a_definition_of_an_older_release_gets_defaults_for_what_it_does_not_name() -> None:
    stored = _definition().to_fields()
    del stored["settings"]["session_lock_extension"]

    assert QueueDefinition.from_fields(stored).settings.session_lock_extension == "on_receive"


def test_a_definition_of_a_newer_release_loses_what_this_one_does_not_know() -> None:
    stored = _definition().to_fields()
    stored["settings"]["from_the_future"] = 1

    assert QueueDefinition.from_fields(stored) == _definition()


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"lock_duration_ms": 1_000}, LimitExceeded, "lock_duration must be between 5s and 5m; 1s"),
        ({"default_message_time_to_live_ms": 1}, LimitExceeded, "1ms was given"),
        ({"duplicate_detection_history_time_window_ms": 1}, LimitExceeded, "between 20s and 7d"),
        ({"auto_delete_on_idle_ms": 90_000}, LimitExceeded, "between 5m and"),
        ({"forward_to": "x"}, SettingNotAvailable, "leave it at its default ()"),
    ],
)
def test_people_read_names_and_durations_as_they_write_them(
    given: dict[str, SettingValue], kind: type[LockstepError], words: str
) -> None:
    with pytest.raises(kind) as caught:
        new_settings(given, LIMITS)

    assert words in caught.value.message
    assert "_ms" not in caught.value.message


def test_programs_read_the_limits_of_a_duration_in_milliseconds() -> None:
    with pytest.raises(LimitExceeded) as caught:
        new_settings({"lock_duration_ms": 300_001}, LIMITS)

    assert caught.value.details == {
        "limit": "lock_duration_ms",
        "configured": "5000..300000",
        "observed": "300001",
    }
