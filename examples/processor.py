"""Let a processor call a function for each message: sessions side by side, each of them in order.

Each parcel is a session with a few steps. The processor accepts the parcels that have steps, renews their locks while
a step runs, completes a step whose call returned, and gives a parcel back when it has had nothing for a while. The
first attempt at one step raises: the processor tells so, and tries that step again before any later one.

Stopping the processor (leaving `async with`) lets the calls that run end, and loses nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections import defaultdict
from contextlib import suppress

from lockstep.aio import (
    LockstepClient,
    Message,
    ProcessingFailure,
    ProcessorContext,
    ReceivedMessage,
)
from lockstep.errors import EntityAlreadyExists, LockstepError

QUEUE = "example-parcels"
PARCELS = 3
STEPS = ("pack", "weigh", "label", "ship")


class Depot:
    """The program's own code: what the processor calls."""

    def __init__(self) -> None:
        self.done: defaultdict[str, list[str]] = defaultdict(list)
        self.is_over = asyncio.Event()
        self._printer_has_paper = False

    async def on_message(self, message: ReceivedMessage, context: ProcessorContext) -> None:
        step = str(message)
        if step == "label" and not self._printer_has_paper:
            self._printer_has_paper = True
            raise RuntimeError("the printer was out of paper")
        # In a long step, look at context.lock_lost: when it is set, somebody else may have the parcel.
        self.done[context.session.session_id].append(step)
        await context.session.set_state(None if step == STEPS[-1] else step)
        if sum(map(len, self.done.values())) == PARCELS * len(STEPS):
            self.is_over.set()

    async def on_error(self, failure: ProcessingFailure) -> None:
        print(f"{failure.source.value}: {failure.message}: {failure.error}; it is tried again.")


async def main(server: str) -> None:
    async with LockstepClient(server) as client:
        with suppress(EntityAlreadyExists):
            administration = client.get_administration_client()
            await administration.create_queue(QUEUE, requires_session=True)
        await send_steps(client)
        depot = Depot()
        processor = client.get_session_processor(
            QUEUE,
            depot.on_message,
            depot.on_error,
            max_concurrent_sessions=2,
            session_idle_timeout=0.5,
            auto_complete=True,
        )
        async with processor:
            await depot.is_over.wait()
    assert all(tuple(steps) == STEPS for steps in depot.done.values())
    print(f"All {len(depot.done)} parcels: {', '.join(STEPS)}, in this order.")


async def send_steps(client: LockstepClient) -> None:
    parcels = [f"parcel-{secrets.token_hex(3)}" for _ in range(PARCELS)]
    steps = [Message(step, session_id=parcel) for step in STEPS for parcel in parcels]
    await client.get_queue_sender(QUEUE).send_messages(steps)
    print(f"Sent {len(steps)} steps of {PARCELS} parcels.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--server", default="127.0.0.1:7700", help="the server; default %(default)s"
    )
    try:
        asyncio.run(main(parser.parse_args().server))
    except LockstepError as error:
        sys.exit(f"error: {error}")
