"""Receive a session over a stream: messages come as there is credit, with no call for each of them.

The stream keeps a window of messages here, so the next one is there when the program asks. It stops after some of
them, as a program that is stopped does: leaving `async with` gives the session back with what was not handled, and the
second stream goes on with exactly the next message, at its first delivery.

A stream with a session that breaks raises its reason, for example ConnectionFailed. Leave its block, which gives the
session back, and open another one.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from contextlib import suppress

from lockstep.aio import AutoLockRenewer, LockstepClient, Message
from lockstep.errors import EntityAlreadyExists, LockstepError

QUEUE = "example-readings"
READINGS = 100
FIRST_PART = 30


async def main(server: str) -> None:
    async with LockstepClient(server) as client:
        with suppress(EntityAlreadyExists):
            administration = client.get_administration_client()
            await administration.create_queue(QUEUE, requires_session=True)
        meter = f"meter-{secrets.token_hex(3)}"
        readings = [Message(str(number), session_id=meter) for number in range(1, READINGS + 1)]
        await client.get_queue_sender(QUEUE).send_messages(readings)
        print(f"Sent {READINGS} readings of {meter}.")

        first = await read(client, meter, FIRST_PART)
        print(f"The first stream handled {first[0]} to {first[-1]}.")
        rest = await read(client, meter, READINGS - FIRST_PART)
        print(f"The second stream handled {rest[0]} to {rest[-1]}.")
    assert first + rest == list(range(1, READINGS + 1))
    print("Each reading came once, in order.")


async def read(client: LockstepClient, meter: str, count: int) -> list[int]:
    seen: list[int] = []
    async with (
        AutoLockRenewer() as renewer,
        client.open_stream(
            QUEUE, session_id=meter, credit=32, max_wait_time=10, auto_lock_renewer=renewer
        ) as stream,
    ):
        async for message in stream:
            assert message.delivery_count == 0
            seen.append(int(str(message)))
            await stream.complete_message(message)
            if len(seen) == count:
                break
    return seen


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
