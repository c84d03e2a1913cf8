"""Ask over one queue and get the answers over another, where each requester sees only its own.

A requester accepts a session of its own on the reply queue before it asks; the request names that session, and the
responder sends the answer there. Many requesters share the two queues. The reply queue gives out no next available
session, because that could be the session of a requester (accept_next).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import suppress

from lockstep.aio import AcceptNext, LockstepClient, Message, ProcessorContext, ReceivedMessage
from lockstep.errors import EntityAlreadyExists, LockstepError

REQUESTS = "example-requests"
REPLIES = "example-replies"
PRICES = {"apple": 30, "pear": 45, "plum": 15}


async def create_queues(client: LockstepClient) -> None:
    administration = client.get_administration_client()
    with suppress(EntityAlreadyExists):
        await administration.create_queue(REQUESTS)
    with suppress(EntityAlreadyExists):
        await administration.create_queue(
            REPLIES, requires_session=True, accept_next=AcceptNext.DISABLED
        )


async def ask(client: LockstepClient, customer: str) -> list[str]:
    answers = []
    async with client.get_requester(REQUESTS, REPLIES) as requester:
        for fruit in PRICES:
            answer = await requester.request(Message(fruit, subject=customer), timeout=20)
            answers.append(f"{customer} asked for {fruit}: {answer}.")
    return answers


async def main(server: str) -> None:
    async with LockstepClient(server) as client, LockstepClient(server) as shop:
        await create_queues(client)

        async def tell_price(request: ReceivedMessage, context: ProcessorContext) -> None:
            price = PRICES[str(request)]
            await shop.reply_to(request, Message(f"{price} cents, {request.subject}"))
            # Only now: had the shop crashed before, the request would come again.
            await context.complete_message(request)

        async with shop.get_queue_processor(REQUESTS, tell_price, max_concurrent_calls=2):
            for answers in await asyncio.gather(ask(client, "Ada"), ask(client, "Bob")):
                print(*answers, sep="\n")


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
