"""Send five messages of one session, receive them in one call, complete them, close the session.

A receive returns what is there when the server answers: five messages that wait come in one call. Fewer
than asked for is normal, so the program asks until nothing is left. Then it closes the session; one
that is left open stays locked, and nobody else gets its messages, until the lock has run out.

The same with asyncio: five_in_one_receive.py.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from contextlib import suppress

from lockstep import LockstepClient, Message
from lockstep.errors import EntityAlreadyExists, LockstepError

QUEUE = "example-five"


def main(server: str) -> None:
    session_id = f"greetings-{secrets.token_hex(3)}"
    with LockstepClient(server) as client:
        with suppress(EntityAlreadyExists):
            administration = client.get_administration_client()
            administration.create_queue(QUEUE, requires_session=True)
        send_five(client, session_id)
        receive_all(client, session_id)


def send_five(client: LockstepClient, session_id: str) -> None:
    messages = [Message(f"message {n}", session_id=session_id) for n in range(1, 6)]
    with client.get_queue_sender(QUEUE) as sender:
        stored = sender.send_messages(messages)  # all are on disk when this returns
    print(f"Sent {len(stored)} messages of session {session_id}.")


def receive_all(client: LockstepClient, session_id: str) -> None:
    # Entering takes the session's lock; leaving gives it back at once, after an error too.
    with client.get_queue_receiver(QUEUE, session_id=session_id) as receiver:
        while messages := receiver.receive_messages(max_message_count=100, max_wait_time=0):
            print(f"Received {len(messages)} in one call: {', '.join(map(str, messages))}.")
            failures = receiver.complete_messages(messages)
            if failures:
                raise failures[0].error
            print(f"Completed {len(messages)}.")
    print("Closed the session: the next receiver can have it.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--server", default="127.0.0.1:7700", help="the server; default %(default)s"
    )
    try:
        main(parser.parse_args().server)
    except LockstepError as error:
        sys.exit(f"error: {error}")
