"""The catalogue of definitions (ADD-12)."""

from __future__ import annotations

from lockstep.core.changes import CatalogueRow, Drop
from lockstep.core.commands import CreateQueue, DeleteQueue, ForgetDeletions
from lockstep.core.ids import EntityKey
from lockstep.core.replies import Applied, Catalogued, Uncatalogued
from tests.unit.core.partition_rig import Rig


def _made_and_deleted(rig: Rig, name: str) -> Uncatalogued:
    rig.step(CreateQueue("default", name, {}, name), Catalogued)
    return rig.step(DeleteQueue(EntityKey("default", name)), Uncatalogued)


async def test_add_12_deletions_that_all_partitions_applied_are_forgotten_but_no_revision_is_reused() -> (
    None
):
    rig = Rig()
    gone = [_made_and_deleted(rig, name) for name in "abc"]

    decision = rig.decide(ForgetDeletions(gone[-1].revision))

    assert [c for c in decision.changes if isinstance(c, Drop)] == [
        Drop(CatalogueRow, (deleted.entity,)) for deleted in gone[:-1]
    ]
    reopened = await rig.reopened(rig.now_ms)
    assert reopened.catalogue is not None
    assert reopened.catalogue.revision == gone[-1].revision


def test_add_12_a_deletion_that_a_partition_may_not_know_is_kept() -> None:
    rig = Rig()
    gone = [_made_and_deleted(rig, name) for name in "abc"]

    rig.step(ForgetDeletions(gone[1].revision - 1), Applied)

    assert rig.partition.catalogue is not None
    assert list(rig.partition.catalogue.deleted.values()) == [g.revision for g in gone[1:]]
