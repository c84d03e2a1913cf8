"""What Lockstep writes into etcd: names of keys, and their values.

Here belong the layout under `/lockstep/<cluster>/` and the reading and writing of values:

    nodes/<node>         a process that may own partitions; goes with the node's lease
    partitions/<00007>   who owns partition 7; goes with the same lease

Never here: when a key is written. The laws: a value carries the number of its format; one that is newer than
this release is refused, not guessed at; the epoch of an owner is in the revision that created its key, not
in the value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from lockstep.cluster.identity import KEY, Identity
from lockstep.cluster.reach import STEADY, Reach
from lockstep.cluster.registry import KeyValue
from lockstep.core.errors import InvalidRequest, LockstepError, StoreRefused
from lockstep.core.ids import PartitionId

FORMAT = 1
NAME_CHARACTERS_MAX = 63
PARTITIONS_MAX = 65_536  # a sequence number has 16 bits for its partition (ADD-1)

_NAME = re.compile(rf"[a-z0-9](?:[-a-z0-9.]{{0,{NAME_CHARACTERS_MAX - 2}}}[a-z0-9])?")
_ADDRESS = re.compile(r"(?:[^\s:/]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_NODES = "nodes/"
_PARTITIONS = "partitions/"
_PARTITION = re.compile(r"[0-9]{5}")
_REMEMBERED_MAX = 16_384


class UnreadableKey(LockstepError):
    """A key under our prefix that is none of ours. Delete it in etcd, or use another cluster name."""

    reason = "UNREADABLE_KEY"


@dataclass(frozen=True, slots=True)
class Node:
    """A process that may own partitions.

    Attributes:
        name: Unique in the cluster.
        address: Where its owner service listens, as host:port.
        release: Of Lockstep.
        is_leaving: It goes on with what it owns, but shall get nothing more.
        reach: How well it reaches the databases.
        lease: With which its keys go.
    """

    name: str
    address: str
    release: str
    is_leaving: bool
    lease: int
    reach: Reach = STEADY


@dataclass(frozen=True, slots=True)
class Claim:
    """Who owns a partition.

    Attributes:
        node: The name of the process.
        address: Where its owner service listens, as host:port.
        generation: The first part of the partition epoch.
        create_revision: The second part.
        lease: With which the claim goes.
    """

    node: str
    address: str
    generation: int
    create_revision: int
    lease: int


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What the keys of a cluster say.

    Attributes:
        nodes: By name.
        claims: By partition.
        unreadable: Why keys were left out, by key.
        identity: Which cluster it is; None = nobody has said yet.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    claims: dict[PartitionId, Claim] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    identity: Identity | None = None


def check_name(what: str, name: str) -> str:
    """Return a name of a cluster or of a node, if it may be one.

    Raises:
        InvalidRequest: It may not; the message says what a name is made of.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidRequest(
            f"The name of the {what} is {name!r}; it must have 1 to {NAME_CHARACTERS_MAX} characters: lower-case"
            " letters, digits, '-' and '.', with a letter or a digit at both ends."
        )
    return name


def check_address(address: str) -> str:
    """Return an address as host:port, if it is one.

    Raises:
        InvalidRequest: It is none.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found[1]) < 65_536:
        raise InvalidRequest(
            f"The address {address!r} must be host:port, with a port from 1 to 65535."
        )
    return address


class KeyLayout:
    """The keys of one cluster."""

    def __init__(self, cluster: str) -> None:
        self.prefix = f"/lockstep/{check_name('cluster', cluster)}/"

    @property
    def identity(self) -> str:
        """The key that says which cluster it is."""
        return f"{self.prefix}{KEY}"

    def node(self, name: str) -> str:
        """Return the key of a node."""
        return f"{self.prefix}{_NODES}{name}"

    def partition(self, partition: PartitionId) -> str:
        """Return the key of a partition; five digits, so that lists in etcd's tools are in order."""
        return f"{self.prefix}{_PARTITIONS}{partition:05}"

    def read(self, items: Iterable[KeyValue]) -> ClusterState:
        """Return what the keys say. A key that is none of ours is left out and told of.

        Raises:
            StoreRefused: A value is of a newer format. Upgrade this process.
        """
        state = ClusterState()
        for item in items:
            try:
                if item.key == self.identity:
                    state = replace(state, identity=_read_identity(item))
                else:
                    self._read(item, state)
            except UnreadableKey as error:
                state.unreadable[item.key] = error.message
        return state

    def _read(self, item: KeyValue, state: ClusterState) -> None:
        partition, found = _read_key(self.prefix, item)
        if isinstance(found, Node):
            state.nodes[found.name] = found
        else:
            state.claims[partition] = found


@lru_cache(maxsize=_REMEMBERED_MAX)
def _read_key(prefix: str, item: KeyValue) -> tuple[PartitionId, Node | Claim]:
    """Return what a key says; with a claim the partition. Remembered, as all keys are read after each change of one."""
    name = item.key.removeprefix(prefix)
    if name.startswith(_NODES):
        return PartitionId(-1), _read_node(name.removeprefix(_NODES), item)
    if not name.startswith(_PARTITIONS):
        raise UnreadableKey(f"{item.key} is no key of Lockstep. Delete it in etcd.")
    number = name.removeprefix(_PARTITIONS)
    if _PARTITION.fullmatch(number) is None:
        raise UnreadableKey(f"{item.key} names no partition. Delete it in etcd.")
    return PartitionId(int(number)), _read_claim(item)


def write_node(node: Node) -> bytes:
    """Return the value of a node's key."""
    return _write(
        address=node.address,
        release=node.release,
        state="leaving" if node.is_leaving else "serving",
        **{name: sorted(numbers) for name, numbers in _reach_of(node) if numbers},
    )


def _reach_of(node: Node) -> tuple[tuple[str, frozenset[int]], ...]:
    return ("cut_off", node.reach.cut_off), ("doubtful", node.reach.doubtful)


def write_identity(identity: Identity) -> bytes:
    """Return the value of the key that says which cluster it is."""
    return _write(cluster_id=identity.cluster_id, partitions=identity.partitions)


def _read_identity(item: KeyValue) -> Identity:
    fields = _fields(item, cluster_id=str, partitions=int)
    return Identity(fields["cluster_id"], fields["partitions"])


def write_claim(node: str, address: str, generation: int) -> bytes:
    """Return the value of a partition's key."""
    return _write(node=node, address=address, generation=generation)


def _write(**fields: object) -> bytes:
    return json.dumps({"format": FORMAT, **fields}, separators=(",", ":")).encode()


def _read_node(name: str, item: KeyValue) -> Node:
    if _NAME.fullmatch(name) is None:
        raise UnreadableKey(f"{item.key} names no node. Delete it in etcd.")
    fields = _fields(item, address=str, release=str, state=str)
    return Node(
        name=name,
        address=fields["address"],
        release=fields["release"],
        is_leaving=fields["state"] == "leaving",
        lease=item.lease,
        reach=Reach(_numbers(fields, "cut_off"), _numbers(fields, "doubtful")),
    )


def _numbers(fields: dict[str, Any], name: str) -> frozenset[int]:
    """Return the numbers in a list that may be missing; what is none is left out."""
    given = fields.get(name)
    return frozenset(n for n in given if type(n) is int) if isinstance(given, list) else frozenset()


def _read_claim(item: KeyValue) -> Claim:
    fields = _fields(item, node=str, address=str, generation=int)
    return Claim(
        node=fields["node"],
        address=fields["address"],
        generation=fields["generation"],
        create_revision=item.create_revision,
        lease=item.lease,
    )


def _fields(item: KeyValue, **kinds: type) -> dict[str, Any]:
    """Return the fields of a value, after a look at its format."""
    try:
        read: Any = json.loads(item.value)
    except ValueError as error:
        raise UnreadableKey(
            f"The value of {item.key} is not JSON. Delete the key in etcd."
        ) from error
    fields: dict[str, Any] = read if isinstance(read, dict) else {}
    number = fields.get("format")
    if not isinstance(number, int) or number < 1:
        raise UnreadableKey(f"The value of {item.key} has no format. Delete the key in etcd.")
    if number > FORMAT:
        raise StoreRefused(
            f"{item.key} in etcd has format {number}; this release knows formats up to {FORMAT}. Another process"
            " of this cluster runs a newer release: upgrade this one.",
            details={"key": item.key, "format": str(number), "known": str(FORMAT)},
        )
    for name, kind in kinds.items():
        if type(fields.get(name)) is not kind:
            raise UnreadableKey(f"The value of {item.key} has no {name}. Delete the key in etcd.")
    return fields


def namesake_told(node: Node) -> str:
    """Say that another process has this node's name."""
    return (
        f"another process is registered as node {node.name}, at {node.address}; this one waits until that one's"
        " lease ends. Give each process a name of its own."
    )
