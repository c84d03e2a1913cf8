"""Orders, each handled step by step, by many receivers, with the progress kept in the session state.

Each order is a session; the steps of all orders are sent interleaved. A receiver takes the next order
that has steps, handles at most two, and gives the order back, so an order goes through many hands. The
session's lock keeps its steps in order, and its state says how many are done.

One receiver crashes in the middle of an order: the step is done and the state says so, but its message is
not completed. The message comes again, and whoever gets it sees in the state that the step is done. (The
crash closes the session at once. Had the machine failed, the lock would have to run out first. A machine
that fails between doing a step and saying so leaves a step that is done twice: no broker can help that.)
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import sys
from collections import defaultdict
from contextlib import suppress

from lockstep.aio import (
    NEXT_AVAILABLE_SESSION,
    AutoLockRenewer,
    LockstepClient,
    Message,
    QueueReceiver,
    ReceivedMessage,
)
from lockstep.errors import EntityAlreadyExists, LockstepError, NoSessionAvailable

QUEUE = "example-orders"
IDLE_S = 1.0
"""A receiver stops when no order has had anything to do for so long."""


class Crash(Exception):
    """A receiver fails in the middle of its work."""


class Shop:
    """What happened: the steps of each order, as they were really done, and by whom."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.done: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        self._crash_is_due = True

    async def do_step(self, order: str, step: int, who: str) -> None:
        await asyncio.sleep(random.uniform(0, 0.005))  # packing, weighing, writing the address
        self.done[order].append((step, who))

    def may_crash(self, order: str, step: int) -> None:
        if self._crash_is_due and step >= self.steps // 2:
            self._crash_is_due = False
            raise Crash(f"after step {step} of {order}")


async def send_orders(client: LockstepClient, orders: list[str], steps: int) -> None:
    messages = [
        Message(str(step), session_id=order) for step in range(1, steps + 1) for order in orders
    ]
    async with client.get_queue_sender(QUEUE) as sender:
        await sender.send_messages(messages)
    print(f"Sent {len(messages)} steps of {len(orders)} orders, interleaved.")


async def receive_orders(client: LockstepClient, shop: Shop, who: str) -> None:
    """Take one order after another until there are none."""
    async with AutoLockRenewer() as renewer:
        while True:
            try:
                async with client.get_queue_receiver(
                    QUEUE,
                    session_id=NEXT_AVAILABLE_SESSION,
                    max_wait_time=IDLE_S,
                    auto_lock_renewer=renewer,
                    client_identifier=who,
                ) as receiver:
                    for message in await receiver.receive_messages(max_message_count=2):
                        await handle(receiver, message, shop, who)
            except NoSessionAvailable:
                return
            except Crash as crash:
                print(f"{who} crashed {crash}.")
                return


async def handle(receiver: QueueReceiver, message: ReceivedMessage, shop: Shop, who: str) -> None:
    """Do one step, unless it is done already: first the state says so, then the message goes."""
    session = receiver.session
    step, steps_done = int(str(message)), int(await session.get_state() or 0)
    if step == steps_done + 1:
        await shop.do_step(session.session_id, step, who)
        await session.set_state(str(step))
        shop.may_crash(session.session_id, step)
    elif step <= steps_done:
        print(f"{who} goes on with {session.session_id}: step {step} is done already.")
    else:
        raise RuntimeError(f"{session.session_id} is at {steps_done} and got step {step}.")
    await receiver.complete_message(message)
    if step == shop.steps:
        await session.set_state(None)  # a state stays until it is cleared


def report(shop: Shop, orders: list[str]) -> bool:
    """Print whether every order went through its steps in order."""
    in_order = list(range(1, shop.steps + 1))
    wrong = [order for order in orders if [step for step, _ in shop.done[order]] != in_order]
    for order in wrong:
        print(f"{order} went wrong: {shop.done[order]}")
    receivers = {who for order in orders for _, who in shop.done[order]}
    if not wrong:
        print(
            f"All {len(orders)} orders went through steps 1 to {shop.steps} in order,"
            f" by {len(receivers)} receivers."
        )
    return not wrong


async def main(server: str, order_count: int, steps: int, receivers: int) -> bool:
    run = secrets.token_hex(3)  # orders of their own, whatever an interrupted run left behind
    orders = [f"order-{run}-{n}" for n in range(1, order_count + 1)]
    shop = Shop(steps)
    async with LockstepClient(server) as client:
        with suppress(EntityAlreadyExists):
            administration = client.get_administration_client()
            await administration.create_queue(QUEUE, requires_session=True)
        await send_orders(client, orders, steps)
        async with asyncio.TaskGroup() as tasks:
            for n in range(1, receivers + 1):
                tasks.create_task(receive_orders(client, shop, f"receiver-{n}"))
    return report(shop, orders)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--server", default="127.0.0.1:7700", help="the server; default %(default)s")
    add("--orders", type=int, default=20, help="how many orders; default %(default)s")
    add("--steps", type=int, default=10, help="steps of each order; default %(default)s")
    add("--receivers", type=int, default=4, help="how many at once; default %(default)s")
    options = parser.parse_args()
    if options.receivers < 2:
        parser.error("--receivers must be 2 or more, because one of them crashes")
    try:
        is_fine = asyncio.run(
            main(options.server, options.orders, options.steps, options.receivers)
        )
    except LockstepError as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if is_fine else 1)
