"""Repair dead letters: look why they died, resubmit them, and keep what fails again from going round for ever.

A worker cannot handle invoices in a currency that it does not know, nor invoices without an amount, and makes them dead
letters with a reason. When it knows the currency, those are resubmitted to their old places. The one without an amount
is resubmitted too, fails again, is left alone by the next resubmission (max_resubmits), and is moved to a queue where
a person looks at it.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from contextlib import suppress

from lockstep import (
    AdministrationClient,
    DeadLetterJob,
    DeadLetterSelector,
    LockstepClient,
    Message,
    SubQueue,
)
from lockstep.errors import EntityAlreadyExists, LockstepError

QUEUE = "example-invoices"
PARKED = "example-invoices-parked"
CUSTOMERS = ("Ada", "Bob")
INVOICES = ("10 EUR", "20 CHF", "30 EUR")


def create_queues(client: LockstepClient) -> None:
    administration = client.get_administration_client()
    with suppress(EntityAlreadyExists):
        administration.create_queue(QUEUE, requires_session=True)
    with suppress(EntityAlreadyExists):
        administration.create_queue(PARKED)


def send(client: LockstepClient) -> None:
    messages = [Message(text, session_id=who) for who in CUSTOMERS for text in INVOICES]
    messages.append(Message("EUR", session_id=CUSTOMERS[-1]))
    with client.get_queue_sender(QUEUE) as sender:
        sender.send_messages(messages)
    print(f"Sent {len(messages)} invoices.")


def work(client: LockstepClient, currencies: set[str]) -> None:
    """Handle what is there, customer by customer."""
    handled: list[str] = []
    for customer in CUSTOMERS:
        with client.get_queue_receiver(QUEUE, session_id=customer, max_wait_time=0) as receiver:
            for message in receiver.receive_messages(100):
                amount, _, currency = str(message).rpartition(" ")
                if not amount:
                    receiver.dead_letter_message(message, reason="NoAmount")
                elif currency not in currencies:
                    receiver.dead_letter_message(message, reason="UnknownCurrency")
                else:
                    receiver.complete_message(message)
                    handled.append(f"{customer} {message}")
    print(f"Handled: {', '.join(handled) or 'nothing'}.")


def show_dead_letters(client: LockstepClient) -> None:
    """Look at them; nothing is locked or moved."""
    with client.get_queue_receiver(QUEUE, sub_queue=SubQueue.DEAD_LETTER) as receiver:
        reasons = Counter(message.dead_letter_reason for message in receiver.peek_messages(100))
    print("Dead letters:", ", ".join(f"{count} {why}" for why, count in sorted(reasons.items())))


def finished(administration: AdministrationClient, job: DeadLetterJob) -> DeadLetterJob:
    """Wait for a job; it would go on without us, also over a restart of the broker."""
    job = administration.wait_for_dead_letter_job(job, timeout=60)
    print(f"{job.kind.value}: {job.matched_message_count} taken, {job.skipped_message_count} left.")
    return job


def repair(client: LockstepClient) -> None:
    administration = client.get_administration_client()
    of_currency = DeadLetterSelector(reason="UnknownCurrency")
    finished(administration, administration.resubmit_dead_letters(QUEUE, of_currency, at_head=True))
    work(client, {"EUR", "CHF"})

    for _ in range(2):
        again = administration.resubmit_dead_letters(QUEUE, max_resubmits=1, requested_by="Eve")
        finished(administration, again)
        work(client, {"EUR", "CHF"})

    finished(administration, administration.move_dead_letters(QUEUE, PARKED))
    with client.get_queue_receiver(PARKED, max_wait_time=0) as receiver:
        for message in receiver.receive_messages(100):
            print(
                f"For a person: {str(message)!r} of {message.session_id}, dead because of"
                f" {message.last_dead_letter_reason}, {message.resubmit_count - 1} time resubmitted."
            )
            receiver.complete_message(message)


def main(server: str) -> None:
    with LockstepClient(server) as client:
        create_queues(client)
        send(client)
        work(client, {"EUR"})
        show_dead_letters(client)
        repair(client)


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
