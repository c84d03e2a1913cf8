"""Promises of a cluster while its parts fail: one test for each scenario, each on real processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.conftest import Rigs, Tell
from tests.faults.nemesis import Nemesis
from tests.faults.scenario import Scenario, Verdict, play

# What befalls whom in a storm follows from its number; LOCKSTEP_STORMS=7,8 has others than these.
STORMS = os.environ.get("LOCKSTEP_STORMS", "1,2").split(",")
_TOLD_MAX = 20
SHORT = (Scenario("owner-killed", (Nemesis.kill_owner,), locks_survive=True),)
OF_OWNERS = (
    Scenario("owner-back-at-once", (Nemesis.kill_owner_twice,)),
    Scenario("all-owners-killed", (Nemesis.kill_all_owners,)),
    Scenario("owner-stopped", (Nemesis.stop_owner, Nemesis.stop_owner)),
    Scenario("owner-paused", (Nemesis.pause_owner, Nemesis.pause_owner_shortly)),
    Scenario("owner-isolated", (Nemesis.isolate_owner, Nemesis.isolate_owner)),
    Scenario("host-lost", (Nemesis.lose_host,)),
    Scenario("etcd-restarted", (Nemesis.restart_etcd, Nemesis.restart_etcd_after_the_lease)),
    Scenario("etcd-emptied", (Nemesis.empty_etcd,)),
    Scenario("etcd-cut", (Nemesis.cut_owner_from_etcd, Nemesis.hold_owner_to_etcd)),
    Scenario("postgres-restarted", (Nemesis.restart_postgres, Nemesis.restart_postgres_orderly)),
    Scenario("postgres-cut", (Nemesis.cut_owner_from_postgres,)),
    Scenario("postgres-held", (Nemesis.hold_owner_to_postgres, Nemesis.slow_down_postgres)),
    Scenario(
        "postgres-answers-lost",
        (Nemesis.break_connections_to_postgres, Nemesis.lose_answers_of_postgres),
    ),
)
LONG = (
    Scenario("calm", (Nemesis.leave_alone,)),
    *(replace(scenario, locks_survive=True) for scenario in OF_OWNERS),
    Scenario("frontend-killed", (Nemesis.kill_frontend, Nemesis.stop_frontend)),
    Scenario("frontend-paused", (Nemesis.pause_frontend,)),
    Scenario("client-killed", (Nemesis.kill_client, Nemesis.kill_client)),
    Scenario("client-paused", (Nemesis.pause_client,)),
    Scenario("everything-rolled", (Nemesis.roll_everything,)),
    Scenario("owner-cut", (Nemesis.cut_frontends_from_owner,)),
    Scenario("owner-held", (Nemesis.hold_frontends_to_owner, Nemesis.slow_down_owners)),
    Scenario("owner-answers-lost", (Nemesis.lose_answers_of_owners,)),
    *(Scenario(f"storm-{seed}", (Nemesis.storm,)) for seed in STORMS),
)


async def _keeps_its_promises(
    rigs: Rigs, scenario: Scenario, note: Callable[[Verdict], None], tell: Tell
) -> None:
    try:
        verdict = await play(rigs.whole(), scenario, tell)
    except BaseException:
        rigs.give_up()
        raise
    note(verdict)
    if verdict.violations:
        rigs.give_up()
    assert not verdict.violations, "\n".join(map(str, verdict.violations[:_TOLD_MAX]))


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SHORT, ids=lambda one: one.name)
async def test_a_cluster_keeps_its_promises_when(
    scenario: Scenario, rigs: Rigs, note: Callable[[Verdict], None], tell: Tell
) -> None:
    await _keeps_its_promises(rigs, scenario, note, tell)


@pytest.mark.faults
@pytest.mark.parametrize("scenario", LONG, ids=lambda one: one.name)
async def test_a_cluster_keeps_its_promises_even_when(
    scenario: Scenario, rigs: Rigs, note: Callable[[Verdict], None], tell: Tell
) -> None:
    await _keeps_its_promises(rigs, scenario, note, tell)
