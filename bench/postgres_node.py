"""A broker of one process on PostgreSQL: what a cluster costs beyond its store, and its store beyond SQLite.

Here belongs the putting together of shipped parts as nobody ships them: `lockstep serve` with the store of clusters.
Never here: what any of them does. The law: all but the store is as `lockstep serve` has it.

    python -m bench.postgres_node PORT DSN
"""

from __future__ import annotations

import sys

from lockstep.cli.composition import SingleNode
from lockstep.cli.process import run_process
from lockstep.cluster.static import StaticLease
from lockstep.core.ids import PartitionEpoch
from lockstep.runtime.clock import SystemClock
from lockstep.runtime.config import ServerConfig
from lockstep.storage.postgres import PostgresStore


def main() -> int:
    """Serve until SIGTERM."""
    port, dsn = int(sys.argv[1]), sys.argv[2]
    config = ServerConfig(port=port, metrics_port=None, health_port=None)
    lease = StaticLease(PartitionEpoch(0, 1, 0))

    def make() -> SingleNode:
        return SingleNode(config, PostgresStore([dsn], SystemClock()), lease)

    return run_process(config, make, lambda _config: None)


if __name__ == "__main__":
    sys.exit(main())
