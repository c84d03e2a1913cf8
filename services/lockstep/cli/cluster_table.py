"""What `lockstep cluster status` prints.

Here belong its tables and its JSON. Never here: where it comes from (`cluster_status`). The law: what is not known is
shown as such, never as zero.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from lockstep.cli.cluster_status import ClusterStatus
from lockstep.cli.output import Column, Output
from lockstep.cli.values import format_duration
from lockstep.cluster.keys import Node
from lockstep.cluster.standing import ViewStanding
from lockstep.core.errors import LockstepError
from lockstep.core.ids import PartitionId

_UNKNOWN = "?"


def show_status(output: Output, status: ClusterStatus) -> None:
    """Print a cluster."""
    if output.is_json:
        output.data(status_to_json(status))
        return
    _show_nodes(output, status)
    _show_partitions(output, status)
    _show_views(output, status)
    if status.without_owner:
        output.say(f"Without an owner: {', '.join(map(str, status.without_owner))}.")
    for partition in sorted(status.claims):
        standing = status.standing_of(partition)
        if standing is not None and standing.why:
            output.say(f"Partition {partition} has stopped: {standing.why}")
    for name, owner in sorted(status.owners.items()):
        if isinstance(owner, LockstepError):
            output.say(f"{name} does not answer: {owner.message}")
    for key, why in status.unreadable.items():
        output.say(f"{key}: {why}")


def _owned(status: ClusterStatus) -> dict[str, list[int]]:
    owned: dict[str, list[int]] = {}
    for partition, claim in sorted(status.claims.items()):
        owned.setdefault(claim.node, []).append(partition)
    return owned


def _show_nodes(output: Output, status: ClusterStatus) -> None:
    owned = _owned(status)
    rows = []
    for name, node in sorted(status.nodes.items()):
        lease = status.leases.get(name)
        told = f"{lease.renewed_s} s ago, {lease.left_s} s left" if lease is not None else _UNKNOWN
        partitions = ", ".join(map(str, owned.get(name, []))) or "none"
        rows.append([name, node.address, node.release, _state_of(status, node), told, partitions])
    headings = ("Node", "Address", "Release", "State", "Lease renewed", "Partitions")
    output.table([Column(heading) for heading in headings], rows)


def _state_of(status: ClusterStatus, node: Node) -> str:
    if node.is_leaving:
        return "leaving"
    if isinstance(status.owners.get(node.name), LockstepError):
        return "silent"
    for word, databases in (
        ("cut off from", node.reach.cut_off),
        ("in doubt of", node.reach.doubtful),
    ):
        if databases:
            numbers = ", ".join(str(number + 1) for number in sorted(databases))
            return f"{word} database {numbers}"
    return "alive"


def _show_partitions(output: Output, status: ClusterStatus) -> None:
    rows = []
    for partition, claim in sorted(status.claims.items()):
        row = [str(partition), claim.node, f"{claim.generation}.{claim.create_revision}"]
        standing = status.standing_of(partition)
        if standing is None:
            rows.append([*row, *[_UNKNOWN] * 6])
            continue
        is_open = standing.state in ("open", "closing")
        behind = status.definitions_behind(standing)
        since = f"for {_lasting(standing.open_ms)}" if is_open else ""
        counts = (standing.messages, standing.ready_messages, standing.ready_sessions)
        rows.append(
            [
                *row,
                " ".join(filter(None, (standing.state, since))),
                *(f"{count:,}" if is_open else _UNKNOWN for count in counts),
                f"{standing.waiting_commands:,}" if is_open else _UNKNOWN,
                _UNKNOWN if behind is None else f"{behind} behind" if behind else "current",
            ]
        )
    columns = [Column(heading) for heading in ("Partition", "Owner", "Epoch", "State")]
    headings = ("Messages", "Ready", "Ready sessions", "Waiting calls")
    columns += [Column(heading, is_number=True) for heading in headings]
    output.table([*columns, Column("Definitions")], rows)


def _show_views(output: Output, status: ClusterStatus) -> None:
    rows = []
    for address, view in status.views.items():
        if isinstance(view, LockstepError):
            rows.append([address, _UNKNOWN, _UNKNOWN, view.message])
            continue
        heard = "never" if view.heard_ms is None else f"{_lasting(view.heard_ms)} ago"
        wrong = ", ".join(map(str, status.known_wrongly(view))) or "none"
        rows.append([address, heard, wrong, view.problem or "none"])
    if rows:
        headings = ("Front end", "Heard of etcd", "Partitions known wrongly", "Trouble")
        output.table([Column(heading) for heading in headings], rows)


def _lasting(ms: int) -> str:
    """Return a time in whole seconds; nobody reads the rest."""
    return format_duration(timedelta(seconds=ms // 1000))


def status_to_json(status: ClusterStatus) -> dict[str, Any]:
    """Return all of it for programs; what is not known is null."""
    owned = _owned(status)
    return {
        "cluster": status.name,
        "catalogue_revision": status.catalogue,
        "nodes": [_node_to_json(status, node, owned) for _, node in sorted(status.nodes.items())],
        "partitions": [_partition_to_json(status, number) for number in sorted(status.claims)],
        "frontends": [_view_to_json(status, *item) for item in status.views.items()],
        "without_owner": status.without_owner,
        "unreadable": dict(status.unreadable),
    }


def _node_to_json(status: ClusterStatus, node: Node, owned: dict[str, list[int]]) -> dict[str, Any]:
    lease, owner = status.leases.get(node.name), status.owners.get(node.name)
    return {
        "name": node.name,
        "address": node.address,
        "release": node.release,
        "leaving": node.is_leaving,
        "databases_cut_off": [number + 1 for number in sorted(node.reach.cut_off)],
        "databases_doubtful": [number + 1 for number in sorted(node.reach.doubtful)],
        "lease_renewed_s_ago": lease.renewed_s if lease is not None else None,
        "lease_left_s": lease.left_s if lease is not None else None,
        "silent": owner.message if isinstance(owner, LockstepError) else None,
        "partitions": owned.get(node.name, []),
    }


def _partition_to_json(status: ClusterStatus, number: PartitionId) -> dict[str, Any]:
    claim, standing = status.claims[number], status.standing_of(number)
    told: dict[str, Any] = {
        "partition": number,
        "node": claim.node,
        "address": claim.address,
        "generation": claim.generation,
        "revision": claim.create_revision,
        "state": standing.state if standing is not None else None,
    }
    is_open = standing is not None and standing.state in ("open", "closing")
    names = ("open_ms", "messages", "ready_messages", "ready_sessions", "waiting_commands")
    told |= {name: getattr(standing, name) if is_open else None for name in names}
    told["definitions_revision"] = standing.definitions if standing and is_open else None
    told["definitions_behind"] = status.definitions_behind(standing) if standing else None
    return told


def _view_to_json(
    status: ClusterStatus, address: str, view: ViewStanding | LockstepError
) -> dict[str, Any]:
    if isinstance(view, LockstepError):
        return {"address": address, "silent": view.message}
    return {
        "address": address,
        "silent": None,
        "heard_ms_ago": view.heard_ms,
        "revision": view.revision,
        "problem": view.problem or None,
        "known_wrongly": status.known_wrongly(view),
    }
