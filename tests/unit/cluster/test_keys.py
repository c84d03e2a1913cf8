"""What is written into etcd and read from it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.cluster.keys import (
    Claim,
    KeyLayout,
    Node,
    check_address,
    check_name,
    write_claim,
    write_node,
)
from lockstep.cluster.reach import Reach
from lockstep.cluster.registry import KeyValue
from lockstep.core.errors import InvalidRequest, StoreRefused
from lockstep.core.ids import PartitionId

LAYOUT = KeyLayout("prod")


def key_value(key: str, value: bytes) -> KeyValue:
    return KeyValue(key, value, lease=7, create_revision=11, mod_revision=12)


def test_keys_are_where_tools_expect_them() -> None:
    assert LAYOUT.node("owner-0") == "/lockstep/prod/nodes/owner-0"
    assert LAYOUT.partition(PartitionId(7)) == "/lockstep/prod/partitions/00007"


@pytest.mark.parametrize("is_leaving", [False, True])
def test_a_node_is_read_as_it_was_written(is_leaving: bool) -> None:
    node = Node("owner-0", "10.0.0.1:7710", "1.2.3", is_leaving=is_leaving, lease=7)

    state = LAYOUT.read([key_value(LAYOUT.node("owner-0"), write_node(node))])

    assert state.nodes == {"owner-0": node}
    assert state.unreadable == {}


@pytest.mark.parametrize(
    "reach", [Reach(), Reach(frozenset({2}), frozenset({0, 2})), Reach(doubtful=frozenset({1}))]
)
def test_a_node_says_which_databases_it_does_not_reach(reach: Reach) -> None:
    node = Node("owner-0", "10.0.0.1:7710", "1.2.3", is_leaving=False, lease=7, reach=reach)

    assert LAYOUT.read([key_value(LAYOUT.node("owner-0"), write_node(node))]).nodes == {
        "owner-0": node
    }


def test_a_claim_is_read_with_the_revision_that_created_its_key() -> None:
    value = write_claim("owner-0", "10.0.0.1:7710", generation=3)

    state = LAYOUT.read([key_value(LAYOUT.partition(PartitionId(7)), value)])

    assert state.claims == {7: Claim("owner-0", "10.0.0.1:7710", 3, create_revision=11, lease=7)}


def test_a_key_that_has_not_changed_is_not_read_again() -> None:
    """After each change of one key all are looked at; with many partitions that would hold up everything else."""
    keys = [LAYOUT.partition(PartitionId(number)) for number in range(3)]
    items = [key_value(key, write_claim("owner-0", "10.0.0.1:7710", 3)) for key in keys]
    before = LAYOUT.read(items).claims

    changed = KeyValue(keys[1], write_claim("owner-1", "10.0.0.2:7710", 3), 8, 13, 13)
    after = LAYOUT.read([items[0], changed, items[2]]).claims

    assert [after[number] is before[number] for number in map(PartitionId, range(3))] == [
        True,
        False,
        True,
    ]
    assert after[PartitionId(1)].node == "owner-1"


def test_values_of_this_release_stay_as_they_are() -> None:
    """Other releases read them."""
    node = Node("owner-0", "a:1", "1.2.3", is_leaving=False, lease=7)

    assert json.loads(write_node(node)) == {
        "format": 1,
        "address": "a:1",
        "release": "1.2.3",
        "state": "serving",
    }
    assert json.loads(write_claim("owner-0", "a:1", 3)) == {
        "format": 1,
        "node": "owner-0",
        "address": "a:1",
        "generation": 3,
    }


@pytest.mark.parametrize("key", [LAYOUT.node("b"), LAYOUT.partition(PartitionId(1))])
def test_a_newer_format_is_refused(key: str) -> None:
    with pytest.raises(StoreRefused, match="upgrade this one") as refused:
        LAYOUT.read([key_value(key, b'{"format":2,"shape":"unknown"}')])

    assert refused.value.details == {"key": key, "format": "2", "known": "1"}


def test_what_an_older_or_later_release_adds_is_let_be() -> None:
    value = b'{"format":1,"address":"a:1","release":"9","state":"serving","zone":"x"}'

    assert LAYOUT.read([key_value(LAYOUT.node("b"), value)]).nodes["b"].release == "9"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("/lockstep/prod/nodes/b", b"not json"),
        ("/lockstep/prod/nodes/b", b"[]"),
        ("/lockstep/prod/nodes/b", b"\xff"),
        ("/lockstep/prod/nodes/b", b"{}"),
        ("/lockstep/prod/nodes/b", b'{"format":0}'),
        ("/lockstep/prod/nodes/b", b'{"format":1}'),
        ("/lockstep/prod/nodes/b", b'{"format":1,"address":1,"release":"9","state":"serving"}'),
        ("/lockstep/prod/nodes/B", write_node(Node("b", "a:1", "9", is_leaving=False, lease=0))),
        ("/lockstep/prod/partitions/7", write_claim("b", "a:1", 0)),
        ("/lockstep/prod/partitions/00007", b'{"format":1,"node":"b","address":"a:1"}'),
        (
            "/lockstep/prod/partitions/00007",
            b'{"format":1,"node":"b","address":"a:1","generation":true}',
        ),
        ("/lockstep/prod/else", b'{"format":1}'),
    ],
)
def test_what_is_not_ours_is_left_out_and_told_of(key: str, value: bytes) -> None:
    good = key_value(LAYOUT.node("a"), write_node(Node("a", "a:1", "9", is_leaving=False, lease=0)))

    state = LAYOUT.read([key_value(key, value), good])

    assert list(state.unreadable) == [key]
    assert list(state.nodes) == ["a"]
    assert state.claims == {}


@given(st.binary(max_size=60))
def test_no_value_breaks_the_reader(value: bytes) -> None:
    state = LAYOUT.read([key_value(LAYOUT.node("a"), value)])

    assert len(state.nodes) + len(state.unreadable) == 1


@pytest.mark.parametrize("name", ["a", "owner-0", "eu.owner-0", "x" * 63])
def test_good_names(name: str) -> None:
    assert check_name("node", name) == name


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a/b", "ä", "a b", "x" * 64, "a\n"])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidRequest, match="name of the node"):
        check_name("node", name)
    with pytest.raises(InvalidRequest, match="name of the cluster"):
        KeyLayout(name)


@pytest.mark.parametrize("address", ["a:1", "owner-0.owners:7710", "10.0.0.1:65535", "[::1]:80"])
def test_good_addresses(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize(
    "address", ["", "a", "a:0", "a:65536", "http://a:1", "a:b", "::1:80", "a :1"]
)
def test_bad_addresses(address: str) -> None:
    with pytest.raises(InvalidRequest, match="host:port"):
        check_address(address)
