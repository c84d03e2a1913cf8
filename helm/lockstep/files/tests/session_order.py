"""helm test: each session has one holder at a time and is read in the order in which it was sent."""

import os
import uuid
from concurrent.futures import ThreadPoolExecutor

from lockstep import NEXT_AVAILABLE_SESSION, LockstepClient, Message
from lockstep.errors import NoSessionAvailable

RECEIVERS, MESSAGES = 3, 20
SESSIONS = ("ada", "bob", "cem", "dan", "eve")
QUEUE = f"helm-test-{uuid.uuid4()}"


def work(client: LockstepClient) -> dict[str, list[int]]:
    """Take sessions until none comes any more, and return what each had."""
    found: dict[str, list[int]] = {}
    while True:
        receiver = client.get_queue_receiver(
            QUEUE, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=3
        )
        try:
            with receiver:
                numbers = found.setdefault(receiver.session.session_id, [])
                while messages := receiver.receive_messages(7, max_wait_time=1):
                    assert receiver.complete_messages(messages) == []
                    numbers += [int(str(message)) for message in messages]
        except NoSessionAvailable:
            return found


with LockstepClient(os.environ["LOCKSTEP_SERVER"]) as client:
    administration = client.get_administration_client()
    administration.create_queue(QUEUE, requires_session=True)
    try:
        with client.get_queue_sender(QUEUE) as sender:
            for number in range(MESSAGES):
                sender.send_messages([Message(str(number), session_id=one) for one in SESSIONS])
        with ThreadPoolExecutor(RECEIVERS) as pool:
            parts = list(pool.map(work, [client] * RECEIVERS))
        for session in SESSIONS:
            pieces = [part[session] for part in parts if part.get(session)]
            numbers = [number for piece in sorted(pieces) for number in piece]
            assert numbers == list(range(MESSAGES)), (session, pieces)
    finally:
        administration.delete_queue(QUEUE)
print(
    f"{len(SESSIONS)} sessions of {MESSAGES} messages were read in order by {RECEIVERS} receivers."
)
