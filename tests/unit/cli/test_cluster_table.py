"""What `lockstep cluster status` makes of what it was told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lockstep.cli.cluster_status import ClusterStatus, LeaseTime
from lockstep.cli.cluster_table import show_status, status_to_json
from lockstep.cli.output import Output
from lockstep.cluster.keys import Claim, Node
from lockstep.cluster.reach import Reach
from lockstep.cluster.standing import OwnerStanding, PartitionStanding, ViewStanding
from lockstep.core.errors import ConnectionFailed, InvalidRequest
from lockstep.core.ids import PartitionEpoch, PartitionId

P0, P1, P2 = map(PartitionId, range(3))
OPEN = PartitionStanding(
    P0,
    "open",
    epoch=PartitionEpoch(1, 40, 0),
    open_ms=125_900,
    messages=12_345,
    ready_messages=7,
    ready_sessions=3,
    waiting_commands=2,
    definitions=9,
)
STOPPED = PartitionStanding(P2, "stopped", "Its data is damaged.")


def node(name: str, **more: Any) -> Node:
    return Node(name, f"{name}.test:7710", "1.0", is_leaving=False, lease=7, **more)


def claim(name: str, revision: int) -> Claim:
    return Claim(name, f"{name}.test:7710", 1, revision, 7)


STATUS = ClusterStatus(
    name="lockstep",
    partitions=4,
    nodes={"a": node("a"), "b": node("b", reach=Reach(frozenset({1}), frozenset({1})))},
    claims={P0: claim("a", 40), P1: claim("b", 41), P2: claim("a", 42)},
    unreadable={},
    leases={"a": LeaseTime(2, 8)},
    owners={"a": OwnerStanding((OPEN, STOPPED), 9), "b": ConnectionFailed("It is away.")},
    views={
        "one:7700": ViewStanding(3_200, 42, "", {P0: PartitionEpoch(1, 40, 0)}),
        "two:7700": ConnectionFailed("It is away too."),
    },
)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which no cell is broken, whatever runs the tests."""
    monkeypatch.setenv("COLUMNS", "200")


def lines(status: ClusterStatus, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Return what is printed, as lines of cells."""
    show_status(Output(), status)
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_people_see_who_lags_behind(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # as in a pipe: no line is folded

    shown = "\n".join(" ".join(" ".join(line).split()) for line in lines(STATUS, capsys))

    for line in (
        "a a.test:7710 1.0 alive 2 s ago, 8 s left 0, 2",
        "b b.test:7710 1.0 silent ? 1",
        "0 a 1.40 open for 2m5s 12,345 7 3 2 current",
        "1 b 1.41 ? ? ? ? ? ?",
        "2 a 1.42 stopped ? ? ? ? ?",
        "one:7700 3s ago 1, 2 none",
        "two:7700 ? ? It is away too.",
        "Without an owner: 3.",
        "Partition 2 has stopped: Its data is damaged.",
        "b does not answer: It is away.",
    ):
        assert line in shown


def test_programs_get_null_for_what_is_not_known() -> None:
    told = json.loads(json.dumps(status_to_json(STATUS)))

    assert told["catalogue_revision"] == 9
    first, second = told["nodes"]
    assert (first["lease_renewed_s_ago"], first["lease_left_s"], first["silent"]) == (2, 8, None)
    assert (second["lease_renewed_s_ago"], second["silent"]) == (None, "It is away.")
    assert (second["databases_cut_off"], second["partitions"]) == ([2], [1])
    is_open, silent, stopped = told["partitions"]
    assert is_open["open_ms"] == 125_900
    assert (is_open["definitions_revision"], is_open["definitions_behind"]) == (9, 0)
    assert (is_open["messages"], is_open["ready_sessions"], is_open["waiting_commands"]) == (
        12_345,
        3,
        2,
    )
    for one, state in ((silent, None), (stopped, "stopped")):
        assert one["state"] == state
        assert one["messages"] is one["definitions_behind"] is one["open_ms"] is None
    assert told["frontends"] == [
        {
            "address": "one:7700",
            "silent": None,
            "heard_ms_ago": 3_200,
            "revision": 42,
            "problem": None,
            "known_wrongly": [1, 2],
        },
        {"address": "two:7700", "silent": "It is away too."},
    ]
    assert told["without_owner"] == [3]


@pytest.mark.parametrize(("applied", "behind"), [(9, 0), (6, 3)])
def test_how_many_changes_of_definitions_a_partition_lacks(applied: int, behind: int) -> None:
    standing = replace(OPEN, definitions=applied)

    assert STATUS.definitions_behind(standing) == behind


def test_nothing_is_behind_a_catalogue_that_nobody_tells_of() -> None:
    status = replace(STATUS, owners={"a": OwnerStanding((OPEN,), None)})

    assert status.definitions_behind(OPEN) is None


def test_a_partition_that_is_only_being_opened_lacks_nothing_that_is_known() -> None:
    assert STATUS.definitions_behind(PartitionStanding(P0, "opening")) is None


def test_a_front_end_may_know_an_owner_that_is_gone_or_the_one_before() -> None:
    epochs = {
        P0: PartitionEpoch(1, 40, 0),
        P1: PartitionEpoch(1, 30, 0),
        P2: PartitionEpoch(1, 42, 0),
        PartitionId(3): PartitionEpoch(1, 20, 0),
    }

    assert STATUS.known_wrongly(ViewStanding(0, 42, "", epochs)) == [1, 3]


@pytest.mark.parametrize(
    ("owner", "state"),
    [
        (OwnerStanding((), 9), "cut off from database 2"),
        (ConnectionFailed("It was killed."), "silent"),  # etcd has its key until its lease ends
    ],
)
def test_a_node_is_called_alive_only_if_it_answers(
    owner: OwnerStanding | ConnectionFailed, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = replace(STATUS, owners={**STATUS.owners, "b": owner})

    row = next(line for line in lines(status, capsys) if line[0].startswith("b  "))

    assert f"1.0      {state} " in row[0]


@pytest.mark.parametrize("partitions", [1, 2])
def test_too_few_partitions_are_refused_since_nothing_is_known_of_the_others(
    partitions: int,
) -> None:
    with pytest.raises(
        InvalidRequest, match=rf"Partition 2 .* more than {partitions} .*--partitions"
    ):
        replace(STATUS, partitions=partitions).refuse_too_few()


def test_partitions_without_an_owner_refuse_nothing() -> None:
    STATUS.refuse_too_few()
    replace(STATUS, claims={}).refuse_too_few()
