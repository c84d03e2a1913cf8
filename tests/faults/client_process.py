"""A process of clients, to be killed and paused: `python -m tests.faults.client_process`."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from tests.faults.history import Recorder
from tests.faults.workers import Crew, Load, work


async def main(address: str, prefix: str, who: str, path: Path) -> None:
    with Recorder(path) as recorder:
        load = Load(address, prefix, who, recorder)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.ending.set)
        await work(load, Crew(1, 2, 1, 1, definers=0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--who", required=True)
    parser.add_argument("--history", required=True, type=Path)
    given = parser.parse_args()
    asyncio.run(main(given.address, given.prefix, given.who, given.history))
