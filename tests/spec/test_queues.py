"""Creating, changing and deleting queues (sections 1.1 and 1.2 of the contract, ADD-12)."""

from __future__ import annotations

from typing import Any

import pytest

from lockstep.core.errors import (
    EntityAlreadyExists,
    EntityNotFound,
    InvalidOperation,
    InvalidRequest,
    LimitExceeded,
    RevisionConflict,
    SettingNotAvailable,
)
from tests.spec.driver import (
    Broker,
    DeadLetters,
    Plain,
    bodies,
    dead_letter,
    hold,
    needs_clock,
    needs_restart,
)


async def test_ent_7_a_second_queue_of_the_same_name_is_refused(broker: Broker) -> None:
    await broker.create_queue("orders")

    with pytest.raises(EntityAlreadyExists) as refused:
        await broker.create_queue("orders", requires_session=True)

    assert refused.value.details["entity"] == "default/orders"
    assert not (await broker.get_queue("orders")).settings.requires_session


async def test_ent_7_a_missing_queue_is_not_found_by_any_call(broker: Broker) -> None:
    with pytest.raises(EntityNotFound):
        await broker.get_queue("missing")
    with pytest.raises(EntityNotFound):
        await broker.update_queue("missing", max_delivery_count=3)
    with pytest.raises(EntityNotFound):
        await broker.delete_queue("missing")
    with pytest.raises(EntityNotFound):
        await broker.receive(Plain("missing"))
    with pytest.raises(EntityNotFound):
        await broker.accept("missing", "s")
    with pytest.raises(EntityNotFound):
        await broker.sessions("missing")
    with pytest.raises(EntityNotFound):
        await broker.runtime("missing")


async def test_ent_8_names_are_compared_without_regard_to_case_and_kept_as_written(
    broker: Broker,
) -> None:
    created = await broker.create_queue("Shop/Orders-2.new_1")

    await broker.send("shop/ORDERS-2.NEW_1", b"1")

    assert created.name == "Shop/Orders-2.new_1"
    assert bodies(await broker.receive(Plain("SHOP/orders-2.new_1"))) == [b"1"]
    with pytest.raises(EntityAlreadyExists):
        await broker.create_queue("shop/orders-2.new_1")


async def test_ent_8_a_backslash_is_folded_to_a_slash(broker: Broker) -> None:
    created = await broker.create_queue("shop\\orders")

    assert created.name == "shop/orders"
    assert await broker.get_queue("shop/orders") == created


@pytest.mark.parametrize("name", ["", "/a", "a/", "\\a", "a\\", "a@b", "a?b", "a#b", "a*b", "a\nb"])
async def test_ent_8_an_impossible_name_is_refused(broker: Broker, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await broker.create_queue(name)


@pytest.mark.parametrize("name", ["orders/$DeadLetterQueue", "$management", "a/$b/c"])
async def test_ent_2_side_stores_cannot_be_created(broker: Broker, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await broker.create_queue(name)


async def test_limits_a_name_may_have_260_characters_and_no_more(broker: Broker) -> None:
    await broker.create_queue("a" * 260)

    with pytest.raises(LimitExceeded) as refused:
        await broker.create_queue("a" * 261)

    assert refused.value.details["configured"] == "260"
    assert refused.value.details["observed"] == "261"


@pytest.mark.limits(queues_max=2)
async def test_limits_the_number_of_queues_is_bounded(broker: Broker) -> None:
    await broker.create_queue("a")
    await broker.create_queue("b")

    with pytest.raises(LimitExceeded):
        await broker.create_queue("c")
    await broker.delete_queue("a")

    await broker.create_queue("c")


async def test_ent_9_an_update_keeps_what_it_does_not_name(broker: Broker) -> None:
    created = await broker.create_queue("orders", lock_duration_ms=30_000, max_delivery_count=7)

    updated = await broker.update_queue("orders", max_delivery_count=8)

    assert updated.settings.max_delivery_count == 8
    assert updated.settings.lock_duration_ms == 30_000
    assert updated.revision > created.revision
    assert await broker.get_queue("orders") == updated


async def test_an_update_that_changes_nothing_keeps_the_revision(broker: Broker) -> None:
    created = await broker.create_queue("orders", max_delivery_count=7)

    assert await broker.update_queue("orders", max_delivery_count=7) == created


async def test_an_update_of_an_older_revision_is_refused(broker: Broker) -> None:
    created = await broker.create_queue("orders")
    updated = await broker.update_queue(
        "orders", if_revision=created.revision, max_delivery_count=2
    )

    with pytest.raises(RevisionConflict) as refused:
        await broker.update_queue("orders", if_revision=created.revision, max_delivery_count=3)

    assert refused.value.details["revision"] == str(updated.revision)
    assert (await broker.get_queue("orders")).settings.max_delivery_count == 2


@needs_clock
async def test_an_update_applies_to_locks_that_are_taken_afterwards(broker: Broker) -> None:
    await broker.create_queue("orders", lock_duration_ms=30_000)
    await broker.send("orders", b"1")
    await broker.send("orders", b"2")
    (before,) = await broker.receive(Plain("orders"), 1)

    await broker.update_queue("orders", lock_duration_ms=60_000)
    (after,) = await broker.receive(Plain("orders"), 1)

    assert before.locked_until_ms == broker.now_ms() + 30_000
    assert after.locked_until_ms == broker.now_ms() + 60_000


@pytest.mark.parametrize(
    ("setting", "value"), [("requires_session", True), ("placement", "spread")]
)
async def test_c95_what_is_fixed_at_creation_cannot_be_changed(
    broker: Broker, setting: str, value: Any
) -> None:
    """C95, ENT-4: change RequiresSession on an existing queue → refused."""
    created = await broker.create_queue("orders")

    with pytest.raises(InvalidOperation) as refused:
        await broker.update_queue("orders", **{setting: value})

    assert refused.value.details["setting"] == setting
    assert await broker.get_queue("orders") == created


async def test_c95_a_fixed_setting_may_be_named_with_the_value_it_has(broker: Broker) -> None:
    await broker.create_queue("orders", requires_session=True)

    updated = await broker.update_queue("orders", requires_session=True, max_delivery_count=3)

    assert updated.settings.max_delivery_count == 3


@pytest.mark.parametrize(
    ("setting", "value"), [("lock_duration_ms", 25 * 86_400_000), ("max_delivery_count", 0)]
)
async def test_c95_an_update_out_of_range_is_refused_and_changes_nothing(
    broker: Broker, setting: str, value: int
) -> None:
    """C95: LockDuration 25 days → refused; MaxDeliveryCount 0 → refused."""
    created = await broker.create_queue("orders")

    with pytest.raises(LimitExceeded) as refused:
        await broker.update_queue("orders", **{setting: value})

    assert refused.value.details["limit"] == setting
    assert refused.value.details["observed"] == str(value)
    assert await broker.get_queue("orders") == created


async def test_an_update_to_a_setting_that_is_not_available_is_refused(broker: Broker) -> None:
    created = await broker.create_queue("orders")

    with pytest.raises(SettingNotAvailable):
        await broker.update_queue("orders", forward_to="elsewhere")

    assert await broker.get_queue("orders") == created


async def test_add_12_a_re_created_queue_shares_nothing_with_its_predecessor(
    broker: Broker,
) -> None:
    held = await hold(broker, b"1", b"2", b"3")
    got = await broker.receive(held)
    await dead_letter(broker, held, got[:1])
    await broker.set_state(held, b"state")
    before = await broker.get_queue("orders")

    await broker.delete_queue("orders")
    after = await broker.create_queue("orders", requires_session=True)

    assert after.number != before.number
    assert after.uid != before.uid
    assert await broker.receive(DeadLetters("orders")) == []
    assert await broker.sessions("orders") == []
    again = await broker.accept("orders", "s")
    assert (again.state, again.state_version) == (None, 0)
    assert await broker.receive(again) == []
    assert await broker.send("orders", b"new", session="s") == [1]


async def test_add_12_deleting_one_queue_leaves_the_others_alone(broker: Broker) -> None:
    await broker.create_queue("a")
    await broker.create_queue("b")
    await broker.send("a", b"1")
    await broker.send("b", b"2")

    await broker.delete_queue("a")

    assert bodies(await broker.receive(Plain("b"))) == [b"2"]
    with pytest.raises(EntityNotFound):
        await broker.send("a", b"3")


@needs_restart
async def test_add_12_definitions_survive_a_restart(broker: Broker) -> None:
    await broker.create_queue("gone")
    await broker.create_queue("orders", requires_session=True, lock_duration_ms=7_000)
    updated = await broker.update_queue("orders", user_metadata="kept")
    await broker.delete_queue("gone")

    await broker.restart()

    assert await broker.get_queue("orders") == updated
    with pytest.raises(EntityNotFound):
        await broker.get_queue("gone")
    created = await broker.create_queue("gone")
    assert created.number > updated.number


@needs_restart
async def test_add_12_a_deleted_queue_stays_deleted_after_a_restart(broker: Broker) -> None:
    held = await hold(broker, b"1", b"2", b"3")
    got = await broker.receive(held, 2)
    await dead_letter(broker, held, got[:1])
    await broker.set_state(held, b"state")
    await broker.delete_queue("orders")

    await broker.restart()

    with pytest.raises(EntityNotFound):
        await broker.receive(DeadLetters("orders"))


async def test_race_16_everything_of_a_deleted_queue_fails_with_not_found(broker: Broker) -> None:
    """RACE-16: deleted while locks are out."""
    held = await hold(broker, b"1")
    got = await broker.receive(held)

    await broker.delete_queue("orders")

    with pytest.raises(EntityNotFound):
        await dead_letter(broker, held, got)
    with pytest.raises(EntityNotFound):
        await broker.renew(held)
    with pytest.raises(EntityNotFound):
        await broker.set_state(held, b"1")
    with pytest.raises(EntityNotFound):
        await broker.release_session(held)
    with pytest.raises(EntityNotFound):
        await broker.receive(held)


@needs_clock
async def test_race_16_the_lock_of_a_deleted_queue_does_not_end_a_second_time(
    broker: Broker,
) -> None:
    await hold(broker, b"1", lock_duration_ms=5_000)
    await broker.create_queue("plain", lock_duration_ms=5_000)
    await broker.send("plain", b"1")
    await broker.receive(Plain("plain"))
    await broker.delete_queue("orders")
    await broker.delete_queue("plain")
    await broker.create_queue("orders", requires_session=True)
    await broker.send("orders", b"2", session="s")
    await broker.accept("orders", "s")

    await broker.advance(10_000)

    assert (await broker.session("orders", "s")).holder == "receiver"


@pytest.mark.parametrize(
    "setting",
    ["default_message_time_to_live_ms", "auto_delete_on_idle_ms", "session_state_idle_ttl_ms"],
)
async def test_ent_9_an_update_takes_a_time_back(broker: Broker, setting: str) -> None:
    created = await broker.create_queue("orders", **{setting: 600_000})
    assert getattr(created.settings, setting) == 600_000

    taken_back: dict[str, Any] = {setting: None}
    updated = await broker.update_queue("orders", **taken_back)

    assert getattr(updated.settings, setting) is None
    assert updated.settings.lock_duration_ms == created.settings.lock_duration_ms
