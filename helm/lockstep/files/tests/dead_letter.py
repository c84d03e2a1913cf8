"""helm test: what is dead-lettered can be put back, in order."""

import os
import uuid

from lockstep import LockstepClient, Message

COUNT = 10
QUEUE = f"helm-test-{uuid.uuid4()}"

with LockstepClient(os.environ["LOCKSTEP_SERVER"]) as client:
    administration = client.get_administration_client()
    administration.create_queue(QUEUE, requires_session=True)
    try:
        with client.get_queue_sender(QUEUE) as sender:
            sender.send_messages([Message(str(number), session_id="a") for number in range(COUNT)])
        with client.get_queue_receiver(QUEUE, session_id="a") as receiver:
            messages = receiver.receive_messages(COUNT, max_wait_time=20)
            assert receiver.dead_letter_messages(messages, reason="Test") == []
        dead = administration.get_queue_runtime_properties(QUEUE).dead_letter_message_count
        assert dead == COUNT, dead
        job = administration.resubmit_dead_letters(QUEUE)
        job = administration.wait_for_dead_letter_job(job, timeout=60)
        assert job.matched_message_count == COUNT, job
        with client.get_queue_receiver(QUEUE, session_id="a") as receiver:
            again = receiver.receive_messages(COUNT, max_wait_time=20)
            assert [str(message) for message in again] == [str(number) for number in range(COUNT)]
            assert receiver.complete_messages(again) == []
    finally:
        administration.delete_queue(QUEUE)
print(f"{COUNT} messages were dead-lettered, resubmitted and received again in order.")
