"""Every setting of a queue: default, least, most, one too few, one too many (section 1.2 of the contract)."""

from __future__ import annotations

import pytest

from lockstep.core.entity import QueueSettings, SettingValue
from lockstep.core.errors import InvalidRequest, LimitExceeded, SettingNotAvailable
from tests.spec.driver import Broker, needs_restart

RANGES = [
    ("lock_duration_ms", 5_000, 300_000),
    ("max_delivery_count", 1, 2000),
    ("max_size_in_megabytes", 1, 81_920),
    ("max_message_size_in_kilobytes", 1, 16_384),
    ("max_session_state_size_in_kilobytes", 1, 1024),
]
CHOICES = [
    ("placement", "single"),
    ("placement", "spread"),
    ("session_lock_extension", "on_receive"),
    ("session_lock_extension", "off"),
    ("accept_next", "enabled"),
    ("accept_next", "disabled"),
    ("enable_batched_operations", True),
    ("enable_batched_operations", False),
]
NOT_AVAILABLE = [
    ("forward_to", "other"),
    ("forward_dead_lettered_messages_to", "other"),
]


async def test_defaults_are_those_of_the_contract(broker: Broker) -> None:
    created = await broker.create_queue("orders")

    assert created.settings == QueueSettings(
        requires_session=False,
        placement="single",
        lock_duration_ms=60_000,
        max_delivery_count=10,
        max_size_in_megabytes=1024,
        max_message_size_in_kilobytes=1024,
        max_session_state_size_in_kilobytes=1024,
        session_lock_extension="on_receive",
        accept_next="enabled",
        user_metadata="",
        enable_batched_operations=True,
        default_message_time_to_live_ms=None,
        dead_lettering_on_message_expiration=False,
        requires_duplicate_detection=False,
        duplicate_detection_history_time_window_ms=600_000,
        auto_delete_on_idle_ms=None,
        forward_to="",
        forward_dead_lettered_messages_to="",
        status="active",
        release_on_disconnect=False,
        recall_on_abandon=False,
        session_expiry="whole_session",
        session_state_idle_ttl_ms=None,
    )


async def test_placement_of_a_session_queue_is_spread_unless_it_is_named(broker: Broker) -> None:
    spread = await broker.create_queue("a", requires_session=True)
    single = await broker.create_queue("b", requires_session=True, placement="single")

    assert spread.settings.placement == "spread"
    assert single.settings.placement == "single"


async def test_the_state_size_follows_the_message_size_unless_it_is_named(broker: Broker) -> None:
    follows = await broker.create_queue("a", max_message_size_in_kilobytes=64)
    named = await broker.create_queue(
        "b", max_message_size_in_kilobytes=64, max_session_state_size_in_kilobytes=8
    )

    assert follows.settings.max_session_state_size_in_kilobytes == 64
    assert named.settings.max_session_state_size_in_kilobytes == 8


@pytest.mark.parametrize(("setting", "least", "most"), RANGES)
async def test_both_ends_of_a_range_are_allowed(
    broker: Broker, setting: str, least: int, most: int
) -> None:
    low = await broker.create_queue("low", **{setting: least})
    high = await broker.create_queue("high", **{setting: most})

    assert getattr(low.settings, setting) == least
    assert getattr(high.settings, setting) == most


@pytest.mark.parametrize(
    ("setting", "value"),
    [(name, least - 1) for name, least, _ in RANGES]
    + [(name, most + 1) for name, _, most in RANGES]
    + [(name, -1) for name, _, _ in RANGES],
)
async def test_lim_1_a_value_out_of_range_is_refused_with_limit_and_value(
    broker: Broker, setting: str, value: int
) -> None:
    with pytest.raises(LimitExceeded) as refused:
        await broker.create_queue("orders", **{setting: value})

    assert refused.value.details["limit"] == setting
    assert refused.value.details["observed"] == str(value)
    assert refused.value.details["configured"]


@pytest.mark.limits(message_bytes_max=64 * 1024)
async def test_the_largest_message_size_is_the_installation_s(broker: Broker) -> None:
    await broker.create_queue("a", max_message_size_in_kilobytes=64)

    with pytest.raises(LimitExceeded):
        await broker.create_queue("b", max_message_size_in_kilobytes=65)


async def test_ses_39_a_state_may_not_be_larger_than_a_message(broker: Broker) -> None:
    """Section 1.2: the most is the entity's maximum message size."""
    with pytest.raises(LimitExceeded):
        await broker.create_queue(
            "orders", max_message_size_in_kilobytes=64, max_session_state_size_in_kilobytes=65
        )


@pytest.mark.parametrize(("setting", "value"), CHOICES)
async def test_every_choice_is_allowed(broker: Broker, setting: str, value: SettingValue) -> None:
    created = await broker.create_queue("orders", **{setting: value})

    assert getattr(created.settings, setting) == value


@pytest.mark.parametrize(
    "setting", ["placement", "session_lock_extension", "accept_next", "session_expiry", "status"]
)
@pytest.mark.parametrize("value", ["", "sometimes", "ENABLED"])
async def test_an_unknown_choice_is_refused(broker: Broker, setting: str, value: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await broker.create_queue("orders", **{setting: value})

    assert refused.value.details["setting"] == setting


@pytest.mark.parametrize(("setting", "value"), NOT_AVAILABLE)
async def test_a_setting_without_its_behaviour_is_refused_never_ignored(
    broker: Broker, setting: str, value: SettingValue
) -> None:
    with pytest.raises(SettingNotAvailable) as refused:
        await broker.create_queue("orders", **{setting: value})

    assert refused.value.details["setting"] == setting


@pytest.mark.parametrize("setting", sorted({name for name, _ in NOT_AVAILABLE}))
async def test_a_setting_without_its_behaviour_may_be_named_with_its_default(
    broker: Broker, setting: str
) -> None:
    default: SettingValue = getattr(QueueSettings(), setting)

    created = await broker.create_queue("orders", **{setting: default})

    assert getattr(created.settings, setting) == default


async def test_ent_10_user_metadata_has_at_most_1024_characters(broker: Broker) -> None:
    created = await broker.create_queue("orders", user_metadata="é" * 1024)

    with pytest.raises(LimitExceeded):
        await broker.update_queue("orders", user_metadata="x" * 1025)

    assert created.settings.user_metadata == "é" * 1024


@needs_restart
async def test_settings_survive_a_restart(broker: Broker) -> None:
    created = await broker.create_queue(
        "orders",
        requires_session=True,
        placement="single",
        lock_duration_ms=5_000,
        max_delivery_count=2000,
        max_size_in_megabytes=2,
        max_message_size_in_kilobytes=3,
        max_session_state_size_in_kilobytes=1,
        session_lock_extension="off",
        accept_next="disabled",
        user_metadata="{}",
        enable_batched_operations=False,
    )

    await broker.restart()

    assert await broker.get_queue("orders") == created
