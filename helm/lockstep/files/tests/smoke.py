"""helm test: messages go in and come out, and are gone."""

import os
import uuid

from lockstep import LockstepClient, Message

COUNT = 100
QUEUE = f"helm-test-{uuid.uuid4()}"

with LockstepClient(os.environ["LOCKSTEP_SERVER"]) as client:
    administration = client.get_administration_client()
    administration.create_queue(QUEUE)
    try:
        with client.get_queue_sender(QUEUE) as sender:
            sender.send_messages([Message(str(number)) for number in range(COUNT)])
        seen: list[str] = []
        with client.get_queue_receiver(QUEUE) as receiver:
            while len(seen) < COUNT:
                messages = receiver.receive_messages(COUNT, max_wait_time=20)
                assert messages, f"{COUNT - len(seen)} messages did not come"
                assert receiver.complete_messages(messages) == []
                seen += [str(message) for message in messages]
        assert seen == [str(number) for number in range(COUNT)], seen
        left = administration.get_queue_runtime_properties(QUEUE)
        assert left.total_message_count == 0, left
    finally:
        administration.delete_queue(QUEUE)
print(f"{COUNT} messages were sent, received in order and completed.")
