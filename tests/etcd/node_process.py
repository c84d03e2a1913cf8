"""A node in a process of its own, to be killed or stopped: `python -m tests.etcd.node_process ENDPOINT CLUSTER NAME`.

A thread prints without end one JSON line after the other: a reading of the clock, and after that which
partitions are valid, with the revisions of their epochs.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading

from lockstep.cluster.endpoints import EtcdSettings
from lockstep.cluster.etcd import EtcdClient, EtcdLeases
from lockstep.cluster.lease import NodeLease
from lockstep.cluster.node import NodeSettings
from lockstep.cluster.ownership import EtcdOwnership, PartitionLease
from lockstep.runtime.clock import SystemClock
from tests.etcd.cluster_rig import PARTITIONS

EVERY_S = 0.01
TTL_MS = 2_000


def print_always(ownership: EtcdOwnership) -> None:
    clock, pause = SystemClock(), threading.Event()
    held: dict[int, PartitionLease] = {}  # also those that have ended: they must say so
    while not pause.wait(EVERY_S):
        now_ms = clock.monotonic_ms()
        for lease in list(ownership.grants.values()):
            held[lease.epoch.revision] = lease
        valid = [revision for revision, lease in held.items() if lease.is_valid()]
        sys.stdout.write(json.dumps({"now_ms": now_ms, "valid": valid}) + "\n")
        sys.stdout.flush()


async def main(endpoint: str, cluster: str, name: str) -> None:
    settings, clock = EtcdSettings((endpoint,)), SystemClock()
    node = NodeSettings(cluster, name, f"{name}.test:7710", "1.0", PARTITIONS)
    lease = NodeLease(EtcdLeases(settings), clock, ttl_ms=TTL_MS)
    ownership = EtcdOwnership(EtcdClient(settings), lease, clock, node)
    threading.Thread(target=print_always, args=(ownership,), daemon=True).start()
    await ownership.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
