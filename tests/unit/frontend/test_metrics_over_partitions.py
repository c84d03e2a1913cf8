"""What the metrics of all partitions of a queue add up to."""

from __future__ import annotations

import pytest

from tests.unit.frontend.cluster_rig import ORDERS, PARTITIONS, running_cluster, session_on


@pytest.mark.parametrize("requires_session", [True, False], ids=["spread", "single"])
async def test_the_limit_of_a_queue_is_told_once_for_all_its_partitions(
    requires_session: bool,
) -> None:
    """Or a queue that is full would look as if it were full to a part."""
    async with running_cluster() as cluster:
        await cluster.create(max_size_in_megabytes=3, requires_session=requires_session)
        if requires_session:
            await cluster.add_dead_letters(1, [session_on(each) for each in range(PARTITIONS)])
        else:
            await cluster.runtime()

        gauges = [one for one in cluster.supervisor.gauges() if one.key.entity == ORDERS.name]
        assert sum(one.size_limit_bytes for one in gauges) == 3 * 1024 * 1024
