"""A load that judges itself, to run in a pod: `python -m tests.kubernetes.load_program`.

It sends and receives until SIGTERM, receives what is left, and prints the verdict of tests/faults as one line of JSON.
All of it is one process, so one clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from pathlib import Path

from lockstep.aio import LockstepClient
from lockstep.runtime.clock import SystemClock
from tests.faults.checker import idle_run, longest_gap_ms, unknown_outcomes, violations
from tests.faults.draining import Drain, Ending
from tests.faults.history import Recorder, read_history
from tests.faults.workers import LOCK_S, Crew, Load, work

_TOLD_MAX = 20


async def _run(address: str, prefix: str, history: Path) -> Ending:
    with Recorder(history) as recorder:
        load = Load(address, prefix, "inside", recorder)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.ending.set)
        await work(load, Crew())
        ended_ms = SystemClock().monotonic_ms()
        async with LockstepClient(address) as client:
            queues = {load.orders: True, load.plain: False}
            return await Drain(client, recorder, queues, ended_ms).run()


def main() -> None:
    """Run, and print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--locks-survive", action="store_true")
    given = parser.parse_args()
    Path(f"/tmp/{given.prefix}.pid").write_text(str(os.getpid()))
    path = Path(f"/tmp/{given.prefix}.jsonl")
    ending = asyncio.run(_run(given.address, given.prefix, path))
    history = read_history([path])
    found = violations(history, ending, lock_ms=LOCK_S * 1000, locks_survive=given.locks_survive)
    verdict = {
        "operations": len(history),
        "unknown": unknown_outcomes(history),
        "longest_gap_ms": longest_gap_ms(history),
        "drained_ms": ending.drained_ms - ending.healed_ms,
        "violations": [str(one) for one in (*found, *idle_run(history))][:_TOLD_MAX],
    }
    print(json.dumps(verdict))


if __name__ == "__main__":
    main()
