"""Definitions that are kept as they are declared elsewhere: one object for each, and none that is older wins."""

from __future__ import annotations

import pytest

from lockstep.core.commands import CreateQueue, DeleteQueue, UpdateQueue
from lockstep.core.entity import Manager, QueueDefinition
from lockstep.core.errors import EntityManaged, InvalidRequest, LimitExceeded, RevisionConflict
from lockstep.core.ids import EntityKey, PartitionId
from lockstep.core.replies import Catalogued, Uncatalogued
from lockstep.core.snapshot import restore_partition
from tests.unit.core.partition_rig import Rig

KEY = EntityKey("default", "orders")


def manager(uid: str = "a", generation: int = 1) -> Manager:
    return Manager("operator", f"shop/{uid}", uid, generation)


def create(rig: Rig, who: Manager | None) -> QueueDefinition:
    return rig.step(CreateQueue("default", "orders", {}, "uid", manager=who), Catalogued).definition


def update(
    rig: Rig, who: Manager | None, *, deliveries: int = 5, takes_over: bool = False
) -> QueueDefinition:
    command = UpdateQueue(
        KEY, {"max_delivery_count": deliveries}, manager=who, takes_over=takes_over
    )
    return rig.step(command, Catalogued).definition


async def test_who_keeps_a_queue_is_stored_with_it() -> None:
    rig = Rig()
    create(rig, manager())

    snapshot = await rig.store.open(PartitionId(0), (0, 0, 1))  # type: ignore[arg-type]
    opened = restore_partition(PartitionId(0), rig.partition.limits, snapshot, rig.now_ms)
    assert opened.catalogue is not None
    assert opened.catalogue.queues[KEY].manager == manager()


def test_its_keeper_changes_it_and_people_may() -> None:
    rig = Rig()
    create(rig, manager())
    assert update(rig, manager(generation=2)).manager == manager(generation=2)
    assert update(rig, None, deliveries=7).manager == manager(generation=2)


def test_another_object_changes_nothing_unless_it_takes_over() -> None:
    rig = Rig()
    create(rig, manager())
    with pytest.raises(EntityManaged, match="shop/a") as refused:
        update(rig, manager("b"))
    assert refused.value.details["uid"] == "a"
    assert update(rig, manager("b"), takes_over=True).manager == manager("b")


def test_what_nobody_kept_may_be_adopted() -> None:
    rig = Rig()
    before = create(rig, None)
    after = update(rig, manager(), deliveries=before.settings.max_delivery_count)
    assert (after.manager, after.settings) == (manager(), before.settings)
    assert after.revision > before.revision


def test_an_older_generation_changes_nothing() -> None:
    rig = Rig()
    create(rig, manager(generation=3))
    with pytest.raises(RevisionConflict, match="older"):
        update(rig, manager(generation=2))
    assert update(rig, manager(generation=3)).settings.max_delivery_count == 5


def test_an_object_that_was_restored_from_a_backup_counts_from_there() -> None:
    rig = Rig()
    create(rig, manager(generation=3))
    assert update(rig, manager(generation=2), takes_over=True).manager == manager(generation=2)


def test_the_same_again_is_no_change() -> None:
    rig = Rig()
    create(rig, manager())
    first = update(rig, manager(generation=2))
    assert update(rig, manager(generation=2)).revision == first.revision


def test_only_its_keeper_deletes_it_if_asked() -> None:
    rig = Rig()
    create(rig, manager())
    with pytest.raises(EntityManaged, match="Nothing was deleted"):
        rig.decide(DeleteQueue(KEY, manager_uid="b"))
    rig.step(DeleteQueue(KEY, manager_uid="a"), Uncatalogued)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (Manager("operator", "shop/a", "", 1), InvalidRequest),
        (Manager("operator", "shop/a", "a", -1), InvalidRequest),
        (Manager("x" * 513, "shop/a", "a", 1), LimitExceeded),
    ],
)
def test_what_says_too_much_or_too_little_is_refused(bad: Manager, error: type[Exception]) -> None:
    rig = Rig()
    with pytest.raises(error):
        create(rig, bad)
    create(rig, None)
    with pytest.raises(error):
        update(rig, bad)


def test_ent_9_what_is_declared_replaces_what_was_set_before() -> None:
    rig = Rig()
    made = {"requires_session": True, "max_delivery_count": 3, "lock_duration_ms": 5_000}
    rig.decide(CreateQueue("default", "orders", made, "uid"))
    command = UpdateQueue(KEY, {"lock_duration_ms": 7_000}, replaces=True)
    settings = rig.step(command, Catalogued).definition.settings
    assert (settings.lock_duration_ms, settings.max_delivery_count) == (7_000, 10)
    assert (settings.requires_session, settings.placement) == (True, "spread")
